//! From a pod's listeners to its stories: accepts on the pod's worker and hands each connection to the least
//! busy one. Whoever is one too many is turned away here, before anything was done for them.

use crate::accept::{Accepted, Listener};
use crate::context::Context;
use crate::limits::{Exceeded, Limits};
use crate::observe::{FlowFlag, Observer};
use crate::pods::{Door, Pod, PodDoor, PodListeners};
use crate::workers::Workers;
use crate::{inbound, outbound};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::watch;
use warren_common::model::admin::{Direction, Transport};

/// The doors of all pods of this node.
#[derive(Clone)]
pub(crate) struct Doors {
    workers: Workers<Context>,
    limits: Limits,
    observer: Observer,
}

impl Doors {
    /// Doors that lead to `workers`.
    pub(crate) fn new(workers: Workers<Context>, limits: Limits, observer: Observer) -> Self {
        Self { workers, limits, observer }
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
        let uid = &pod.workload.uid;
        let admitted = match door {
            Door::Outbound | Door::Plaintext => self.limits.connection(uid),
            Door::Hbone => self.limits.handshake(uid, accepted.peer.ip()),
        };
        let ticket = match admitted {
            Ok(ticket) => ticket,
            // Dropping the socket resets the connection.
            Err(exceeded) => return self.turn_away(door, pod, &accepted, exceeded),
        };
        let (pod, open) = (Arc::clone(pod), open.clone());
        // Each story is a task of its own kind: a quiet connection takes its own room, not that of the largest.
        self.workers.run_connection(move |context: Rc<Context>, seat| match door {
            Door::Outbound => spawn(async move {
                outbound::serve(context, pod, accepted, open).await;
                drop((ticket, seat));
            }),
            Door::Plaintext => spawn(async move {
                inbound::serve_plaintext(context, pod, accepted).await;
                drop((ticket, seat));
            }),
            Door::Hbone => spawn(async move {
                inbound::serve_hbone(context, pod, accepted, open, ticket).await;
                drop(seat);
            }),
        });
    }

    fn turn_away(&self, door: Door, pod: &Pod, accepted: &Accepted, exceeded: Exceeded) {
        if !exceeded.tell {
            return;
        }
        let begin = |direction, client| self.observer.begin(direction, Some(client), None);
        let flow = match door {
            Door::Outbound => {
                let flow = begin(Direction::Outbound, pod.client_address(accepted.peer));
                flow.source_workload(&pod.workload);
                flow
            }
            Door::Plaintext | Door::Hbone => {
                let flow = begin(Direction::Inbound, accepted.peer);
                flow.destination_workload(&pod.workload);
                flow.transport(if matches!(door, Door::Hbone) {
                    Transport::Hbone
                } else {
                    Transport::Plaintext
                });
                flow
            }
        };
        flow.fail(FlowFlag::Overload, exceeded);
    }
}

/// On the worker that the connection was given to.
fn spawn(story: impl Future<Output = ()> + 'static) {
    tokio::task::spawn_local(story);
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
