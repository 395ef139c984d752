//! What the container runtime asks about pods, and what the mesh says of them.

use crate::accept::Netns;
use crate::store::Mesh;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use warren_common::model::Workload;
use warren_common::model::cni::{Answer, PodName, Request};

/// Requests that may wait; a kubelet starts ten pods at once, or as many as it has after a reboot.
const QUEUE: usize = 256;

/// A request, with the pod's network namespace if it has one, and where the answer goes.
#[derive(Debug)]
pub(super) struct PodRequest {
    pub(super) request: Request,
    pub(super) netns: Option<Arc<Netns>>,
    /// Until when the pod may be waited for.
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Answer>,
    /// Why it is still waiting.
    pub(super) reason: String,
}

/// The way to the pod manager for whoever knows of a pod before the controller does.
#[derive(Clone, Debug)]
pub struct PodRequests(mpsc::Sender<PodRequest>);

impl PodRequests {
    pub(super) fn channel() -> (Self, mpsc::Receiver<PodRequest>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// Asks, and waits for the answer: at most `patience` for the controller's word or for what a capture needs.
    pub async fn ask(&self, request: Request, netns: Option<Arc<Netns>>, patience: Duration) -> Answer {
        let (answer, answered) = oneshot::channel();
        let deadline = Instant::now() + patience;
        let request = PodRequest { request, netns, deadline, answer, reason: String::new() };
        let away = || Answer::NotYet("the agent is shutting down; the next one will answer".to_owned());
        match self.0.send(request).await {
            Ok(()) => answered.await.unwrap_or_else(|_| away()),
            Err(_) => away(),
        }
    }
}

/// What the mesh says of a pod that starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Nothing yet.
    Unknown,
    /// It is to be left alone.
    NotInMesh,
    /// It is to be enrolled.
    Enrol(Arc<Workload>),
}

/// Looks a pod of the node up. A pod of the same name and another UID is an earlier one; without a UID it is one that
/// has an address already.
pub(super) fn word(mesh: &Mesh, node: &str, pod: &PodName) -> Word {
    let is_it = |workload: &&Arc<Workload>| {
        let uid = &workload.enrolment.pod_uid;
        *workload.namespace == *pod.namespace
            && *workload.name == *pod.name
            && if pod.uid.is_empty() { workload.addresses.is_empty() } else { **uid == *pod.uid }
    };
    match mesh.pods_of_node(node).find(is_it) {
        None => Word::Unknown,
        Some(workload) if workload.enrolment.enrolled && !workload.host_network => {
            Word::Enrol(Arc::clone(workload))
        }
        Some(_) => Word::NotInMesh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::testing::pod;
    use crate::store::MeshChange;

    #[test]
    fn a_pod_is_known_by_its_uid() {
        let web = pod("web", "u1", &[], true);
        let mut mesh = Mesh::default();
        mesh.apply([
            MeshChange::Workload(Arc::clone(&web)),
            MeshChange::Workload(pod("db", "u2", &[], false)),
            MeshChange::Workload(pod("old", "u3", &[[10, 0, 0, 1].into()], true)),
        ]);
        for (node, name, uid, expected) in [
            ("n1", "web", "u1", Word::Enrol(Arc::clone(&web))),
            ("n1", "web", "", Word::Enrol(web)),
            ("n1", "web", "u9", Word::Unknown),
            ("n2", "web", "u1", Word::Unknown),
            ("n1", "db", "u2", Word::NotInMesh),
            ("n1", "old", "", Word::Unknown),
            ("n1", "none", "u1", Word::Unknown),
        ] {
            let asked = PodName { namespace: "shop".into(), name: name.into(), uid: uid.into() };
            assert_eq!(word(&mesh, node, &asked), expected, "{name} {uid} on {node}");
        }
    }
}
