//! AuthorizationPolicies as people write them, and what connections are judged by.

use super::tests::{config, index, pod, pod_of};
use super::*;
use warren_common::model::{AuthorizationPolicy, PolicyAction, PolicyScope};

fn yaml(name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"
    )
}

fn peer_authentication(name: &str, spec: &str) -> String {
    yaml(name, spec).replace("AuthorizationPolicy", "PeerAuthentication")
}

fn resolved(yaml: &str, name: &str, config: &ResolveConfig) -> (Option<AuthorizationPolicy>, String) {
    let (namespace, name) = name.split_once('/').unwrap();
    let key = ResourceKey::AuthorizationPolicy(Name::new(namespace, name));
    published(yaml, &key, config)
}

fn published(yaml: &str, key: &ResourceKey, config: &ResolveConfig) -> (Option<AuthorizationPolicy>, String) {
    let Resolved { type_url, name, resource, problems } = resolve(&index(yaml), config, key);
    assert_eq!(type_url, AUTHORIZATION_TYPE_URL);
    let problems = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    match resource {
        Some(Resource::Authorization(policy)) => {
            assert_eq!(policy.name.to_string(), name);
            (Some(*policy), problems)
        }
        None => (None, problems),
        Some(other) => panic!("{other:?}"),
    }
}

/// The rules, short: `index:clause&clause`, a clause being its matches' JSON.
fn rules(spec: &str, trust_domain: &str) -> (String, String) {
    let config = ResolveConfig { trust_domain: trust_domain.into(), ..config() };
    let (policy, problems) = resolved(&yaml("shop/web", spec), "shop/web", &config);
    let rule = |rule: &warren_common::model::PolicyRule| {
        let clauses =
            rule.clauses.iter().map(|clause| serde_json::to_string(clause).unwrap().replace('"', ""));
        format!("{}:{}", rule.index, clauses.collect::<Vec<_>>().join("&"))
    };
    (policy.unwrap().rules.iter().map(rule).collect::<Vec<_>>().join(" "), problems)
}

#[test]
fn sources_operations_and_conditions_are_clauses() {
    for (spec, expected) in [
        ("", ""),
        ("rules: [{}]", "0:"),
        ("action: DENY, rules: [{}]", "0:"),
        (
            "rules: [{from: [{source: {namespaces: [a]}}, {source: {ipBlocks: [10.0.0.1]}}], to: [{operation: {ports: ['80']}}]}]",
            "0:[{namespaces:[{exact:a}]},{source_ips:[10.0.0.1/32]}]&[{destination_ports:[80]}]",
        ),
        (
            "rules: [{}, {when: [{key: source.ip, values: [10.0.0.1]}, {key: destination.port, notValues: ['80']}]}]",
            "0: 1:[{source_ips:[10.0.0.1/32]}]&[{not_destination_ports:[80]}]",
        ),
    ] {
        assert_eq!(rules(spec, "cluster.local"), (expected.to_owned(), String::new()), "{spec}");
    }
}

#[test]
fn http_takes_rules_from_allow_and_conditions_from_deny() {
    const FROM: &str = "from: [{source: {namespaces: [a]}}]";
    const A: &str = "0:[{namespaces:[{exact:a}]}]";
    for (action, rule, expected) in [
        ("ALLOW", "to: [{operation: {methods: [GET]}}]", ""),
        ("ALLOW", &format!("{FROM}, to: [{{operation: {{methods: [GET]}}}}]"), ""),
        (
            "ALLOW",
            &format!("{FROM}, to: [{{operation: {{ports: ['80']}}}}, {{operation: {{paths: [/a]}}}}]"),
            "",
        ),
        ("ALLOW", &format!("{FROM}, when: [{{key: 'request.headers[a]', values: [b]}}]"), ""),
        ("ALLOW", "from: [{source: {requestPrincipals: ['*']}}]", ""),
        ("DENY", "to: [{operation: {methods: [GET]}}]", "0:"),
        ("DENY", "to: [{operation: {methods: [GET], ports: ['80']}}]", "0:[{destination_ports:[80]}]"),
        ("DENY", "to: [{operation: {ports: ['80']}}, {operation: {hosts: [a.test]}}]", "0:"),
        ("DENY", &format!("{FROM}, to: [{{operation: {{notPaths: [/a]}}}}]"), A),
        ("DENY", &format!("{FROM}, when: [{{key: request.auth.presenter, values: [b]}}]"), A),
        ("DENY", "from: [{source: {requestPrincipals: ['*'], namespaces: [a]}}]", A),
        ("DENY", "from: [{source: {notRequestPrincipals: ['*']}}]", "0:"),
    ] {
        let (rules, problems) = rules(&format!("action: {action}, rules: [{{{rule}}}]"), "cluster.local");
        assert_eq!(rules, expected, "{action} {rule}");
        let effect = if action == "ALLOW" { "would allow is denied" } else { "rest of the rule is denied" };
        assert!(problems.contains("rules 0 have") && problems.contains(effect), "{problems}");
    }
    // What is left keeps its place.
    let (left, problems) =
        rules(&format!("rules: [{{to: [{{operation: {{methods: [GET]}}}}]}}, {{{FROM}}}]"), "cluster.local");
    assert_eq!(left, A.replace("0:", "1:"));
    assert!(problems.contains("rules 0 have methods"), "{problems}");
}

#[test]
fn the_meshs_own_trust_domain_has_an_alias() {
    let principals = |list: &str| rules(&format!("rules: [{{from: [{{source: {list}}}]}}]"), "prod.test").0;
    for (list, expected) in [
        ("{principals: [cluster.local/ns/a/sa/b]}", "0:[{principals:[{exact:prod.test/ns/a/sa/b}]}]"),
        ("{notPrincipals: ['cluster.local/ns/a/*']}", "0:[{not_principals:[{prefix:prod.test/ns/a/}]}]"),
        ("{principals: [other.test/ns/a/sa/b]}", "0:[{principals:[{exact:other.test/ns/a/sa/b}]}]"),
        (
            "{principals: ['*/ns/a/sa/b', 'cluster.localx/y']}",
            "0:[{principals:[{suffix:/ns/a/sa/b},{exact:cluster.localx/y}]}]",
        ),
        ("{trustDomains: [cluster.local]}", "0:[{trust_domains:[{exact:cluster.local}]}]"),
    ] {
        assert_eq!(principals(list), expected, "{list}");
    }
    let when =
        rules("rules: [{when: [{key: source.principal, values: [cluster.local/ns/a/sa/b]}]}]", "x.test").0;
    assert_eq!(when, "0:[{principals:[{exact:x.test/ns/a/sa/b}]}]");
}

#[test]
fn actions_and_scopes() {
    use PolicyAction::{Allow, Deny};
    use PolicyScope::{Global, Namespace, Workload};
    const WEB: &str = "selector: {matchLabels: {app: web}}";
    const CUSTOM: &str = "action: CUSTOM, provider: {name: x}, rules: [{}]";
    for (name, spec, expected, told) in [
        ("shop/a", "", Some((Namespace, Allow)), ""),
        ("shop/a", "action: DENY, rules: [{}]", Some((Namespace, Deny)), ""),
        ("shop/a", WEB, Some((Workload, Allow)), ""),
        ("warren-system/a", "", Some((Global, Allow)), ""),
        ("istio-system/a", "", Some((Global, Allow)), ""),
        ("istio-system/a", WEB, Some((Workload, Allow)), ""),
        ("shop/a", CUSTOM, Some((Namespace, Deny)), "CUSTOM is not supported"),
        ("shop/a", "action: AUDIT, rules: [{}]", None, "AUDIT refuses nothing"),
        ("shop/a", "targetRefs: [{kind: Service, name: web}]", Some((Workload, Allow)), "not there"),
        (
            "shop/a",
            "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: web}]",
            None,
            "has no effect on Gateway web",
        ),
        (
            "shop/a",
            "targetRefs: [{kind: Service, name: web}, {group: networking.istio.io, kind: ServiceEntry, name: x}]",
            Some((Workload, Allow)),
            "has no effect on ServiceEntry x",
        ),
    ] {
        let (policy, problems) = resolved(&yaml(name, spec), name, &config());
        assert_eq!(policy.map(|policy| (policy.scope, policy.action)), expected, "{name} {spec}");
        assert!(problems.contains(told) && problems.is_empty() == told.is_empty(), "{problems}");
    }
    assert_eq!(resolved("", "shop/gone", &config()).0, None);
}

fn named(policies: &str) -> Vec<String> {
    let yaml = pod(", labels: {app: web}", "", "") + policies;
    let workload = pod_of(&yaml, "web").0.unwrap();
    workload.authorization_policies.iter().map(ToString::to_string).collect()
}

#[test]
fn workloads_name_what_selects_them() {
    const WEB: &str = "selector: {matchLabels: {app: web}}";
    for (policies, expected) in [
        (vec![yaml("shop/a", "")], vec![]),
        (vec![yaml("shop/a", WEB), yaml("shop/b", "selector: {matchLabels: {app: db}}")], vec!["shop/a"]),
        (vec![yaml("other/a", WEB)], vec![]),
        (
            vec![yaml("istio-system/a", WEB), yaml("warren-system/a", WEB), yaml("shop/z", WEB)],
            vec!["shop/z", "warren-system/a", "istio-system/a"],
        ),
        // Nobody waits for a policy that never comes.
        (vec![yaml("shop/a", &format!("{WEB}, action: AUDIT"))], vec![]),
    ] {
        assert_eq!(named(&policies.concat()), expected, "{}", policies.concat());
    }
}

/// A service `web` whose port 80 leads to 8080 and 81 to 9090, and 82 nowhere, with a slice that names the pod.
const SERVICE: &str = "---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.96.0.1
  ports:
  - {name: http, port: 80, targetPort: http}
  - {name: admin, port: 81, targetPort: 9090}
  - {name: none, port: 82, targetPort: none}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: admin, port: 9090}]
endpoints: [{addresses: [10.0.0.1], conditions: {ready: false}}]
";

#[test]
fn what_is_attached_to_a_service_is_for_who_stands_behind_it_at_its_ports() {
    const TO_WEB: &str = "targetRefs: [{kind: Service, name: web}]";
    let ports = |ports: &str| format!("rules: [{{to: [{{operation: {{{ports}}}}}]}}]");
    for (action, rules, expected) in [
        ("ALLOW", String::new(), ""),
        ("DENY", "rules: [{}]".to_owned(), "0:"),
        ("ALLOW", ports("ports: ['80']"), "0:[{destination_ports:[8080]}]"),
        ("ALLOW", ports("ports: ['80', '81', '82', '8080']"), "0:[{destination_ports:[8080,9090]}]"),
        // The service has no such port: no connection is one to it.
        ("ALLOW", ports("ports: ['8080']"), "0:[]"),
        ("DENY", ports("ports: ['82']"), "0:[]"),
        ("DENY", ports("notPorts: ['80']"), "0:[{not_destination_ports:[8080]}]"),
        ("DENY", ports("notPorts: ['8080']"), "0:"),
        (
            "DENY",
            "rules: [{when: [{key: destination.port, values: ['81']}]}]".to_owned(),
            "0:[{destination_ports:[9090]}]",
        ),
    ] {
        let spec = [TO_WEB, &format!("action: {action}"), &rules].map(str::to_owned);
        let spec = spec.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
        let (policy, problems) = resolved(&(yaml("shop/a", &spec) + SERVICE), "shop/a", &config());
        let policy = policy.unwrap();
        assert_eq!((policy.scope, problems.as_str()), (PolicyScope::Workload, ""), "{spec}");
        assert_eq!(policy.only_ports, Some(vec![8080, 9090]));
        let clauses = |rule: &warren_common::model::PolicyRule| {
            let clauses = rule.clauses.iter().map(|clause| serde_json::to_string(clause).unwrap());
            format!("{}:{}", rule.index, clauses.collect::<String>().replace('"', ""))
        };
        assert_eq!(policy.rules.iter().map(clauses).collect::<String>(), expected, "{spec}");
    }
    // Those behind the service name it, whether it calls them ready or not; others do not.
    assert_eq!(named(&(yaml("shop/a", TO_WEB) + SERVICE)), ["shop/a"]);
    assert_eq!(named(&(yaml("shop/a", TO_WEB) + &SERVICE.replace("10.0.0.1", "10.0.0.2"))), [""; 0]);
    assert_eq!(named(&(yaml("other/a", TO_WEB) + SERVICE)), [""; 0]);
}

#[test]
fn a_policy_that_was_never_understood_denies_what_it_may_be_for() {
    use crate::source::Change;
    use crate::source::manifests::nevertheless;
    const WEB: &str = "selector: {matchLabels: {app: web}}";
    let yaml = yaml("shop/a", &format!("{WEB}, rulez: [{{}}]")) + &yaml("shop/b", "");
    assert!(crate::source::manifests::parse(&yaml).is_err());
    let mut index = Index::default();
    for object in nevertheless(&yaml) {
        index.apply(&Change::Upsert(object));
    }
    let resolved =
        |name| resolve(&index, &config(), &ResourceKey::AuthorizationPolicy(Name::new("shop", name)));
    let Resolved { resource: Some(Resource::Authorization(a)), problems, .. } = resolved("a") else {
        panic!("nothing stands for it")
    };
    assert_eq!((a.scope, a.action, a.rules.len()), (PolicyScope::Workload, PolicyAction::Deny, 1));
    assert!(a.rules[0].clauses.is_empty() && problems[0].reason.contains("never was"), "{problems:?}");
    assert!(problems[0].reason.contains("rulez"), "{problems:?}");
    // What is good of such a file counts as it is.
    let Resolved { resource: Some(Resource::Authorization(b)), problems, .. } = resolved("b") else {
        panic!("a good policy of a bad file is missing")
    };
    assert_eq!((b.action, b.rules.len(), problems.len()), (PolicyAction::Allow, 0, 0));
}

#[test]
fn peer_authentications_are_policies_too() {
    const WEB: &str = "selector: {matchLabels: {app: web}}";
    const STRICT: &str = "mtls: {mode: STRICT}";
    let all = peer_authentication("shop/default", STRICT);
    let open = |port: u16| format!("{WEB}, portLevelMtls: {{{port}: {{mode: PERMISSIVE}}}}");
    let closed = |port: u16| format!("{WEB}, portLevelMtls: {{{port}: {{mode: STRICT}}}}");
    let web = |spec: &str| peer_authentication("shop/web", spec);
    let of_ports = Some("shop/converted_peer_authentication_web");
    for (yaml, expected, conditions) in [
        (String::new(), None, ""),
        (all.clone(), Some("warren-system/istio_converted_static_strict"), ""),
        (web(&closed(80)), of_ports, "{destination_ports:[80]}"),
        (web(&open(80)), None, ""),
        (all.clone() + &web(&open(80)), of_ports, "{not_destination_ports:[80]}"),
        (all.clone() + &web(&closed(80)), Some("warren-system/istio_converted_static_strict"), ""),
    ] {
        assert_eq!(named(&yaml), expected.into_iter().collect::<Vec<_>>(), "{yaml}");
        let key = ResourceKey::PortPolicy(Name::new("shop", "web"));
        let policy = published(&yaml, &key, &config()).0;
        let clause = |policy: &AuthorizationPolicy| {
            assert_eq!((policy.scope, policy.action), (PolicyScope::Workload, PolicyAction::Deny));
            let clauses = &policy.rules[0].clauses;
            assert_eq!(serde_json::to_string(&clauses[0]).unwrap(), r#"[{"not_principals":["presence"]}]"#);
            serde_json::to_string(&clauses[1][0]).unwrap().replace('"', "")
        };
        assert_eq!(policy.as_ref().map(clause).unwrap_or_default(), conditions, "{yaml}");
        let strict = published(&yaml, &ResourceKey::StrictPolicy, &config()).0;
        assert_eq!(strict.is_some(), !yaml.is_empty());
    }
}
