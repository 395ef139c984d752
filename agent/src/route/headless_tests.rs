//! Which service is meant by an endpoint's own address.

use super::super::tests::{choice, client, go, mesh_of, service, workload};
use super::super::{Backend, Choice, Hop, resolve_backend};
use super::*;
use crate::store::MeshChange;
use warren_common::model::Health::{Healthy, Unhealthy};
use warren_common::model::TunnelProtocol::{Hbone, None as Plain};
use warren_common::model::{PortMapping, ServiceName, ServicePort};

fn name(name: &str) -> ServiceName {
    ServiceName { namespace: "shop".into(), hostname: format!("{name}.shop.svc.cluster.local").into() }
}

fn of(short: &str, addresses: &[&str]) -> Service {
    Service {
        name: short.into(),
        key: name(short),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        ..service()
    }
}

/// A pod behind these services, each with its ports and their target ports.
fn pod(ip: &str, behind: &[(&str, &[(u16, u16)])]) -> Workload {
    let mappings = |ports: &[(u16, u16)]| {
        ports
            .iter()
            .map(|(service_port, target_port)| PortMapping {
                service_port: *service_port,
                target_port: *target_port,
            })
            .collect()
    };
    let services = behind.iter().map(|(short, ports)| (name(short), mappings(ports))).collect();
    Workload { services: Arc::new(services), ..workload(&format!("at-{ip}"), "n2", &[ip], Hbone, Healthy) }
}

fn mesh(services: Vec<Service>, pods: Vec<Workload>) -> Mesh {
    let mut mesh = mesh_of(of("other", &["10.96.0.99"]), pods);
    mesh.apply(services.into_iter().map(|service| MeshChange::Service(Arc::new(service))));
    mesh
}

fn found(mesh: &Mesh, client: &Workload, dialled: &str) -> Vec<(String, u16)> {
    let all = headless_at(mesh, client, dialled.parse().unwrap());
    all.map(|through| (through.service.name.to_string(), through.port)).collect()
}

#[test]
fn it_is_found_by_address_and_target_port() {
    let both: &[(&str, &[(u16, u16)])] =
        &[("db", &[(80, 8080), (81, 8081), (82, 8080)]), ("web", &[(80, 8080)])];
    let mesh = mesh(
        vec![of("db", &[]), of("web", &["10.96.0.1"]), of("peers", &[])],
        vec![
            pod("10.0.2.1", both),
            pod("10.0.2.2", &[("web", &[(80, 8080)])]),
            pod("10.0.2.3", &[("peers", &[(1, 8080)]), ("db", &[(80, 8080)])]),
        ],
    );
    for (dialled, expected) in [
        ("10.0.2.1:8080", vec![("db", 80)]),
        ("10.0.2.1:8081", vec![("db", 81)]),
        // Nobody translates ports of pods.
        ("10.0.2.1:80", vec![]),
        // A service with an address was passed over.
        ("10.0.2.2:8080", vec![]),
        ("10.96.0.1:80", vec![]),
        ("10.0.2.3:8080", vec![("db", 80), ("peers", 1)]),
        ("10.0.2.9:8080", vec![]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(|(name, port)| (name.to_owned(), port)).collect();
        assert_eq!(found(&mesh, &client(), dialled), expected, "{dialled}");
    }
    assert_eq!(go(&mesh, "10.0.2.2:8080").unwrap().service, None);
    assert_eq!(&*go(&mesh, "10.0.2.3:8080").unwrap().service.unwrap().name, "db");
}

#[test]
fn only_for_clients_that_know_it_and_while_it_is_there() {
    let mut private = of("db", &[]);
    private.origin.exported_to = Some(vec!["bank".into()]);
    let mut mesh = mesh(vec![private], vec![pod("10.0.2.1", &[("db", &[(80, 8080)])])]);
    let dialled = "10.0.2.1:8080";
    assert_eq!(found(&mesh, &client(), dialled), []);
    let bank = Workload { namespace: "bank".into(), ..client() };
    assert_eq!(found(&mesh, &bank, dialled).len(), 1);
    mesh.apply([MeshChange::Remove(name("db").to_string())]);
    assert_eq!(found(&mesh, &bank, dialled), []);
}

#[test]
fn of_pods_that_share_an_address_the_one_with_the_port_is_meant() {
    let on_host = |ip: &str, behind: &[(&str, &[(u16, u16)])], uid: &str| {
        let uid = warren_common::model::WorkloadUid(uid.into());
        Workload { host_network: true, tunnel: Plain, uid, ..pod(ip, behind) }
    };
    let pods = vec![
        on_host("10.1.0.1", &[("a", &[(80, 9100)])], "a"),
        on_host("10.1.0.1", &[("b", &[(80, 9200)])], "b"),
    ];
    let mesh = mesh(vec![of("a", &[]), of("b", &[])], pods);
    assert_eq!(found(&mesh, &client(), "10.1.0.1:9200"), [("b".to_owned(), 80)]);
    let b = Arc::new(of("b", &[]));
    let backend = Backend { service: &b, port: 80, subset: None };
    let endpoint = dialled_endpoint(&mesh, &backend, "10.1.0.1".parse().unwrap()).unwrap();
    assert_eq!((&*endpoint.0.uid.0, endpoint.1), ("b", 9200));
}

#[test]
fn rules_that_lead_to_the_service_itself_lead_to_the_endpoint_that_was_dialled() {
    let labelled = |mut workload: Workload, version: &str| {
        workload.labels = Arc::new([("version".into(), version.into())].into());
        workload
    };
    let ports: &[(u16, u16)] = &[(80, 8080), (81, 8081)];
    let headless = Service {
        ports: ports
            .iter()
            .map(|(service_port, target_port)| ServicePort {
                service_port: *service_port,
                target_port: *target_port,
                ..service().ports[0].clone()
            })
            .collect(),
        ..of("db", &[])
    };
    let mut sick = labelled(pod("10.0.2.1", &[("db", ports)]), "v1");
    sick.health = Unhealthy;
    let well = labelled(pod("10.0.2.2", &[("db", ports)]), "v2");
    let mesh = mesh(vec![headless.clone()], vec![sick, well]);
    let service = Arc::new(headless);
    let subset = |version: &str| [("version".into(), version.into())].into();
    let (v1, v2) = (subset("v1"), subset("v2"));
    for (port, subset, dialled, expected, endpoints) in [
        // Who dials a pod wants it, ready or not.
        (80, None, "10.0.2.1", "10.0.2.1:8080", 0),
        (80, None, "10.0.2.2", "10.0.2.2:8080", 0),
        (81, None, "10.0.2.2", "10.0.2.2:8081", 0),
        (80, Some(&v1), "10.0.2.1", "10.0.2.1:8080", 0),
        // The rule says otherwise.
        (80, Some(&v2), "10.0.2.1", "10.0.2.2:8080", 2),
        // Somebody else was dialled.
        (80, None, "10.96.0.99", "10.0.2.2:8080", 2),
    ] {
        let backend = Backend { service: &service, port, subset };
        // Not even after it has failed is another one tried.
        let avoid = [warren_common::model::WorkloadUid(format!("Kubernetes//Pod/shop/at-{dialled}").into())];
        let choice = Choice { avoid: &avoid, ..choice(1) };
        let target = resolve_backend(&mesh, &client(), &backend, dialled.parse().unwrap(), &choice).unwrap();
        assert_eq!(
            (target.address.to_string(), target.endpoints),
            (expected.to_owned(), endpoints),
            "{dialled}"
        );
        assert!(matches!(target.hop, Hop::Hbone { .. }));
    }
}

#[test]
fn the_host_tells_which_of_several_is_meant() {
    let mut entry = of("api.example.com", &[]);
    entry.key.hostname = "api.example.com".into();
    let all: Vec<_> = [of("db", &[]), of("peers", &[]), entry]
        .map(|service| Through { service: Arc::new(service), port: 80 })
        .into();
    for (namespace, host, expected) in [
        ("shop", "peers", Some("peers")),
        ("shop", "PEERS:80", Some("peers")),
        ("bank", "peers", None),
        ("bank", "peers.shop", Some("peers")),
        ("bank", "peers.shop.svc:8080", Some("peers")),
        ("bank", "peers.shop.svc.cluster.local.", Some("peers")),
        ("bank", "web-0.peers.shop.svc.cluster.local", Some("peers")),
        ("shop", "web-0.peers", Some("peers")),
        // The name itself comes before one below another.
        ("shop", "db.peers", Some("peers")),
        ("shop", "peers.db", Some("db")),
        ("shop", "api.example.com", Some("api.example.com")),
        ("shop", "xpeers", None),
        ("shop", "10.0.2.1:8080", None),
        ("shop", "[fd00::1]", None),
        ("shop", "", None),
    ] {
        let found = named(&all, namespace, host).map(|through| through.service.name.to_string());
        assert_eq!(found.as_deref(), expected, "{namespace} {host}");
    }
}
