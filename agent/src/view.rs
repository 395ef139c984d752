//! What the admin socket shows, gathered from the agent's parts.

use crate::cgroup::{KubeletCgroup, KubeletError};
use crate::context::Node;
use crate::explain::{Known, Scene, Seen, routes, why};
use crate::identity::Identities;
use crate::kernel::Kernel;
use crate::observe::{AdminView, Observer};
use crate::policy::Effective;
use crate::route::Failing;
use crate::store::Store;
use crate::xds::SharedControllerStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::watch;
use warren_common::abi::Counter;
use warren_common::model::admin::{
    Certificates, EndpointView, GuardedPod, Kubelet, PodState, PodStatus, Policies, PolicyView, Routes,
    RoutesQuestion, ServiceView, Services, Status, Why, WhyQuestion, Workloads,
};
use warren_common::model::{ServiceName, Workload, WorkloadUid};
use warren_common::runtime::Readiness;

/// The agent's parts that are worth looking at.
pub(crate) struct AgentView {
    pub(crate) started: Instant,
    pub(crate) node: Arc<str>,
    pub(crate) readiness: Readiness,
    pub(crate) controller: SharedControllerStatus,
    pub(crate) pods: watch::Receiver<Vec<PodStatus>>,
    pub(crate) store: Arc<Store>,
    pub(crate) observer: Observer,
    pub(crate) kernel: Arc<dyn Kernel>,
    pub(crate) identities: Identities,
    pub(crate) tunnels: Arc<AtomicU64>,
    pub(crate) kubelet: watch::Receiver<Result<KubeletCgroup, KubeletError>>,
    /// What the stories share.
    pub(crate) shared: Arc<Node>,
}

impl AdminView for AgentView {
    fn status(&self) -> Status {
        let mesh = self.store.load();
        let waiting_for = self.readiness.waiting_for();
        Status {
            node: Arc::clone(&self.node),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            ready: waiting_for.is_empty(),
            waiting_for,
            controller: self.controller.get().as_ref().clone(),
            pods: self.pods.borrow().clone(),
            workloads: mesh.workloads().len(),
            services: mesh.services().len(),
            open_flows: self.observer.open_count(),
            kernel: counters(&*self.kernel)
                .into_iter()
                .map(|(name, count)| (name.to_owned(), count))
                .collect(),
            tunnels: self.tunnels.load(Ordering::Relaxed),
            kubelet: match &*self.kubelet.borrow() {
                Ok(found) => Kubelet { cgroup: Some(found.path.display().to_string()), problem: None },
                Err(why) => Kubelet { cgroup: None, problem: Some(why.to_string()) },
            },
        }
    }

    fn workloads(&self) -> Workloads {
        let mut workloads: Vec<_> = self.store.load().workloads().cloned().collect();
        workloads.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Workloads { workloads }
    }

    fn services(&self) -> Services {
        let mesh = self.store.load();
        let left_out = self.shared.balances.left_out();
        let of = |service: &ServiceName, endpoint: &WorkloadUid| {
            let of_it = left_out.iter().filter(|out| out.service == *service && out.endpoint == *endpoint);
            let mut why: Vec<Arc<str>> = of_it.map(|out| out.why.as_str().into()).collect();
            why.sort();
            why
        };
        let mut services: Vec<_> = mesh
            .services()
            .map(|service| ServiceView {
                service: Arc::clone(service),
                endpoints: mesh
                    .endpoints(&service.key)
                    .map(|workload| EndpointView {
                        workload: Arc::clone(&workload.name),
                        node: Arc::clone(&workload.node),
                        addresses: workload.addresses.clone(),
                        health: workload.health,
                        left_out: of(&service.key, &workload.uid),
                    })
                    .collect(),
            })
            .collect();
        services.sort_by(|a, b| a.service.key.cmp(&b.service.key));
        Services { services }
    }

    fn policies(&self) -> Policies {
        let mesh = self.store.load();
        let held = mesh.policies();
        let pods = mesh.pods_of_node(&self.node).filter(|pod| pod.enrolment.enrolled && !pod.host_network);
        Policies {
            known: held.is_known(),
            policies: held
                .list()
                .map(|(name, policy, refused)| PolicyView {
                    name: name.clone(),
                    policy: policy.cloned(),
                    refused: refused.map(|refused| refused.why.to_string()),
                })
                .collect(),
            pods: pods
                .map(|pod| GuardedPod {
                    namespace: Arc::clone(&pod.namespace),
                    name: Arc::clone(&pod.name),
                    workload: Arc::clone(&pod.owner),
                    peer_authentication: pod.peer_authentication.clone(),
                    policies: Effective::new(held, pod).names(),
                })
                .collect(),
        }
    }

    fn certificates(&self) -> Certificates {
        self.identities.certificates()
    }

    fn why(&self, question: &WhyQuestion) -> Result<Why, String> {
        self.explain(|scene| why(scene, question).map_err(|error| error.to_string()))
    }

    fn routes(&self, question: &RoutesQuestion) -> Result<Routes, String> {
        self.explain(|scene| routes(scene, question).map_err(|error| error.to_string()))
    }
}

impl AgentView {
    /// Looks at a snapshot, which traffic goes on without.
    fn explain<T>(&self, look: impl FnOnce(&Scene<'_>) -> T) -> T {
        let mesh = self.store.load();
        look(&Scene {
            mesh: &mesh,
            node: Some(&self.node),
            known: &*self.shared,
            entropy: rand::random(),
            now: Instant::now(),
        })
    }
}

impl Known for Node {
    fn seen(&self, client: &Workload, service: &ServiceName, port: u16, subset: Option<&Arc<str>>) -> Seen {
        self.balances.seen(&client.uid, service, port, subset)
    }

    fn failing(&self) -> Failing {
        self.failing.lock().clone()
    }

    fn last(&self, client: &Workload, service: &ServiceName) -> Option<WorkloadUid> {
        self.affinity.lock().last(client, service, Instant::now()).cloned()
    }
}

/// How many pods are in which state; `captured` are those in the kernel's map, as many as are enrolled when all is well.
pub(crate) fn pod_counts(pods: &[PodStatus], kernel: &dyn Kernel) -> Vec<(&'static str, u64)> {
    let count = |state| pods.iter().filter(|pod| pod.state == state).count() as u64;
    let mut counts = vec![("enrolled", count(PodState::Enrolled)), ("pending", count(PodState::Pending))];
    match kernel.enrolled() {
        Ok(captured) => counts.push(("captured", captured.len() as u64)),
        Err(error) => tracing::warn!(%error, "cannot read which pods the kernel captures"),
    }
    counts
}

/// The kernel's counters by name.
pub(crate) fn counters(kernel: &dyn Kernel) -> Vec<(&'static str, u64)> {
    match kernel.counters() {
        Ok(values) => {
            Counter::ALL.iter().zip(values).map(|(counter, value)| (counter.name(), value)).collect()
        }
        Err(error) => {
            tracing::warn!(%error, "cannot read the kernel's counters");
            Vec::new()
        }
    }
}
