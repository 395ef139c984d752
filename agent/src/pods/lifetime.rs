//! How a pod's stay on this node ends, for what is open to and from it.
//!
//! ```text
//!   here --deleted, or its network goes--> leaving: whoever has another to go to is sent there
//!     \--released, or leaving--> parted: its doors are closed, open connections go on
//!                                  \--no process is left, and 3 s; or 30 s after its deletion--> cut
//! ```
//!
//! A pod that has ended for good cannot say so on a network that is gone already: without the cut, the other ends of its
//! connections would wait for as long as TCP does.

use super::discover::Discovery;
use super::registry::Pod;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// How often it is looked whether anything is left of a pod that has parted.
const LOOK: Duration = Duration::from_secs(1);
/// For the last bytes of a pod without processes to arrive.
const LINGER: Duration = Duration::from_secs(3);
/// How long a pod that was deleted may go on, if its processes do.
const DEADLINE: Duration = Duration::from_secs(30);

const HERE: u8 = 0;
const LEAVING: u8 = 1;
const CUT: u8 = 2;

/// Told by the manager, followed by the pod's connections.
#[derive(Debug, Default)]
pub struct Lifetime {
    stage: AtomicU8,
    changed: Notify,
}

impl Lifetime {
    /// Whether the pod is about to go.
    pub fn is_leaving(&self) -> bool {
        self.stage.load(Ordering::Acquire) != HERE
    }

    /// Completes when nothing of the pod may stay open any more.
    pub async fn cut(&self) {
        let mut changed = std::pin::pin!(self.changed.notified());
        loop {
            changed.as_mut().enable();
            if self.stage.load(Ordering::Acquire) == CUT {
                return;
            }
            changed.as_mut().await;
            changed.set(self.changed.notified());
        }
    }

    pub(super) fn leave(&self) {
        self.stage.fetch_max(LEAVING, Ordering::AcqRel);
    }

    fn end(&self) {
        self.stage.store(CUT, Ordering::Release);
        self.changed.notify_waiters();
    }
}

/// Cuts what is left of a pod that has parted, once that cannot end by itself any more. `deleted`: it is not only
/// released, so it has a deadline.
pub(super) async fn part(discovery: Arc<dyn Discovery>, pod: Weak<Pod>, deleted: bool) {
    let deadline = deleted.then(|| Instant::now() + DEADLINE);
    loop {
        // Whatever is open to or from the pod holds it.
        let Some(left) = pod.upgrade() else { return };
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return cut(&left, "its deadline is over");
        }
        if !discovery.exists(&left.workload.enrolment.pod_uid) {
            break;
        }
        drop(left);
        sleep(LOOK).await;
    }
    sleep(LINGER).await;
    if let Some(left) = pod.upgrade() {
        cut(&left, "it has no process any more");
    }
}

fn cut(pod: &Pod, why: &str) {
    let workload = &pod.workload;
    tracing::info!(pod = %workload.name, namespace = %workload.namespace, why, "the last connections of a pod that has gone are cut");
    pod.lifetime.end();
}

#[cfg(test)]
mod tests {
    use super::super::discover::DiscoverError;
    use super::super::testing;
    use super::*;
    use crate::accept::{Netns, NetnsThread, PodSockets};
    use std::sync::atomic::AtomicBool;
    #[derive(Default)]
    struct Processes(AtomicBool);

    impl Discovery for Processes {
        fn namespaces(&self, _: &str) -> Result<Vec<Arc<Netns>>, DiscoverError> {
            Err(DiscoverError::HostNetwork)
        }

        fn exists(&self, _: &str) -> bool {
            self.0.load(Ordering::Relaxed)
        }

        fn is_node(&self, _: &Netns) -> bool {
            false
        }
    }

    fn pod() -> Arc<Pod> {
        let netns = Netns::open(std::path::Path::new("/proc/self/ns/net")).unwrap();
        let sockets = PodSockets::new(NetnsThread::spawn().unwrap(), Arc::new(netns));
        Arc::new(Pod {
            workload: testing::pod("web", "u1", &[], true),
            cookie: 1,
            sockets,
            lifetime: Lifetime::default(),
        })
    }

    /// How long it takes until the pod is cut; `ends_after` is when its processes end.
    async fn cut_after(deleted: bool, ends_after: Duration) -> Duration {
        let (pod, processes) = (pod(), Arc::new(Processes(AtomicBool::new(true))));
        let began = Instant::now();
        tokio::spawn(part(processes.clone(), Arc::downgrade(&pod), deleted));
        let end = async {
            sleep(ends_after).await;
            processes.0.store(false, Ordering::Relaxed);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = pod.lifetime.cut() => {}
            () = end => {}
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_is_cut_when_nobody_can_end_it() {
        let seconds = Duration::from_secs;
        let took = cut_after(true, seconds(5)).await;
        assert!(took >= seconds(5) + LINGER && took <= seconds(5) + LINGER + LOOK, "{took:?}");
        // Processes that go on after the deletion have a deadline; those of a pod that was only released have none.
        let took = cut_after(true, seconds(3600)).await;
        assert!(took >= DEADLINE && took <= DEADLINE + LOOK, "{took:?}");
        let took = cut_after(false, seconds(3600)).await;
        assert!(took >= seconds(3600) + LINGER, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_with_nothing_left_is_not_waited_for() {
        let (pod, processes) = (pod(), Arc::new(Processes(AtomicBool::new(true))));
        let parting = tokio::spawn(part(processes, Arc::downgrade(&pod), false));
        drop(pod);
        let began = Instant::now();
        parting.await.unwrap();
        assert!(began.elapsed() <= LOOK);
    }

    #[tokio::test]
    async fn who_asks_late_is_told_too() {
        let lifetime = Lifetime::default();
        assert!(!lifetime.is_leaving());
        lifetime.leave();
        assert!(lifetime.is_leaving());
        lifetime.end();
        lifetime.leave();
        lifetime.cut().await;
    }
}
