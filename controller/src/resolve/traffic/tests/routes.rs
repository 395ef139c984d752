//! Routes of the Gateway API: what of their rules reaches the tables.

use super::*;
use warren_common::model::traffic::{Forward, HttpRule, RetryOn, Rewrite};

fn attached(kind: &str, head: &str, more: &str, rules: &str) -> String {
    let spec = format!("parentRefs: [{{group: '', kind: Service, name: web}}], {more}rules: [{rules}]");
    object(kind, head, &spec)
}

fn forward(rule: &HttpRule) -> &Forward {
    match &rule.action {
        HttpAction::Forward(forward) => forward,
        other => panic!("{other:?}"),
    }
}

fn http(table: &RouteTable) -> &[HttpRule] {
    table.rules.http.as_deref().unwrap()
}

#[test]
fn filters_of_grpc_routes_are_those_of_rules_and_backends() {
    let all = services(&[("web.shop", &[80]), ("a.shop", &[80]), ("b.shop", &[80])]);
    let changes = |kind: &str, field: &str, name: &str| {
        format!("{{type: {kind}, {field}: {{set: [{{name: {name}, value: x}}]}}}}")
    };
    let request = |name: &str| changes("RequestHeaderModifier", "requestHeaderModifier", name);
    let response = |name: &str| changes("ResponseHeaderModifier", "responseHeaderModifier", name);
    let mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: b, port: 80}, percent: 50}}";
    let rule = format!(
        "{{matches: [{{method: {{service: s.S, method: M}}}}], filters: [{}, {}, {mirror}], \
         backendRefs: [{{name: a, port: 80, filters: [{}, {}, {mirror}]}}]}}",
        request("of-rule"),
        response("of-rule"),
        request("of-backend"),
        response("of-backend"),
    );
    let table = tables(&(all + &attached("GRPCRoute", "shop/g", "", &rule)), "web.shop").remove(0);
    assert!(table.rules.grpc && paths(&table) == ["=/s.S/M"]);
    let [rule] = http(&table) else { panic!() };
    let forward = forward(rule);
    let backend = &forward.backends[0];
    let names =
        [&rule.request_headers, &rule.response_headers, &backend.request_headers, &backend.response_headers]
            .map(|changes| changes.set[0].name.to_string());
    assert_eq!(names, ["of-rule", "of-rule", "of-backend", "of-backend"]);
    for mirrors in [&forward.mirrors, &backend.mirrors] {
        let [one] = &mirrors[..] else { panic!("{mirrors:?}") };
        let Destination::Service { service, .. } = &one.to else { panic!() };
        assert_eq!((&*service.hostname, one.per_million), ("b.shop.svc.cluster.local", 500_000));
    }
}

#[test]
fn rewrites_of_rule_and_backend_and_retries_go_with_the_rule() {
    let all = services(&[("web.shop", &[80]), ("a.shop", &[80])]);
    let rule = "{retry: {codes: [504]}, timeouts: {backendRequest: 200ms}, \
                filters: [{type: URLRewrite, urlRewrite: {hostname: one.example}}], \
                backendRefs: [{name: a, port: 80, filters: [{type: URLRewrite, urlRewrite: {path: \
                {type: ReplaceFullPath, replaceFullPath: /x}}}]}]}";
    let table = tables(&(all + &attached("HTTPRoute", "shop/h", "", rule)), "web.shop").remove(0);
    let forward = forward(&http(&table)[0]);
    let of_rule = Rewrite { authority: Some("one.example".into()), path: None };
    assert_eq!(forward.rewrite, Some(of_rule));
    assert!(
        forward.backends[0].rewrite.as_ref().is_some_and(|own| own.authority.is_none() && own.path.is_some())
    );
    let retries = forward.retries.as_ref().unwrap();
    assert_eq!(retries.per_try_timeout_ms, Some(200));
    assert!(
        retries.on.contains(&RetryOn::Reset) && retries.on.contains(&RetryOn::Status(504)),
        "{retries:?}"
    );
}

#[test]
fn a_backend_is_its_own_endpoints_whatever_is_attached_to_it() {
    let all = services(&[("web.shop", &[80]), ("a.shop", &[80]), ("b.shop", &[80])]);
    let of_a = object(
        "HTTPRoute",
        "shop/of-a",
        "parentRefs: [{group: '', kind: Service, name: a}], rules: [{backendRefs: [{name: b, port: 80}]}]",
    );
    let yaml =
        all + &of_a + &attached("HTTPRoute", "shop/of-web", "", "{backendRefs: [{name: a, port: 80}]}");
    assert_eq!(sent(&tables(&yaml, "web.shop")[0]), ["a.shop:80"]);
    assert_eq!(sent(&tables(&yaml, "a.shop")[0]), ["b.shop:80"]);
}

#[test]
fn names_of_servers_stand_by_length_then_by_age() {
    let all = services(&[("web.shop", &[443]), ("a.shop", &[1]), ("b.shop", &[1]), ("c.shop", &[1])]);
    let tls = |head: &str, to: &str, names: &str| {
        let rule = format!("{{backendRefs: [{{name: {to}, port: 1}}]}}");
        attached("TLSRoute", head, &format!("hostnames: [{names}], "), &rule)
    };
    for (objects, expected) in [
        (
            tls("shop/wide@1", "a", "'*.example'") + &tls("shop/narrow@2", "b", "'*.shop.example'"),
            vec!["b.shop:1", "a.shop:1"],
        ),
        (
            tls("shop/new@2", "a", "x.example") + &tls("shop/old@1", "b", "x.example"),
            vec!["b.shop:1", "a.shop:1"],
        ),
        (
            tls("shop/one@1", "a", "'*.example', x.example") + &tls("shop/two@2", "b", "'*.x.example'"),
            vec!["a.shop:1", "b.shop:1", "a.shop:1"],
        ),
    ] {
        assert_eq!(sent(&tables(&(all.clone() + &objects), "web.shop")[0]), expected, "{objects}");
    }
}

#[test]
fn the_share_of_a_backend_that_is_not_there_leads_nowhere() {
    let all = services(&[("web.shop", &[443]), ("a.shop", &[1])]);
    let rule = "{backendRefs: [{name: a, port: 1, weight: 3}, {name: none, port: 1, weight: 1}]}";
    let table = tables(&(all + &attached("TCPRoute", "shop/t", "", rule)), "web.shop").remove(0);
    let weights: Vec<_> =
        table.rules.tcp.as_deref().unwrap()[0].backends.iter().map(|backend| backend.weight).collect();
    assert_eq!(weights, [3, 1]);
    assert_eq!(sent(&table), ["a.shop:1", "Service shop/none: there is no Service shop/none"]);
}

#[test]
fn requests_to_another_protocol_fail_unless_tls_is_spoken_there() {
    let backend = |protocol: &str| {
        services(&[("web.shop", &[80])])
            + &format!(
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: a, namespace: shop}}\n\
                 spec: {{clusterIP: 10.96.0.2, ports: [{{port: 80, appProtocol: {protocol}}}]}}\n"
            )
            + &attached("HTTPRoute", "shop/h", "", "{backendRefs: [{name: a, port: 80}]}")
    };
    let originates = object("DestinationRule", "shop/d", "host: a, trafficPolicy: {tls: {mode: SIMPLE}}");
    let refused = "Service shop/a: port 80 of the Service shop/a speaks https (appProtocol), and no HTTP";
    for (yaml, expected) in [
        (backend("kubernetes.io/ws"), "a.shop:80"),
        (backend("https"), refused),
        (backend("https") + &originates, "a.shop:80"),
    ] {
        assert_eq!(sent(&tables(&yaml, "web.shop")[0]), [expected], "{yaml}");
    }
}
