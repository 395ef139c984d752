//! What a connection's task holds: it says what it learns, and dropping it says that the connection is over.

use super::access_log;
use super::flows::Observer;
use super::record::{ByteCounters, FlowFlag, Record};
use super::request::RequestDetails;
use super::request_log;
use std::cell::Cell;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use warren_common::model::admin::{FlowRoute, FlowState, Transport, Verdict};
use warren_common::model::{Identity, Service, Workload};

/// One observed connection; owned by its task. Dropping it closes the flow, however the task ends.
///
/// Everything said before [`established`](Self::established) goes into the connection's metric labels, what
/// is said later only into its record.
#[derive(Debug)]
#[must_use = "dropping the handle ends the flow"]
pub struct FlowHandle {
    observer: Observer,
    pub(super) record: Arc<Record>,
    /// It goes on elsewhere.
    pub(super) gone: Cell<bool>,
}

impl FlowHandle {
    pub(super) fn new(observer: Observer, record: Arc<Record>) -> Self {
        Self { observer, record, gone: Cell::new(false) }
    }

    /// The flow's number, unique on this agent.
    pub fn id(&self) -> u64 {
        self.record.id
    }

    /// The client's workload.
    pub fn source_workload(&self, workload: &Arc<Workload>) {
        self.record.details.lock().source.workload = Some(workload.clone());
    }

    /// The client's identity, proven by certificate or (same node) by the kernel.
    pub fn source_identity(&self, identity: &Identity) {
        self.record.details.lock().source.identity = Some(identity.clone());
    }

    /// The client's own address.
    pub fn source_address(&self, address: SocketAddr) {
        self.record.details.lock().source.address = Some(address);
    }

    /// The address the client asked for.
    pub fn destination_address(&self, address: SocketAddr) {
        self.record.details.lock().destination.address = Some(address);
    }

    /// The server's workload.
    pub fn destination_workload(&self, workload: &Arc<Workload>) {
        self.record.details.lock().destination.workload = Some(workload.clone());
    }

    /// The server's identity, proven by certificate or (same node) by the kernel.
    pub fn destination_identity(&self, identity: &Identity) {
        self.record.details.lock().destination.identity = Some(identity.clone());
    }

    /// The service that was called.
    pub fn service(&self, service: &Service) {
        self.record.details.lock().service = Some(service.into());
    }

    /// The endpoint that was picked.
    pub fn endpoint(&self, endpoint: SocketAddr) {
        self.record.details.lock().endpoint = Some(endpoint);
    }

    /// Which rule decided where it goes.
    pub fn route(&self, route: &FlowRoute) {
        self.record.details.lock().route = Some(Box::new(route.clone()));
    }

    /// How it travels.
    pub fn transport(&self, transport: Transport) {
        self.record.details.lock().transport = transport;
    }

    /// What was decided, and the rule that decided (empty when no rule applied).
    pub fn verdict(&self, verdict: Verdict, policy: &Arc<str>) {
        let mut details = self.record.details.lock();
        details.verdict = verdict;
        details.policy = Some(policy.clone()).filter(|policy| !policy.is_empty());
    }

    /// It was refused: the rule that did so, and the policy that it is counted under.
    pub fn denied(&self, rule: &Arc<str>, policy: &Arc<str>) {
        self.verdict(Verdict::Denied, rule);
        self.observer.metrics().denied(policy, false);
    }

    /// It stood and may stand no longer, for rules have changed.
    pub fn evicted(&self, rule: &Arc<str>, policy: &Arc<str>) {
        self.verdict(Verdict::Denied, rule);
        self.observer.metrics().denied(policy, true);
    }

    /// What would have been decided if the dry-run policies were enforced.
    pub fn dry_run(&self, rule: &Arc<str>) {
        self.record.details.lock().dry_run = Some(rule.clone());
    }

    /// The connection stands, end to end. Its labels are final from here; a second call does nothing.
    pub fn established(&self) {
        let Self { observer, record, .. } = self;
        if record.series.get().is_some() {
            return;
        }
        let series = {
            let details = record.details.lock();
            observer.metrics().series(record.direction, &details, None)
        };
        series.opened.fetch_add(1, Relaxed);
        // Only this handle sets it, and it is not shared between threads at the same time.
        let _ = record.series.set(series);
        if observer.access_log() {
            access_log::opened(record);
        }
        observer.publish(record, FlowState::Open);
    }

    /// Says something of the request that this is the flow of; nothing, if it is a connection's.
    pub fn request(&self, say: impl FnOnce(&mut RequestDetails)) {
        if let Some(request) = &mut self.record.details.lock().request {
            say(request);
        }
    }

    /// Ends the flow without a trace: its requests have flows of their own.
    pub fn discard(self) {
        self.record.discarded.store(true, Relaxed);
    }

    /// The counters that the copy loop adds to.
    pub fn bytes(&self) -> &Arc<ByteCounters> {
        &self.record.bytes
    }

    /// The counters that a gRPC request's messages are added to.
    pub fn messages(&self) -> &Arc<ByteCounters> {
        &self.record.messages
    }

    /// Why it failed. The first cause stays: what follows are its consequences.
    pub fn fail(&self, flag: FlowFlag, error: impl Display) {
        let mut details = self.record.details.lock();
        if details.failure.is_none() {
            details.failure = Some((flag, error.to_string().into()));
        }
    }
}

impl Drop for FlowHandle {
    fn drop(&mut self) {
        let Self { observer, record, gone } = self;
        if record.discarded.load(Relaxed) {
            return observer.forget(record);
        }
        record.count_bytes();
        if gone.get() {
            return observer.forget(record);
        }
        if let Some(series) = record.series.get() {
            series.closed.fetch_add(1, Relaxed);
        }
        {
            let mut details = record.details.lock();
            let duration = record.started.elapsed();
            details.duration = Some(duration);
            match &details.request {
                Some(request) => {
                    let (sent, received) = record.bytes.totals();
                    let series = observer.metrics().requests().series(record.direction, &details, request);
                    series.add(duration, request.trace, sent, received);
                    series.add_messages(record.new_messages());
                    if observer.access_log() {
                        request_log::closed(record, &details, request);
                    }
                }
                None => {
                    if let Some(flag) = details.flag() {
                        let series = observer.metrics().series(record.direction, &details, Some(flag));
                        series.failed.fetch_add(1, Relaxed);
                    }
                    if observer.access_log() {
                        access_log::closed(record, &details);
                    }
                }
            }
        }
        observer.close(record);
    }
}
