//! The table of open flows and the bounded ring of closed ones.

use super::handle::FlowHandle;
use super::metrics::Metrics;
use super::record::Record;
use super::stream::{FlowFilter, FlowStream, Followers};
use crate::hash::FastMap;
use parking_lot::Mutex;
use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use warren_common::model::admin::{Direction, Flow, FlowState, Flows};

/// Open flows are spread over so many locks, so that workers seldom meet.
const SHARDS: u64 = 16;

/// How to observe.
#[derive(Clone, Debug)]
pub struct ObserveConfig {
    /// The agent's node, for flow records.
    pub node: Arc<str>,
    /// How many closed flows are kept (default 4096).
    pub flow_ring: usize,
    /// Write a log line at the end of every connection (target `access`).
    pub access_log: bool,
}

impl ObserveConfig {
    /// The defaults for `node`.
    pub fn new(node: Arc<str>) -> Self {
        Self { node, flow_ring: 4096, access_log: true }
    }
}

/// Where all connections of this agent are reported. Cheap to clone, shared by all workers.
#[derive(Clone, Debug)]
pub struct Observer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ObserveConfig,
    metrics: Arc<Metrics>,
    next_id: AtomicU64,
    open: Vec<Mutex<FastMap<u64, Arc<Record>>>>,
    closed: Mutex<VecDeque<Arc<Record>>>,
    followers: Followers,
}

impl Observer {
    /// An observer that has seen nothing yet.
    pub fn new(config: ObserveConfig) -> Self {
        let ring = config.flow_ring.min(1 << 20);
        Self {
            inner: Arc::new(Inner {
                metrics: Arc::default(),
                next_id: AtomicU64::new(1),
                open: (0..SHARDS).map(|_| Mutex::default()).collect(),
                closed: Mutex::new(VecDeque::with_capacity(ring.min(1024))),
                followers: Followers::default(),
                config: ObserveConfig { flow_ring: ring, ..config },
            }),
        }
    }

    /// A connection was accepted. Addresses that are not known yet are told to the handle later.
    pub fn begin(
        &self,
        direction: Direction,
        source: Option<SocketAddr>,
        destination: Option<SocketAddr>,
    ) -> FlowHandle {
        FlowHandle::new(self.clone(), self.enter(|id| Record::new(id, direction, source, destination)))
    }

    /// One more open flow.
    pub(super) fn enter(&self, record: impl FnOnce(u64) -> Record) -> Arc<Record> {
        let id = self.inner.next_id.fetch_add(1, Relaxed);
        let record = Arc::new(record(id));
        self.shard(id).lock().insert(id, record.clone());
        self.inner.metrics.sockets(record.direction, 1);
        record
    }

    /// A request has come in on a connection that is observed already.
    pub fn begin_request(
        &self,
        direction: Direction,
        source: Option<SocketAddr>,
        destination: Option<SocketAddr>,
    ) -> FlowHandle {
        let id = self.inner.next_id.fetch_add(1, Relaxed);
        let record = Arc::new(Record::of_request(id, direction, source, destination));
        self.shard(id).lock().insert(id, record.clone());
        FlowHandle::new(self.clone(), record)
    }

    /// The closed flows that are kept and all open ones, oldest first, as far as `filter` wants them.
    pub fn flows(&self, filter: &FlowFilter) -> Flows {
        // Open ones first: a flow that closes in between is then found twice rather than not at all.
        let open = self.open_records();
        let closed: Vec<_> = self.inner.closed.lock().iter().cloned().collect();
        let seen: HashSet<u64> = closed.iter().map(|record| record.id).collect();
        let open = open.into_iter().filter(|record| !seen.contains(&record.id));
        let mut found: Vec<_> = closed.into_iter().map(|record| (record, FlowState::Closed)).collect();
        found.extend(open.map(|record| (record, FlowState::Open)));
        found.retain(|(record, state)| filter.wants(record, *state));
        found.sort_by_key(|(record, _)| record.id);
        let skip = filter.last.map_or(0, |last| found.len().saturating_sub(last));
        let flows = found.iter().skip(skip).map(|(record, state)| self.render(record, *state)).collect();
        Flows { flows, evicted: self.inner.metrics.evicted.load(Relaxed) }
    }

    /// Follows flows as they end (and begin, if `filter` asks for open ones). The stream is bounded; a reader
    /// that is too slow is told exactly how many it missed.
    pub fn subscribe(&self, filter: FlowFilter) -> FlowStream {
        self.inner.followers.subscribe(self.clone(), filter)
    }

    /// Connections open at the moment.
    pub fn open_count(&self) -> u64 {
        self.inner.open.iter().map(|shard| shard.lock().len() as u64).sum()
    }

    /// All metrics as OpenMetrics text.
    pub fn encode_metrics(&self) -> String {
        self.inner.metrics.encode()
    }

    /// Asks `read` for the kernel programs' counters at every scrape.
    pub fn kernel_counters_from(&self, read: impl Fn() -> Vec<(&'static str, u64)> + Send + Sync + 'static) {
        self.inner.metrics.kernel_counters_from(Box::new(read));
    }

    /// Asks `read` for the number of pods by state at every scrape.
    pub fn pods_from(&self, read: impl Fn() -> Vec<(&'static str, u64)> + Send + Sync + 'static) {
        self.inner.metrics.pods_from(Box::new(read));
    }

    /// Asks `read` for the number of refusals by limit at every scrape.
    pub fn limits_from(&self, read: impl Fn() -> Vec<(&'static str, u64)> + Send + Sync + 'static) {
        self.inner.metrics.limits_from(Box::new(read));
    }

    /// Asks `read` for ejections of endpoints by cause at every scrape.
    pub fn ejections_from(&self, read: impl Fn() -> Vec<(&'static str, u64)> + Send + Sync + 'static) {
        self.inner.metrics.ejections_from(Box::new(read));
    }

    /// Asks `read` for the end of the first certificate that ends (Unix seconds) at every scrape.
    pub fn certificates_from(&self, read: impl Fn() -> Option<i64> + Send + Sync + 'static) {
        self.inner.metrics.certificates_from(Box::new(read));
    }

    /// Gives the metrics the bytes of open connections, and the messages of open requests, that they have not seen yet.
    pub fn count_bytes(&self) {
        for record in self.open_records() {
            record.count_bytes();
            self.inner.metrics.requests().count_messages(&record);
        }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    pub(super) fn access_log(&self) -> bool {
        self.inner.config.access_log
    }

    pub(super) fn render(&self, record: &Record, state: FlowState) -> Flow {
        record.to_flow(&self.inner.config.node, state)
    }

    pub(super) fn followers(&self) -> &Followers {
        &self.inner.followers
    }

    /// Tells followers about `record`.
    pub(super) fn publish(&self, record: &Arc<Record>, state: FlowState) {
        let lost = self.inner.followers.publish(record, state);
        if lost > 0 {
            self.inner.metrics.lost.fetch_add(lost, Relaxed);
        }
    }

    /// Moves `record` from the open flows to the ring.
    pub(super) fn close(&self, record: &Arc<Record>) {
        let inner = &*self.inner;
        if record.is_connection {
            inner.metrics.sockets(record.direction, -1);
        }
        let evicted = {
            let mut ring = inner.closed.lock();
            ring.push_back(record.clone());
            if ring.len() > inner.config.flow_ring { ring.pop_front() } else { None }
        };
        // In the ring before it leaves the open flows, so that no reader misses it.
        self.shard(record.id).lock().remove(&record.id);
        if evicted.is_some() {
            inner.metrics.evicted.fetch_add(1, Relaxed);
        }
        self.publish(record, FlowState::Closed);
    }

    /// Takes `record` from the open flows, and keeps nothing of it.
    pub(super) fn forget(&self, record: &Arc<Record>) {
        if record.is_connection {
            self.inner.metrics.sockets(record.direction, -1);
        }
        self.shard(record.id).lock().remove(&record.id);
    }

    fn shard(&self, id: u64) -> &Mutex<FastMap<u64, Arc<Record>>> {
        &self.inner.open[(id % SHARDS) as usize]
    }

    fn open_records(&self) -> Vec<Arc<Record>> {
        self.inner.open.iter().flat_map(|shard| shard.lock().values().cloned().collect::<Vec<_>>()).collect()
    }
}

/// Gives the metrics the bytes of open connections, and messages of requests, every `period` (Istio's is 5 s), until it is dropped.
pub async fn report_bytes(observer: Observer, period: Duration) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        observer.count_bytes();
    }
}

#[cfg(test)]
#[path = "flows_tests.rs"]
mod tests;
