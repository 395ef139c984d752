use super::*;
use crate::store::MeshChange;
use proptest::prelude::*;
use std::collections::BTreeMap;
use warren_common::model::{
    AppProtocol, Enrolment, PeerAuthentication, PortMapping, ServiceName, ServicePort, WorkloadKind,
    WorkloadUid,
};

fn service_name() -> ServiceName {
    ServiceName { namespace: "shop".into(), hostname: "web.shop.svc.cluster.local".into() }
}

fn workload(name: &str, node: &str, ips: &[&str], tunnel: TunnelProtocol, health: Health) -> Workload {
    let services =
        BTreeMap::from([(service_name(), vec![PortMapping { service_port: 80, target_port: 8080 }])]);
    Workload {
        uid: WorkloadUid(format!("Kubernetes//Pod/shop/{name}").into()),
        name: name.into(),
        namespace: "shop".into(),
        addresses: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        identity: Identity::new("cluster.local", "shop", "web").unwrap(),
        node: node.into(),
        host_network: false,
        tunnel,
        health,
        owner: "web".into(),
        kind: WorkloadKind::Deployment,
        canonical_name: "web".into(),
        canonical_revision: "latest".into(),
        cluster: "Kubernetes".into(),
        services,
        labels: BTreeMap::new(),
        enrolment: Enrolment { pod_uid: name.into(), enrolled: true, ..Enrolment::default() },
        peer_authentication: PeerAuthentication::default(),
    }
}

fn mesh(workloads: Vec<Workload>) -> Mesh {
    let service = Service {
        name: "web".into(),
        key: service_name(),
        addresses: vec!["10.96.0.1".parse().unwrap(), "fd00:96::1".parse().unwrap()],
        ports: vec![ServicePort {
            service_port: 80,
            target_port: 8080,
            target_port_name: None,
            app_protocol: AppProtocol::Unknown,
        }],
        publish_not_ready: false,
    };
    let mut mesh = Mesh::default();
    mesh.apply([MeshChange::Service(Arc::new(service))]);
    mesh.apply(workloads.into_iter().map(|w| MeshChange::Workload(Arc::new(w))));
    mesh
}

fn go(mesh: &Mesh, to: &str) -> Result<Target, RouteError> {
    resolve(mesh, "n1", to.parse().unwrap(), &Choice { entropy: 7, avoid: &[] })
}

use Health::{Healthy, Unhealthy};
use TunnelProtocol::{Hbone, None as Plain};

#[test]
fn every_kind_of_target() {
    let mesh = mesh(vec![
        workload("local", "n1", &["10.0.1.1"], Hbone, Unhealthy),
        workload("remote", "n2", &["10.0.2.1", "fd00::2:1"], Hbone, Healthy),
        workload("outside", "n2", &["10.0.2.9"], Plain, Unhealthy),
    ]);
    let hop = |to| go(&mesh, to).map(|t| (t.address.to_string(), t.hop));
    let hbone = |gateway: &str| Hop::Hbone {
        gateway: gateway.parse().unwrap(),
        identity: Identity::new("cluster.local", "shop", "web").unwrap(),
    };
    assert_eq!(hop("10.0.1.1:9"), Ok(("10.0.1.1:9".into(), Hop::SameNode)), "health does not matter by IP");
    assert_eq!(hop("10.0.2.1:9"), Ok(("10.0.2.1:9".into(), hbone("10.0.2.1:15008"))));
    assert_eq!(hop("10.0.2.9:9"), Ok(("10.0.2.9:9".into(), Hop::Plaintext)));
    assert_eq!(hop("192.0.2.1:443"), Ok(("192.0.2.1:443".into(), Hop::Plaintext)), "unknown: as it is");
    assert_eq!(hop("10.96.0.1:80"), Ok(("10.0.2.1:8080".into(), hbone("10.0.2.1:15008"))));
    assert_eq!(hop("[fd00:96::1]:80"), Ok(("[fd00::2:1]:8080".into(), hbone("[fd00::2:1]:15008"))));
}

#[test]
fn what_has_nowhere_to_go() {
    let mesh = mesh(vec![workload("sick", "n2", &["10.0.2.1"], Hbone, Unhealthy)]);
    assert!(matches!(go(&mesh, "10.96.0.1:81"), Err(RouteError::NoSuchPort { port: 81, .. })));
    assert!(matches!(go(&mesh, "10.96.0.1:80"), Err(RouteError::NoHealthyEndpoint { known: 1, .. })));
    for port in [15001, 15006, 15008] {
        assert_eq!(go(&mesh, &format!("10.0.2.1:{port}")).unwrap_err(), RouteError::ReservedPort(port));
    }
}

#[test]
fn failed_endpoints_are_avoided() {
    let mesh = mesh(vec![
        workload("a", "n2", &["10.0.2.1"], Hbone, Healthy),
        workload("b", "n2", &["10.0.2.2"], Hbone, Healthy),
    ]);
    let avoid = ["10.0.2.1:8080".parse().unwrap()];
    for entropy in 0..50 {
        let target =
            resolve(&mesh, "n1", "10.96.0.1:80".parse().unwrap(), &Choice { entropy, avoid: &avoid })
                .unwrap();
        assert_eq!(target.address.to_string(), "10.0.2.2:8080");
    }
}

proptest! {
    /// An endpoint is found exactly when there is one, and it is healthy and not avoided.
    #[test]
    fn finds_an_endpoint_iff_there_is_one(healthy in proptest::collection::vec(any::<bool>(), 1..40), entropy: u64, skip in 0usize..40) {
        let all: Vec<_> = healthy.iter().enumerate()
            .map(|(i, up)| workload(&format!("w{i}"), "n2", &[&format!("10.0.2.{}", i + 1)], Hbone, if *up { Healthy } else { Unhealthy }))
            .collect();
        let avoid: Vec<SocketAddr> = vec![format!("10.0.2.{}:8080", skip + 1).parse().unwrap()];
        let usable = healthy.iter().enumerate().filter(|(i, up)| **up && *i != skip).count();
        let result = resolve(&mesh(all), "n1", "10.96.0.1:80".parse().unwrap(), &Choice { entropy, avoid: &avoid });
        match result {
            Ok(target) => {
                prop_assert!(usable > 0 && !avoid.contains(&target.address));
                prop_assert_eq!(target.workload.unwrap().health, Healthy);
            }
            Err(error) => prop_assert!(usable == 0, "{error}"),
        }
    }
}
