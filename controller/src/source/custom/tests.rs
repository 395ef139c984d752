//! The same objects through both doors: YAML files and the API server's JSON.

use crate::objects::{MtlsMode, Object};
use crate::source::manifests::parse;
use crate::source::{CUSTOM_KINDS, ServedKind};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// From YAML, and the same from JSON.
fn read(yaml: &str) -> Result<Object, String> {
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
    assert_eq!(parse(&older.replace("v1beta1", "v1alpha1")).unwrap().ignored.len(), 1);
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
