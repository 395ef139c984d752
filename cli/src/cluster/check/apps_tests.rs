#![expect(clippy::needless_pass_by_value, reason = "JSON that is written in place")]

use super::*;
use crate::render::check::Outcome;
use serde_json::{Value, json};

fn pod(name: &str, labels: Value, spec: Value) -> Pod {
    let mut full = json!({"containers": []});
    if let (Some(full), Some(spec)) = (full.as_object_mut(), spec.as_object()) {
        full.extend(spec.clone());
    }
    serde_json::from_value(
        json!({"metadata": {"name": name, "namespace": "shop", "labels": labels}, "spec": full}),
    )
    .unwrap()
}

fn shop(labels: Value) -> Namespace {
    serde_json::from_value(json!({"metadata": {"name": "shop", "labels": labels}})).unwrap()
}

#[test]
fn the_pods_label_overrides_its_namespaces() {
    let on = json!({"warren.dev/mesh": "enabled"});
    let off = json!({"warren.dev/mesh": "disabled"});
    let ambient = json!({"istio.io/dataplane-mode": "ambient"});
    let none = json!({"istio.io/dataplane-mode": "none", "warren.dev/mesh": "enabled"});
    for (mine, namespaces, expected) in [
        (json!({}), json!({}), None),
        (json!({}), on.clone(), Some(true)),
        (off, on.clone(), Some(false)),
        (on, json!({}), Some(true)),
        (json!({}), ambient, Some(true)),
        (json!({}), none, Some(true)),
    ] {
        let pod = pod("p", mine.clone(), json!({}));
        assert_eq!(enrolled(&pod, Some(&shop(namespaces))), expected, "{mine}");
    }
}

#[test]
fn what_keeps_pods_out_is_found() {
    let policy = |name: &str, selector: Value, ingress: Value, kinds: Value| -> NetworkPolicy {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"},
            "spec": {"podSelector": selector, "ingress": ingress, "policyTypes": kinds}}))
        .unwrap()
    };
    let web = json!({"matchLabels": {"app": "web"}});
    let mut facts = Facts {
        namespaces: vec![shop(json!({"warren.dev/mesh": "enabled"}))],
        pods: vec![
            pod(
                "web",
                json!({"app": "web"}),
                json!({"containers": [{"name": "c", "ports": [{"containerPort": 8080}]}]}),
            ),
            pod(
                "own",
                json!({}),
                json!({"containers": [{"name": "c", "ports": [{"containerPort": 15008}]}]}),
            ),
            pod("host", json!({"warren.dev/mesh": "enabled"}), json!({"hostNetwork": true})),
            pod("out", json!({"warren.dev/mesh": "disabled", "app": "web"}), json!({})),
        ],
        policies: vec![
            policy("only-8080", web.clone(), json!([{"ports": [{"port": 8080}]}]), json!(["Ingress"])),
            policy("egress", json!({}), json!(null), json!(["Egress"])),
        ],
        ..Facts::default()
    };
    let found = findings(&facts);
    let of = |name: &str| found.iter().find(|finding| finding.name == name).unwrap();
    assert_eq!(of("mesh").detail, "2 pods are to be in the mesh");
    assert_eq!(of("labelled in vain").detail, "hostNetwork: shop/host");
    assert_eq!((of("ports").result, of("ports").detail.as_str()), (Outcome::Bad, "shop/own (15008)"));
    assert_eq!(of("NetworkPolicies").detail, "15008 is closed: shop/web (by only-8080)");
    // Policies add up: one that opens the port is enough.
    facts.policies.push(policy("tunnels", web, json!([{"ports": [{"port": 15008}]}]), json!(["Ingress"])));
    assert!(
        findings(&facts)
            .iter()
            .all(|finding| finding.name != "NetworkPolicies" || finding.result == Outcome::Good)
    );
}
