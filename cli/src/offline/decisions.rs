//! Fields of a VirtualService on their way: from a manifest, through the controller's form and the agent's tables, to what
//! becomes of a request or a connection.

use super::tests::{traffic_to_web, virtual_service};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use warren_agent::route::http::{
    Action, ClientView, CorsDecision, Ended, HttpTable, Matched, Patterns, RequestView, Situation, Verdict,
};
use warren_agent::route::l4::{L4Table, Said, Way};
use warren_common::model::Labels;
use warren_common::model::traffic::{Destination, Traffic};

const SERVICES: &str = "---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}, {name: tcp, port: 81}]}
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop}
spec: {clusterIP: 10.96.0.2, ports: [{name: http, port: 80}]}
---
";
const TO_A: &str = "route: [{destination: {host: a}}]";

fn traffic(spec: &str) -> Arc<Traffic> {
    traffic_to_web(&format!("{SERVICES}{}", virtual_service(spec))).unwrap().unwrap()
}

/// `app=web` of a pod of `shop`.
fn labels() -> Labels {
    BTreeMap::from([("app".into(), "web".into())])
}

fn name(to: &Destination) -> &str {
    match to {
        Destination::Service { service, .. } => service.hostname.split('.').next().unwrap(),
        Destination::Broken { wanted, .. } => wanted,
    }
}

/// `name=value` of each header.
fn told(headers: &HeaderMap) -> String {
    let mut all: Vec<_> =
        headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
    all.sort();
    all.join(" ")
}

/// What becomes of a request (`METHOD TARGET NAME=VALUE ...`) of a client in a namespace under these rules.
fn decided(http: &str, namespace: &str, request: &str) -> String {
    let (traffic, labels) = (traffic(&format!("http: [{http}]")), labels());
    let client = ClientView { namespace, labels: &labels };
    let Some(table) = HttpTable::compile(&traffic, &client, 80, &Patterns::default()).unwrap() else {
        return "as without rules".to_owned();
    };
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let headers: HeaderMap = words
        .map(|word| word.split_once('=').unwrap())
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap()))
        .collect();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let view = RequestView { method, scheme: "http", authority: "web:80", path, query, headers: &headers };
    let Some(Matched { rule, part, .. }) = table.route(&view) else { return "nothing holds it".to_owned() };
    let mut said = Vec::new();
    match rule.cors.as_ref().map(|cors| cors.decide(method, &headers)) {
        Some(CorsDecision::Preflight(headers)) => return format!("preflight {}", told(&headers)),
        Some(CorsDecision::Allowed(headers)) => said.push(told(&headers)),
        Some(CorsDecision::Unrelated) | None => {}
    }
    match &rule.action {
        Action::Reply(reply) => said.push(reply.status.to_string()),
        Action::Redirect(to) => said.push(format!("{} {}", to.status, to.location(&view, part, 8080))),
        Action::Forward(forwarding) => {
            let backend = forwarding.next_backend(0).unwrap();
            said.push(name(&backend.to).to_owned());
            said.extend(backend.rewrite.as_ref().and_then(|rewrite| rewrite.path_and_query(&view, part)));
            let retries = &forwarding.retries;
            said.extend(retries.per_try_timeout.map(|time| format!("{time:?} a try")));
            let first = Situation { tries: 1, replayable: true, left: None, entropy: u64::MAX };
            let verdict = retries.decide(Ended::NoConnection, &first);
            if let Verdict::Again(pause) = verdict
                && pause > Duration::from_millis(25)
            {
                said.push(format!("again after at most {} ms", pause.as_millis().next_multiple_of(10)));
            }
        }
    }
    said.join(" ")
}

#[test]
fn fields_of_requests_mean_to_agents_what_manifests_say() {
    let rule = |fields: &str| format!("{{{TO_A}, {fields}}}");
    let when = |fields: &str| format!("{{{TO_A}, match: [{{{fields}}}]}}");
    let cors = |more: &str| {
        rule(&format!(
            "corsPolicy: {{allowOrigins: [{{exact: 'https://x'}}, {{prefix: 'https://y.'}}], allowMethods: [GET, PUT], \
             allowHeaders: [x-a], exposeHeaders: [x-b, x-c], maxAge: 90s, allowCredentials: true{more}}}"
        ))
    };
    let redirect = |fields: &str| format!("{{redirect: {{{fields}}}}}");
    let preflight = |origin: &str| format!("OPTIONS / origin={origin} access-control-request-method=PUT");
    for (rules, client, request, expected) in [
        (when("sourceNamespace: bank"), "bank", "GET /", "a"),
        (when("sourceNamespace: bank"), "shop", "GET /", "as without rules"),
        (when("sourceLabels: {app: web}"), "shop", "GET /", "a"),
        (when("sourceLabels: {app: api}"), "shop", "GET /", "as without rules"),
        (when("port: 80"), "shop", "GET /", "a"),
        (when("withoutHeaders: {x: {exact: a}}"), "shop", "GET /", "a"),
        (when("withoutHeaders: {x: {exact: a}}"), "shop", "GET / x=b", "a"),
        (when("withoutHeaders: {x: {exact: a}}"), "shop", "GET / x=a", "nothing holds it"),
        (when("withoutHeaders: {x: {}}"), "shop", "GET / x=b", "nothing holds it"),
        (when("queryParams: {q: {exact: '1'}}"), "shop", "GET /?p=2&q=1", "a"),
        (when("queryParams: {q: {exact: '1'}}"), "shop", "GET /?q=2&q=1", "nothing holds it"),
        (when("queryParams: {q: {prefix: v}}"), "shop", "GET /?q=v2", "a"),
        (when("queryParams: {q: {}}"), "shop", "GET /?q", "a"),
        (when("queryParams: {q: {}}"), "shop", "GET /?p", "nothing holds it"),
        (when("uri: {exact: /Foo}"), "shop", "GET /foO", "nothing holds it"),
        (when("uri: {exact: /Foo}, ignoreUriCase: true"), "shop", "GET /foO", "a"),
        (when("uri: {prefix: /Foo}, ignoreUriCase: true"), "shop", "GET /FOOL", "a"),
        (
            rule("rewrite: {uriRegexRewrite: {match: '/v([0-9])/(.*)', rewrite: '/\\2/\\1'}}"),
            "shop",
            "GET /v2/a/b?c",
            "a /a/b/2?c",
        ),
        (redirect("uri: /x"), "shop", "GET /?a", "301 http://web/x?a"),
        (
            redirect("scheme: https, derivePort: FROM_PROTOCOL_DEFAULT, redirectCode: 308"),
            "shop",
            "GET /a",
            "308 https://web/a",
        ),
        (
            redirect("scheme: https, derivePort: FROM_REQUEST_PORT"),
            "shop",
            "GET /a",
            "301 https://web:8080/a",
        ),
        (redirect("authority: other, port: 8443"), "shop", "GET /a", "301 http://other:8443/a"),
        (
            cors(""),
            "shop",
            &preflight("https://x"),
            "preflight access-control-allow-credentials=true access-control-allow-headers=x-a \
             access-control-allow-methods=GET,PUT access-control-allow-origin=https://x access-control-max-age=90 \
             vary=origin",
        ),
        (
            cors(""),
            "shop",
            "GET / origin=https://y.z",
            "access-control-allow-credentials=true access-control-allow-origin=https://y.z \
             access-control-expose-headers=x-b,x-c vary=origin a",
        ),
        (cors(""), "shop", &preflight("https://z"), "a"),
        (cors(", unmatchedPreflights: FORWARD"), "shop", &preflight("https://z"), "a"),
        (cors(", unmatchedPreflights: IGNORE"), "shop", &preflight("https://z"), "preflight "),
        (cors(", unmatchedPreflights: IGNORE"), "shop", "GET / origin=https://z", "a"),
        (
            rule("retries: {attempts: 1, perTryTimeout: 1.5s, backoff: 400ms}"),
            "shop",
            "GET /",
            "a 1.5s a try again after at most 400 ms",
        ),
        (rule("retries: {attempts: 1}"), "shop", "GET /", "a"),
        (rule("retries: {attempts: 0}"), "shop", "GET /", "a"),
    ] {
        assert_eq!(decided(&rules, client, request), expected, "{rules}: {request}");
    }
}

#[test]
fn fields_of_connections_mean_to_agents_what_manifests_say() {
    let labels = labels();
    for (when, namespace, dialled, expected) in [
        ("destinationSubnets: [10.96.0.0/24]", "shop", "10.96.0.1", "a"),
        ("destinationSubnets: [10.97.0.0/24, '2001:db8::/32']", "shop", "10.96.0.1", "itself"),
        ("destinationSubnets: [10.97.0.0/24, '2001:db8::/32']", "shop", "2001:db8::1", "a"),
        ("destinationSubnets: [10.96.0.1]", "shop", "10.96.0.1", "a"),
        ("port: 81", "shop", "10.96.0.1", "a"),
        ("sourceNamespace: bank", "bank", "10.96.0.1", "a"),
        ("sourceLabels: {app: web}", "shop", "10.96.0.1", "a"),
        ("sourceLabels: {app: api}", "shop", "10.96.0.1", "itself"),
    ] {
        let traffic = traffic(&format!("tcp: [{{match: [{{{when}}}], {TO_A}}}]"));
        let client = ClientView { namespace, labels: &labels };
        let table = L4Table::compile(&traffic, &client, 81);
        let way = table.as_ref().map(|table| table.route(dialled.parse().unwrap(), Said::Bytes));
        let found = match way {
            Some(Way::Rule(rule)) => name(rule.pick(0).unwrap()),
            Some(Way::Itself) | None => "itself",
            Some(Way::Nowhere) => "nowhere",
        };
        assert_eq!(found, expected, "{when}");
    }
}
