//! Pods that start and end, as the container runtime tells: enrolled before their first process runs.

use super::{EnrolError, PodManager};
use crate::accept::PodSockets;
use crate::pods::request::{PodRequest, Word, word};
use crate::store::Mesh;
use std::sync::Arc;
use tokio::time::Instant;
use warren_common::model::Workload;
use warren_common::model::admin::ControllerStatus;
use warren_common::model::cni::{Answer, Command};

impl PodManager {
    /// Answers what can be answered. Returns whether a request still waits.
    pub(super) async fn answer_requests(&mut self, controller: &ControllerStatus) -> bool {
        let mesh = self.store.load();
        for mut request in std::mem::take(&mut self.waiting) {
            if request.answer.is_closed() {
                continue;
            }
            let answer = match request.request.command {
                Command::Add => self.add(&mesh, controller, &mut request).await,
                Command::Del => Some(self.delete(&request.request.container_id)),
                Command::Check => Some(self.check(&mesh, &request).await),
            };
            match answer {
                // Whoever gave up does not want it.
                Some(answer) => drop(request.answer.send(answer)),
                None => self.waiting.push(request),
            }
        }
        !self.waiting.is_empty()
    }

    async fn add(
        &mut self,
        mesh: &Arc<Mesh>,
        controller: &ControllerStatus,
        request: &mut PodRequest,
    ) -> Option<Answer> {
        let pod = &request.request.pod;
        let expired = Instant::now() >= request.deadline;
        match word(mesh, &self.config.node, pod) {
            Word::NotInMesh => Some(Answer::NotInMesh),
            Word::Enrol(workload) => match self.enrol_sandbox(request, &workload).await {
                Ok(()) => Some(Answer::Done),
                Err(error) => {
                    request.reason = format!("pod cannot be enrolled: {error}");
                    expired.then(|| Answer::NotYet(request.reason.clone()))
                }
            },
            Word::Unknown if self.offline.enrols(&pod.namespace) => {
                if request.reason.is_empty() {
                    request.reason = unknown(controller);
                }
                expired.then(|| Answer::NotYet(request.reason.clone()))
            }
            // The mesh must not hold up what is not in it. A pod that enters by its own label is enrolled as soon as
            // the controller tells of it.
            Word::Unknown if expired || !controller.connected => {
                tracing::warn!(pod = %pod.name, namespace = %pod.namespace, controller.connected, "a pod of a namespace that is not enrolled starts before the controller has told of it");
                Some(Answer::NotInMesh)
            }
            Word::Unknown => None,
        }
    }

    /// Enrols a pod in the network namespace that the runtime has made for it.
    async fn enrol_sandbox(
        &mut self,
        request: &PodRequest,
        workload: &Arc<Workload>,
    ) -> Result<(), EnrolError> {
        let netns = request.netns.as_ref().ok_or(EnrolError::NoSandbox)?;
        let addresses = &request.request.addresses;
        if addresses.is_empty() {
            return Err(EnrolError::NoSandbox);
        }
        if self.discovery.is_node(netns) {
            return Err(super::super::discover::DiscoverError::HostNetwork.into());
        }
        let uid = &workload.enrolment.pod_uid;
        let effective = Arc::new(Workload { addresses: addresses.clone(), ..Workload::clone(workload) });
        let cookie = self.verify(netns, &effective).await?;
        self.not_taken(uid, cookie)?;
        let same = |enrolled: &super::EnrolledPod| {
            enrolled.pod.cookie == cookie && super::same_pod(&effective, &enrolled.pod.workload)
        };
        if !self.enrolled.get(uid).is_some_and(same) {
            // Its sandbox is made anew, and nothing of the old one is left.
            self.release(uid, true);
            self.enrol_in(uid, &effective, Arc::clone(netns), cookie).await?;
        }
        // With what the controller tells now: that is what is outdated.
        self.sandboxes.add(workload, &request.request.container_id, addresses);
        Ok(())
    }

    fn delete(&mut self, container_id: &str) -> Answer {
        if let Some(uid) = self.sandboxes.remove(container_id) {
            self.release(&uid, true);
        }
        Answer::Done
    }

    /// Whether a pod that should be captured is, in this very namespace.
    async fn check(&self, mesh: &Mesh, request: &PodRequest) -> Answer {
        let workload = match word(mesh, &self.config.node, &request.request.pod) {
            Word::Enrol(workload) => workload,
            Word::NotInMesh | Word::Unknown => return Answer::NotInMesh,
        };
        let Some(enrolled) = self.enrolled.get(&workload.enrolment.pod_uid) else {
            return Answer::NotYet("the pod is not enrolled; see `warren status`".to_owned());
        };
        let Some(netns) = &request.netns else { return Answer::Done };
        let probe = PodSockets::new(self.thread.clone(), Arc::clone(netns));
        match probe.verify_addresses(enrolled.pod.workload.addresses.clone()).await {
            Ok(cookie) if cookie == enrolled.pod.cookie => Answer::Done,
            Ok(_) => Answer::NotYet("the pod is enrolled in another network namespace".to_owned()),
            Err(error) => {
                Answer::NotYet(format!("the pod's network namespace has lost its address: {error}"))
            }
        }
    }
}

fn unknown(controller: &ControllerStatus) -> String {
    let problem = match &controller.last_error {
        _ if controller.connected => "it is connected; does it see the pod?",
        Some(error) => error,
        None => "no session with it yet",
    };
    format!("the controller has not told this node of the pod yet ({problem}); see `warren status`")
}
