//! From a pod's listeners to its stories: accepts on the pod's worker and hands each connection to the least
//! busy one.

use crate::accept::{Accepted, Listener};
use crate::context::Context;
use crate::pods::{Door, Pod, PodDoor, PodListeners};
use crate::workers::Workers;
use crate::{inbound, outbound};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::watch;

/// The doors of all pods of this node.
#[derive(Clone)]
pub(crate) struct Doors {
    workers: Workers<Context>,
}

impl Doors {
    /// Doors that lead to `workers`.
    pub(crate) fn new(workers: Workers<Context>) -> Self {
        Self { workers }
    }

    fn open(&self, door: Door, pod: &Arc<Pod>, listener: Listener, open: &watch::Receiver<()>) {
        let (doors, pod, open) = (self.clone(), Arc::clone(pod), open.clone());
        self.workers.run_keyed(pod.cookie, move |_| {
            tokio::task::spawn_local(async move {
                let mut closed = open.clone();
                // The sender is never used, only dropped.
                let closing = async move { while closed.changed().await.is_ok() {} };
                let accepting = listener.accept_loop(closing, |accepted| doors.enter(door, &pod, accepted, &open));
                if let Err(error) = accepting.await {
                    tracing::error!(pod = %pod.workload.name, ?door, %error, "a listener of the pod failed; its connections fail closed");
                }
            });
        });
    }

    fn enter(&self, door: Door, pod: &Arc<Pod>, accepted: Accepted, open: &watch::Receiver<()>) {
        let (pod, open) = (Arc::clone(pod), open.clone());
        self.workers.run_connection(move |context: Rc<Context>, seat| {
            tokio::task::spawn_local(async move {
                match door {
                    Door::Outbound => outbound::serve(context, pod, accepted).await,
                    Door::Plaintext => inbound::serve_plaintext(context, pod, accepted).await,
                    Door::Hbone => inbound::serve_hbone(context, pod, accepted, open).await,
                }
                drop(seat);
            });
        });
    }
}

impl PodDoor for Doors {
    fn serve(&self, pod: &Arc<Pod>, listeners: PodListeners, open: watch::Receiver<()>) {
        let PodListeners { outbound, plaintext, hbone } = listeners;
        let doors = [(Door::Outbound, outbound), (Door::Plaintext, plaintext), (Door::Hbone, hbone)];
        for (door, listeners) in doors {
            for listener in listeners {
                self.open(door, pod, listener, &open);
            }
        }
    }
}
