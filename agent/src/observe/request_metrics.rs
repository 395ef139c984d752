//! Istio's metrics of requests: `istio_requests_total`, and histograms of durations and sizes.

use super::labels::TcpLabels;
use super::record::Details;
use super::request::RequestDetails;
use parking_lot::RwLock;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use warren_common::model::admin::Direction;

/// Most label sets that are kept; what comes later is counted under labels that are all `unknown`.
const MAX_SERIES: usize = 10_000;

/// Upper bounds of the buckets, as Envoy's and Istio's: of milliseconds as of bytes.
const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// The label set of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct HttpLabels {
    peers: TcpLabels,
    grpc: bool,
    status: u16,
    grpc_status: Option<u16>,
    flags: Box<str>,
}

impl EncodeLabelSet for HttpLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let protocol = if self.grpc { "grpc" } else { "http" };
        self.peers.encode_as(protocol, &self.flags, encoder)?;
        ("response_code", self.status.to_string().as_str()).encode(encoder.encode_label())?;
        let grpc_status = self.grpc_status.map(|status| status.to_string()).unwrap_or_default();
        ("grpc_response_status", grpc_status.as_str()).encode(encoder.encode_label())
    }
}

/// The counters of one label set.
#[derive(Debug, Default)]
pub(super) struct RequestSeries {
    requests: AtomicU64,
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

impl RequestSeries {
    /// Counts one request.
    pub(super) fn add(&self, duration: Duration, request_bytes: u64, response_bytes: u64) {
        self.requests.fetch_add(1, Relaxed);
        self.duration
            .add(duration.as_secs_f64() * 1000.0, u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        self.request_bytes.add(request_bytes as f64, request_bytes);
        self.response_bytes.add(response_bytes as f64, response_bytes);
    }
}

/// Counts by bucket, the last of which has no bound, and the sum in whatever unit it was added in.
#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum: AtomicU64,
}

impl Histogram {
    fn add(&self, value: f64, sum: u64) {
        let bucket = BOUNDS.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum.fetch_add(sum, Relaxed);
    }
}

/// A histogram to be written, with what one unit of its sum is worth.
struct Scaled<'a>(&'a Histogram, f64);

impl EncodeMetric for Scaled<'_> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Self(histogram, unit) = self;
        let bounds = BOUNDS.iter().copied().chain([f64::MAX]);
        let buckets: Vec<_> = bounds.zip(histogram.buckets.iter().map(|count| count.load(Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = histogram.sum.load(Relaxed) as f64 * unit;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// All that is counted of requests.
#[derive(Debug, Default)]
pub(super) struct Requests {
    series: RwLock<HashMap<HttpLabels, Arc<RequestSeries>>>,
    overflowed: AtomicU64,
}

impl Requests {
    /// The series of a request that has ended.
    pub(super) fn series(
        &self,
        direction: Direction,
        details: &Details,
        request: &RequestDetails,
    ) -> Arc<RequestSeries> {
        let labels = HttpLabels {
            peers: TcpLabels::new(direction, details, None),
            grpc: request.seen.grpc,
            status: request.seen.status,
            grpc_status: request.seen.grpc_status,
            flags: request.flags_text().into(),
        };
        if let Some(series) = self.series.read().get(&labels) {
            return Arc::clone(series);
        }
        let mut table = self.series.write();
        if table.len() >= MAX_SERIES && !table.contains_key(&labels) {
            self.overflowed.fetch_add(1, Relaxed);
            let peers = TcpLabels::overflow(direction);
            let overflow = HttpLabels { peers, grpc: false, status: 0, grpc_status: None, flags: "-".into() };
            return Arc::clone(table.entry(overflow).or_default());
        }
        Arc::clone(table.entry(labels).or_default())
    }

    /// Requests counted under labels that are all unknown.
    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed.load(Relaxed)
    }

    /// Writes all of it.
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let table = self.series.read();
        let rows: Vec<_> =
            table.iter().map(|(labels, series)| (labels.clone(), Arc::clone(series))).collect();
        drop(table);
        let mut family =
            encoder.encode_descriptor("istio_requests", "Requests that ended", None, MetricType::Counter)?;
        for (labels, series) in &rows {
            let count = series.requests.load(Relaxed);
            family.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        type Part = fn(&RequestSeries) -> &Histogram;
        let parts: [(&str, &str, Part, f64); 3] = [
            (
                "istio_request_duration_milliseconds",
                "From a request's head to its response's end",
                |series| &series.duration,
                0.001,
            ),
            (
                "istio_request_bytes",
                "Bytes of a request, headers included",
                |series| &series.request_bytes,
                1.0,
            ),
            (
                "istio_response_bytes",
                "Bytes of a response, headers included",
                |series| &series.response_bytes,
                1.0,
            ),
        ];
        for (name, help, part, unit) in parts {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for (labels, series) in &rows {
                Scaled(part(series), unit).encode(family.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{metric, observer, service, workload};
    use super::super::{FlowFlag, ResponseFlag};
    use std::sync::atomic::Ordering::Relaxed;
    use warren_common::model::admin::Direction;

    #[test]
    fn a_request_is_counted_with_istios_labels_and_its_connection_is_not() {
        let observer = observer(10);
        let connection = observer.begin(Direction::Outbound, None, None);
        let flow = observer.begin_request(Direction::Outbound, None, Some("10.96.0.7:80".parse().unwrap()));
        flow.source_workload(&workload("client"));
        flow.destination_workload(&workload("web"));
        flow.service(&service());
        flow.bytes().sent.store(100, Relaxed);
        flow.bytes().received.store(2000, Relaxed);
        flow.request(|request| {
            request.seen.status = 503;
            request.seen.attempts = 3;
            request.seen.details = "upstream_reset_before_response_started".into();
            request.flag(ResponseFlag::UpstreamFailure);
            request.flag(ResponseFlag::RetriesExceeded);
        });
        flow.fail(FlowFlag::Connect, "connection refused");
        drop(flow);
        connection.discard();
        let lines = metric(&observer, "istio_requests_total");
        assert_eq!(lines.len(), 1);
        for label in [
            "reporter=\"source\"",
            "source_workload=\"client\"",
            "destination_service=\"web.shop.svc.cluster.local\"",
            "request_protocol=\"http\"",
            "response_code=\"503\"",
            "grpc_response_status=\"\"",
            "response_flags=\"UF,URX\"",
        ] {
            assert!(lines[0].contains(label), "{label}: {}", lines[0]);
        }
        assert!(lines[0].ends_with(" 1"));
        assert_eq!(lines[0].matches("=\"").count(), 25, "the reference's label set");
        let bytes = metric(&observer, "istio_response_bytes_bucket");
        assert_eq!(bytes.len(), 20);
        assert!(bytes.iter().any(|line| line.contains("le=\"1000.0\"") && line.ends_with(" 0")), "{bytes:?}");
        assert!(bytes.iter().any(|line| line.contains("le=\"2500.0\"") && line.ends_with(" 1")), "{bytes:?}");
        assert!(metric(&observer, "istio_request_bytes_sum")[0].ends_with(" 100.0"));
        assert_eq!(metric(&observer, "istio_tcp_connections"), Vec::<String>::new());
        assert!(metric(&observer, "istio_tcp_sockets_open{reporter=\"source\"}")[0].ends_with(" 0"));
        let flows = observer.flows(&super::super::FlowFilter::default()).flows;
        assert_eq!(flows.len(), 1, "the connection leaves no record");
        assert_eq!((flows[0].flags.as_str(), flows[0].request.as_ref().unwrap().attempts), ("UF,URX", 3));
    }
}
