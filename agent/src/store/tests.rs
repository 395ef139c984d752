//! The mesh against tables, and against a model that scans.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::IpAddr;
use warren_common::model::{
    Enrolment, Health, Identity, PeerAuthentication, Placement, Service, ServiceName, ServiceOrigin,
    Steering, TunnelProtocol, Workload, WorkloadKind, WorkloadUid,
};

fn ip(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn name(service: u8) -> ServiceName {
    ServiceName { namespace: "shop".into(), hostname: format!("s{service}.shop.svc").into() }
}

fn uid(workload: u8) -> WorkloadUid {
    WorkloadUid(format!("c//Pod/shop/w{workload}").into())
}

fn workload(id: u8, ips: &[u8], node: u8, host_network: bool, services: &[u8]) -> Arc<Workload> {
    Arc::new(Workload {
        uid: uid(id),
        name: format!("w{id}").into(),
        namespace: "shop".into(),
        addresses: ips.iter().map(|last| ip(*last)).collect(),
        identity: Identity::new("cluster.local", "shop", "web").unwrap(),
        node: format!("n{node}").into(),
        host_network,
        tunnel: TunnelProtocol::Hbone,
        health: Health::Healthy,
        owner: "web".into(),
        kind: WorkloadKind::Deployment,
        canonical_name: "web".into(),
        canonical_revision: "v1".into(),
        cluster: "c".into(),
        services: Arc::new(services.iter().map(|service| (name(*service), vec![])).collect()),
        labels: Arc::default(),
        enrolment: Enrolment::default(),
        peer_authentication: PeerAuthentication::default(),
        authorization_policies: Vec::new(),
        placement: Placement::default(),
    })
}

fn service(id: u8, ips: &[u8]) -> Arc<Service> {
    Arc::new(Service {
        name: format!("s{id}").into(),
        key: name(id),
        addresses: ips.iter().map(|last| ip(*last)).collect(),
        ports: vec![],
        publish_not_ready: false,
        steering: Steering::default(),
        origin: ServiceOrigin::default(),
    })
}

fn pod(id: u8, ips: &[u8]) -> MeshChange {
    MeshChange::Workload(workload(id, ips, 1, false, &[]))
}

fn host(id: u8, ips: &[u8]) -> MeshChange {
    MeshChange::Workload(workload(id, ips, 1, true, &[]))
}

fn gone(id: u8) -> MeshChange {
    MeshChange::Remove(uid(id).to_string())
}

#[test]
fn an_address_belongs_to_the_right_workload() {
    // What it shows, and changes with who has 10.0.0.1 after each.
    type Steps<'a> = &'a [(MeshChange, Option<u8>)];
    let table: &[(&str, Steps<'_>)] = &[
        ("re-created, removal first", &[(pod(1, &[1]), Some(1)), (gone(1), None), (pod(2, &[1]), Some(2))]),
        (
            "re-created, arrival first",
            &[(pod(1, &[1]), Some(1)), (pod(2, &[1]), Some(2)), (gone(1), Some(2))],
        ),
        (
            "an update of the dying pod takes nothing back",
            &[
                (pod(1, &[1]), Some(1)),
                (pod(2, &[1]), Some(2)),
                (pod(1, &[1, 2]), Some(2)),
                (gone(2), Some(1)),
            ],
        ),
        ("address given up", &[(pod(1, &[1]), Some(1)), (pod(1, &[2]), None)]),
        (
            "given up and taken again",
            &[
                (pod(1, &[1]), Some(1)),
                (pod(2, &[1]), Some(2)),
                (pod(1, &[]), Some(2)),
                (pod(1, &[1]), Some(1)),
            ],
        ),
        (
            "host network never shadows a pod",
            &[(pod(1, &[1]), Some(1)), (host(2, &[1]), Some(1)), (gone(1), Some(2))],
        ),
        (
            "a pod shadows host network",
            &[(host(2, &[1]), Some(2)), (pod(1, &[1]), Some(1)), (gone(1), Some(2))],
        ),
        (
            "the oldest host network pod stays",
            &[(host(1, &[1]), Some(1)), (host(2, &[1]), Some(1)), (gone(1), Some(2)), (gone(2), None)],
        ),
        (
            "a pod turns to host network",
            &[(pod(1, &[1]), Some(1)), (pod(2, &[1]), Some(2)), (host(2, &[1]), Some(1))],
        ),
        ("an address twice in one pod", &[(pod(1, &[1, 1]), Some(1)), (gone(1), None)]),
        ("removal of the unknown", &[(gone(9), None)]),
    ];
    for (shows, steps) in table {
        let mut mesh = Mesh::default();
        for (step, (change, holder)) in steps.iter().enumerate() {
            mesh.apply([change.clone()]);
            assert_eq!(
                mesh.workload_by_ip(ip(1)).map(|w| w.uid.clone()),
                holder.map(uid),
                "{shows}, step {step}"
            );
        }
    }
}

#[test]
fn virtual_addresses_move_between_services() {
    let mut mesh = Mesh::default();
    mesh.apply([MeshChange::Service(service(1, &[9])), MeshChange::Service(service(2, &[9]))]);
    assert_eq!(mesh.service_by_ip(ip(9)).unwrap().key, name(2));
    mesh.apply([MeshChange::Service(service(2, &[8]))]);
    assert_eq!(mesh.service_by_ip(ip(9)).unwrap().key, name(1));
    assert_eq!(mesh.service_by_ip(ip(8)).unwrap().key, name(2));
    mesh.apply([MeshChange::Remove(name(1).to_string())]);
    assert!(mesh.service_by_ip(ip(9)).is_none() && mesh.service(&name(1)).is_none());
}

#[test]
fn v4_mapped_addresses_are_their_v4_selves() {
    let mut mesh = Mesh::default();
    mesh.apply([pod(1, &[1])]);
    assert!(mesh.workload_by_ip("::ffff:10.0.0.1".parse().unwrap()).is_some());
}

#[test]
fn endpoints_follow_workloads() {
    let mut mesh = Mesh::default();
    let put = |id, services: &[u8]| MeshChange::Workload(workload(id, &[id], 1, false, services));
    mesh.apply([put(2, &[1]), put(1, &[1, 2]), put(3, &[2])]);
    let of = |mesh: &Mesh, service| mesh.endpoints(&name(service)).map(|w| w.uid.clone()).collect::<Vec<_>>();
    assert_eq!(of(&mesh, 1), [uid(1), uid(2)]);
    assert_eq!(mesh.endpoints(&name(1)).len(), 2);
    assert_eq!(mesh.endpoint_at(&name(1), 1).unwrap().uid, uid(2));
    assert!(mesh.endpoint_at(&name(1), 2).is_none());
    mesh.apply([put(1, &[2]), gone(2)]);
    assert_eq!(of(&mesh, 1), []);
    assert_eq!(of(&mesh, 2), [uid(1), uid(3)]);
}

#[test]
fn namespaces_are_unknown_until_they_are_told() {
    let mut mesh = Mesh::default();
    assert_eq!(mesh.enrolled_namespaces(), None);
    let mut say = |enrolled: &[&str], released: &[&str]| {
        let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
        let change = MeshChange::Namespaces { enrolled: names(enrolled), released: names(released) };
        let changed = mesh.apply([change]);
        let held: Vec<_> = mesh.enrolled_namespaces().unwrap().iter().map(ToString::to_string).collect();
        (changed, held.join(" "))
    };
    assert_eq!(say(&[], &[]), (true, String::new()));
    assert_eq!(say(&["shop", "bank"], &[]), (true, "bank shop".to_owned()));
    assert_eq!(say(&["shop"], &["none"]), (false, "bank shop".to_owned()));
    assert_eq!(say(&[], &["bank"]), (true, "shop".to_owned()));
}

#[test]
fn a_mesh_by_interest_knows_what_it_was_told() {
    let store = Store::by_interest();
    let tell = |changes: Vec<MeshChange>| {
        store.apply(changes);
        let mesh = store.load();
        let known: Vec<u8> = (1..=3).filter(|last| mesh.knows(ip(*last))).collect();
        let absent: Vec<Sought> = mesh.absent().cloned().collect();
        (known, absent)
    };
    assert_eq!(tell(vec![]), (vec![], vec![]));
    assert_eq!(tell(vec![MeshChange::Absent(ip(1).into()), pod(2, &[2])]), (vec![1, 2], vec![ip(1).into()]));
    // Somebody gets the address: that nobody has it is not true any more, also when they are gone again.
    assert_eq!(tell(vec![pod(1, &[1])]), (vec![1, 2], vec![]));
    assert_eq!(tell(vec![gone(1)]), (vec![2], vec![]));
    assert_eq!(tell(vec![MeshChange::Absent(ip(1).into()), gone(2)]), (vec![1], vec![ip(1).into()]));
    assert_eq!(
        tell(vec![MeshChange::Service(service(1, &[3])), MeshChange::Forget(ip(1).into())]),
        (vec![3], vec![])
    );
    // What somebody has written down for an address says nothing of the pod that may have it, before that was asked.
    let uid = WorkloadUid("c/networking.istio.io/WorkloadEntry/shop/x".into());
    let entry = Workload { uid, ..Workload::clone(&workload(1, &[1], 1, false, &[])) };
    assert_eq!(tell(vec![MeshChange::Workload(Arc::new(entry))]), (vec![3], vec![]));
    assert_eq!(tell(vec![MeshChange::Told(ip(1).into())]), (vec![1, 3], vec![]));
    assert_eq!(tell(vec![MeshChange::Forget(ip(1).into())]), (vec![3], vec![]));
    assert!(Mesh::default().knows(ip(9)), "with everything in it, what it has not is outside");
}

#[test]
fn a_mesh_by_interest_knows_which_services_there_are_none_of() {
    let store = Store::by_interest();
    let tell = |changes: Vec<MeshChange>| {
        store.apply(changes);
        let mesh = store.load();
        let known: Vec<u8> = (1..=3).filter(|id| mesh.knows_service(&name(*id))).collect();
        assert!(known.iter().all(|id| mesh.tells(&name(*id).into())));
        (known, mesh.absent().count())
    };
    let absent = |id| MeshChange::Absent(name(id).into());
    let removed = |id| MeshChange::Remove(name(id).to_string());
    assert_eq!(tell(vec![]), (vec![], 0));
    assert_eq!(tell(vec![absent(1), MeshChange::Service(service(2, &[2]))]), (vec![1, 2], 1));
    // It is made: that there was none says nothing about the time after it.
    assert_eq!(tell(vec![MeshChange::Service(service(1, &[1]))]), (vec![1, 2], 0));
    // Without an address it may have come with a pod that stands behind it, and not all of them.
    assert_eq!(tell(vec![MeshChange::Service(service(3, &[]))]), (vec![1, 2], 0));
    assert_eq!(tell(vec![MeshChange::Told(name(3).into())]), (vec![1, 2, 3], 0));
    assert_eq!(tell(vec![removed(3)]), (vec![1, 2], 0));
    assert_eq!(tell(vec![removed(1), removed(2), absent(2)]), (vec![2], 1));
    assert_eq!(tell(vec![MeshChange::Forget(name(2).into())]), (vec![], 0));
    assert!(Mesh::default().knows_service(&name(9)), "with everything in it, others there are none");
}

#[test]
fn traffic_is_found_by_its_service() {
    let traffic = |id| {
        Arc::new(warren_common::model::traffic::Traffic {
            service: name(id),
            tables: vec![],
            policies: vec![],
            refused: None,
        })
    };
    let mut mesh = Mesh::default();
    assert!(mesh.apply([MeshChange::Traffic(traffic(1))]) && !mesh.apply([MeshChange::Traffic(traffic(1))]));
    assert_eq!(mesh.traffic(&name(1)), Some(&traffic(1)));
    assert!(mesh.traffic(&name(2)).is_none() && mesh.service(&name(1)).is_none());
    // The service goes and comes without it.
    mesh.apply([MeshChange::Service(service(1, &[9])), MeshChange::Remove(name(1).to_string())]);
    assert_eq!(mesh.all_traffic().len(), 1);
    let gone = || MeshChange::TrafficGone(name(1).to_string());
    assert!(mesh.apply([gone()]) && !mesh.apply([gone(), MeshChange::TrafficGone("nonsense".to_owned())]));
    assert!(mesh.traffic(&name(1)).is_none());
}

#[test]
fn what_is_not_understood_of_traffic_stands_in_only_for_nothing() {
    let traffic = |why: Option<&str>| {
        Arc::new(warren_common::model::traffic::Traffic {
            service: name(1),
            tables: vec![],
            policies: vec![],
            refused: why.map(Arc::from),
        })
    };
    let refused = |why| MeshChange::TrafficRefused(traffic(Some(why)));
    let mut mesh = Mesh::default();
    assert!(mesh.apply([refused("a")]) && mesh.apply([refused("b")]) && !mesh.apply([refused("b")]));
    assert_eq!(mesh.traffic(&name(1)), Some(&traffic(Some("b"))));
    assert!(mesh.apply([MeshChange::Traffic(traffic(None))]) && !mesh.apply([refused("c")]));
    assert_eq!(mesh.traffic(&name(1)), Some(&traffic(None)));
}

#[test]
fn a_store_swaps_once_and_wakes_only_for_changes() {
    let store = Store::new();
    let mut changed = store.changed();
    let before = store.load();
    store.apply(vec![pod(1, &[1]), pod(2, &[2])]);
    assert_eq!(*changed.borrow_and_update(), 1);
    assert_eq!((before.workloads().len(), store.load().workloads().len()), (0, 2));
    store.apply(vec![pod(1, &[1]), gone(9)]);
    assert!(!changed.has_changed().unwrap());
    assert!(store.guard().workload(&uid(1)).is_some());
}

/// Keeps only what was said, with the order in which addresses were claimed, and scans.
#[derive(Default)]
struct Model {
    workloads: BTreeMap<WorkloadUid, Arc<Workload>>,
    services: BTreeMap<ServiceName, Arc<Service>>,
    claims: BTreeMap<(IpAddr, String), (u64, bool)>,
    clock: u64,
}

impl Model {
    fn claim(&mut self, who: &str, addresses: &[IpAddr], shares: bool) {
        self.claims
            .retain(|(ip, name), (_, shared)| name != who || (addresses.contains(ip) && *shared == shares));
        for ip in addresses {
            self.clock += 1;
            self.claims.entry((*ip, who.to_owned())).or_insert((self.clock, shares));
        }
    }

    fn apply(&mut self, change: MeshChange) {
        match change {
            MeshChange::Workload(w) => {
                self.claim(&w.uid.0, &w.addresses, w.host_network);
                self.workloads.insert(w.uid.clone(), w);
            }
            MeshChange::Service(s) => {
                self.claim(&s.key.to_string(), &s.addresses, false);
                self.services.insert(s.key.clone(), s);
            }
            MeshChange::Namespaces { .. }
            | MeshChange::Policies
            | MeshChange::Policy(_)
            | MeshChange::PolicyRefused(..)
            | MeshChange::PolicyGone(_)
            | MeshChange::Revoked(_)
            | MeshChange::Traffic(_)
            | MeshChange::TrafficRefused(_)
            | MeshChange::TrafficGone(_)
            | MeshChange::Trust(_) => {}
            MeshChange::Remove(gone) => {
                self.claim(&gone, &[], false);
                self.workloads.retain(|uid, _| *uid.0 != *gone);
                self.services.retain(|key, _| key.to_string() != gone);
            }
            // A mesh that holds everything has no use for these.
            MeshChange::Absent(_) | MeshChange::Told(_) | MeshChange::Forget(_) => {}
        }
    }

    fn holder(&self, ip: IpAddr, is_service: bool) -> Option<String> {
        let is_right = |name: &str| name.starts_with("c//") != is_service;
        let claims = || self.claims.iter().filter(|((at, name), _)| *at == ip && is_right(name));
        let own = claims().filter(|(_, (_, shares))| !shares).max_by_key(|(_, (when, _))| *when);
        own.or_else(|| claims().min_by_key(|(_, (when, _))| *when)).map(|((_, name), _)| name.clone())
    }
}

fn change() -> impl Strategy<Value = MeshChange> {
    let few = |below| proptest::collection::vec(0..below, 0..3);
    prop_oneof![
        4 => (0..8u8, few(6u8), 0..3u8, any::<bool>(), few(4u8))
            .prop_map(|(id, ips, node, host, services)| MeshChange::Workload(workload(id, &ips, node, host, &services))),
        2 => (0..4u8, few(6u8)).prop_map(|(id, ips)| MeshChange::Service(service(id, &ips))),
        2 => (0..8u8).prop_map(gone),
        1 => (0..4u8).prop_map(|id| MeshChange::Remove(name(id).to_string())),
    ]
}

proptest! {
    #[test]
    fn agrees_with_a_naive_model(changes in proptest::collection::vec(change(), 0..60)) {
        let (mut mesh, mut model) = (Mesh::default(), Model::default());
        for change in changes {
            mesh.apply([change.clone()]);
            model.apply(change);
            prop_assert!(mesh.workloads().eq(model.workloads.values()));
            prop_assert!(mesh.services().eq(model.services.values()));
            for last in 0..6 {
                prop_assert_eq!(mesh.workload_by_ip(ip(last)).map(|w| w.uid.to_string()), model.holder(ip(last), false));
                prop_assert_eq!(mesh.service_by_ip(ip(last)).map(|s| s.key.to_string()), model.holder(ip(last), true));
                if let Some(held) = mesh.workload_by_ip(ip(last)) {
                    prop_assert_eq!(Some(held), model.workloads.get(&held.uid), "a stale version");
                }
            }
            for service in 0..4 {
                let expected = model.workloads.values().filter(|w| w.services.contains_key(&name(service)));
                prop_assert!(mesh.endpoints(&name(service)).eq(expected));
                prop_assert_eq!(mesh.endpoint_at(&name(service), 0), mesh.endpoints(&name(service)).next());
            }
            for node in ["n0", "n1", "n2"] {
                prop_assert!(mesh.pods_of_node(node).eq(model.workloads.values().filter(|w| *w.node == *node)));
            }
        }
    }
}
