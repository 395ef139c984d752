//! Prometheus metrics, in OpenMetrics text, under Istio's standard names.
//!
//! The `istio_tcp_*` families share one table: a connection looks its series up once and then only adds to
//! atomics. `sent` is towards the client and `received` from it, as Istio defines them, so a
//! connection's bytes are counted crosswise here and nowhere else.

use super::labels::{TcpLabels, escaped, reporter};
use super::record::{Details, FlowFlag};
use super::request_metrics::Requests;
use crate::hash::FastMap;
use parking_lot::{Mutex, RwLock};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text::encode};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use warren_common::model::admin::Direction;

/// Most label sets that are kept; what comes later is counted under labels that are all `unknown`.
const MAX_SERIES: usize = 10_000;

/// Most policies that denials are counted for; those of all later ones are counted under [`OTHER`].
const MAX_POLICIES: usize = 1000;
const OTHER: &str = "other";

/// The counters of one label set.
#[derive(Debug, Default)]
pub(super) struct Series {
    pub(super) opened: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) failed: AtomicU64,
    to_client: AtomicU64,
    from_client: AtomicU64,
}

impl Series {
    /// Adds bytes of a connection: `sent` from client to server, `received` from server to client.
    pub(super) fn add_bytes(&self, sent: u64, received: u64) {
        self.from_client.fetch_add(sent, Relaxed);
        self.to_client.fetch_add(received, Relaxed);
    }

    /// Whether any was established, be it in an earlier process.
    fn has_connections(&self) -> bool {
        [&self.opened, &self.closed, &self.to_client, &self.from_client].iter().any(|n| n.load(Relaxed) > 0)
    }
}

/// A point in time (Unix seconds), if there is one.
type Moment = Box<dyn Fn() -> Option<i64> + Send + Sync>;
type Named = Box<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>;

/// Everything that is counted.
#[derive(Default)]
pub(super) struct Metrics {
    series: RwLock<FastMap<TcpLabels, Arc<Series>>>,
    requests: Requests,
    overflowed: AtomicU64,
    /// Open sockets by direction: outbound, inbound.
    open: [AtomicI64; 2],
    /// Closed flows that fell out of the ring.
    pub(super) evicted: AtomicU64,
    /// Flow events that slow followers did not get.
    pub(super) lost: AtomicU64,
    /// By policy: connections refused, and open ones closed when they were judged again.
    denials: Mutex<BTreeMap<Arc<str>, [u64; 2]>>,
    kernel: RwLock<Option<Named>>,
    pods: RwLock<Option<Named>>,
    limits: RwLock<Option<Named>>,
    ejections: RwLock<Option<Named>>,
    certificates: RwLock<Option<Moment>>,
}

impl Metrics {
    /// The series of a connection as it stands now.
    pub(super) fn series(
        &self,
        direction: Direction,
        details: &Details,
        flag: Option<FlowFlag>,
    ) -> Arc<Series> {
        let labels = TcpLabels::new(direction, details, flag);
        if let Some(series) = self.series.read().get(&labels) {
            return series.clone();
        }
        let mut table = self.series.write();
        if table.len() >= MAX_SERIES && !table.contains_key(&labels) {
            self.overflowed.fetch_add(1, Relaxed);
            return table.entry(TcpLabels::overflow(direction)).or_default().clone();
        }
        table.entry(labels).or_default().clone()
    }

    /// Of requests.
    pub(super) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Adds to the number of open sockets.
    pub(super) fn sockets(&self, direction: Direction, change: i64) {
        self.open[direction as usize].fetch_add(change, Relaxed);
    }

    /// A connection was refused by `policy`, or an open one closed.
    pub(super) fn denied(&self, policy: &Arc<str>, was_open: bool) {
        let mut denials = self.denials.lock();
        let counts = if denials.len() < MAX_POLICIES || denials.contains_key(policy) {
            denials.entry(Arc::clone(policy)).or_default()
        } else {
            denials.entry(OTHER.into()).or_default()
        };
        counts[usize::from(was_open)] += 1;
    }

    /// Asks `source` for the kernel's counters at every scrape.
    pub(super) fn kernel_counters_from(&self, source: Named) {
        *self.kernel.write() = Some(source);
    }

    /// Asks `source` for the number of pods by state at every scrape.
    pub(super) fn pods_from(&self, source: Named) {
        *self.pods.write() = Some(source);
    }

    /// Asks `source` for refusals by limit at every scrape.
    pub(super) fn limits_from(&self, source: Named) {
        *self.limits.write() = Some(source);
    }

    /// Asks `source` for ejections of endpoints by cause at every scrape.
    pub(super) fn ejections_from(&self, source: Named) {
        *self.ejections.write() = Some(source);
    }

    /// Asks `source` for the end of the first certificate that ends at every scrape.
    pub(super) fn certificates_from(&self, source: Moment) {
        *self.certificates.write() = Some(source);
    }

    /// All metrics as OpenMetrics text.
    pub(super) fn encode(self: &Arc<Self>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape(self.clone())));
        let mut text = String::with_capacity(4096);
        // Writing to a String can't fail; a label that could is a bug that must not take the scrape down.
        if let Err(error) = encode(&mut text, &registry) {
            tracing::error!(%error, "metrics could not be encoded completely");
        }
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// One pass over the counters.
#[derive(Debug)]
struct Scrape(Arc<Metrics>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // First, so that who only asks what runs here need not read the rest.
        self.node(&mut encoder)?;
        let table = self.0.series.read();
        let rows: Vec<_> = table.iter().map(|(labels, series)| (labels.clone(), series.clone())).collect();
        drop(table);
        let established: Vec<_> = rows.iter().filter(|(_, series)| series.has_connections()).collect();
        let failed: Vec<_> = rows.iter().filter(|(_, series)| series.failed.load(Relaxed) > 0).collect();

        let mut tcp = |name, help, rows: &[&(TcpLabels, Arc<Series>)], value: fn(&Series) -> &AtomicU64| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, series) in rows {
                let value = value(series).load(Relaxed);
                family.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
            Ok(())
        };
        tcp("istio_tcp_connections_opened", "Connections opened", &established, |s| &s.opened)?;
        tcp("istio_tcp_connections_closed", "Connections closed", &established, |s| &s.closed)?;
        tcp("istio_tcp_sent_bytes", "Bytes sent towards the client", &established, |s| &s.to_client)?;
        tcp("istio_tcp_received_bytes", "Bytes received from the client", &established, |s| &s.from_client)?;
        let help = "Connections that failed or were denied, by response_flags";
        tcp("istio_tcp_connections_failed", help, &failed, |s| &s.failed)?;
        self.0.requests.encode(&mut encoder)
    }
}

impl Scrape {
    /// What has no peer: sockets, build, losses, the kernel.
    fn node(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let metrics = &*self.0;
        let help = "Connections open at the moment";
        let mut family =
            encoder.encode_descriptor("istio_tcp_sockets_open", help, None, MetricType::Gauge)?;
        for direction in [Direction::Outbound, Direction::Inbound] {
            let open = metrics.open[direction as usize].load(Relaxed);
            family.encode_family(&[("reporter", reporter(direction))])?.encode_gauge(&open)?;
        }
        let mut family =
            encoder.encode_descriptor("istio_build", "What runs here", None, MetricType::Gauge)?;
        let build = [("component", "warren"), ("tag", env!("CARGO_PKG_VERSION"))];
        family.encode_family(&build)?.encode_gauge(&1_i64)?;

        let help = "Closed flows that fell out of the ring of flow records";
        counter(encoder, "warren_flows_evicted", help, &metrics.evicted)?;
        let help = "Flow events that followers were too slow to get";
        counter(encoder, "warren_flow_events_lost", help, &metrics.lost)?;
        let help =
            "Connections and requests counted under unknown labels because there are too many label sets";
        let overflowed = metrics.overflowed.load(Relaxed) + metrics.requests.overflowed();
        counter(encoder, "warren_metric_series_overflow", help, &AtomicU64::new(overflowed))?;

        let denials = metrics.denials.lock().clone();
        for (at, name, help) in [
            (0, "warren_policy_denials", "Connections to pods of this node that were refused, by policy"),
            (1, "warren_policy_evictions", "Open connections closed because a change denies them, by policy"),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (policy, counts) in denials.iter().filter(|(_, counts)| counts[at] > 0) {
                family
                    .encode_family(&[("policy", escaped(policy).as_ref())])?
                    .encode_counter::<NoLabelSet, _, u64>(&counts[at], None)?;
            }
        }

        let kernel = metrics.kernel.read().as_ref().map(|read| read()).unwrap_or_default();
        let help = "What the kernel programs counted";
        let mut family =
            encoder.encode_descriptor("warren_kernel_events", help, None, MetricType::Counter)?;
        for (name, count) in kernel {
            family.encode_family(&[("name", name)])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        let limits = metrics.limits.read().as_ref().map(|read| read()).unwrap_or_default();
        let help =
            "What was refused, or had to do with less, because a limit of the agent was reached, by limit";
        let mut family =
            encoder.encode_descriptor("warren_limit_refusals", help, None, MetricType::Counter)?;
        for (limit, count) in limits {
            family.encode_family(&[("limit", limit)])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        let ejections = metrics.ejections.read().as_ref().map(|read| read()).unwrap_or_default();
        let help = "How often outlier detection left an endpoint out for a while, by cause";
        let mut family =
            encoder.encode_descriptor("warren_outlier_ejections", help, None, MetricType::Counter)?;
        for (cause, count) in ejections {
            family.encode_family(&[("cause", cause)])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        if let Some(end) = metrics.certificates.read().as_ref().and_then(|read| read()) {
            let help = "End of the first workload certificate of this node that ends, Unix seconds";
            let name = "warren_certificate_expiry_timestamp_seconds";
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&end)?;
        }
        let pods = metrics.pods.read().as_ref().map(|read| read()).unwrap_or_default();
        let help = "Pods of this node by state; pending ones should be in the mesh and talk in plaintext";
        let mut family = encoder.encode_descriptor("warren_pods", help, None, MetricType::Gauge)?;
        for (state, count) in pods {
            family.encode_family(&[("state", state)])?.encode_gauge(&(count as i64))?;
        }
        Ok(())
    }
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: &AtomicU64) -> fmt::Result {
    encoder
        .encode_descriptor(name, help, None, MetricType::Counter)?
        .encode_counter::<NoLabelSet, _, u64>(&value.load(Relaxed), None)
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
