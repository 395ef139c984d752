//! The same objects through both doors: YAML files and the API server's JSON.

use crate::objects::{EntryEndpoints, MtlsMode, Object, Resolution};
use crate::source::manifests::parse;
use crate::source::{CUSTOM_KINDS, ServedKind};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// From YAML, and the same from JSON.
pub(super) fn read(yaml: &str) -> Result<Object, String> {
    let value: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
    let text = |field: &str| value[field].as_str().unwrap().to_owned();
    let served = ServedKind::find(&text("apiVersion"), &text("kind")).unwrap();
    let from_json = served.object(value.clone());
    let from_yaml = parse(yaml).map(|mut parsed| parsed.objects.remove(0));
    match (from_yaml, from_json) {
        (Ok(from_yaml), Ok(from_json)) => {
            assert_eq!(from_yaml, from_json);
            Ok(from_yaml)
        }
        (Err(yaml), Err(json)) => {
            assert!(yaml.reason.len() < 2000 && json.to_string().len() < 2000);
            Err(yaml.reason)
        }
        (yaml, json) => panic!("the doors disagree: {yaml:?} and {json:?}"),
    }
}

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {{name: web, namespace: shop, creationTimestamp: '1970-01-01T00:01:00Z'}}\n{spec}\n"
    )
}

#[test]
fn peer_authentications_are_read() {
    use MtlsMode::{Disable, Permissive, Strict, Unset};
    for (spec, labels, mode, ports) in [
        ("", 0, Unset, &[][..]),
        ("spec: {}", 0, Unset, &[]),
        ("spec: {mtls: {}}", 0, Unset, &[]),
        ("spec: {mtls: {mode: UNSET}}", 0, Unset, &[]),
        ("spec: {mtls: {mode: STRICT}}\nstatus: {conditions: [{type: x}]}", 0, Strict, &[]),
        ("spec: {selector: {}, mtls: {mode: DISABLE}}", 0, Disable, &[]),
        ("spec: {selector: {matchLabels: {app: web, v: '2'}}, mtls: {mode: PERMISSIVE}}", 2, Permissive, &[]),
        (
            "spec: {selector: {matchLabels: {app: web}}, portLevelMtls: {8080: {mode: DISABLE}, '90': {}}}",
            1,
            Unset,
            &[(90, Unset), (8080, Disable)],
        ),
    ] {
        let Object::PeerAuthentication(read) = read(&policy(spec)).unwrap() else { panic!("another kind") };
        assert_eq!(read.name.to_string(), "shop/web");
        assert_eq!((read.created, read.selector.len(), read.mode), (Some(60), labels, mode), "{spec}");
        assert_eq!(read.ports, BTreeMap::from_iter(ports.iter().copied()), "{spec}");
    }
    let older = policy("").replace("istio.io/v1", "istio.io/v1beta1");
    assert!(read(&older).is_ok());
    assert_eq!(parse(&older.replace("v1beta1", "v1alpha1")).unwrap().unread.len(), 1);
}

#[test]
fn what_is_not_understood_is_an_error() {
    let long = "x".repeat(1 << 20);
    for (spec, reason) in [
        ("spec: {mtls: {mode: strict}}", "strict"),
        ("spec: {mtls: {mode: 3}}", ""),
        ("spec: {mtls: {node: STRICT}}", "node"),
        ("spec: {mtls: STRICT}", ""),
        ("spec: []", ""),
        ("spec: {mlts: {mode: STRICT}}", "mlts"),
        ("specs: {}", "specs"),
        ("spec: {selector: {matchLabels: [app]}}", ""),
        ("spec: {selector: {matchExpressions: []}}", "matchExpressions"),
        ("spec: {selector: {matchLabels: {app: 'w*'}}}", "wildcards"),
        ("spec: {selector: {matchLabels: {'*': web}}}", "wildcards"),
        ("spec: {selector: {matchLabels: {'': web}}}", "key of a label"),
        ("spec: {portLevelMtls: {80: {mode: STRICT}}}", "needs a selector"),
        ("spec: {portLevelMtls: {}}", "needs a selector"),
        ("spec: {selector: {matchLabels: {a: b}}, portLevelMtls: {0: {mode: STRICT}}}", "port number"),
        ("spec: {selector: {matchLabels: {a: b}}, portLevelMtls: {65536: {mode: STRICT}}}", "port number"),
        ("spec: {selector: {matchLabels: {a: b}}, portLevelMtls: {http: {mode: STRICT}}}", "port number"),
        (&format!("spec: {{mtls: {{mode: {long}}}}}"), "xxx"),
        // A longer key is no YAML any more.
        (&format!("spec: {{{}: 1}}", "x".repeat(1000)), "xxx"),
        (&format!("spec: {{selector: {{matchLabels: {{a: {long}}}}}}}"), "xxx"),
    ] {
        let error = read(&policy(spec)).unwrap_err();
        assert!(error.contains(reason), "{spec:.200}: {error}");
    }
    for (from, to) in [
        ("name: web", "nam: web"),
        ("name: web", "name: ''"),
        ("namespace: shop", "lables: {}"),
        ("1970-01-01T00:01:00Z", "yesterday"),
        ("name: web", &format!("name: {long}")),
    ] {
        assert!(read(&policy("").replace(from, to)).is_err(), "{to:.200}");
    }
}

fn network(kind: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: {kind}\n\
         metadata: {{name: web, namespace: shop, labels: {{a: meta, b: meta}}}}\nspec: {{{spec}}}\n"
    )
}

#[test]
fn entries_are_read() {
    let Object::WorkloadEntry(entry) = read(&network(
        "WorkloadEntry",
        "address: Vm.Example.com, labels: {a: spec}, weight: 0, locality: r/z",
    ))
    .unwrap() else {
        panic!("another kind")
    };
    assert_eq!(entry.endpoint.address.to_string(), "vm.example.com");
    assert_eq!(
        (entry.endpoint.weight, &*entry.endpoint.locality[1], &*entry.endpoint.service_account),
        (1, "z", "default")
    );
    assert_eq!(entry.endpoint.labels.values().map(AsRef::as_ref).collect::<Vec<&str>>(), ["spec", "meta"]);
    for spec in [
        "hosts: ['*.example.com']",
        "hosts: [a.test], exportTo: ['*'], ports: [{number: 53, name: dns, protocol: UDP}]",
        "hosts: ['*.a.test'], resolution: DNS, endpoints: [{address: b.test}]",
        "hosts: [a.test], addresses: [10.0.0.0/8], resolution: STATIC, endpoints: [{address: '::1'}]",
        "hosts: [a.test], location: MESH_INTERNAL, resolution: STATIC, workloadSelector: {labels: {a: b}}",
    ] {
        assert!(read(&network("ServiceEntry", spec)).is_ok(), "{spec}");
    }
}

#[test]
fn entries_are_read_as_istio_reads_them() {
    let spec = "hosts: [a.test], location: 1, resolution: 1, export_to: null, workload_selector: null, \
                ports: [{number: '80', name: a, target_port: '8080', protocol: null}, {number: 53, name: b, protocol: udp}], \
                endpoints: [{address: 10.0.0.1, weight: '3', service_account: web, ports: {a: '81'}, colour: red}], \
                subjectAltName: [x]";
    let Object::ServiceEntry(entry) = read(&network("ServiceEntry", spec)).unwrap() else {
        panic!("another kind")
    };
    let [port] = &*entry.ports else { panic!("{:?}", entry.ports) };
    assert_eq!((port.number, port.target, &port.protocol), (80, Some(8080), &None));
    assert_eq!((entry.resolution, &entry.exported_to), (Resolution::Static, &None));
    let EntryEndpoints::Listed(endpoints) = &entry.endpoints else { panic!("{:?}", entry.endpoints) };
    let endpoint = &endpoints[0];
    assert_eq!((endpoint.weight, &*endpoint.service_account, endpoint.ports["a"]), (3, "web", 81));
    let notes: Vec<_> = entry.notes.iter().map(|note| note.path.as_str()).collect();
    assert_eq!(
        notes,
        [
            "spec.endpoints[0].colour",
            "spec.endpoints[0].service_account",
            "spec.export_to",
            "spec.ports[0].target_port",
            "spec.ports[1].protocol",
            "spec.subjectAltName",
            "spec.workload_selector",
        ]
    );
    let Object::WorkloadEntry(entry) = read(&network("WorkloadEntry", "address: 10.0.0.1, x: y")).unwrap()
    else {
        panic!("another kind")
    };
    assert_eq!(entry.notes.iter().map(|note| note.path.as_str()).collect::<Vec<_>>(), ["spec.x"]);
    // Ports that can tell hosts apart, and connections of which nobody does.
    for spec in [
        "hosts: [a.test, b.test], resolution: DNS, ports: [{number: 1, name: a, protocol: TCP}, {number: 2, name: b, protocol: TLS}]",
        "hosts: [a.test, b.test], resolution: DNS, ports: [{number: 1, name: a}]",
        "hosts: [a.test, b.test], resolution: DNS",
        "hosts: [a.test, b.test], ports: [{number: 1, name: a, protocol: TCP}]",
        "hosts: [a.test, A.test], resolution: DNS, ports: [{number: 1, name: a, protocol: TCP}]",
    ] {
        assert!(read(&network("ServiceEntry", spec)).is_ok(), "{spec}");
    }
}

#[test]
fn entries_that_contradict_themselves_are_errors() {
    let long = "x".repeat(1 << 20);
    let many = "a.test, ".repeat(300);
    for (spec, reason) in [
        ("", "spec.hosts is missing"),
        ("hosts: []", "spec.hosts is missing"),
        ("hosts: ['*']", "DNS name"),
        ("hosts: ['a b']", "DNS name"),
        ("hosts: [a..b]", "DNS name"),
        (&format!("hosts: [{long}]"), "longer than 256 bytes"),
        (&format!("hosts: [{many}]"), "256"),
        ("hosts: [a.test], addresses: [web]", "CIDR"),
        ("hosts: [a.test], addresses: [10.0.0.0/33]", "CIDR"),
        ("hosts: [a.test], addresses: [10.0.0.0/8], resolution: DNS", "ranges"),
        ("hosts: [a.test], ports: [{number: 0, name: a}]", "spec.ports[0].number: 0 is not a whole number"),
        ("hosts: [a.test], ports: [{number: 70000, name: a}]", "whole number"),
        ("hosts: [a.test], ports: [{number: 80}]", "name"),
        ("hosts: [a.test], ports: [{number: 80, name: a}, {number: 80, name: b}]", "unique"),
        ("hosts: [a.test], ports: [{number: 80, name: a}, {number: 81, name: a}]", "unique"),
        ("hosts: [a.test], location: MARS", "MARS"),
        ("hosts: [a.test], resolution: DYNAMIC_DNS", "not supported"),
        ("hosts: [a.test], resolution: STATIC", "needs endpoints"),
        ("hosts: [a.test], resolution: STATIC, endpoints: [{address: b.test}]", "IP address"),
        ("hosts: [a.test], endpoints: [{address: 10.0.0.1}]", "NONE takes no endpoints"),
        ("hosts: ['*.a.test'], resolution: DNS", "wildcard"),
        (
            "hosts: [a.test], resolution: DNS_ROUND_ROBIN, endpoints: [{address: b}, {address: c}]",
            "at most one",
        ),
        ("hosts: [a.test], resolution: STATIC, endpoints: [{network: n}]", "needs an address"),
        ("hosts: [a.test], resolution: STATIC, endpoints: [{address: 'unix:///x'}]", "Unix"),
        (
            "hosts: [a.test], resolution: STATIC, endpoints: [{address: 10.0.0.1, locality: a/b/c/d}]",
            "locality",
        ),
        (
            "hosts: [a.test], resolution: STATIC, endpoints: [{address: 10.0.0.1, ports: {a: 0}}]",
            "spec.endpoints[0].ports[a]: 0 is not a whole number",
        ),
        ("hosts: [a.test], resolution: STATIC, endpoints: [null]", ""),
        (
            "hosts: [a.test], resolution: STATIC, endpoints: [{address: 10.0.0.1}], workloadSelector: {labels: {a: b}}",
            "exclude",
        ),
        ("hosts: [a.test], resolution: STATIC, workloadSelector: {labels: {a: b}}", "MESH_INTERNAL"),
        ("hosts: [a.test], resolution: STATIC, location: MESH_INTERNAL, workloadSelector: {}", "labels"),
        ("hosts: [a.test], exportTo: ['*', a]", "stands alone"),
        ("hosts: [a.test], exportTo: ['a/b']", "namespace"),
        (&format!("hosts: [a.test], subjectAltNames: [{long}]"), "longer than 256 bytes"),
        (
            "hosts: [a.test, b.test], resolution: DNS, ports: [{number: 1, name: a, protocol: TCP}, {number: 2, name: b, protocol: Mongo}]",
            "spec.hosts: there is one at most where all ports are of plain TCP",
        ),
    ] {
        let error = read(&network("ServiceEntry", spec)).unwrap_err();
        assert!(error.contains(reason), "{spec:.200}: {error}");
    }
    for spec in
        ["", "address: ''", "addres: 10.0.0.1", "address: 10.0.0.1, weight: -1", "address: [10.0.0.1]"]
    {
        assert!(read(&network("WorkloadEntry", spec)).is_err(), "{spec}");
    }
}

#[test]
fn thousands_of_hostile_objects_cost_little() {
    let started = Instant::now();
    let long = "y".repeat(10_000);
    for number in 0..2_000 {
        let spec = format!("spec: {{mtls: {{mode: STRICT}}, x{number}: {long}}}");
        assert!(parse(&policy(&spec)).is_err());
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn every_custom_kind_is_found_by_each_of_its_versions() {
    for served in CUSTOM_KINDS {
        for version in served.versions {
            let found = ServedKind::find(&format!("{}/{version}", served.group), served.kind.as_str());
            assert_eq!(found, Some(served));
        }
        assert_eq!(ServedKind::find("example.com/v1", served.kind.as_str()), None);
        assert!(served.object(serde_json::Value::Null).is_err());
    }
}
