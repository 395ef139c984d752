use super::*;
use crate::store::MeshChange;
use proptest::prelude::*;
use std::collections::BTreeMap;
use warren_common::model::{
    AppProtocol, Enrolment, Health, Hints, Locality, PeerAuthentication, Placement, PortMapping, Scope,
    ServiceName, ServiceOrigin, ServicePort, Steering, WorkloadKind,
};

fn service_name() -> ServiceName {
    ServiceName { namespace: "shop".into(), hostname: "web.shop.svc.cluster.local".into() }
}

pub(super) fn workload(
    name: &str,
    node: &str,
    ips: &[&str],
    tunnel: TunnelProtocol,
    health: Health,
) -> Workload {
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
        services: Arc::new(services),
        labels: Arc::default(),
        enrolment: Enrolment { pod_uid: name.into(), enrolled: true, ..Enrolment::default() },
        peer_authentication: PeerAuthentication::default(),
        authorization_policies: Vec::new(),
        placement: Placement::default(),
    }
}

pub(super) fn service() -> Service {
    Service {
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
        steering: Steering::default(),
        origin: ServiceOrigin::default(),
    }
}

fn mesh(workloads: Vec<Workload>) -> Mesh {
    mesh_of(service(), workloads)
}

pub(super) fn mesh_of(service: Service, workloads: Vec<Workload>) -> Mesh {
    let mut mesh = Mesh::default();
    mesh.apply([MeshChange::Service(Arc::new(service))]);
    mesh.apply(workloads.into_iter().map(|w| MeshChange::Workload(Arc::new(w))));
    mesh
}

/// A pod of n1.
pub(super) fn client() -> Workload {
    Workload { services: Arc::default(), ..workload("client", "n1", &["10.0.1.9"], Hbone, Healthy) }
}

pub(super) fn choice(entropy: u64) -> Choice<'static> {
    Choice { entropy, avoid: &[], sticky: None, doubts: Doubts::default() }
}

pub(super) fn go(mesh: &Mesh, to: &str) -> Result<Target, RouteError> {
    resolve(mesh, &client(), to.parse().unwrap(), &choice(7))
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
    let avoid = [WorkloadUid("Kubernetes//Pod/shop/a".into())];
    for entropy in 0..50 {
        let choice = Choice { avoid: &avoid, ..choice(entropy) };
        let target = resolve(&mesh, &client(), "10.96.0.1:80".parse().unwrap(), &choice).unwrap();
        assert_eq!(target.address.to_string(), "10.0.2.2:8080");
    }
}

/// Which endpoints are chosen over many tries, in the order of their names.
fn chosen(mesh: &Mesh, client: &Workload) -> Vec<String> {
    let dialled = "10.96.0.1:80".parse().unwrap();
    let one = |entropy| {
        resolve(mesh, client, dialled, &choice(entropy)).unwrap().workload.unwrap().name.to_string()
    };
    let mut names: Vec<_> = (0..200).map(one).collect();
    names.sort();
    names.dedup();
    names
}

fn at(mut workload: Workload, zone: &str) -> Workload {
    workload.placement.locality = Locality { region: "r".into(), zone: zone.into(), subzone: "".into() };
    workload
}

fn steered(mode: Mode, scopes: &[Scope]) -> Service {
    Service { steering: Steering { mode, scopes: scopes.to_vec(), affinity_s: None }, ..service() }
}

/// Endpoints `a` on the client's node, `b` in its zone, `c` and `d` elsewhere, in health as given.
fn four(health: [Health; 4]) -> Vec<Workload> {
    let places = [("a", "n1", "z1"), ("b", "n2", "z1"), ("c", "n3", "z2"), ("d", "n4", "z2")];
    let make = |(number, (name, node, zone)): (usize, (&str, &str, &str))| {
        at(workload(name, node, &[&format!("10.0.2.{number}")], Hbone, health[number]), zone)
    };
    places.into_iter().enumerate().map(make).collect()
}

#[test]
fn nearness_readiness_and_policy_decide() {
    use Health::Terminating;
    use Mode::{Any, Failover, Strict};
    const ZONE: &[Scope] = &[Scope::Network, Scope::Region, Scope::Zone];
    const NODE: &[Scope] = &[Scope::Network, Scope::Region, Scope::Zone, Scope::Subzone, Scope::Node];
    let (up, down, ending) = (Healthy, Unhealthy, Terminating);
    for (mode, scopes, health, expected) in [
        (Any, &[][..], [up, up, up, up], "abcd"),
        (Any, &[], [down, up, down, up], "bd"),
        (Any, &[], [ending, up, ending, down], "b"),
        (Any, &[], [ending, down, ending, down], "ac"),
        (Failover, ZONE, [up, up, up, up], "ab"),
        (Failover, ZONE, [up, down, up, up], "a"),
        (Failover, ZONE, [down, down, up, up], "cd"),
        (Failover, ZONE, [ending, down, up, up], "cd"),
        (Failover, &[Scope::Node], [up, up, up, up], "a"),
        (Failover, &[Scope::Node], [down, up, up, up], "bcd"),
        // No node has a subzone: all have the same.
        (Failover, NODE, [up, up, up, up], "a"),
        (Failover, NODE, [down, up, up, up], "b"),
        (Failover, NODE, [down, down, up, up], "cd"),
        (Strict, &[Scope::Node], [up, up, up, up], "a"),
        (Strict, &[Scope::Node], [ending, up, up, up], "a"),
    ] {
        let mesh = mesh_of(steered(mode, scopes), four(health));
        assert_eq!(chosen(&mesh, &at(client(), "z1")).concat(), expected, "{mode:?} {scopes:?} {health:?}");
    }
    let mesh = mesh_of(steered(Strict, &[Scope::Node]), four([down, up, up, up]));
    let refused = resolve(&mesh, &client(), "10.96.0.1:80".parse().unwrap(), &choice(1)).unwrap_err();
    assert!(matches!(&refused, RouteError::NoLocalEndpoint { known: 4, .. }), "{refused}");
    assert!(refused.to_string().contains("internalTrafficPolicy is Local"), "{refused}");
}

#[test]
fn hints_keep_to_their_clients() {
    let hinted = |zones: [&[&str]; 4], node: Option<&str>| {
        let mut all = four([Healthy; 4]);
        for (workload, zones) in all.iter_mut().zip(zones) {
            let zones = zones.iter().map(|zone| (*zone).into()).collect();
            let nodes = node.map(Into::into).into_iter().collect();
            workload.placement.hints = [(service_name(), Hints { zones, nodes })].into();
        }
        mesh_of(service(), all)
    };
    let client = at(client(), "z1");
    for (mesh, expected) in [
        (hinted([&["z1"], &["z1"], &["z2"], &["z2"]], None), "ab"),
        (hinted([&["z2"], &["z2"], &["z1", "z2"], &["z2"]], None), "c"),
        (hinted([&["z2"]; 4], None), "abcd"),
        (hinted([&["z2"], &["z2"], &[], &[]], None), "cd"),
        (hinted([&[]; 4], Some("n9")), "abcd"),
    ] {
        assert_eq!(chosen(&mesh, &client).concat(), expected);
    }
    let mut mesh = hinted([&["z1"], &["z1"], &["z2"], &["z2"]], None);
    let mut local = Workload::clone(mesh.workload_by_ip("10.0.2.0".parse().unwrap()).unwrap());
    local.placement.hints = [(service_name(), Hints { zones: vec![], nodes: vec!["n1".into()] })].into();
    local.health = Unhealthy;
    mesh.apply([MeshChange::Workload(Arc::new(local))]);
    assert_eq!(chosen(&mesh, &client), ["b"]);
}

#[test]
fn weights_share_connections_out() {
    let weighted = |name: &str, ip: &str, weight| {
        let mut workload = workload(name, "n2", &[ip], Hbone, Healthy);
        workload.placement.weight = weight;
        workload
    };
    let mesh = mesh(vec![weighted("a", "10.0.2.1", 9), weighted("b", "10.0.2.2", 1)]);
    let dialled = "10.96.0.1:80".parse().unwrap();
    let to_a = |entropy: &u64| {
        &*resolve(&mesh, &client(), dialled, &choice(*entropy)).unwrap().workload.unwrap().name == "a"
    };
    assert_eq!((0..1000).filter(to_a).count(), 900);
}

#[test]
fn clients_with_affinity_return() {
    let mut affine = service();
    affine.steering.affinity_s = Some(60);
    let endpoints = |count: usize| {
        (0..count)
            .map(|n| workload(&format!("w{n}"), "n2", &[&format!("10.0.2.{n}")], Hbone, Healthy))
            .collect()
    };
    let small = mesh_of(affine.clone(), endpoints(40));
    let larger = mesh_of(affine, endpoints(41));
    let clients: Vec<_> =
        (0..50).map(|n| Workload { uid: WorkloadUid(format!("c{n}").into()), ..client() }).collect();
    let own: Vec<_> = clients.iter().map(|client| chosen(&small, client)).collect();
    assert!(own.iter().all(|names| names.len() == 1), "one client, one endpoint");
    assert!(own.iter().collect::<std::collections::BTreeSet<_>>().len() > 20, "clients are spread");
    let moved = clients.iter().zip(&own).filter(|(client, own)| chosen(&larger, client) != **own).count();
    assert!(moved <= 5, "{moved} of 50 clients moved for one new endpoint");
    // The endpoint it had last, while that is ready.
    let last = WorkloadUid("Kubernetes//Pod/shop/w7".into());
    let dialled = "10.96.0.1:80".parse().unwrap();
    let sticky = |avoid: &[WorkloadUid]| {
        let choice = Choice { sticky: Some(&last), avoid, ..choice(1) };
        resolve(&small, &clients[0], dialled, &choice).unwrap().workload.unwrap().uid.clone()
    };
    assert_eq!(sticky(&[]), last);
    assert_ne!(sticky(std::slice::from_ref(&last)), last);
}

#[test]
fn services_without_addresses_names_and_what_passes_through() {
    let headless = Service { addresses: vec![], ..service() };
    let pods = vec![workload("db-0", "n2", &["10.0.2.1"], Hbone, Healthy)];
    let target = go(&mesh_of(headless, pods), "10.0.2.1:8080").unwrap();
    assert_eq!(target.service.map(|service| service.name.clone()), Some("web".into()));
    let through = mesh_of(steered(Mode::Passthrough, &[]), vec![]);
    let target = go(&through, "10.96.0.1:81").unwrap();
    assert_eq!((target.address.to_string(), target.hop), ("10.96.0.1:81".into(), Hop::Plaintext));
    assert!(target.service.is_some());
    let mut named = workload("db", "", &[], Plain, Healthy);
    named.placement.hostname = Some("db.example.com".into());
    let target = go(&mesh_of(service(), vec![named.clone()]), "10.96.0.1:80").unwrap();
    assert_eq!((target.address.port(), target.hop), (8080, Hop::Named("db.example.com".into())));
    named.placement.hostname = None;
    let refused = go(&mesh_of(service(), vec![named]), "10.96.0.1:80").unwrap_err();
    assert!(matches!(refused, RouteError::NoAddress { .. }));
}

#[test]
fn what_was_dialled_for_another_does_not_pass_through() {
    let mut through = steered(Mode::Passthrough, &[]);
    through.key.hostname = "api.example.com".into();
    through.addresses = vec!["240.0.0.1".parse().unwrap()];
    let mut mesh = mesh(vec![workload("web", "n2", &["10.0.2.1"], Hbone, Healthy)]);
    mesh.apply([MeshChange::Service(Arc::new(through.clone()))]);
    let through = Arc::new(through);
    let of = |mesh: &Mesh, dialled: &str| {
        let backend = Backend { service: &through, port: 80, subset: None, own: false };
        resolve_backend(mesh, &client(), &backend, SocketAddr::new(dialled.parse().unwrap(), 0), &choice(1))
    };
    for own in ["240.0.0.1", "203.0.113.9"] {
        let target = of(&mesh, own).unwrap();
        assert_eq!((target.address.ip().to_string(), target.hop), (own.into(), Hop::Plaintext));
    }
    for other in ["10.96.0.1", "10.0.2.1"] {
        let refused = of(&mesh, other).unwrap_err();
        assert!(matches!(refused, RouteError::NotItsOwn { .. }), "{other}: {refused}");
        assert!(refused.to_string().contains("resolution NONE"), "{refused}");
    }
}

#[test]
fn services_are_for_those_they_are_exported_to() {
    let mut private = service();
    private.key.namespace = "bank".into();
    private.origin.exported_to = Some(vec!["bank".into()]);
    let mut mesh = mesh(vec![workload("web", "n2", &["10.0.2.1"], Hbone, Healthy)]);
    mesh.apply([MeshChange::Service(Arc::new(private.clone()))]);
    let of = |namespace: &str| Workload { namespace: namespace.into(), ..client() };
    let ip = "10.96.0.1".parse().unwrap();
    let seen = |namespace: &str| service_at(&mesh, &of(namespace), ip).unwrap().key.namespace.to_string();
    assert_eq!((seen("shop"), seen("bank"), seen("other")), ("shop".into(), "bank".into(), "shop".into()));
    let alone = mesh_of(private, vec![]);
    let target = resolve(&alone, &of("shop"), "10.96.0.1:80".parse().unwrap(), &choice(1)).unwrap();
    assert!(target.service.is_none() && target.hop == Hop::Plaintext, "as if it did not exist");
}

proptest! {
    /// An endpoint is found exactly when there is one, and it is healthy and not avoided.
    #[test]
    fn finds_an_endpoint_iff_there_is_one(healthy in proptest::collection::vec(any::<bool>(), 1..40), entropy: u64, skip in 0usize..40) {
        let all: Vec<_> = healthy.iter().enumerate()
            .map(|(i, up)| workload(&format!("w{i}"), "n2", &[&format!("10.0.2.{}", i + 1)], Hbone, if *up { Healthy } else { Unhealthy }))
            .collect();
        let avoid = vec![WorkloadUid(format!("Kubernetes//Pod/shop/w{skip}").into())];
        let usable = healthy.iter().enumerate().filter(|(i, up)| **up && *i != skip).count();
        let result = resolve(&mesh(all), &client(), "10.96.0.1:80".parse().unwrap(), &Choice { avoid: &avoid, ..choice(entropy) });
        match result {
            Ok(target) => {
                let workload = target.workload.unwrap();
                prop_assert!(usable > 0 && !avoid.contains(&workload.uid));
                prop_assert_eq!(workload.health, Healthy);
            }
            Err(error) => prop_assert!(usable == 0, "{error}"),
        }
    }
}
