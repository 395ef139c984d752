//! Manifests in, codes and paths out.

mod rules;
mod shadowed;

use super::*;
use crate::resolve::tests::{config, index};

const SERVICES: &str = "---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}, {name: other, port: 81}]}
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop}
spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: shop}
spec: {clusterIP: None, ports: [{name: http, port: 80}]}
";

fn object(kind: &str, name: &str, spec: &str) -> String {
    let group = if kind.ends_with("Route") { "gateway.networking.k8s.io" } else { "networking.istio.io" };
    format!(
        "---\napiVersion: {group}/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n"
    )
}

/// `name code path` of each, in order.
fn found(objects: &str) -> Vec<String> {
    let all = analyze(&index(&format!("{SERVICES}{objects}")), &config());
    all.iter().map(|one| format!("{} {} {}", one.object.name.name, one.code, one.path)).collect()
}

const TO_A: &str = "route: [{destination: {host: a}}]";

#[test]
fn virtual_services() {
    let vs = |name: &str, spec: &str| object("VirtualService", name, spec);
    let of_web = |rules: &str| vs("v", &format!("hosts: [web], http: [{rules}]"));
    let subsets = object("DestinationRule", "d", "host: a, subsets: [{name: v1}]");
    for (objects, expected) in [
        (of_web(&format!("{{{TO_A}}}")), vec![]),
        (vs("v", &format!("hosts: [none], http: [{{{TO_A}}}]")), vec!["v host-not-found spec.hosts[0]"]),
        (
            of_web("{route: [{destination: {host: none}}]}"),
            vec!["v destination-not-found spec.http[0].route[0].destination"],
        ),
        (
            of_web("{route: [{destination: {host: a, port: {number: 9}}}]}"),
            vec!["v destination-not-found spec.http[0].route[0].destination"],
        ),
        (
            of_web("{route: [{destination: {host: a, subset: v2}}]}") + &subsets,
            vec!["v subset-not-found spec.http[0].route[0].destination.subset"],
        ),
        (of_web("{route: [{destination: {host: a, subset: v1}}]}") + &subsets, vec![]),
        (
            of_web("{route: [{destination: {host: web, subset: v1}}]}"),
            vec!["v subset-not-found spec.http[0].route[0].destination.subset"],
        ),
        (
            of_web(&format!("{{{TO_A}}}, {{match: [{{uri: {{prefix: /x}}}}], {TO_A}}}")),
            vec!["v rule-unreachable spec.http[1]"],
        ),
        (
            of_web(&format!(
                "{{match: [{{uri: {{prefix: /a}}}}], {TO_A}}}, {{match: [{{uri: {{exact: /ab}}, method: {{exact: GET}}}}], {TO_A}}}"
            )),
            vec!["v rule-unreachable spec.http[1]"],
        ),
        (
            of_web(&format!(
                "{{match: [{{uri: {{prefix: /a}}, port: 80}}], {TO_A}}}, {{match: [{{uri: {{exact: /ab}}}}], {TO_A}}}"
            )),
            vec![],
        ),
        (
            vs("old", &format!("hosts: [web], http: [{{{TO_A}}}]"))
                + &vs("young", &format!("hosts: [web], http: [{{{TO_A}}}]")),
            vec!["young host-conflict spec.hosts[0]"],
        ),
        (of_web("{delegate: {name: d}}"), vec!["v delegate-not-found spec.http[0].delegate"]),
        (vs("d", &format!("http: [{{{TO_A}}}]")), vec!["d delegate-unused spec.hosts"]),
        (of_web("{delegate: {name: d}}") + &vs("d", &format!("http: [{{{TO_A}}}]")), vec![]),
        // Left out: a match of it lies within none of the root's.
        (
            of_web("{match: [{uri: {prefix: /a}}, {uri: {prefix: /b}}], delegate: {name: d}}")
                + &vs(
                    "d",
                    &format!(
                        "http: [{{match: [{{uri: {{prefix: /ab}}}}], {TO_A}}}, \
                         {{match: [{{uri: {{prefix: /ba}}}}, {{uri: {{prefix: /c}}}}], {TO_A}}}]"
                    ),
                ),
            vec!["v delegate-conflict spec.http[0].delegate"],
        ),
        // Copies.
        (
            of_web(&format!(
                "{{{TO_A}, mirror: {{host: none}}, mirrors: [{{destination: {{host: a}}}}, {{destination: {{host: nobody}}}}]}}"
            )),
            vec![
                "v destination-not-found spec.http[0].mirror",
                "v destination-not-found spec.http[0].mirrors[1].destination",
            ],
        ),
        (of_web(&format!("{{{TO_A}, mirror: {{host: none}}, mirrorPercentage: {{value: 0}}}}")), vec![]),
        // What is for gateways, which are not served.
        (
            vs("v", &format!("hosts: [web], gateways: [edge], http: [{{{TO_A}}}]")),
            vec!["v gateways-not-served spec.gateways"],
        ),
        (
            vs("v", &format!("hosts: [web], gateways: [mesh, edge], http: [{{{TO_A}}}]")),
            vec!["v gateways-not-served spec.gateways"],
        ),
        (
            of_web(&format!("{{match: [{{gateways: [mesh]}}, {{gateways: [edge]}}], {TO_A}}}")),
            vec!["v gateways-not-served spec.http[0].match[1].gateways"],
        ),
        (
            vs("v", &format!("hosts: [web], tcp: [{{match: [{{gateways: [edge]}}], {TO_A}}}]")),
            vec!["v gateways-not-served spec.tcp[0].match[0].gateways"],
        ),
        (vs("v", &format!("hosts: [10.0.0.1], http: [{{{TO_A}}}]")), vec!["v host-is-address spec.hosts[0]"]),
        (
            of_web(&format!("{{{TO_A}, colour: red, mirror_percent: 5}}")),
            vec![
                "v unknown-field spec.http[0].colour",
                "v no-effect spec.http[0].mirrorPercentage",
                "v deprecated-field spec.http[0].mirrorPercent",
                "v deprecated-field spec.http[0].mirror_percent",
            ],
        ),
        (
            of_web(&format!("{{{TO_A}}}"))
                + &object(
                    "HTTPRoute",
                    "h",
                    "parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: a, port: 80}]}]",
                ),
            vec!["v shadowed-by-route spec.hosts[0]", "h port-undeclared spec.parentRefs[0]"],
        ),
    ] {
        assert_eq!(found(&objects), expected, "{objects}");
    }
    let conflict = found_text(
        &(of_web("{match: [{port: 80}], delegate: {name: d}}")
            + &vs("d", &format!("http: [{{match: [{{port: 81}}], {TO_A}}}]"))),
    );
    assert!(
        conflict.contains(
            "spec.http[0] of the VirtualService shop/d is left out: its match[0] lies within no match of this rule (port)"
        ),
        "{conflict}"
    );
    let copies = found_text(&of_web(&format!("{{{TO_A}, mirror: {{host: none}}}}")));
    assert!(copies.contains("; nothing is copied"), "{copies}");
    let dotted = analyze(
        &index(&format!("{SERVICES}{}", vs("v", &format!("hosts: [web.shop], http: [{{{TO_A}}}]")))),
        &config(),
    );
    assert!(
        dotted[0].to_string().ends_with(
            "A name with a dot stands as it is: write web.shop.svc.cluster.local [host-not-found]"
        )
    );
}

#[test]
fn destination_rules() {
    let rule = |name: &str, spec: &str| object("DestinationRule", name, spec);
    for (objects, expected) in [
        (rule("d", "host: none, subsets: [{name: v1}]"), vec!["d host-not-found spec.host"]),
        (rule("d", "host: '*.shop.svc.cluster.local', subsets: [{name: v1}]"), vec![]),
        (
            rule("a", "host: web, subsets: [{name: v1}], trafficPolicy: {tls: {mode: DISABLE}}")
                + &rule("b", "host: web, subsets: [{name: v1}], trafficPolicy: {tls: {mode: SIMPLE}}"),
            vec![
                "b subset-conflict spec.subsets[0]",
                "b policy-conflict spec.trafficPolicy",
                "a mesh-tls-stays spec.trafficPolicy.tls",
            ],
        ),
    ] {
        assert_eq!(found(&objects), expected, "{objects}");
    }
}

/// Aliases: of another name, and of a service.
const UNSEEN: &str = "---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: shop}
spec: {type: ExternalName, externalName: db.example.com}
---
apiVersion: v1
kind: Service
metadata: {name: alias-web, namespace: shop}
spec: {type: ExternalName, externalName: web.shop.svc.cluster.local}
";

fn entry(host: &str, rest: &str) -> String {
    let spec = format!("hosts: [{host}], ports: [{{number: 80, name: http, protocol: HTTP}}], {rest}");
    object("ServiceEntry", host.split('.').next().unwrap(), &spec)
}

#[test]
fn rules_for_what_nobody_dials_are_named() {
    let services = UNSEEN.to_owned()
        + &entry("dns.test", "resolution: DNS")
        + &entry("none.test", "resolution: NONE")
        + &entry("near.test", "resolution: STATIC, endpoints: [{address: 192.0.2.1}]")
        + &entry(
            "picks.test",
            "resolution: STATIC, location: MESH_INTERNAL, workloadSelector: {labels: {a: b}}",
        )
        + &entry("addressed.test", "resolution: DNS, addresses: [10.5.0.1]");
    let vs = |host: &str, to: &str| {
        object(
            "VirtualService",
            "v",
            &format!(
                "hosts: [{host}], http: [{{route: [{{destination: {{host: {to}, port: {{number: 80}}}}}}]}}]"
            ),
        )
    };
    let dr = |host: &str| {
        object(
            "DestinationRule",
            "d",
            &format!("host: {host}, trafficPolicy: {{connectionPool: {{tcp: {{connectTimeout: 1s}}}}}}"),
        )
    };
    let attached = object(
        "HTTPRoute",
        "h",
        "parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: headless, port: 80}]}]",
    );
    let (of_vs, of_dr) = ("v nothing-dialled spec.hosts[0]", "d nothing-dialled spec.host");
    for (objects, expected) in [
        (vs("alias", "a"), vec![of_vs]),
        (vs("dns.test", "a"), vec![of_vs]),
        (vs("none.test", "a"), vec![of_vs]),
        (vs("'*.test'", "a"), vec![]),
        (vs("near.test", "a"), vec![]),
        (vs("picks.test", "a"), vec![]),
        (vs("addressed.test", "a"), vec![]),
        (vs("headless", "a"), vec![]),
        (dr("alias"), vec![of_dr]),
        (dr("dns.test"), vec![of_dr]),
        (dr("headless"), vec![]),
        (dr("headless") + &vs("web", "headless"), vec![]),
        (dr("headless") + &attached, vec!["h port-undeclared spec.parentRefs[0]"]),
        (dr("addressed.test"), vec![]),
        // Rules of another host send to it; its own are not followed.
        (dr("dns.test") + &vs("web", "dns.test"), vec![]),
        (dr("dns.test") + &vs("dns.test", "dns.test"), vec![of_vs, of_dr]),
    ] {
        let mut found = found(&(services.clone() + &objects));
        // Of the entries themselves.
        found.retain(|found| !found.contains(" not-as-written "));
        assert_eq!(found, expected, "{objects}");
    }
    let text = |objects: &str| found_text(&(services.clone() + objects));
    assert!(
        text(&vs("alias", "a")).contains("with a ServiceEntry that has its addresses"),
        "{}",
        text(&vs("alias", "a"))
    );
    assert!(text(&vs("alias-web", "a")).contains("Write them for web.shop.svc.cluster.local; if no Service"));
    assert!(text(&dr("dns.test")).contains("Give the ServiceEntry shop/dns the addresses"));
}

#[test]
fn whose_clients_choose_themselves_is_told() {
    let dr = |host: &str, policy: &str| {
        object("DestinationRule", "d", &format!("host: {host}, trafficPolicy: {{{policy}}}"))
    };
    let said = vec!["d client-chooses spec.trafficPolicy"];
    for (objects, expected) in [
        (dr("headless", "loadBalancer: {simple: RANDOM}"), said.clone()),
        (dr("headless", "outlierDetection: {}"), said.clone()),
        (dr("headless", "portLevelSettings: [{port: {number: 80}, outlierDetection: {}}]"), said),
        (dr("headless", "connectionPool: {tcp: {maxConnections: 1}}"), vec![]),
        (dr("web", "outlierDetection: {}"), vec![]),
    ] {
        assert_eq!(found(&objects), expected, "{objects}");
    }
}

#[test]
fn what_a_destination_rule_does_not_change_between_pods_is_said() {
    let vs = object("VirtualService", "v", &format!("hosts: [web], http: [{{{TO_A}}}]"));
    let rule = |policy: &str| object("DestinationRule", "d", &format!("host: a, {policy}"));
    for (policy, expected) in [
        ("loadBalancer: {simple: RANDOM}", vec![]),
        ("loadBalancer: {warmup: {duration: 10s}}", vec![]),
        (
            "connectionPool: {tcp: {idleTimeout: 1s, maxConnectionDuration: 1s}, \
             http: {idleTimeout: 1s, maxConcurrentStreams: 5, maxRetries: 1}}",
            vec![],
        ),
        ("connectionPool: {tcp: {tcpKeepalive: {}}}", vec!["tunnels-stay connectionPool.tcp.tcpKeepalive"]),
        ("tls: {mode: SIMPLE}", vec![]),
        ("tls: {mode: MUTUAL, clientCertificate: /c, privateKey: /k}", vec![]),
        ("tls: {mode: DISABLE}", vec!["mesh-tls-stays tls"]),
        ("tls: {mode: ISTIO_MUTUAL}", vec![]),
        ("tls: {mode: ISTIO_MUTUAL, subjectAltNames: [x]}", vec![]),
        ("tls: {mode: ISTIO_MUTUAL, sni: x}", vec!["mesh-tls-stays tls.sni"]),
        (
            "portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]",
            vec!["mesh-tls-stays portLevelSettings[port 80].tls"],
        ),
    ] {
        for (place, written) in [
            ("spec.trafficPolicy", format!("trafficPolicy: {{{policy}}}")),
            (
                "spec.subsets[0].trafficPolicy",
                format!("subsets: [{{name: v1, trafficPolicy: {{{policy}}}}}]"),
            ),
        ] {
            let expected: Vec<_> = expected
                .iter()
                .map(|said| said.split_once(' ').unwrap())
                .map(|(code, path)| format!("d {code} {place}.{path}"))
                .collect();
            assert_eq!(found(&(rule(&written) + &vs)), expected, "{written}");
        }
    }
}

#[test]
fn what_is_about_requests_where_none_are_seen_has_no_effect() {
    const PLAIN: &str = "---
apiVersion: v1
kind: Service
metadata: {name: plain, namespace: shop}
spec: {clusterIP: 10.0.0.3, ports: [{name: other, port: 80}]}
";
    let of = |host: &str, policy: &str| {
        PLAIN.to_owned()
            + &object("DestinationRule", "d", &format!("host: {host}, trafficPolicy: {{{policy}}}"))
    };
    let attached = |kind: &str, parent: &str, to: &str| {
        let spec = format!(
            "parentRefs: [{{group: '', kind: Service, name: {parent}}}], \
             rules: [{{backendRefs: [{{name: {to}, port: 80}}]}}]"
        );
        object(kind, "r", &spec)
    };
    let requests = "connectionPool: {http: {maxRetries: 1}}";
    let none = vec!["d no-http-rules spec.trafficPolicy.connectionPool.http"];
    let undeclared = vec!["r port-undeclared spec.parentRefs[0]"];
    let of_ports = |first: &str, second: &str| {
        let ports = format!(
            "portLevelSettings: [{{port: {{number: 80}}, {first}}}, {{port: {{number: 82}}, {second}}}]"
        );
        "---
apiVersion: v1
kind: Service
metadata: {name: two, namespace: shop}
spec: {clusterIP: 10.0.0.4, ports: [{name: http, port: 80}, {name: other, port: 82}]}
"
        .to_owned()
            + &of("two", &ports)
    };
    for (objects, expected) in [
        (of("plain", requests), none.clone()),
        (
            of("plain", "loadBalancer: {consistentHash: {httpHeaderName: x}}"),
            vec!["d no-http-rules spec.trafficPolicy.loadBalancer.consistentHash"],
        ),
        (of("plain", "retryBudget: {percent: 10}"), vec!["d no-http-rules spec.trafficPolicy.retryBudget"]),
        (of_ports(requests, "loadBalancer: {simple: RANDOM}"), vec![]),
        // Another port that says HTTP is no help.
        (
            of_ports("outlierDetection: {}", requests),
            vec!["d no-http-rules spec.trafficPolicy.portLevelSettings[port 82].connectionPool.http"],
        ),
        (
            of_ports("outlierDetection: {}", "outlierDetection: {}"),
            vec!["d only-connections-count spec.trafficPolicy.portLevelSettings[port 82].outlierDetection"],
        ),
        (of("plain", "loadBalancer: {consistentHash: {useSourceIp: true}}"), vec![]),
        (of("plain", "loadBalancer: {simple: RANDOM}"), vec![]),
        (
            of("plain", "connectionPool: {tcp: {maxConnections: 1}}, outlierDetection: {}"),
            vec!["d only-connections-count spec.trafficPolicy.outlierDetection"],
        ),
        // A port says HTTP.
        (of("web", requests), vec![]),
        (of("'*.shop.svc.cluster.local'", requests), vec![]),
        (of("plain", requests) + &attached("TCPRoute", "plain", "a"), none.clone()),
        (of("plain", requests) + &attached("HTTPRoute", "plain", "a"), undeclared.clone()),
        // Where rules of another service send to, it is in force too.
        (of("plain", requests) + &attached("HTTPRoute", "web", "plain"), undeclared),
    ] {
        assert_eq!(found(&objects), expected, "{objects}");
    }
    // It is no problem of the controller's: it would have to be looked at again with every route.
    let all = analyze(&index(&format!("{SERVICES}{}", of("plain", requests))), &config());
    assert_eq!(all[0].severity, Severity::Info);
}

#[test]
fn where_there_is_nothing_to_choose_among_is_said() {
    let of = |entry: &str, policy: &str| {
        let ports = "ports: [{number: 80, name: http, protocol: HTTP}]";
        object(
            "ServiceEntry",
            "e",
            &format!("hosts: [api.example.com], addresses: [10.5.0.1], {ports}, {entry}"),
        ) + &object("DestinationRule", "d", &format!("host: api.example.com, trafficPolicy: {{{policy}}}"))
    };
    let all = "loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {}, connectionPool: {tcp: {maxConnections: 1}}";
    let said =
        ["loadBalancer", "outlierDetection"].map(|part| format!("d one-endpoint spec.trafficPolicy.{part}"));
    let dns = "resolution: DNS, endpoints: [{address: a.example.com}, {address: b.example.com}]";
    for (entry, policy, expected) in [
        ("resolution: NONE", all, &said[..]),
        ("resolution: DNS", all, &said[..]),
        ("resolution: DNS", "loadBalancer: {consistentHash: {useSourceIp: true}}", &said[..1]),
        ("resolution: NONE", "loadBalancer: {simple: PASSTHROUGH}", &[]),
        ("resolution: DNS", "loadBalancer: {simple: RANDOM}", &[]),
        (dns, all, &[]),
        ("resolution: STATIC, endpoints: [{address: 192.0.2.1}]", all, &[]),
    ] {
        assert_eq!(found(&of(entry, policy)), expected, "{entry} {policy}");
    }
}

#[test]
fn rules_of_connections_are_looked_at_like_others() {
    let vs = |name: &str, spec: &str| object("VirtualService", name, &format!("hosts: [web], {spec}"));
    let tcp_route = |backends: &str| {
        let spec = format!(
            "parentRefs: [{{group: '', kind: Service, name: web}}], rules: [{{backendRefs: [{backends}]}}]"
        );
        object("TCPRoute", "r", &spec)
    };
    let tcp = format!("tcp: [{{{TO_A}}}]");
    let tls = format!("tls: [{{match: [{{sniHosts: [web]}}], {TO_A}}}]");
    let http = format!("http: [{{{TO_A}}}]");
    for (objects, expected) in [
        (vs("v", &tcp), vec![]),
        (vs("v", &tls), vec![]),
        (
            vs("v", "tcp: [{route: [{destination: {host: none}}]}]"),
            vec!["v destination-not-found spec.tcp[0].route[0].destination"],
        ),
        (vs("a", &tcp) + &vs("b", &http), vec!["b host-conflict spec.hosts[0]"]),
        (tcp_route("{name: a, port: 80}"), vec![]),
        (tcp_route("{name: a, port: 9}"), vec!["r backend-not-found spec.rules[0].backendRefs[0]"]),
        (tcp_route("{name: a, port: 80}") + &vs("v", &tcp), vec!["v shadowed-by-route spec.hosts[0]"]),
    ] {
        assert_eq!(found(&objects), expected, "{objects}");
    }
    let none = found_text(&vs("v", "tcp: [{route: [{destination: {host: none}}]}]"));
    assert!(none.contains("connections are reset"), "{none}");
}

fn found_text(objects: &str) -> String {
    let all = analyze(&index(&format!("{SERVICES}{objects}")), &config());
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn routes() {
    let to = |parent: &str, rest: &str| {
        object("HTTPRoute", "h", &format!("parentRefs: [{{group: '', kind: Service, {parent}}}], {rest}"))
    };
    let a = "rules: [{backendRefs: [{name: a, port: 80}]}]";
    for (objects, expected) in [
        (to("name: web, port: 80", a), vec![]),
        (to("name: web", a), vec!["h port-undeclared spec.parentRefs[0]"]),
        (to("name: web, port: 81", a), vec!["h port-undeclared spec.parentRefs[0]"]),
        (to("name: none", a), vec!["h parent-not-found spec.parentRefs[0]"]),
        (to("name: web, port: 9", a), vec!["h port-not-found spec.parentRefs[0]"]),
        (to("name: headless", a), vec!["h parent-unattachable spec.parentRefs[0]"]),
        (
            to("name: web, port: 80", &format!("hostnames: [a.b], {a}")),
            vec!["h hostnames-ignored spec.hostnames"],
        ),
        (
            to("name: web, port: 80", "rules: [{backendRefs: [{name: none, port: 80}]}]"),
            vec!["h backend-not-found spec.rules[0].backendRefs[0]"],
        ),
        (to("name: web, port: 80", "rules: [{}]"), vec!["h no-backend spec.rules[0]"]),
        (
            to(
                "name: web, port: 80",
                "rules: [{matches: [{method: FETCH}], backendRefs: [{name: a, port: 80}]}]",
            ),
            vec!["h unsupported-value spec.parentRefs[0]"],
        ),
        (
            to("name: web, port: 80", a)
                + &object(
                    "GRPCRoute",
                    "g",
                    "parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: a, port: 80}]}]",
                ),
            vec!["h kind-conflict spec.parentRefs[0]", "g port-undeclared spec.parentRefs[0]"],
        ),
        (
            to("name: web, port: 80", "rules: [{filters: [{type: ExtensionRef, extensionRef: {name: x}}]}]"),
            vec!["h unsupported-filter spec.rules[0].filters"],
        ),
        // Almost a Service.
        (
            object("HTTPRoute", "h", &format!("parentRefs: [{{kind: Service, name: web}}], {a}")),
            vec!["h parent-not-found spec.parentRefs[0]"],
        ),
        (
            object("HTTPRoute", "h", &format!("parentRefs: [{{group: '', kind: Servce, name: web}}], {a}")),
            vec!["h parent-unknown spec.parentRefs[0]"],
        ),
        (
            object(
                "HTTPRoute",
                "h",
                &format!(
                    "parentRefs: [{{name: edge}}, {{group: networking.istio.io, kind: ServiceEntry, name: web}}], {a}"
                ),
            ),
            vec!["h parent-unknown spec.parentRefs[1]"],
        ),
        // Of gateways nothing is known here.
        (
            object(
                "HTTPRoute",
                "h",
                "parentRefs: [{name: edge}], rules: [{backendRefs: [{name: none, port: 80}]}]",
            ),
            vec![],
        ),
    ] {
        assert_eq!(found(&objects), expected, "{objects}");
    }
}

#[test]
fn of_several_tcp_routes_the_oldest_counts() {
    let tcp = |name: &str, parent: &str| {
        let spec = format!(
            "parentRefs: [{{group: '', kind: Service, {parent}}}], rules: [{{backendRefs: [{{name: a, port: 80}}]}}]"
        );
        object("TCPRoute", name, &spec)
    };
    let older = vec!["young older-route spec.parentRefs[0]"];
    for (old, young, expected) in [
        ("name: web", "name: web", older.clone()),
        ("name: web, port: 80", "name: web", older.clone()),
        ("name: web, port: 80", "name: web, port: 80", older),
        ("name: web, port: 80", "name: web, port: 81", vec![]),
    ] {
        assert_eq!(found(&(tcp("old", old) + &tcp("young", young))), expected, "{old} {young}");
    }
    let text = found_text(&(tcp("old", "name: web, port: 80") + &tcp("young", "name: web")));
    assert!(text.contains("the older TCPRoute shop/old has all connections to port 80 of"), "{text}");
}

#[test]
fn what_decides_beside_a_virtual_service_is_said_with_its_extent() {
    let vs = object("VirtualService", "v", &format!("hosts: [web], http: [{{{TO_A}}}]"));
    let route = |namespace: &str, parent: &str, rule: &str| {
        let spec = format!(
            "parentRefs: [{{group: '', kind: Service, name: web, namespace: shop{parent}}}], \
             rules: [{{{rule}backendRefs: [{{name: a, namespace: shop, port: 80}}]}}]"
        );
        object("HTTPRoute", "h", &spec)
            .replace("namespace: shop}\nspec", &format!("namespace: {namespace}}}\nspec"))
    };
    for (route, expected) in [
        (
            route("shop", "", ""),
            "warning: the HTTPRoute shop/h is attached to the Service web.shop.svc.cluster.local, and decides",
        ),
        (route("shop", ", port: 80", ""), "info: decides for its port 80"),
        (route("bank", "", ""), "info: decides for clients of the namespace bank"),
        (route("shop", ", port: 9", ""), ""),
        (route("shop", "", "matches: [{method: FETCH}], "), ""),
    ] {
        let all = analyze(&index(&format!("{SERVICES}{vs}{route}")), &config());
        let said = all.iter().find(|one| one.code == "shadowed-by-route");
        let said = said.map_or(String::new(), |one| {
            let severity = if one.severity == Severity::Info { "info" } else { "warning" };
            format!("{severity}: {}", one.text)
        });
        let (severity, text) = expected.split_once(": ").unwrap_or_default();
        assert!(
            said.starts_with(severity) && said.ends_with(text) && said.is_empty() == text.is_empty(),
            "{said} {route}"
        );
    }
}
