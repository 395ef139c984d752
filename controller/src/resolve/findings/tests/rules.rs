//! Rules that do not count, or not for those whom they seem to be for.

use super::*;

#[test]
fn rules_are_looked_at_in_the_order_in_which_they_count() {
    let root = |rules: &str| object("VirtualService", "v", &format!("hosts: [web], http: [{rules}]"));
    let delegate = |rules: &str| object("VirtualService", "d", &format!("http: [{rules}]"));
    let path = |path: &str| format!("{{match: [{{uri: {{{path}}}}}], {TO_A}}}");
    let left = |path: &str| format!("{{match: [{{uri: {{{path}}}}}], delegate: {{name: d}}}}");
    let (all, under_x) = (format!("{{{TO_A}}}"), path("prefix: /x"));
    for (objects, expected) in [
        // What is left to a delegate holds what the delegate's rules hold, and no more.
        (root(&format!("{{delegate: {{name: d}}}}, {all}")) + &delegate(&under_x), vec![]),
        (
            root(&format!("{}, {}", left("prefix: /x"), path("prefix: /x/b")))
                + &delegate(&path("prefix: /x/a")),
            vec![],
        ),
        (
            root(&format!("{{delegate: {{name: d}}}}, {under_x}")) + &delegate(&all),
            vec!["v rule-unreachable spec.http[1]"],
        ),
        (
            root(&format!("{all}, {{delegate: {{name: d}}}}")) + &delegate(&under_x),
            vec!["v rule-unreachable spec.http[1]"],
        ),
        // A missing one is left out.
        (
            root(&format!("{{delegate: {{name: none}}}}, {all}")),
            vec!["v delegate-not-found spec.http[0].delegate"],
        ),
        // A delegate's own, as they are within the rules that are left to it.
        (
            root("{delegate: {name: d}}") + &delegate(&format!("{}, {under_x}", path("prefix: /"))),
            vec!["d rule-unreachable spec.http[1]"],
        ),
        (root(&left("prefix: /x")) + &delegate(&format!("{}, {under_x}", path("prefix: /"))), vec![]),
        (root(&format!("{}, {under_x}", path("regex: '.*'"))), vec!["v rule-unreachable spec.http[1]"]),
        // Of connections.
        (vs(&format!("hosts: [db], tcp: [{{{TO_A}}}, {{{TO_A}}}]")), vec!["v rule-unreachable spec.tcp[1]"]),
        (vs(&format!("hosts: [db], tcp: [{{match: [{{port: 5432}}], {TO_A}}}, {{{TO_A}}}]")), vec![]),
        (
            vs(&format!(
                "hosts: ['*.shop.svc.cluster.local'], tls: [{{match: [{{sniHosts: ['*.shop.svc.cluster.local']}}], {TO_A}}}, \
                 {{match: [{{sniHosts: [db.shop.svc.cluster.local]}}], {TO_A}}}]"
            )),
            vec!["v rule-unreachable spec.tls[1]"],
        ),
    ] {
        let mut found = found(&objects);
        // What lies outside of the rule that is left to the delegate is another matter.
        found.retain(|one| !one.contains("delegate-conflict"));
        assert_eq!(found, expected, "{objects}");
    }
}

const DB: &str = "---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: 10.0.0.4, ports: [{name: tcp-db, port: 5432}]}
";

fn vs(spec: &str) -> String {
    DB.to_owned() + &object("VirtualService", "v", spec)
}

#[test]
fn rules_that_no_port_is_for_are_named() {
    for (spec, expected) in [
        (format!("hosts: [db], http: [{{{TO_A}}}]"), vec!["v rules-not-for-port spec.http"]),
        (format!("hosts: [db], tcp: [{{{TO_A}}}]"), vec![]),
        (format!("hosts: [a], tcp: [{{{TO_A}}}]"), vec!["v rules-not-for-port spec.tcp"]),
        (
            format!(
                "hosts: [a.shop.svc.cluster.local], tls: [{{match: [{{sniHosts: [a.shop.svc.cluster.local]}}], {TO_A}}}]"
            ),
            vec!["v rules-not-for-port spec.tls"],
        ),
        // Each list has a host to be for.
        (format!("hosts: [a, db], http: [{{{TO_A}}}], tcp: [{{{TO_A}}}]"), vec![]),
        (
            format!("hosts: [a, db], http: [{{match: [{{port: 80}}, {{port: 5432}}, {{port: 9}}], {TO_A}}}]"),
            vec![
                "v rules-not-for-port spec.http[0].match[1].port",
                "v port-not-found spec.http[0].match[2].port",
            ],
        ),
    ] {
        assert_eq!(found(&vs(&spec)), expected, "{spec}");
    }
    let of_port =
        object("DestinationRule", "d", "host: a, trafficPolicy: {portLevelSettings: [{port: {number: 9}}]}");
    assert_eq!(found(&of_port), ["d port-not-found spec.trafficPolicy.portLevelSettings[port 9]"]);
}

#[test]
fn conditions_that_are_lost_are_errors() {
    for (rule, expected) in [
        ("http: [{match: [{headers: {method: {exact: GET}}}]", "match[0].headers[method]"),
        ("http: [{match: [{withoutHeaders: {uri: {exact: /}}}]", "match[0].withoutHeaders[uri]"),
        ("http: [{match: [{gateways: [mesh], sourceLabels: {app: x}}]", "match[0].sourceLabels"),
        ("http: [{match: [{gateways: [mesh], sourceNamespace: x}]", "match[0].sourceNamespace"),
        ("http: [{match: [{url: {exact: /}}]", "match[0].url"),
    ] {
        let spec = format!("hosts: [web], {rule}, {TO_A}}}]");
        assert_eq!(found(&vs(&spec)), [format!("v condition-lost spec.http[0].{expected}")], "{spec}");
    }
    let route = "parentRefs: [{group: '', kind: Service, name: a}], \
                 rules: [{matches: [{paths: /x}], backendRefs: [{name: a, port: 80}]}]";
    assert_eq!(found(&object("HTTPRoute", "h", route)), ["h condition-lost spec.rules[0].matches[0].paths"]);
    let fault = vs(&format!("hosts: [web], http: [{{{TO_A}, fault: {{delay: {{fixedDelay: 1s}}}}}}]"));
    assert_eq!(found(&fault), ["v unsupported-field spec.http[0].fault.delay"]);
    let gateways = found(&vs(&format!("hosts: [web], http: [{{match: [{{gateways: [mesh]}}], {TO_A}}}]")));
    assert_eq!(gateways, Vec::<String>::new());
}

#[test]
fn one_virtual_service_decides_for_a_host() {
    let of = |name: &str, spec: &str| object("VirtualService", name, &format!("{spec}, http: [{{{TO_A}}}]"));
    for (specs, expected) in [
        (
            ["hosts: [web], exportTo: ['.']", "hosts: [web], exportTo: ['.']"],
            vec!["w host-conflict spec.hosts[0]"],
        ),
        (["hosts: ['*.cluster.local']", "hosts: ['*.cluster.local']"], vec!["w host-conflict spec.hosts[0]"]),
        (
            ["hosts: [web], exportTo: [a, b]", "hosts: [web], exportTo: [a]"],
            vec!["w host-conflict spec.hosts[0]"],
        ),
        // The others have somebody left.
        (["hosts: [web], exportTo: ['.']", "hosts: [web]"], vec![]),
        (["hosts: [web], exportTo: [a]", "hosts: [web], exportTo: [b]"], vec![]),
        (["hosts: [web]", "hosts: ['*.cluster.local']"], vec![]),
        (["hosts: [web], exportTo: ['~']", "hosts: [web]"], vec!["v exported-to-nobody spec.exportTo"]),
    ] {
        assert_eq!(found(&(of("v", specs[0]) + &of("w", specs[1]))), expected, "{specs:?}");
    }
    let text = found_text(&(of("v", "hosts: [web]") + &of("w", "hosts: [web]")));
    assert!(text.contains("it has no age, nor has this one, and then the names decide"), "{text}");
    let age = "namespace: shop, creationTimestamp: '2026-01-01T00:00:00Z'}";
    let text =
        found_text(&(of("v", "hosts: [web]").replace("namespace: shop}", age) + &of("w", "hosts: [web]")));
    assert!(text.contains("VirtualService shop/w decides") && text.contains("it is older"), "{text}");
}

#[test]
fn subsets_are_seen_by_those_who_follow_or_not() {
    let rule = |namespace: &str, more: &str| {
        let spec = format!("host: a.shop.svc.cluster.local, subsets: [{{name: v1}}]{more}");
        object("DestinationRule", "d", &spec).replace("namespace: shop", &format!("namespace: {namespace}"))
    };
    let route = |more: &str| {
        object(
            "VirtualService",
            "v",
            &format!("hosts: [web], http: [{{route: [{{destination: {{host: a, subset: v1}}}}]}}]{more}"),
        )
    };
    let none = Vec::<String>::new();
    for (objects, expected) in [
        (rule("shop", "") + &route(""), ""),
        (rule("shop", ", exportTo: ['.']") + &route(", exportTo: ['.']"), ""),
        // Clients of other namespaces do not see it.
        (rule("shop", ", exportTo: ['.']") + &route(""), "warning: clients in others do not"),
        (rule("shop", ", exportTo: ['.']") + &route(", exportTo: [bank]"), "error: clients in bank do not"),
        // Nor what is neither theirs nor the service's.
        (rule("bank", "") + &route(""), "warning: clients in others, shop do not"),
        (rule("bank", "") + &route(", exportTo: [bank]"), ""),
        (rule("istio-system", "") + &route(""), ""),
        (
            rule("bank", "") + &rule("shop", "").replace("v1", "v2") + &route(", exportTo: ['.']"),
            "error: clients in shop do not",
        ),
        (rule("shop", ", workloadSelector: {matchLabels: {app: x}}") + &route(", exportTo: ['.']"), ""),
    ] {
        let all = analyze(&index(&format!("{SERVICES}{objects}")), &config());
        match expected {
            "" => assert_eq!(found(&objects), none, "{objects}"),
            expected => {
                assert_eq!(found(&objects).len(), 1, "{objects}");
                let severity = if all[0].severity == Severity::Error { "error" } else { "warning" };
                let text = format!("{severity}: {}", all[0].text);
                assert!(all[0].code == "subset-not-visible" && text.starts_with(expected), "{text}");
            }
        }
    }
    let kept = found_text(&(rule("shop", ", exportTo: ['.']") + &route(", exportTo: [bank]")));
    assert!(kept.contains("shop/d: its exportTo leaves them out; requests get 503"), "{kept}");
}

#[test]
fn subsets_without_endpoints_are_named_where_all_are_known() {
    const PODS: &str = "---
apiVersion: v1
kind: Pod
metadata: {name: a-1, namespace: shop, labels: {version: v1}}
spec: {nodeName: n1, containers: []}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a, namespace: shop, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
ports: [{name: http, port: 80}]
endpoints: [{addresses: [10.1.0.1], targetRef: {kind: Pod, name: a-1, namespace: shop}}]
";
    let rule = object(
        "DestinationRule",
        "d",
        "host: a, subsets: [{name: v1, labels: {version: v1}}, {name: v9, labels: {version: v9}}]",
    );
    assert_eq!(found(&rule), Vec::<String>::new());
    assert_eq!(found(&(PODS.to_owned() + &rule)), ["d subset-empty spec.subsets[1].labels"]);
    let unknown = PODS.replace("name: a-1, namespace: shop, labels", "name: a-2, namespace: shop, labels");
    assert_eq!(found(&(unknown + &rule)), Vec::<String>::new());
    // Pods come and go: it is no problem that the controller would have to follow.
    let index = index(&format!("{SERVICES}{PODS}{rule}"));
    let key = Key { kind: Kind::DestinationRule, name: crate::objects::Name::new("shop", "d") };
    assert!(problems(&index, &config(), &key).is_empty());
}

#[test]
fn copies_that_are_lost_are_no_errors() {
    let rule = |more: &str| vs(&format!("hosts: [web], http: [{{{TO_A}, {more}}}]"));
    for (more, expected) in [
        ("mirror: {host: a, subset: v1}", "v subset-not-found spec.http[0].mirror.subset"),
        (
            "mirrors: [{destination: {host: none}}]",
            "v destination-not-found spec.http[0].mirrors[0].destination",
        ),
        (
            "mirrors: [{destination: {host: a}}], mirrorPercentage: {value: 5}",
            "v no-effect spec.http[0].mirrorPercentage",
        ),
    ] {
        let all = analyze(&index(&format!("{SERVICES}{}", rule(more))), &config());
        assert_eq!(found(&rule(more)), [expected], "{more}");
        assert_eq!(all[0].severity, Severity::Warning, "{more}");
    }
}

#[test]
fn weights_of_zero_and_every_filter_are_named() {
    let route = |rule: &str| {
        object(
            "HTTPRoute",
            "h",
            &format!("parentRefs: [{{group: '', kind: Service, name: a}}], rules: [{{{rule}}}]"),
        )
    };
    let zero = "backendRefs: [{name: a, port: 80, weight: 0}, {name: web, port: 80, weight: 0}]";
    assert_eq!(found(&route(zero)), ["h no-weight spec.rules[0].backendRefs"]);
    assert_eq!(found(&route(&zero.replacen("weight: 0", "weight: 1", 1))), Vec::<String>::new());
    let filter = "{type: ExtensionRef, extensionRef: {name: x}}";
    let text = found_text(&route(&format!("filters: [{filter}, {filter}]")));
    assert!(
        text.contains("filters[0].extensionRef: ") && text.contains("filters[1].extensionRef: "),
        "{text}"
    );
}

#[test]
fn what_is_said_of_policies_and_entries_is_said_here_too() {
    let policy = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {rules: [{to: [{operation: {methods: [GET]}}]}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: q, namespace: shop}
spec: {mtls: {mode: DISABLE}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: r, namespace: shop}
spec: {hosts: [api.example.com], ports: [{number: 443, name: tls, protocol: TLS}], resolution: DNS}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {warren.dev/mesh: maybe}}
";
    let codes = found(policy);
    assert_eq!(
        codes,
        ["shop not-as-written ", "q not-as-written ", "p not-as-written ", "r not-as-written "],
    );
    assert!(found_text(policy).contains("requests are not looked into"));
}
