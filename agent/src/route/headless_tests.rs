//! Which service is meant by an endpoint's own address.

use super::super::tests::{choice, client, go, mesh_of, service, workload};
use super::super::{Backend, Choice, Hop, RouteError, resolve_backend};
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
        // What somebody has written down comes first: `default/kubernetes` names the nodes of the control plane.
        Workload {
            host_network: false,
            ..on_host("10.1.0.1", &[], "Kubernetes/discovery.k8s.io/EndpointSlice/x")
        },
        on_host("10.1.0.1", &[("a", &[(80, 9100)]), ("c", &[(80, 9100)])], "a"),
        on_host("10.1.0.1", &[("b", &[(80, 9200)]), ("c", &[(80, 9200)])], "b"),
    ];
    let mesh = mesh(vec![of("a", &[]), of("b", &[]), of("c", &[])], pods);
    assert_eq!(found(&mesh, &client(), "10.1.0.1:9200"), [("b".to_owned(), 80), ("c".to_owned(), 80)]);
    // Of two endpoints of one service, too.
    let c = Arc::new(of("c", &[]));
    for (port, uid) in [(9100, "a"), (9200, "b")] {
        let backend = Backend { service: &c, port: 80, subset: None, own: true };
        let own = own_endpoint(&mesh, &backend, SocketAddr::new("10.1.0.1".parse().unwrap(), port));
        assert!(matches!(own, Own::Endpoint(pod, its) if &*pod.uid.0 == uid && its == port), "{own:?}");
    }
    let b = Arc::new(of("b", &[]));
    let backend = Backend { service: &b, port: 80, subset: None, own: true };
    let own = own_endpoint(&mesh, &backend, "10.1.0.1:9200".parse().unwrap());
    assert!(matches!(own, Own::Endpoint(pod, 9200) if &*pod.uid.0 == "b"), "{own:?}");
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
    let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 8080);
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
        let backend = Backend { service: &service, port, subset, own: false };
        // Not even after it has failed is another one tried.
        let avoid = [warren_common::model::WorkloadUid(format!("Kubernetes//Pod/shop/at-{dialled}").into())];
        let choice = Choice { avoid: &avoid, ..choice(1) };
        let target = resolve_backend(&mesh, &client(), &backend, at(dialled), &choice).unwrap();
        assert_eq!(
            (target.address.to_string(), target.endpoints),
            (expected.to_owned(), endpoints),
            "{dialled}"
        );
        assert!(matches!(target.hop, Hop::Hbone { .. }));
    }
    // One that is no endpoint any more is not replaced by another, but by a rule that says which.
    let gone = |own: bool, subset| {
        let backend = Backend { service: &service, port: 80, subset, own };
        resolve_backend(&mesh, &client(), &backend, at("10.0.2.9"), &choice(1)).map(|target| target.address)
    };
    let error = gone(true, None).unwrap_err();
    assert!(matches!(error, RouteError::NoLongerIts { known: 2, .. }), "{error}");
    assert!(error.to_string().contains("10.0.2.9:8080 is no endpoint of the service db"), "{error}");
    assert_eq!(gone(true, Some(&v2)).unwrap(), at("10.0.2.2"));
    assert_eq!(gone(false, None).unwrap(), at("10.0.2.2"));
}

#[test]
fn of_two_ports_that_lead_to_one_the_port_that_was_dialled_is_meant() {
    let pods = vec![pod("10.0.2.1", &[("db", &[(80, 8080), (8080, 8080)])])];
    assert_eq!(
        found(&mesh(vec![of("db", &[])], pods), &client(), "10.0.2.1:8080"),
        [("db".to_owned(), 8080)]
    );
}

#[test]
fn nobody_gets_a_pods_address_by_writing_it_down() {
    let entry = Workload {
        uid: warren_common::model::WorkloadUid("Kubernetes/networking.istio.io/WorkloadEntry/bank/x".into()),
        tunnel: Plain,
        ..pod("10.0.2.1", &[("outside", &[(80, 8080)])])
    };
    let real = || pod("10.0.2.1", &[("db", &[(80, 8080)])]);
    for pods in [vec![entry.clone(), real()], vec![real(), entry.clone()]] {
        let mesh = mesh(vec![of("db", &[]), of("outside", &["10.96.0.5"])], pods);
        assert_eq!(found(&mesh, &client(), "10.0.2.1:8080"), [("db".to_owned(), 80)]);
        // By its address, and as an endpoint of what it was written down for: always through the tunnel.
        for dialled in ["10.0.2.1:8080", "10.96.0.5:80"] {
            let target = go(&mesh, dialled).unwrap();
            assert!(matches!(target.hop, Hop::Hbone { .. }), "{dialled}: {target:?}");
            assert_eq!(target.address, "10.0.2.1:8080".parse().unwrap(), "{dialled}");
        }
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

#[test]
fn a_pod_whose_address_another_has_got_is_not_taken_for_that_one() {
    let of_account = |account: &str, behind: &[(&str, &[(u16, u16)])]| Workload {
        uid: warren_common::model::WorkloadUid(format!("Kubernetes//Pod/shop/{account}").into()),
        identity: warren_common::model::Identity::new("cluster.local", "shop", account).unwrap(),
        ..pod("10.0.2.1", behind)
    };
    let (leaving, new) = (of_account("leaving", &[("web", &[(80, 8080)])]), of_account("new", &[]));
    for pods in [vec![leaving.clone(), new.clone()], vec![new, leaving]] {
        let target = go(&mesh(vec![of("web", &["10.96.0.5"])], pods), "10.96.0.5:80").unwrap();
        let Hop::Hbone { identity, .. } = &target.hop else { panic!("{target:?}") };
        assert_eq!(identity.to_string(), "spiffe://cluster.local/ns/shop/sa/leaving");
    }
}
