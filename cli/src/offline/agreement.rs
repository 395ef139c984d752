//! Controller and agent agree: what the one takes from a manifest, the other can compile.

use super::tests::{self, traffic_to_web};
use std::net::SocketAddr;
use std::time::SystemTime;
use warren_agent::route::http::{
    Action, Checks, ClientView, HttpTable, PathPart, Patterns, RequestView, Values, check,
};
use warren_common::model::Labels;
use warren_common::model::traffic::Traffic;
use warren_common::proto::{decode_traffic, encode_traffic};

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}
---
";

/// Where a rule of a VirtualService has a text, and one that is good there; `@` is its place.
const OF_VIRTUAL_SERVICES: &[(&str, &str)] = &[
    ("match: [{uri: {exact: @}}], TO", "/a"),
    ("match: [{uri: {prefix: @}}], TO", "/a"),
    ("match: [{uri: {regex: @}}], TO", "/a.*"),
    ("match: [{method: {regex: @}}], TO", "GET|PUT"),
    ("match: [{scheme: {exact: @}}], TO", "http"),
    ("match: [{authority: {regex: @}}], TO", "web.*"),
    ("match: [{headers: {@: {exact: b}}}], TO", "x-a"),
    ("match: [{headers: {a: {regex: @}}}], TO", "b+"),
    ("match: [{withoutHeaders: {a: {regex: @}}}], TO", "b+"),
    ("match: [{queryParams: {@: {exact: b}}}], TO", "q"),
    ("match: [{queryParams: {a: {regex: @}}}], TO", "b+"),
    ("rewrite: {uri: @}, TO", "/b"),
    ("match: [{uri: {prefix: /a}}], rewrite: {uri: @}, TO", "/b"),
    ("rewrite: {authority: @}, TO", "b:80"),
    ("rewrite: {uriRegexRewrite: {match: @, rewrite: /}}, TO", "/a/(.*)"),
    ("rewrite: {uriRegexRewrite: {match: a, rewrite: @}}, TO", "/\\1"),
    ("redirect: {uri: @}", "/b"),
    ("redirect: {authority: @}", "b.example:8080"),
    ("redirect: {scheme: @}", "https"),
    ("headers: {request: {set: {@: v}}}, TO", "x-a"),
    ("headers: {request: {set: {a: @}}}, TO", "50%%"),
    ("headers: {request: {add: {a: @}}}, TO", "%REQ(x)%"),
    ("headers: {request: {remove: [@]}}, TO", "x-a"),
    ("headers: {request: {set: {Host: @}}}, TO", "b:80"),
    ("headers: {response: {set: {a: @}}}, TO", "%START_TIME%"),
    ("headers: {response: {add: {@: v}}}, TO", "x-a"),
    ("route: [{destination: {host: web}, headers: {request: {set: {a: @}}}}]", "v"),
    ("route: [{destination: {host: web}, headers: {request: {add: {':authority': @}}}}]", "b"),
    ("directResponse: {status: 200, body: {string: @}}", "hello"),
    ("corsPolicy: {allowOrigins: [{exact: @}]}, TO", "https://a"),
    ("corsPolicy: {allowOrigins: [{regex: @}]}, TO", "https://.*"),
    ("corsPolicy: {allowMethods: [@]}, TO", "GET"),
    ("corsPolicy: {allowHeaders: [@]}, TO", "x-a"),
    ("corsPolicy: {exposeHeaders: [@]}, TO", "x-a"),
    ("name: @, TO", "first"),
];

/// The same of an HTTPRoute.
const OF_HTTP_ROUTES: &[(&str, &str)] = &[
    ("matches: [{path: {type: Exact, value: @}}], TO", "/a"),
    ("matches: [{path: {value: @}}], TO", "/a"),
    ("matches: [{path: {type: RegularExpression, value: @}}], TO", "/a.*"),
    ("matches: [{headers: [{name: @, value: a}]}], TO", "x-a"),
    ("matches: [{headers: [{name: a, type: RegularExpression, value: @}]}], TO", "b+"),
    ("matches: [{queryParams: [{name: a, type: RegularExpression, value: @}]}], TO", "b+"),
    (
        "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: @, value: v}]}}], TO",
        "x-a",
    ),
    (
        "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: @}]}}], TO",
        "50%",
    ),
    (
        "filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: a, value: @}]}}], TO",
        "v",
    ),
    ("filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [@]}}], TO", "x-a"),
    ("filters: [{type: URLRewrite, urlRewrite: {hostname: @}}], TO", "b.example"),
    (
        "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: @}}}], TO",
        "/b",
    ),
    (
        "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: @}}}], TO",
        "/b",
    ),
    ("filters: [{type: RequestRedirect, requestRedirect: {hostname: @}}]", "b.example"),
    ("filters: [{type: RequestRedirect, requestRedirect: {scheme: @}}]", "https"),
    (
        "filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: @}}}]",
        "/b",
    ),
    (
        "filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: @}}}]",
        "/b",
    ),
    ("filters: [{type: CORS, cors: {allowOrigins: [@]}}], TO", "https://*.a"),
    ("filters: [{type: CORS, cors: {allowHeaders: [@]}}], TO", "x-a"),
    (
        "backendRefs: [{name: web, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: a, value: @}]}}]}]",
        "50%",
    ),
];

/// The same of a GRPCRoute.
const OF_GRPC_ROUTES: &[(&str, &str)] = &[
    ("matches: [{method: {service: @, method: m}}], TO", "a.B"),
    ("matches: [{method: {type: RegularExpression, service: @}}], TO", "a.*"),
    ("matches: [{method: {type: RegularExpression, service: @, method: @}}], TO", "a.*"),
    ("matches: [{headers: [{name: a, type: RegularExpression, value: @}]}], TO", "b+"),
    (
        "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: @}]}}], TO",
        "50%",
    ),
];

/// What people write by mistake, and what is only nearly one.
fn odd_values() -> Vec<String> {
    let mut values: Vec<String> = [
        "",
        " ",
        "a",
        "-",
        "*",
        "/",
        "/a",
        "//",
        "/a/",
        "/a b",
        "/a#x",
        "/caf\u{e9}",
        "caf\u{e9}",
        "/a<b",
        "/`",
        "/a\\b",
        "/{a}",
        "new",
        "new/",
        "?x=1",
        "/a?b=c",
        "/%20",
        "/%",
        "50%",
        "50%%",
        "%",
        "%%",
        "%HOSTNAME%",
        "%REQ(x)%",
        "%REQ(x",
        "%REQ(:path)%",
        "%START_TIME%",
        "a b",
        "a\tb",
        "a\r\nb",
        "\u{7f}",
        "\0",
        "x:0",
        "x:80",
        "x:80:80",
        "http://x",
        "user@x",
        "x/y",
        "[::1]",
        "[::1]:80",
        "::1",
        "10.0.0.1",
        "a..b",
        "A.B",
        "*.a",
        "https",
        ":path",
        "host",
        ":authority",
        "x,y",
        "a)(b",
        "(a",
        "a)",
        "[",
        "a\\",
        "a{",
        "a{2",
        "a{2}",
        "a**",
        ".*",
        "+",
        "(?=a)",
        "(a)\\1",
        "\\1",
        "\\d{3}",
        "[\\w-]{36}",
        "\\p{L}+",
        "(?x)a#",
        "(?i)A",
        "(a{1000}){1000}",
        "(a{100}){100}",
        "\\w{500}",
        "^a$",
        "a|b",
        "(?P<x>a)",
    ]
    .map(str::to_owned)
    .into();
    values
        .extend([47, 48, 49, 50, 51, 60].map(|depth| format!("{}a{}", "(".repeat(depth), ")".repeat(depth))));
    values.extend([250, 1024, 1025, 5000].map(|length| "a".repeat(length)));
    values
}

/// What is said of the traffic to the service, as it comes to an agent (nothing: none), or why the controller refuses it.
fn resolved(object: &str) -> Result<Option<Traffic>, String> {
    let traffic = traffic_to_web(&format!("{SERVICE}{object}")).map_err(|error| error.to_string())?;
    Ok(traffic.map(|traffic| decode_traffic(&encode_traffic(&traffic)).unwrap()))
}

fn virtual_service(rule: &str) -> String {
    let rule = rule.replace("TO", "route: [{destination: {host: web}}]");
    tests::virtual_service(&format!("http: [{{{rule}}}]"))
}

fn route(kind: &str, rule: &str) -> String {
    let rule = rule.replace("TO", "backendRefs: [{name: web, port: 80}]");
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: web, namespace: shop}}\n\
         spec: {{parentRefs: [{{group: '', kind: Service, name: web}}], rules: [{{{rule}}}]}}\n"
    )
}

/// None: nothing of it is for this client.
fn compiled(traffic: &Traffic) -> Result<Option<HttpTable>, String> {
    let (labels, patterns) = (Labels::default(), Patterns::default());
    let client = ClientView { namespace: "shop", labels: &labels };
    HttpTable::compile(traffic, &client, 80, &patterns).map_err(|error| error.to_string())
}

#[test]
fn what_the_controller_takes_an_agent_can_compile() {
    type Object = fn(&str) -> String;
    let of_kind: [(&[(&str, &str)], Object); 3] = [
        (OF_VIRTUAL_SERVICES, virtual_service),
        (OF_HTTP_ROUTES, |rule| route("HTTPRoute", rule)),
        (OF_GRPC_ROUTES, |rule| route("GRPCRoute", rule)),
    ];
    let (checks, odd) = (Checks::default(), odd_values());
    let (mut taken, mut refused) = (0, 0);
    for (places, object) in of_kind {
        for (place, good) in places {
            let of =
                |value: &str| resolved(&object(&place.replace('@', &serde_json::to_string(value).unwrap())));
            let usual = of(good).unwrap_or_else(|why| panic!("{place} {good}: {why}"));
            let usual = usual.unwrap_or_else(|| panic!("{place} {good} says nothing"));
            let usual = compiled(&usual).unwrap_or_else(|why| panic!("{place} {good}: {why}"));
            assert!(usual.is_some(), "{place} {good}");
            for value in &odd {
                let Ok(traffic) = of(value) else {
                    refused += 1;
                    continue;
                };
                if let Some(traffic) = traffic {
                    taken += 1;
                    if let Err(error) = check(&traffic, &checks) {
                        panic!("{place} with {value:?} is taken, and cannot be compiled: {error}");
                    }
                    compiled(&traffic).unwrap_or_else(|why| panic!("{place} {value:?}: {why}"));
                }
            }
        }
    }
    assert!(taken > 500 && refused > 500, "{taken} taken, {refused} refused");
}

/// One rule's header `a` and path of a request for `/old/x?q`, as they are sent on.
fn sent_on(traffic: &Traffic) -> (String, String) {
    let table = compiled(traffic).unwrap().unwrap();
    let mut headers = http::HeaderMap::new();
    let asked = headers.clone();
    let request = RequestView {
        method: "GET",
        scheme: "http",
        authority: "web",
        path: "/old/x",
        query: Some("q"),
        headers: &asked,
    };
    let remote = SocketAddr::from(([10, 0, 0, 1], 4000));
    let values = Values { request: &request, response: None, remote, start: SystemTime::UNIX_EPOCH };
    let (_, _, rule) = table.entries().next().unwrap();
    rule.request_headers.prepare(&values).apply(&mut headers);
    let Action::Forward(forwarding) = &rule.action else { panic!("{rule:?}") };
    let rewrite = forwarding.backends[0].rewrite.as_ref();
    let path = rewrite.and_then(|rewrite| rewrite.path_and_query(&request, PathPart::Prefix(4)));
    let header = headers.get("a").map(|value| value.to_str().unwrap().to_owned());
    (header.unwrap_or_default(), path.unwrap_or_default())
}

#[test]
fn values_arrive_as_they_were_meant() {
    let modifier = |value: &str| {
        format!(
            "filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: a, value: '{value}'}}]}}}}], TO"
        )
    };
    let path = |kind: &str, field: &str, value: &str| {
        format!(
            "filters: [{{type: URLRewrite, urlRewrite: {{path: {{type: {kind}, {field}: '{value}'}}}}}}], TO"
        )
    };
    let full = |value| route("HTTPRoute", &path("ReplaceFullPath", "replaceFullPath", value));
    let prefix = |value| route("HTTPRoute", &path("ReplacePrefixMatch", "replacePrefixMatch", value));
    for (object, header, sent) in [
        (virtual_service("headers: {request: {set: {a: '50%%'}}}, TO"), "50%", ""),
        (virtual_service("headers: {request: {set: {a: '%REQ(:authority)%'}}}, TO"), "web", ""),
        (route("HTTPRoute", &modifier("50%")), "50%", ""),
        (route("HTTPRoute", &modifier("50%%")), "50%%", ""),
        (route("HTTPRoute", &modifier("%REQ(:authority)%")), "%REQ(:authority)%", ""),
        (route("GRPCRoute", &modifier("50%")), "50%", ""),
        (full("/new"), "", "/new?q"),
        (full("new"), "", "/new?q"),
        (full(""), "", "/?q"),
        (prefix("/new"), "", "/new/x?q"),
        (prefix("new"), "", "/new/x?q"),
        (prefix(""), "", "/x?q"),
        (virtual_service("match: [{uri: {prefix: /old}}], rewrite: {uri: new}, TO"), "", "/new/x?q"),
    ] {
        let traffic = resolved(&object).unwrap().unwrap();
        assert_eq!(sent_on(&traffic), (header.to_owned(), sent.to_owned()), "{object}");
    }
}
