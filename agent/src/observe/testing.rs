//! What the tests of this room share.

use super::{FlowHandle, ObserveConfig, Observer};
use std::sync::Arc;
use warren_common::model::admin::{Direction, Transport, Verdict};
use warren_common::model::{
    AppProtocol, Enrolment, Health, Identity, PeerAuthentication, Placement, PortMapping, Service,
    ServiceName, ServiceOrigin, ServicePort, Steering, TunnelProtocol, Workload, WorkloadKind, WorkloadUid,
};

pub(super) fn observer(flow_ring: usize) -> Observer {
    Observer::new(ObserveConfig { node: "node-a".into(), flow_ring, access_log: true })
}

pub(super) fn identity(account: &str) -> Identity {
    Identity::new("cluster.local", "shop", account).unwrap()
}

pub(super) fn workload(owner: &str) -> Arc<Workload> {
    let web = ServiceName { namespace: "shop".into(), hostname: "web.shop.svc.cluster.local".into() };
    let mapping = PortMapping { service_port: 80, target_port: 8080 };
    Arc::new(Workload {
        uid: WorkloadUid(format!("Kubernetes//Pod/shop/{owner}-1").into()),
        name: format!("{owner}-1").into(),
        namespace: "shop".into(),
        addresses: vec![],
        identity: identity(owner),
        node: "node-a".into(),
        host_network: false,
        tunnel: TunnelProtocol::Hbone,
        health: Health::Healthy,
        owner: owner.into(),
        kind: WorkloadKind::Deployment,
        canonical_name: owner.into(),
        canonical_revision: "v1".into(),
        cluster: "Kubernetes".into(),
        services: Arc::new([(web, vec![mapping])].into()),
        labels: Arc::new([("app".into(), owner.into()), ("version".into(), "v1".into())].into()),
        enrolment: Enrolment::default(),
        peer_authentication: PeerAuthentication::default(),
        authorization_policies: Vec::new(),
        placement: Placement::default(),
    })
}

pub(super) fn service() -> Service {
    Service {
        name: "web".into(),
        key: ServiceName { namespace: "shop".into(), hostname: "web.shop.svc.cluster.local".into() },
        addresses: vec!["10.96.0.7".parse().unwrap()],
        ports: vec![ServicePort {
            service_port: 80,
            target_port: 8080,
            target_port_name: None,
            app_protocol: AppProtocol::Unknown,
        }],
        publish_not_ready: false,
        steering: Steering::default(),
        origin: ServiceOrigin::default(),
    }
}

/// client -> web over HBONE, permitted, not established yet.
pub(super) fn call(observer: &Observer) -> FlowHandle {
    let source = Some("10.0.1.2:40000".parse().unwrap());
    let flow = observer.begin(Direction::Outbound, source, Some("10.96.0.7:80".parse().unwrap()));
    flow.source_workload(&workload("client"));
    flow.source_identity(&identity("client"));
    flow.service(&service());
    flow.endpoint("10.0.2.3:8080".parse().unwrap());
    flow.destination_workload(&workload("web"));
    flow.destination_identity(&identity("web"));
    flow.transport(Transport::Hbone);
    flow.verdict(Verdict::Allowed, &"shop/allow-client".into());
    flow
}

/// The lines of the metrics that start with `prefix`.
pub(super) fn metric(observer: &Observer, prefix: &str) -> Vec<String> {
    observer.encode_metrics().lines().filter(|line| line.starts_with(prefix)).map(str::to_owned).collect()
}
