//! Following flows: a bounded queue per reader, filtered before it, with an exact count of what did not fit.

use super::flows::Observer;
use super::record::Record;
use super::wanted::RequestFilter;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use warren_common::model::admin::{Flow, FlowEvent, FlowState};

/// How far a follower may lag behind before it loses events.
const QUEUE: usize = 1024;

/// Which flows somebody wants to see. Everything that is not set matches.
#[derive(Clone, Debug, Default)]
pub struct FlowFilter {
    /// Either end is in this namespace.
    pub namespace: Option<String>,
    /// Either end is this pod, or a pod of this workload (Deployment ...).
    pub pod: Option<String>,
    /// Only what failed or was denied.
    pub failed: bool,
    /// Only such requests.
    pub request: RequestFilter,
    /// For followers: also tell when a flow begins.
    pub open: bool,
    /// For lists: only the newest so many.
    pub last: Option<usize>,
}

impl FlowFilter {
    pub(super) fn wants(&self, record: &Record, state: FlowState) -> bool {
        if self.namespace.is_none() && self.pod.is_none() && !self.failed && self.request.is_empty() {
            return true;
        }
        let details = record.details.lock();
        let ends = [&details.source, &details.destination];
        let in_namespace = |wanted: &String| {
            ends.iter().any(|peer| match (&peer.workload, &peer.identity) {
                (Some(workload), _) => *workload.namespace == **wanted,
                (None, Some(identity)) => identity.namespace() == wanted,
                (None, None) => false,
            })
        };
        let is_pod = |wanted: &String| {
            let mut workloads = ends.iter().filter_map(|peer| peer.workload.as_ref());
            workloads.any(|workload| *workload.name == **wanted || *workload.owner == **wanted)
        };
        self.namespace.as_ref().is_none_or(in_namespace)
            && self.pod.as_ref().is_none_or(is_pod)
            && (!self.failed || (state == FlowState::Closed && details.flag().is_some()))
            && (self.request.is_empty()
                || details.request.as_ref().is_some_and(|request| self.request.wants(&request.seen)))
    }
}

/// Everybody who follows.
#[derive(Debug, Default)]
pub(super) struct Followers {
    /// Length of `list`, so that publishing costs one load while nobody follows.
    count: AtomicUsize,
    list: RwLock<Vec<Arc<Follower>>>,
}

#[derive(Debug)]
struct Follower {
    filter: FlowFilter,
    queue: mpsc::Sender<Item>,
    /// Events since the last one that fitted.
    lost: AtomicU64,
}

#[derive(Debug)]
struct Item {
    record: Arc<Record>,
    state: FlowState,
    /// How many were lost between the event before and this one.
    lost_before: u64,
}

impl Followers {
    pub(super) fn subscribe(&self, observer: Observer, filter: FlowFilter) -> FlowStream {
        let (queue, events) = mpsc::channel(QUEUE);
        let follower = Arc::new(Follower { filter, queue, lost: AtomicU64::new(0) });
        let mut list = self.list.write();
        list.push(follower.clone());
        self.count.store(list.len(), Relaxed);
        FlowStream { observer, follower, events, held: None }
    }

    /// Hands `record` to everybody who wants it; returns how many could not take it.
    pub(super) fn publish(&self, record: &Arc<Record>, state: FlowState) -> u64 {
        if self.count.load(Relaxed) == 0 {
            return 0;
        }
        let mut lost = 0;
        for follower in self.list.read().iter() {
            let wanted = state == FlowState::Closed || follower.filter.open;
            if !wanted || !follower.filter.wants(record, state) {
                continue;
            }
            match follower.queue.try_reserve() {
                Ok(place) => {
                    let lost_before = follower.lost.swap(0, Relaxed);
                    place.send(Item { record: record.clone(), state, lost_before });
                }
                Err(_) => {
                    follower.lost.fetch_add(1, Relaxed);
                    lost += 1;
                }
            }
        }
        lost
    }

    /// How many follow.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    fn leave(&self, follower: &Arc<Follower>) {
        let mut list = self.list.write();
        list.retain(|other| !Arc::ptr_eq(other, follower));
        self.count.store(list.len(), Relaxed);
    }
}

/// Flows as they happen. Dropping it ends the subscription.
#[derive(Debug)]
pub struct FlowStream {
    observer: Observer,
    follower: Arc<Follower>,
    events: mpsc::Receiver<Item>,
    /// A flow that waits until the loss before it has been told.
    held: Option<Flow>,
}

impl FlowStream {
    /// The next event.
    pub async fn next(&mut self) -> Option<FlowEvent> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// The next event, for who implements a stream.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<FlowEvent>> {
        if let Some(flow) = self.held.take() {
            return Poll::Ready(Some(FlowEvent::Flow(Box::new(flow))));
        }
        match self.events.poll_recv(context) {
            Poll::Ready(Some(Item { record, state, lost_before })) => {
                let flow = self.observer.render(&record, state);
                if lost_before == 0 {
                    return Poll::Ready(Some(FlowEvent::Flow(Box::new(flow))));
                }
                self.held = Some(flow);
                Poll::Ready(Some(FlowEvent::Lost { count: lost_before }))
            }
            Poll::Ready(None) => Poll::Ready(None),
            // The queue is empty: what was lost while it was full must not wait for the next flow.
            Poll::Pending => match self.follower.lost.swap(0, Relaxed) {
                0 => Poll::Pending,
                count => Poll::Ready(Some(FlowEvent::Lost { count })),
            },
        }
    }
}

impl Drop for FlowStream {
    fn drop(&mut self) {
        self.observer.followers().leave(&self.follower);
    }
}
