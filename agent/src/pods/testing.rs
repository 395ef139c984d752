//! Pods to test with.

use super::lifetime::Lifetime;
use super::{Pod, PodRegistry};
use crate::accept::{Netns, NetnsThread, PodSockets};
use std::net::IpAddr;
use std::sync::Arc;
use warren_common::model::{
    Enrolment, Health, Identity, PeerAuthentication, Placement, TunnelProtocol, Workload, WorkloadKind,
    WorkloadUid,
};

/// The pod `shop/<name>` on node n1.
pub(crate) fn pod(name: &str, uid: &str, addresses: &[IpAddr], enrolled: bool) -> Arc<Workload> {
    Arc::new(Workload {
        uid: WorkloadUid(format!("Kubernetes//Pod/shop/{name}").into()),
        name: name.into(),
        namespace: "shop".into(),
        addresses: addresses.to_vec(),
        identity: Identity::new("cluster.local", "shop", "web").unwrap(),
        node: "n1".into(),
        host_network: false,
        tunnel: TunnelProtocol::Hbone,
        health: Health::Unhealthy,
        owner: name.into(),
        kind: WorkloadKind::Pod,
        canonical_name: name.into(),
        canonical_revision: "v1".into(),
        cluster: "Kubernetes".into(),
        services: Arc::default(),
        labels: Arc::default(),
        peer_authentication: PeerAuthentication::default(),
        authorization_policies: Vec::new(),
        placement: Placement::default(),
        enrolment: Enrolment { pod_uid: uid.into(), enrolled, ..Enrolment::default() },
    })
}

/// Enrols a pod whose network namespace is that of the test.
pub(crate) fn enrolled_pod(pods: &PodRegistry, workload: &Arc<Workload>) {
    let netns = Netns::open(std::path::Path::new("/proc/self/ns/net")).unwrap();
    let sockets = PodSockets::new(NetnsThread::spawn().unwrap(), Arc::new(netns));
    let (workload, lifetime) = (Arc::clone(workload), Lifetime::default());
    pods.insert(&Arc::new(Pod { workload, cookie: 1, sockets, lifetime }));
}
