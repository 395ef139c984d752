use super::*;
use crate::objects::{
    Endpoint, EntryEndpoint, EntryEndpoints, EntryPort, Key, MtlsMode, Phase, PolicyAction, PolicyPart,
    PolicyRule, PolicyTarget, Resolution, SlicePort,
};
use crate::resolve::{ResolveConfig, resolve};
use proptest::prelude::*;
use warren_common::model::PolicyMatch;

fn name(number: u8) -> Name {
    Name::new(if number.is_multiple_of(2) { "even" } else { "odd" }, format!("x{number}"))
}

fn ip(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number])
}

fn pod(number: u8, address: u8, node: u8, flags: u8) -> Object {
    Object::Pod(Pod {
        name: name(number),
        uid: "".into(),
        labels: [("app".into(), format!("a{address}").into())].into(),
        annotations: Map::new(),
        owner: None,
        node: format!("n{node}").into(),
        service_account: "default".into(),
        hostname: None,
        host_network: flags & 1 != 0,
        addresses: vec![ip(address)],
        phase: if flags & 2 != 0 { Phase::Ended } else { Phase::Live },
        ready: flags & 4 != 0,
        unheard: false,
        deleting: false,
    })
}

fn slice(number: u8, service: u8, address: u8, by_reference: bool, ready: bool) -> Object {
    Object::EndpointSlice(EndpointSlice {
        name: name(number),
        service: Some(Name { name: format!("x{service}").into(), ..name(number) }),
        repeats_pods: false,
        ports: vec![SlicePort { name: "".into(), port: 8080 }],
        endpoints: vec![Endpoint {
            addresses: vec![ip(address)],
            pod: by_reference.then(|| name(address)),
            ready,
            serving: ready,
            terminating: false,
            node: format!("n{}", address % 2).into(),
            zone: "".into(),
            for_zones: vec![],
            for_nodes: vec![],
        }],
    })
}

fn service(number: u8, port: u16) -> Object {
    let target = crate::objects::TargetPort::Number(8080);
    Object::Service(Service {
        name: name(number),
        external_name: (port == 82).then(|| "example.com".into()),
        cluster_ips: vec![],
        ports: vec![crate::objects::ServicePort { name: "".into(), port, target, app_protocol: None }],
        publish_not_ready: port == 81,
        affinity_s: None,
        local_only: false,
        headless: false,
        distribution: crate::objects::Distribution::Any,
    })
}

fn namespace(number: u8, enabled: bool) -> Object {
    let value = if enabled { "enabled" } else { "disabled" };
    let labels = [("warren.dev/mesh".into(), value.into())].into();
    Object::Namespace(Namespace { name: name(number).namespace, labels })
}

fn policy(number: u8, created: u8, selects: Option<u8>, mode: MtlsMode) -> Object {
    let namespace = ["even", "odd", "warren-system", "istio-system"][usize::from(number % 4)];
    let selector = selects.map(|address| ("app".into(), format!("a{address}").into()));
    Object::PeerAuthentication(PeerAuthentication {
        name: Name::new(namespace, format!("x{number}")),
        created: (created > 0).then_some(created.into()),
        ports: selects.map(|address| (80 + u16::from(address), MtlsMode::Permissive)).into_iter().collect(),
        selector: selector.into_iter().collect(),
        mode,
    })
}

fn authorization(number: u8, deny: bool, selects: Option<u8>, ports: Option<u16>) -> Object {
    let namespace = ["even", "odd", "warren-system", "istio-system"][usize::from(number % 4)];
    let selector = selects.map(|address| ("app".into(), format!("a{address}").into()));
    let part = |port| PolicyPart {
        connection: PolicyMatch { destination_ports: vec![port], ..PolicyMatch::default() },
        http: Vec::new(),
    };
    let rule = PolicyRule { to: ports.map(part).into_iter().collect(), ..PolicyRule::default() };
    Object::AuthorizationPolicy(AuthorizationPolicy {
        name: Name::new(namespace, format!("x{number}")),
        action: if deny { PolicyAction::Deny } else { PolicyAction::Allow },
        dry_run: false,
        target: if ports == Some(82) {
            let services = selects.into_iter().map(|service| format!("x{service}").into()).collect();
            PolicyTarget::Attached { services, others: ["Gateway g".into()].into() }
        } else {
            PolicyTarget::Workloads(selector.into_iter().collect())
        },
        rules: vec![rule],
        unread: None,
    })
}

fn node(number: u8, zone: u8) -> Object {
    let labels = [("topology.kubernetes.io/zone".into(), format!("z{zone}").into())].into();
    Object::Node(Plain { name: Name::new("", format!("n{number}")), labels })
}

fn entry_endpoint(address: u8) -> EntryEndpoint {
    EntryEndpoint {
        address: if address == 3 {
            EntryAddress::Name("x.test".into())
        } else {
            EntryAddress::Ip(ip(address))
        },
        ports: BTreeMap::new(),
        labels: [("app".into(), format!("a{address}").into())].into(),
        network: "".into(),
        locality: Default::default(),
        weight: 1,
        service_account: "default".into(),
    }
}

/// Its hosts clash with those of other entries and, at times, with services.
fn service_entry(number: u8, created: u8, host: u8, selects: Option<u8>, endpoints: Vec<u8>) -> Object {
    let endpoints = match selects {
        Some(address) => EntryEndpoints::Selected([("app".into(), format!("a{address}").into())].into()),
        None => EntryEndpoints::Listed(endpoints.into_iter().map(entry_endpoint).collect()),
    };
    let name = name(number);
    let fqdn = |host: u8| format!("x{host}.{}.svc.cluster.local", name.namespace).into();
    Object::ServiceEntry(ServiceEntry {
        created: Some(created.into()),
        hosts: vec!["a.test".into(), fqdn(host)],
        addresses: vec![ip(100 + number)],
        ranges: vec![],
        ports: vec![EntryPort { name: "p".into(), number: 80, protocol: None, target: None }],
        resolution: if number < 2 { Resolution::Dns } else { Resolution::Static },
        endpoints,
        exported_to: None,
        subject_alt_names: vec![],
        notes: vec![],
        name,
    })
}

fn workload_entry(number: u8, address: u8) -> Object {
    Object::WorkloadEntry(WorkloadEntry {
        name: name(number),
        endpoint: entry_endpoint(address),
        notes: vec![],
    })
}

fn mode() -> impl Strategy<Value = MtlsMode> {
    prop_oneof![Just(MtlsMode::Unset), Just(MtlsMode::Strict), Just(MtlsMode::Permissive)]
}

fn objects() -> impl Strategy<Value = Object> {
    prop_oneof![
        (0..8_u8, any::<bool>(), proptest::option::of(0..4_u8), proptest::option::of(80..83_u16))
            .prop_map(|(number, deny, selects, ports)| authorization(number, deny, selects, ports)),
        (0..4_u8, 0..4_u8, 0..2_u8, 0..8_u8)
            .prop_map(|(number, ip, node, flags)| pod(number, ip, node, flags)),
        (0..4_u8, 0..4_u8, 0..4_u8, any::<bool>(), any::<bool>())
            .prop_map(|(n, s, a, r, ok)| slice(n, s, a, r, ok)),
        (0..4_u8, 80..83_u16).prop_map(|(number, port)| service(number, port)),
        (0..2_u8, any::<bool>()).prop_map(|(number, enabled)| namespace(number, enabled)),
        (0..2_u8, 0..2_u8).prop_map(|(number, zone)| node(number, zone)),
        (0..4_u8, 0..4_u8).prop_map(|(number, address)| workload_entry(number, address)),
        (0..4_u8, 0..2_u8, 0..4_u8, proptest::option::of(0..4_u8), proptest::collection::vec(0..4_u8, 0..3))
            .prop_map(|(number, created, host, selects, endpoints)| {
                service_entry(number, created, host, selects, endpoints)
            }),
        (0..8_u8, 0..3_u8, proptest::option::of(0..4_u8), mode())
            .prop_map(|(number, created, selects, mode)| policy(number, created, selects, mode)),
    ]
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        3 => objects().prop_map(Change::Upsert),
        1 => objects().prop_map(|object| Change::Delete(object.key())),
    ];
    proptest::collection::vec(change, 0..60)
}

#[test]
fn a_change_names_what_it_touches() {
    let workload = |number| ResourceKey::Workload(name(number));
    let mut index = Index::default();
    let mut step = |change: Change| index.apply(&change).into_iter().collect::<Vec<_>>();
    assert_eq!(step(Change::Upsert(pod(0, 0, 0, 4))), [workload(0)]);
    assert_eq!(step(Change::Upsert(pod(2, 2, 0, 4))), [workload(2)]);
    // Without a reference the address may be a pod's or nobody's.
    let address = |number| ResourceKey::Endpoint(name(0), ip(number));
    let first = slice(0, 0, 2, false, true);
    assert_eq!(step(Change::Upsert(first)), [workload(2), address(2)]);
    assert_eq!(
        step(Change::Upsert(service(0, 80))),
        [workload(2), ResourceKey::Service(name(0)), address(2)]
    );
    assert_eq!(step(Change::Upsert(slice(0, 0, 0, true, true))), [workload(0), workload(2), address(2)]);
    let even = ResourceKey::Namespace("even".into());
    assert_eq!(step(Change::Upsert(namespace(0, true))), [workload(0), workload(2), even]);
    assert_eq!(
        step(Change::Delete(Key { kind: Kind::Service, name: name(0) })),
        [workload(0), ResourceKey::Service(name(0))]
    );
    assert_eq!(step(Change::Delete(Key { kind: Kind::Pod, name: name(0) })), [workload(0), address(0)]);
}

proptest! {
    #[test]
    fn incremental_is_the_same_as_from_scratch(changes in changes()) {
        let config =
            ResolveConfig { cluster: "c".into(), cluster_domain: "cluster.local".into(), trust_domain: "td".into() };
        let mut index = Index::default();
        let mut latest: BTreeMap<Key, Object> = BTreeMap::new();
        // What agents know: only what was named as affected is resolved again.
        let mut resolved = BTreeMap::new();
        for change in &changes {
            for key in index.apply(change) {
                let after = resolve(&index, &config, &key);
                resolved.insert((after.type_url, after.name.clone()), (key, after));
            }
            match change {
                Change::Upsert(object) => drop(latest.insert(object.key(), object.clone())),
                Change::Delete(key) => drop(latest.remove(key)),
                Change::Refused(..) => {}
            }
        }
        let mut scratch = Index::default();
        let mut keys = BTreeSet::new();
        for object in latest.values() {
            keys.extend(scratch.apply(&Change::Upsert(object.clone())));
        }
        prop_assert_eq!(&index, &scratch);
        // The other way round it is the same.
        let mut backwards = Index::default();
        for object in latest.values().rev() {
            backwards.apply(&Change::Upsert(object.clone()));
        }
        prop_assert_eq!(&index, &backwards);
        for key in keys {
            let now = resolve(&scratch, &config, &key);
            if now.resource.is_some() || !now.problems.is_empty() {
                prop_assert_eq!(resolved.get(&(now.type_url, now.name.clone())).map(|(_, known)| known), Some(&now), "{:?}", key);
            }
        }
        for (key, known) in resolved.into_values() {
            prop_assert_eq!(known, resolve(&scratch, &config, &key));
        }
    }
}

#[test]
fn what_is_known_already_affects_nothing() {
    let mut index = Index::default();
    for object in [pod(1, 1, 1, 4), slice(1, 1, 1, true, true), node(1, 1)] {
        let change = Change::Upsert(object);
        index.apply(&change);
        let before = index.clone();
        assert!(index.apply(&change).is_empty(), "{change:?}");
        assert_eq!(index, before);
    }
    assert!(!index.apply(&Change::Upsert(pod(1, 2, 1, 4))).is_empty());
}
