//! Manifests in, tables and policies out.

mod delegates;
mod routes;

use super::*;
use crate::resolve::tests::{config, index};
use warren_common::model::traffic::{Destination, HttpAction, PathMatch, RouteApi, RouteTable};

/// Services `name.namespace` with these ports.
fn services(all: &[(&str, &[u16])]) -> String {
    all.iter()
        .map(|(name, ports)| {
            let (name, namespace) = name.split_once('.').unwrap();
            let ports: Vec<_> =
                ports.iter().map(|port| format!("{{name: http-{port}, port: {port}}}")).collect();
            format!(
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
                 spec: {{clusterIPs: [10.96.0.1], ports: [{}]}}\n",
                ports.join(", ")
            )
        })
        .collect()
}

/// An object; `head` is `namespace/name`, and with `@` its age in seconds.
fn object(kind: &str, head: &str, spec: &str) -> String {
    let (head, age) = head.split_once('@').unwrap_or((head, "0"));
    let (namespace, name) = head.split_once('/').unwrap();
    let group = if kind.ends_with("Route") { "gateway.networking.k8s.io" } else { "networking.istio.io" };
    format!(
        "---\napiVersion: {group}/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}, \
         creationTimestamp: '1970-01-01T00:00:0{age}Z'}}\nspec: {{{spec}}}\n"
    )
}

fn virtual_service(head: &str, spec: &str) -> String {
    object("VirtualService", head, spec)
}

fn of(yaml: &str, host: &str) -> Option<Traffic> {
    let (name, namespace) = host.split_once('.').unwrap();
    let hostname = format!("{name}.{namespace}.svc.cluster.local");
    traffic(&index(yaml), &config(), &ServiceName { namespace: namespace.into(), hostname: hostname.into() })
}

fn tables(yaml: &str, host: &str) -> Vec<RouteTable> {
    of(yaml, host).map(|traffic| traffic.tables).unwrap_or_default()
}

/// `[bank] 80: name name`: clients, ports and objects of each table.
fn heads(yaml: &str, host: &str) -> Vec<String> {
    tables(yaml, host).iter().map(head).collect()
}

fn head(table: &RouteTable) -> String {
    let clients =
        table.clients.namespaces.as_ref().map_or("*".to_owned(), |all| format!("[{}]", all.join(" ")));
    let ports = table.ports.iter().flatten().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let objects = table.objects.iter().map(|object| object.name.to_string()).collect::<Vec<_>>().join(" ");
    format!("{clients} {}{objects}", if ports.is_empty() { String::new() } else { format!("{ports}: ") })
}

/// Where the rules of a table send to.
fn sent(table: &RouteTable) -> Vec<String> {
    let destination = |to: &Destination| match to {
        Destination::Service { service, port, subset } => {
            let name: Vec<_> = service.hostname.split('.').take(2).collect();
            format!("{}:{port}{}", name.join("."), subset.as_ref().map_or(String::new(), |s| format!("/{s}")))
        }
        Destination::Broken { wanted, why } => format!("{wanted}: {why}"),
    };
    let mut all = Vec::new();
    for rule in table.rules.http.iter().flatten() {
        match &rule.action {
            HttpAction::Forward(forward) => {
                all.extend(forward.backends.iter().map(|backend| destination(&backend.to)));
            }
            other => all.push(format!("{other:?}")),
        }
    }
    let l4 = table.rules.tls.iter().flatten().map(|rule| &rule.backends);
    let l4 = l4.chain(table.rules.tcp.iter().flatten().map(|rule| &rule.backends));
    all.extend(l4.flatten().map(|backend| destination(&backend.to)));
    all
}

fn paths(table: &RouteTable) -> Vec<String> {
    let matches = table.rules.http.iter().flatten().flat_map(|rule| &rule.matches);
    matches
        .map(|one| match &one.path {
            None => "*".to_owned(),
            Some(PathMatch::Exact(text)) => format!("={text}"),
            Some(PathMatch::Prefix(text) | PathMatch::Segments(text)) => format!("{text}*"),
            Some(PathMatch::Regex(text)) => format!("~{text}"),
        })
        .collect()
}

const TO_A: &str = "http: [{route: [{destination: {host: a}}]}]";

#[test]
fn one_virtual_service_decides_for_a_client() {
    let all = services(&[("web.shop", &[80]), ("a.shop", &[80]), ("a.bank", &[80])]);
    let vs = |head: &str, hosts: &str, more: &str| {
        virtual_service(head, &format!("hosts: [{hosts}], {TO_A}{more}"))
    };
    for (objects, expected) in [
        (vs("shop/one", "web", ""), vec!["* one"]),
        // A short name is that of its own namespace.
        (vs("bank/one", "web", ""), vec![]),
        (vs("bank/one", "web.shop.svc.cluster.local", ""), vec!["* one"]),
        (vs("bank/one", "web.shop", ""), vec![]),
        // The oldest, then the name.
        (vs("shop/new@9", "web", "") + &vs("shop/old@1", "web", ""), vec!["* old"]),
        (vs("shop/b@1", "web", "") + &vs("shop/a@1", "web", ""), vec!["* a"]),
        // An exact host before a pattern, the longer pattern first.
        (
            vs("shop/all@1", "'*'", "")
                + &vs("shop/some@2", "'*.shop.svc.cluster.local'", "")
                + &vs("shop/one@3", "web", ""),
            vec!["* one"],
        ),
        (vs("shop/all@1", "'*'", "") + &vs("shop/some@2", "'*.shop.svc.cluster.local'", ""), vec!["* some"]),
        // For its own namespace alone, then for some, then for all.
        (
            vs("shop/public@1", "web", "")
                + &vs("shop/bank@2", "web", ", exportTo: [bank, shop]")
                + &vs("shop/own@3", "web", ", exportTo: ['.']"),
            vec!["[shop] own", "[bank shop] bank", "* public"],
        ),
        (
            vs("shop/none", "web", ", exportTo: ['~']") + &vs("shop/two@1", "web", ""),
            vec!["[] none", "* two"],
        ),
        // For gateways alone: it says nothing to the mesh.
        (vs("shop/edge", "web", ", gateways: [edge]"), vec![]),
        (vs("shop/edge", "web", ", gateways: [edge, mesh]"), vec!["* edge"]),
    ] {
        assert_eq!(heads(&(all.clone() + &objects), "web.shop"), expected, "{objects}");
    }
    assert!(of(&(all + &vs("shop/one", "web", "")), "a.shop").is_none());
}

#[test]
fn destinations_are_services_and_ports() {
    let all = services(&[("web.shop", &[80]), ("a.shop", &[90]), ("two.shop", &[80, 81]), ("a.bank", &[91])]);
    for (to, expected) in [
        ("host: a", "a.shop:90"),
        ("host: A, subset: v1", "a.shop:90/v1"),
        ("host: a.bank.svc.cluster.local", "a.bank:91"),
        ("host: two", "two.shop:80"),
        ("host: two, port: {number: 81}", "two.shop:81"),
        ("host: a, port: {number: 80}", "a.shop.svc.cluster.local: its service has no port 80, but 90"),
        ("host: none", "none.shop.svc.cluster.local: no service that shop knows has this name"),
        ("host: a.bank", "a.bank: no service that shop knows has this name"),
    ] {
        let yaml = all.clone()
            + &virtual_service(
                "shop/one",
                &format!("hosts: [web], http: [{{route: [{{destination: {{{to}}}}}]}}]"),
            );
        assert_eq!(sent(&tables(&yaml, "web.shop")[0]), [expected], "{to}");
    }
    // The port that the client addressed, where no other is meant: a table for each.
    let yaml = all.clone()
        + &virtual_service("shop/one", "hosts: [two], http: [{route: [{destination: {host: two}}]}]");
    let found = tables(&yaml, "two.shop");
    assert_eq!(found.iter().map(head).collect::<Vec<_>>(), ["* 80: one", "* 81: one"]);
    assert_eq!(found.iter().flat_map(sent).collect::<Vec<_>>(), ["two.shop:80", "two.shop:81"]);
}

#[test]
fn rules_that_no_client_of_the_mesh_meets_are_left_out() {
    let all = services(&[("web.shop", &[80]), ("a.shop", &[80])]);
    let rule = |matches: &str| format!("{{match: [{matches}], route: [{{destination: {{host: a}}}}]}}");
    let edge = "{gateways: [edge]}";
    let spec =
        |rules: &[String]| format!("hosts: [web], gateways: [mesh, edge], http: [{}]", rules.join(", "));
    let one =
        virtual_service("shop/one", &spec(&[rule(edge), rule(&format!("{edge}, {{uri: {{prefix: /a}}}}"))]));
    assert_eq!(paths(&tables(&(all.clone() + &one), "web.shop")[0]), ["/a*"]);
    // Nothing is left: as if it were not there, and the next one counts.
    let none = virtual_service("shop/one", &spec(&[rule(edge)]))
        + &virtual_service("shop/two@1", &format!("hosts: [web], {TO_A}"));
    assert_eq!(heads(&(all + &none), "web.shop"), ["* two"]);
}

#[test]
fn the_protocol_of_a_port_picks_the_list() {
    let to = |port: u16| format!("route: [{{destination: {{host: web, port: {{number: {port}}}}}}}]");
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
                   spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}, {name: tcp-db, port: 81}, {name: any, port: 82}]}\n";
    for (rules, expected) in [
        (format!("http: [{{{}}}]", to(80)), vec!["* 80,82: one"]),
        (format!("tcp: [{{{}}}]", to(81)), vec!["* 81,82: one"]),
        (
            format!("http: [{{{}}}], tcp: [{{{}}}]", to(80), to(81)),
            vec!["* 81: one", "* 80: one", "* 82: one"],
        ),
    ] {
        let yaml = service.to_owned() + &virtual_service("shop/one", &format!("hosts: [web], {rules}"));
        assert_eq!(heads(&yaml, "web.shop"), expected, "{rules}");
    }
    // A route of the Gateway API is what makes the protocol.
    let yaml =
        service.to_owned() + &http_route("shop/one", "name: web", "{backendRefs: [{name: web, port: 81}]}");
    assert_eq!(heads(&yaml, "web.shop"), ["* one"]);
}

/// `[bank] app=web: objects (subsets)` of each policy.
fn policies(yaml: &str, host: &str) -> Vec<String> {
    let policies = of(yaml, host).map(|traffic| traffic.policies).unwrap_or_default();
    policies
        .iter()
        .map(|policy| {
            let clients = policy
                .clients
                .namespaces
                .as_ref()
                .map_or("*".to_owned(), |all| format!("[{}]", all.join(" ")));
            let labels: String =
                policy.clients.labels.iter().map(|(key, value)| format!(" {key}={value}")).collect();
            let names = |names: Vec<&str>| names.join(" ");
            format!(
                "{clients}{labels}: {} ({})",
                names(policy.objects.iter().map(|object| &*object.name).collect()),
                names(policy.subsets.iter().map(|subset| &*subset.name).collect())
            )
        })
        .collect()
}

#[test]
fn one_destination_rule_is_in_force_for_a_client() {
    let all = services(&[("web.shop", &[80])]);
    let host = "web.shop.svc.cluster.local";
    let rule = |head: &str, host: &str, more: &str| {
        let name = head.split(['/', '@']).nth(1).unwrap();
        object(
            "DestinationRule",
            head,
            &format!("host: {host}, subsets: [{{name: {name}}}, {{name: v1}}]{more}"),
        )
    };
    for (objects, expected) in [
        (rule("shop/a", "web", ""), vec!["[shop]: a (a v1)", "*: a (a v1)"]),
        // The client's own namespace, the service's, the root's; nothing is merged across.
        (
            rule("istio-system/r", host, "") + &rule("shop/s", "web", "") + &rule("bank/b", host, ""),
            vec!["[bank]: b (b v1)", "[shop]: s (s v1)", "*: s (s v1)"],
        ),
        (rule("istio-system/r", "'*.local'", ""), vec!["*: r (r v1)"]),
        (rule("istio-system/r", host, ", exportTo: ['.']"), vec!["[istio-system]: r (r v1)"]),
        (rule("bank/b", host, ", exportTo: [shop]"), vec![]),
        (rule("shop/s", "web", ", exportTo: [bank]"), vec!["[bank]: s (s v1)"]),
        // Of one host: merged, the oldest first.
        (
            rule("shop/new@9", "web", "") + &rule("shop/old@1", "web", ""),
            vec!["[shop]: old new (old v1 new)", "*: old new (old v1 new)"],
        ),
        (
            rule("shop/a@1", "web", ", exportTo: [bank]") + &rule("shop/b@2", "web", ""),
            vec!["[shop]: b (b v1)", "[bank]: a (a v1)", "*: b (b v1)"],
        ),
        // An exact host before a pattern.
        (
            rule("shop/p@1", "'*.shop.svc.cluster.local'", "") + &rule("shop/e@2", "web", ""),
            vec!["[shop]: e (e v1)", "*: e (e v1)"],
        ),
        // With a selector, first and alone.
        (
            rule("shop/s@1", "web", "")
                + &rule("shop/w@2", "web", ", workloadSelector: {matchLabels: {app: x}}"),
            vec!["[shop] app=x: w (w v1)", "[shop]: s (s v1)", "*: s (s v1)"],
        ),
        // Whom it does not select has none at all: a namespace with a rule decides alone.
        (
            rule("shop/s", "web", "") + &rule("bank/w", host, ", workloadSelector: {matchLabels: {app: x}}"),
            vec!["[bank] app=x: w (w v1)", "[bank]:  ()", "[shop]: s (s v1)", "*: s (s v1)"],
        ),
        // The same of a pattern beside a more specific host.
        (
            rule("bank/p", "'*.shop.svc.cluster.local'", "")
                + &rule("bank/w", host, ", workloadSelector: {matchLabels: {app: x}}"),
            vec!["[bank] app=x: w (w v1)", "[bank]:  ()"],
        ),
    ] {
        assert_eq!(policies(&(all.clone() + &objects), "web.shop"), expected, "{objects}");
    }
}

#[test]
fn the_first_policy_of_merged_rules_counts() {
    let yaml = services(&[("web.shop", &[80])])
        + &object("DestinationRule", "shop/a@1", "host: web, subsets: [{name: v1}]")
        + &object("DestinationRule", "shop/b@2", "host: web, trafficPolicy: {retryBudget: {percent: 7}}")
        + &object("DestinationRule", "shop/c@3", "host: web, trafficPolicy: {retryBudget: {percent: 8}}");
    let policies = of(&yaml, "web.shop").unwrap().policies;
    assert!(policies.iter().all(|policy| policy.policy.retry_budget_percent == Some(7)));
}

fn http_route(head: &str, parent: &str, rules: &str) -> String {
    object(
        "HTTPRoute",
        head,
        &format!("parentRefs: [{{group: '', kind: Service, {parent}}}], rules: [{rules}]"),
    )
}

#[test]
fn routes_of_services_have_producers_and_consumers() {
    let all = services(&[("web.shop", &[80, 81]), ("a.shop", &[80]), ("a.bank", &[80])]);
    let rule = "{backendRefs: [{name: a, port: 80}]}";
    for (objects, expected) in [
        (http_route("shop/one", "name: web", rule), vec!["* one"]),
        (http_route("shop/one", "name: web, port: 81", rule), vec!["* 81: one"]),
        (http_route("shop/one", "name: web, sectionName: http-80", rule), vec!["* 80: one"]),
        (http_route("shop/one", "name: web, port: 82", rule), vec![]),
        (http_route("shop/one", "name: none", rule), vec![]),
        // A consumer's are for clients of its own namespace, instead of the producer's.
        (
            http_route("shop/one", "name: web", rule)
                + &http_route("bank/two", "name: web, namespace: shop, port: 80", rule),
            vec!["[bank] 80: two", "* one"],
        ),
        // All of one kind are merged, the oldest first; of two kinds the more specific one counts.
        (
            http_route("shop/new@9", "name: web", rule) + &http_route("shop/old@1", "name: web", rule),
            vec!["* old new"],
        ),
        (
            http_route("shop/h", "name: web", rule)
                + &object(
                    "GRPCRoute",
                    "shop/g",
                    &format!(
                        "parentRefs: [{{group: '', kind: Service, name: web, port: 80}}], rules: [{rule}]"
                    ),
                ),
            vec!["* 80: g", "* 81: h"],
        ),
        // Before any VirtualService.
        (
            http_route("shop/one", "name: web, port: 80", rule)
                + &virtual_service("shop/vs", &format!("hosts: [web], {TO_A}")),
            vec!["* 80: one", "* vs"],
        ),
    ] {
        assert_eq!(heads(&(all.clone() + &objects), "web.shop"), expected, "{objects}");
    }
    let table =
        tables(&(all + &http_route("bank/two", "name: web, namespace: shop", rule)), "web.shop").remove(0);
    assert_eq!((table.api, sent(&table)), (RouteApi::Gateway, vec!["a.bank:80".to_owned()]));
}

#[test]
fn matches_stand_by_rank_then_age_then_name() {
    let all = services(&[("web.shop", &[80]), ("a.shop", &[80]), ("b.shop", &[80])]);
    let rule = |to: &str, matches: &str| {
        format!("{{matches: [{matches}], backendRefs: [{{name: {to}, port: 80}}]}}")
    };
    let path = |kind: &str, value: &str| format!("{{path: {{type: {kind}, value: '{value}'}}}}");
    let old = http_route(
        "shop/old@1",
        "name: web",
        &[
            rule("a", &[path("PathPrefix", "/"), path("Exact", "/x")].join(", ")),
            rule("a", &path("PathPrefix", "/long")),
        ]
        .join(", "),
    );
    let new = http_route(
        "shop/new@2",
        "name: web",
        &[
            rule("b", &[path("PathPrefix", "/longer"), path("RegularExpression", "/l.*")].join(", ")),
            rule("b", "{path: {value: /}, method: GET}"),
            rule("b", &path("Exact", "/x")),
        ]
        .join(", "),
    );
    let table = tables(&(all.clone() + &old + &new), "web.shop").remove(0);
    assert_eq!(paths(&table), ["=/x", "=/x", "~/l.*", "/longer*", "/long*", "*", "*"]);
    assert_eq!(sent(&table), ["a.shop:80", "b.shop:80", "b.shop:80", "a.shop:80", "b.shop:80", "a.shop:80"]);
    // A route without a rule has one that matches everything and leads nowhere.
    let empty = object("HTTPRoute", "shop/one", "parentRefs: [{group: '', kind: Service, name: web}]");
    let table = tables(&(all + &empty), "web.shop").remove(0);
    assert_eq!((paths(&table), sent(&table)), (vec!["*".to_owned()], vec![]));
}

#[test]
fn references_that_lead_nowhere_are_broken() {
    let all = services(&[("web.shop", &[80]), ("a.bank", &[80])]);
    for (to, expected) in [
        // Without a grant: routes of the mesh need none.
        ("name: a, namespace: bank, port: 80", "a.bank:80"),
        ("name: a, port: 80", "Service shop/a: there is no Service shop/a"),
        ("name: a, namespace: bank", "Service bank/a: it names no port of the Service bank/a"),
        ("name: a, namespace: bank, port: 81", "Service bank/a: the Service bank/a has no TCP port 81"),
        ("group: x.y, kind: Thing, name: a", "Thing shop/a: a x.y/Thing cannot be sent to; a Service can"),
        (
            "name: a, namespace: bank, port: 80, filters: [{type: ExtensionRef, extensionRef: {name: a}}]",
            "Service bank/a: spec.rules[0].backendRefs[0].filters[0].extensionRef: this filter is not supported here",
        ),
    ] {
        let yaml =
            all.clone() + &http_route("shop/one", "name: web", &format!("{{backendRefs: [{{{to}}}]}}"));
        assert_eq!(sent(&tables(&yaml, "web.shop")[0]), [expected], "{to}");
    }
    let filter = "{filters: [{type: ExtensionRef, extensionRef: {name: a}}], backendRefs: [{name: a, namespace: bank, port: 80}]}";
    let yaml = all + &http_route("shop/one", "name: web", filter);
    assert!(sent(&tables(&yaml, "web.shop")[0])[0].contains("status: 500"));
}

#[test]
fn connections_have_routes_too() {
    let all = services(&[("web.shop", &[443]), ("a.shop", &[1]), ("b.shop", &[2])]);
    let route = |kind: &str, head: &str, to: &str, more: &str| {
        object(
            kind,
            head,
            &format!(
                "parentRefs: [{{group: '', kind: Service, name: web}}], {more}rules: [{{backendRefs: [{to}]}}]"
            ),
        )
    };
    let tls = route("TLSRoute", "shop/wild@1", "{name: a, port: 1}", "hostnames: ['*.com'], ")
        + &route("TLSRoute", "shop/exact@2", "{name: b, port: 2}", "hostnames: [a.com], ");
    assert_eq!(sent(&tables(&(all.clone() + &tls), "web.shop")[0]), ["b.shop:2", "a.shop:1"]);
    // The oldest alone has the port.
    let tcp = route("TCPRoute", "shop/new@2", "{name: a, port: 1}", "")
        + &route("TCPRoute", "shop/old@1", "{name: b, port: 2}", "");
    assert_eq!(sent(&tables(&(all + &tcp), "web.shop")[0]), ["b.shop:2"]);
}

#[test]
fn rules_of_connections_stand_where_others_would() {
    let all = services(&[("web.shop", &[80]), ("a.shop", &[80]), ("a.bank", &[80])]);
    let rule = "{backendRefs: [{name: a, port: 80}]}";
    let tcp_route = object(
        "TCPRoute",
        "bank/tcp",
        &format!("parentRefs: [{{group: '', kind: Service, name: web, namespace: shop}}], rules: [{rule}]"),
    );
    // The port may be of any protocol, so that both lists count for it.
    let any = all.replace("http-80", "any-80");
    let connections = |more: &str| {
        let spec = format!("hosts: [web], tcp: [{{route: [{{destination: {{host: a}}}}]}}]{more}");
        virtual_service("shop/tcp@1", &spec)
    };
    let requests = virtual_service("shop/http@2", &format!("hosts: [web], {TO_A}"));
    for (objects, expected) in [
        // A consumer's before a producer's.
        (tcp_route.clone() + &http_route("shop/one", "name: web", rule), vec!["[bank] tcp", "* one"]),
        (tcp_route.clone() + &requests, vec!["[bank] tcp", "* http"]),
        // An older one, for some and for all.
        (connections(", exportTo: [bank]") + &requests, vec!["[bank] tcp", "* http"]),
        (connections("") + &requests, vec!["* tcp"]),
    ] {
        assert_eq!(heads(&(any.clone() + &objects), "web.shop"), expected, "{objects}");
    }
}

#[test]
fn service_entries_have_traffic_of_their_own() {
    let yaml = object(
        "ServiceEntry",
        "shop/api",
        "hosts: [api.example.com], ports: [{number: 443, name: tls, protocol: TLS}], resolution: DNS",
    ) + &virtual_service(
        "shop/one",
        "hosts: [api.example.com], tls: [{match: [{sniHosts: [api.example.com]}], route: [{destination: {host: api.example.com}}]}]",
    ) + &object(
        "DestinationRule",
        "shop/dr",
        "host: '*.example.com', trafficPolicy: {tls: {mode: SIMPLE}}",
    );
    let name = ServiceName { namespace: "shop".into(), hostname: "api.example.com".into() };
    let found = traffic(&index(&yaml), &config(), &name).unwrap();
    assert_eq!(sent(&found.tables[0]), ["api.example:443"]);
    assert_eq!(found.policies.len(), 2);
}
