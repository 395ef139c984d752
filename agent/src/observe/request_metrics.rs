//! Istio's metrics of requests: `istio_requests_total`, histograms of durations and sizes, and the messages of gRPC, which are
//! counted while they go.
//!
//! A bucket of durations leads to the last traced request in it (an OpenMetrics exemplar): at most 20 of a label set, some
//! 60 bytes each, and none where nobody traces.

use super::labels::TcpLabels;
use super::record::{Details, Record};
use super::request::RequestDetails;
use super::trace::TraceId;
use crate::hash::FastMap;
use parking_lot::RwLock;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};
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
#[derive(Clone, Debug, PartialEq, Eq)]
struct HttpLabels {
    peers: TcpLabels,
    grpc: bool,
    status: u16,
    grpc_status: Option<u16>,
    flags: Cow<'static, str>,
}

/// What tells most label sets apart: all of it would be some 400 bytes for each request.
impl Hash for HttpLabels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.peers.hash_names(state);
        (self.status, self.grpc_status).hash(state);
    }
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

/// What an exemplar is found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Traced(TraceId);

impl EncodeLabelSet for Traced {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("trace_id", self.0.to_string().as_str()).encode(encoder.encode_label())
    }
}

/// The counters of one label set.
#[derive(Debug)]
pub(super) struct RequestSeries {
    requests: AtomicU64,
    duration: HistogramWithExemplars<Traced>,
    request_bytes: Histogram,
    response_bytes: Histogram,
    request_messages: AtomicU64,
    response_messages: AtomicU64,
}

impl Default for RequestSeries {
    fn default() -> Self {
        Self {
            requests: AtomicU64::default(),
            duration: HistogramWithExemplars::new(BOUNDS.into_iter()),
            request_bytes: Histogram::default(),
            response_bytes: Histogram::default(),
            request_messages: AtomicU64::default(),
            response_messages: AtomicU64::default(),
        }
    }
}

impl RequestSeries {
    /// Counts one request, which is of `trace`.
    pub(super) fn add(
        &self,
        duration: Duration,
        trace: Option<TraceId>,
        request_bytes: u64,
        response_bytes: u64,
    ) {
        self.requests.fetch_add(1, Relaxed);
        let when = trace.map(|_| SystemTime::now());
        self.duration.observe(duration.as_secs_f64() * 1000.0, trace.map(Traced), when);
        self.request_bytes.add(request_bytes);
        self.response_bytes.add(response_bytes);
    }

    /// Counts messages of gRPC: of the request, and of its response.
    pub(super) fn add_messages(&self, (request, response): (u64, u64)) {
        self.request_messages.fetch_add(request, Relaxed);
        self.response_messages.fetch_add(response, Relaxed);
    }
}

/// Bytes, counted by bucket, the last of which has no bound.
#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum: AtomicU64,
}

impl Histogram {
    fn add(&self, bytes: u64) {
        let bucket = BOUNDS.partition_point(|bound| *bound < bytes as f64);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum.fetch_add(bytes, Relaxed);
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = BOUNDS.iter().copied().chain([f64::MAX]);
        let buckets: Vec<_> = bounds.zip(self.buckets.iter().map(|count| count.load(Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(self.sum.load(Relaxed) as f64, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// All that is counted of requests.
#[derive(Debug, Default)]
pub(super) struct Requests {
    series: RwLock<FastMap<HttpLabels, Arc<RequestSeries>>>,
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
            peers: TcpLabels::of_request(direction, details),
            grpc: request.seen.grpc,
            status: request.seen.status,
            grpc_status: request.seen.grpc_status,
            flags: request.flags_text(),
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

    /// Counts the messages of a request that goes on, under the labels that it has now.
    pub(super) fn count_messages(&self, record: &Record) {
        if let (0, 0) = record.messages.totals() {
            return;
        }
        let details = record.details.lock();
        let Some(request) = &details.request else { return };
        match record.new_messages() {
            (0, 0) => {}
            messages => self.series(record.direction, &details, request).add_messages(messages),
        }
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
        let mut messages = |name, help, part: fn(&RequestSeries) -> &AtomicU64| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, series) in rows.iter().filter(|(labels, _)| labels.grpc) {
                let count = part(series).load(Relaxed);
                family.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
            Ok::<_, fmt::Error>(())
        };
        messages("istio_request_messages", "gRPC messages of requests", |series| &series.request_messages)?;
        messages("istio_response_messages", "gRPC messages of responses", |series| {
            &series.response_messages
        })?;
        let mut histogram = |name, help, part: fn(&RequestSeries) -> &dyn EncodeMetric| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for (labels, series) in &rows {
                part(series).encode(family.encode_family(labels)?)?;
            }
            Ok(())
        };
        let help = "From a request's head to its response's end";
        histogram("istio_request_duration_milliseconds", help, |series| &series.duration)?;
        histogram("istio_request_bytes", "Bytes of a request, headers included", |series| {
            &series.request_bytes
        })?;
        histogram("istio_response_bytes", "Bytes of a response, headers included", |series| {
            &series.response_bytes
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{identity, metric, observer, service, workload};
    use super::super::{FlowFlag, FlowHandle, Observer, ResponseFlag, TraceId};
    use std::collections::BTreeMap;
    use std::sync::atomic::Ordering::Relaxed;
    use warren_common::model::admin::{Direction, Transport};

    /// client -> web over HBONE, both proven.
    fn call(observer: &Observer) -> FlowHandle {
        let flow = observer.begin_request(Direction::Outbound, None, Some("10.96.0.7:80".parse().unwrap()));
        flow.source_workload(&workload("client"));
        flow.source_identity(&identity("client"));
        flow.destination_workload(&workload("web"));
        flow.destination_identity(&identity("web"));
        flow.service(&service());
        flow.transport(Transport::Hbone);
        flow
    }

    /// The labels of a line.
    fn labels(line: &str) -> BTreeMap<String, String> {
        let (labels, _) = line.split_once('{').unwrap().1.split_once('}').unwrap();
        let pairs = labels.split("\",").map(|pair| pair.split_once("=\"").unwrap());
        pairs.map(|(name, value)| (name.into(), value.trim_end_matches('"').into())).collect()
    }

    #[test]
    fn the_four_metrics_have_istios_25_labels() {
        let observer = observer(10);
        let flow = call(&observer);
        flow.request(|request| {
            request.seen.status = 200;
            request.seen.grpc = true;
            request.seen.grpc_status = Some(5);
        });
        drop(flow);
        let expected: BTreeMap<String, String> = [
            ("reporter", "source"),
            ("source_workload", "client"),
            ("source_canonical_service", "client"),
            ("source_canonical_revision", "v1"),
            ("source_workload_namespace", "shop"),
            ("source_principal", "spiffe://cluster.local/ns/shop/sa/client"),
            ("source_app", "client"),
            ("source_version", "v1"),
            ("source_cluster", "Kubernetes"),
            ("destination_workload", "web"),
            ("destination_workload_namespace", "shop"),
            ("destination_principal", "spiffe://cluster.local/ns/shop/sa/web"),
            ("destination_app", "web"),
            ("destination_version", "v1"),
            ("destination_service", "web.shop.svc.cluster.local"),
            ("destination_canonical_service", "web"),
            ("destination_canonical_revision", "v1"),
            ("destination_service_name", "web"),
            ("destination_service_namespace", "shop"),
            ("destination_cluster", "Kubernetes"),
            ("request_protocol", "grpc"),
            ("response_code", "200"),
            ("grpc_response_status", "5"),
            ("response_flags", "-"),
            ("connection_security_policy", "unknown"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        assert_eq!(expected.len(), 25);
        for name in [
            "istio_requests_total",
            "istio_request_duration_milliseconds_count",
            "istio_request_bytes_count",
            "istio_response_bytes_count",
        ] {
            let lines = metric(&observer, name);
            assert_eq!(lines.len(), 1, "{name}");
            assert_eq!(labels(&lines[0]), expected, "{name}");
            assert!(lines[0].ends_with(" 1"), "{name}");
        }
    }

    #[test]
    fn messages_of_grpc_are_counted_while_they_go() {
        let observer = observer(10);
        let flow = call(&observer);
        flow.request(|request| {
            request.seen.grpc = true;
            request.seen.status = 200;
        });
        flow.messages().sent.store(1, Relaxed);
        flow.messages().received.store(20, Relaxed);
        let counted = |name: &str| -> Vec<_> {
            let lines = metric(&observer, name);
            lines.iter().map(|line| (labels(line), line.rsplit_once(' ').unwrap().1.to_owned())).collect()
        };
        assert!(counted("istio_response_messages_total").is_empty());
        observer.count_bytes();
        observer.count_bytes();
        let [(going, count)] = &*counted("istio_response_messages_total") else { panic!("one") };
        assert_eq!((going["grpc_response_status"].as_str(), count.as_str()), ("", "20"), "once");
        assert_eq!(counted("istio_request_messages_total")[0].1, "1");
        // The rest with the end.
        flow.messages().received.store(25, Relaxed);
        flow.request(|request| request.seen.grpc_status = Some(0));
        drop(flow);
        let mut all = counted("istio_response_messages_total");
        all.sort_by_key(|(labels, _)| labels["grpc_response_status"].clone());
        let [(_, first), (ended, rest)] = &*all else { panic!("{all:?}") };
        assert_eq!((first.as_str(), ended["grpc_response_status"].as_str(), rest.as_str()), ("20", "0", "5"));
        assert_eq!(ended["request_protocol"], "grpc");
        // Other requests have none.
        drop(call(&observer));
        assert_eq!(counted("istio_response_messages_total").len(), 2);
    }

    #[test]
    fn a_bucket_of_durations_leads_to_the_last_trace_in_it() {
        let observer = observer(10);
        let parents = ["1", "2"].map(|digit| format!("00-{}-00f067aa0ba902b7-01", digit.repeat(32)));
        for parent in parents.iter().map(Some).chain([None]) {
            let headers = parent.map(|parent| ("traceparent".parse().unwrap(), parent.parse().unwrap()));
            call(&observer).request(|request| request.trace = TraceId::of(&headers.into_iter().collect()));
        }
        let name = "istio_request_duration_milliseconds";
        let buckets = metric(&observer, &format!("{name}_bucket"));
        assert_eq!(buckets.len(), 20);
        let led: Vec<_> = buckets.iter().filter_map(|line| line.split_once(" # ")).collect();
        // A slow machine may spread them over two buckets.
        let (_, last) = led.last().unwrap();
        assert!(led.len() <= 2 && last.starts_with("{trace_id=\""), "{led:?}");
        assert!(led.iter().any(|(_, exemplar)| exemplar.contains(&"2".repeat(32))), "{led:?}");
        assert_eq!(last.split(' ').count(), 3, "labels, milliseconds, seconds: {last}");
        assert!(metric(&observer, &format!("{name}_count"))[0].ends_with(" 3"));
        assert!(!metric(&observer, "istio_requests_total")[0].contains('#'));
    }

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
        let labels = labels(&lines[0]);
        for (label, value) in [
            ("request_protocol", "http"),
            ("response_code", "503"),
            ("grpc_response_status", ""),
            ("response_flags", "UF,URX"),
            ("source_principal", "unknown"),
            ("connection_security_policy", "unknown"),
        ] {
            assert_eq!(labels[label], value, "{label}: {}", lines[0]);
        }
        assert!(lines[0].ends_with(" 1"));
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
