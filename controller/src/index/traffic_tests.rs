//! What a change of a route, a policy or a service touches: no more than it must, and nothing is forgotten.

use super::*;
use crate::resolve::{ResolveConfig, resolve};
use crate::source::manifests::parse;
use proptest::prelude::*;

fn config() -> ResolveConfig {
    ResolveConfig { cluster: "c".into(), cluster_domain: "cluster.local".into(), trust_domain: "td".into() }
}

fn object(kind: &str, group: &str, head: &str, spec: &str) -> Object {
    let (namespace, name) = head.split_once('/').unwrap();
    let yaml = format!(
        "apiVersion: {group}v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"
    );
    parse(&yaml).unwrap().objects.remove(0)
}

fn service(head: &str, port: u16) -> Object {
    object("Service", "", head, &format!("clusterIP: 10.0.0.1, ports: [{{name: http, port: {port}}}]"))
}

fn istio(kind: &str, head: &str, spec: &str) -> Object {
    object(kind, "networking.istio.io/", head, spec)
}

fn touched(index: &mut Index, change: &Change) -> Vec<String> {
    let mut said: Vec<_> = index
        .apply(change)
        .iter()
        .filter_map(|key| match key {
            ResourceKey::Traffic(name) => Some(name.hostname.replace(".svc.cluster.local", "")),
            ResourceKey::Remarks(key) => Some(key.to_string()),
            _ => None,
        })
        .collect();
    said.sort();
    said
}

#[test]
fn a_change_touches_whom_it_is_about() {
    let mut index = Index::default();
    let upsert = |index: &mut Index, object| touched(index, &Change::Upsert(object));
    assert_eq!(upsert(&mut index, service("shop/web", 80)), [""; 0]);
    assert_eq!(upsert(&mut index, service("shop/a", 80)), [""; 0]);
    let route = |host: &str| {
        istio(
            "VirtualService",
            "shop/vs",
            &format!("hosts: [{host}], http: [{{route: [{{destination: {{host: a, subset: v1}}}}]}}]"),
        )
    };
    assert_eq!(upsert(&mut index, route("web")), ["VirtualService shop/vs", "web.shop"]);
    // Where it sends to: another port may be meant, or none.
    assert_eq!(upsert(&mut index, service("shop/a", 81)), ["VirtualService shop/vs", "web.shop"]);
    let rule = istio("DestinationRule", "shop/dr", "host: a, subsets: [{name: v1}]");
    assert_eq!(upsert(&mut index, rule), ["DestinationRule shop/dr", "VirtualService shop/vs", "a.shop"]);
    assert_eq!(upsert(&mut index, route("'*'")), ["VirtualService shop/vs", "a.shop", "web.shop"]);
    let gone = Change::Delete(Key { kind: Kind::VirtualService, name: Name::new("shop", "vs") });
    assert_eq!(touched(&mut index, &gone), ["VirtualService shop/vs", "a.shop", "web.shop"]);
    let attached = object(
        "HTTPRoute",
        "gateway.networking.k8s.io/",
        "bank/hr",
        "parentRefs: [{group: '', kind: Service, name: web, namespace: shop}], rules: [{backendRefs: [{name: b, port: 80}]}]",
    );
    assert_eq!(upsert(&mut index, attached), ["HTTPRoute bank/hr", "web.shop"]);
    assert_eq!(upsert(&mut index, service("bank/b", 80)), ["HTTPRoute bank/hr", "web.shop"]);
    assert_eq!(upsert(&mut index, service("bank/c", 80)), [""; 0]);
}

const HOSTS: [&str; 5] = ["web", "a", "'*'", "web.shop.svc.cluster.local", "x.example.com"];

fn change() -> impl Strategy<Value = Change> {
    let pick = |list: &'static [&'static str]| proptest::sample::select(list);
    let head = || pick(&["shop/web", "shop/a", "bank/web", "bank/a"]);
    let host = || pick(&HOSTS);
    let export = || pick(&["", ", exportTo: ['.']", ", exportTo: [bank]"]);
    let virtual_service = (head(), host(), host(), export(), any::<bool>(), any::<bool>()).prop_map(
        |(head, host, to, export, root, delegates)| {
            let to = to.replace("'*'", "web");
            let hosts = if root { format!("hosts: [{host}], ") } else { String::new() };
            let action = if root && delegates {
                "delegate: {name: a, namespace: shop}".to_owned()
            } else {
                format!("route: [{{destination: {{host: {to}}}}}]")
            };
            istio("VirtualService", head, &format!("{hosts}http: [{{{action}}}]{export}"))
        },
    );
    let rule = (head(), host(), export()).prop_map(|(head, host, export)| {
        istio("DestinationRule", head, &format!("host: {host}, subsets: [{{name: v1}}]{export}"))
    });
    let route = (
        head(),
        pick(&["HTTPRoute", "GRPCRoute"]),
        pick(&["web", "a"]),
        pick(&["shop", "bank"]),
        pick(&["", ", port: 80"]),
        pick(&[
            "",
            "matches: [{headers: [{name: h, value: v}]}], ",
            "matches: [{headers: [{name: h, value: v}]}, {}], ",
        ]),
    )
        .prop_map(|(head, kind, name, namespace, port, matches)| {
            let parent = format!("group: '', kind: Service, name: {name}, namespace: {namespace}{port}");
            let rule = format!("{matches}backendRefs: [{{name: a, port: 80}}]");
            let spec = format!("parentRefs: [{{{parent}}}], rules: [{{{rule}}}]");
            object(kind, "gateway.networking.k8s.io/", head, &spec)
        });
    let service = (head(), 80..82u16, 0..4u8).prop_map(|(head, port, kind)| match kind {
        0 => object("Service", "", head, &format!("clusterIP: None, ports: [{{name: http, port: {port}}}]")),
        1 => object("Service", "", head, "type: ExternalName, externalName: x.example.com"),
        _ => service(head, port),
    });
    let entry = (head(), pick(&["x.example.com", "web.shop.svc.cluster.local"]), any::<bool>()).prop_map(
        |(head, host, has_address)| {
            let addresses = if has_address { "addresses: [10.1.0.1], " } else { "" };
            let spec = format!("hosts: [{host}], {addresses}ports: [{{number: 80, name: http}}]");
            istio("ServiceEntry", head, &spec)
        },
    );
    let object = prop_oneof![virtual_service, rule, route, service, entry];
    (object, any::<bool>()).prop_map(|(object, there)| match there {
        true => Change::Upsert(object),
        false => Change::Delete(object.key()),
    })
}

proptest! {
    #[test]
    fn incremental_is_the_same_as_from_scratch(changes in proptest::collection::vec(change(), 0..40)) {
        let (mut index, mut resolved, mut latest) = (Index::default(), BTreeMap::new(), BTreeMap::new());
        for change in &changes {
            for key in index.apply(change) {
                let now = resolve(&index, &config(), &key);
                // One resource may have several keys.
                resolved.insert((now.type_url, now.name.clone()), (key, now));
            }
            match change {
                Change::Upsert(object) => drop(latest.insert(object.key(), object.clone())),
                Change::Delete(key) => drop(latest.remove(key)),
                Change::Refused(..) => {}
            }
        }
        let mut scratch = Index::default();
        let keys: BTreeSet<_> = latest.values().rev().flat_map(|object| scratch.apply(&Change::Upsert(object.clone()))).collect();
        prop_assert_eq!(&index, &scratch);
        for (key, known) in resolved.values() {
            prop_assert_eq!(known, &resolve(&scratch, &config(), key), "{:?}", key);
        }
        for key in keys {
            let now = resolve(&scratch, &config(), &key);
            if now.resource.is_some() || !now.problems.is_empty() {
                prop_assert!(resolved.contains_key(&(now.type_url, now.name)), "{:?}", key);
            }
        }
    }
}
