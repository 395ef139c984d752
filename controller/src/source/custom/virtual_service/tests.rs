//! VirtualServices as people write them.

use crate::objects::{Headers, Object, RouteAction, VirtualService};
use crate::source::custom::tests::read;
use warren_common::model::traffic::{
    FaultAbort, FaultDelay, HeaderMatch, PathChange, PathMatch, RedirectPort, Retries, RetryOn, TextMatch,
};

fn service(spec: &str) -> Result<VirtualService, String> {
    let yaml = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
         metadata: {{name: web, namespace: shop, creationTimestamp: '1970-01-01T00:01:00Z'}}\nspec:\n{spec}\n"
    );
    match read(&yaml)? {
        Object::VirtualService(service) => Ok(*service),
        other => panic!("{other:?}"),
    }
}

/// With one rule that sends to `a` and has this besides.
fn rule(more: &str) -> Result<VirtualService, String> {
    service(&format!(
        "  hosts: [web]\n  http: [{{route: [{{destination: {{host: a}}}}]{}{more}}}]",
        if more.is_empty() { "" } else { ", " }
    ))
}

fn matching(text: &str) -> crate::objects::Matching<warren_common::model::traffic::HttpMatch> {
    rule(&format!("match: [{text}]")).unwrap().http.remove(0).matches.remove(0)
}

#[test]
fn heads_are_read() {
    let read = service("  hosts: [Web, '*.shop.com', web]\n  gateways: [mesh, edge, ops/outer, old.infra.svc.cluster.local]\n  exportTo: [., bank]\n  tcp: [{route: [{destination: {host: a, port: {number: '90'}, subset: v1}}]}]").unwrap();
    assert_eq!((read.name.to_string().as_str(), read.created), ("shop/web", Some(60)));
    let texts = |list: &[std::sync::Arc<str>]| list.join(" ");
    assert_eq!(texts(&read.hosts), "web *.shop.com");
    assert_eq!(texts(&read.gateways), "mesh shop/edge ops/outer infra/old");
    assert_eq!(texts(&read.exported_to.unwrap()), "bank shop");
    let backend = &read.tcp[0].backends[0];
    assert_eq!((&*backend.to.host, backend.to.port, backend.weight), ("a", Some(90), 1));
    assert_eq!(read.notes.len(), 1);
    let plain = rule("").unwrap();
    assert!(plain.is_of_mesh() && plain.exported_to.is_none() && plain.notes.is_empty());
    assert!(
        !service("  hosts: [a]\n  gateways: [edge]\n  http: [{route: [{destination: {host: a}}]}]")
            .unwrap()
            .is_of_mesh()
    );
}

#[test]
fn matches_are_read() {
    let one = matching(
        "{name: m, uri: {prefix: /a}, ignoreUriCase: true, method: {exact: GET}, scheme: {regex: '*'}, authority: {exact: Web.Shop},\
         headers: {X-User: {exact: jason}, x-any: {}, cookie: {regex: '*'}, uri: {exact: x}}, withoutHeaders: {x-not: {prefix: b}},\
         queryParams: {q: {exact: ''}}, port: 80, sourceLabels: {app: web}, sourceNamespace: bank}",
    );
    let when = one.when;
    assert!(!one.never && one.gateways.is_empty() && when.ignore_path_case);
    assert_eq!((&*when.name, when.port), ("m", Some(80)));
    assert_eq!(when.path, Some(PathMatch::Prefix("/a".into())));
    assert_eq!(when.scheme, Some(TextMatch::Present));
    assert_eq!(when.authority, Some(TextMatch::Exact("Web.Shop".into())));
    assert_eq!(when.clients.namespaces.unwrap().len() + when.clients.labels.len(), 2);
    let header = |name: &str, value, not| HeaderMatch { name: name.into(), value, not };
    let mut headers = when.headers;
    headers.sort_by_key(|header| header.name.clone());
    assert_eq!(
        headers,
        [
            header("cookie", TextMatch::Present, false),
            header("x-any", TextMatch::Present, false),
            header("x-not", TextMatch::Prefix("b".into()), true),
            header("x-user", TextMatch::Exact("jason".into()), false),
        ]
    );
    assert_eq!(when.query[0].value, TextMatch::Exact("".into()));
    // With gateways nobody asks who the client is; claims are not known.
    let other = matching(
        "{gateways: [mesh], sourceNamespace: bank, headers: {'@request.auth.claims[sub]': {exact: a}}}",
    );
    assert!(other.never && other.when.clients.namespaces.is_none() && other.gateways.len() == 1);
}

#[test]
fn actions_are_read() {
    let action = |rule: &str| {
        let read = service(&format!("  hosts: [web]\n  http: [{{{rule}}}]"))?;
        Ok::<_, String>(read.http.into_iter().next().unwrap().action)
    };
    let redirect = |text: &str| match action(&format!("redirect: {{{text}}}")).unwrap() {
        RouteAction::Redirect(redirect) => redirect,
        other => panic!("{other:?}"),
    };
    for (text, port, status) in [
        ("uri: /x", RedirectPort::OfRequest, 301),
        ("port: 8443, redirectCode: 308", RedirectPort::Number(8443), 308),
        ("scheme: https, derivePort: FROM_PROTOCOL_DEFAULT", RedirectPort::OfScheme, 301),
        ("authority: a.b, derivePort: FROM_REQUEST_PORT", RedirectPort::OfConnection, 301),
    ] {
        let redirect = redirect(text);
        assert_eq!((redirect.port, redirect.status), (port, status), "{text}");
    }
    assert_eq!(redirect("uri: /x").path, Some(PathChange::Full("/x".into())));
    for (text, body) in [("string: hello", "hello"), ("bytes: aGVsbG8=", "hello")] {
        let RouteAction::Reply(reply) =
            action(&format!("directResponse: {{status: 503, body: {{{text}}}}}")).unwrap()
        else {
            panic!()
        };
        assert_eq!((reply.status, &*reply.body), (503, body.as_bytes()));
    }
    let delegate = action("delegate: {name: other}").unwrap();
    assert_eq!(delegate, RouteAction::Delegate(crate::objects::Name::new("shop", "other")));
    let weights = |text: &str| match action(&format!("route: [{text}]")) {
        Ok(RouteAction::Forward(backends)) => {
            Ok(backends.iter().map(|backend| backend.weight).collect::<Vec<_>>())
        }
        Ok(other) => panic!("{other:?}"),
        Err(reason) => Err(reason),
    };
    let to = |weight: &str| format!("{{destination: {{host: a}}{weight}}}");
    assert_eq!(weights(&to(", weight: 0")).unwrap(), [1]);
    assert_eq!(weights(&format!("{}, {}", to(", weight: 75"), to(""))).unwrap(), [75, 0]);
    assert!(weights(&format!("{}, {}", to(""), to(""))).unwrap_err().contains("sum of the weights"));
    assert!(weights(&to(", weight: -1")).unwrap_err().contains("spec.http[0].route[0].weight"));
}

#[test]
fn policies_are_read() {
    let read = |more: &str| rule(more).unwrap().http.remove(0);
    let by_default = Retries {
        attempts: 3,
        per_try_timeout_ms: Some(2000),
        on: vec![RetryOn::ConnectFailure, RetryOn::RefusedStream, RetryOn::Grpc(14), RetryOn::Grpc(1)],
        backoff_ms: 25,
        other_endpoints: true,
    };
    assert_eq!(read("retries: {attempts: 3, perTryTimeout: 2s}").retries.unwrap(), by_default);
    let said = read(
        "retries: {attempts: 1, retryOn: '5xx, 418,retriable-4xx,retriable-status-codes', backoff: 1ms, retryIgnorePreviousHosts: false}",
    );
    let said = said.retries.unwrap();
    assert_eq!(said.on, [RetryOn::ServerError, RetryOn::Status(418), RetryOn::Retriable4xx]);
    assert!(!said.other_endpoints && said.backoff_ms == 1);
    assert_eq!(read("retries: {attempts: 0}").retries.unwrap().attempts, 0);
    let fault = read(
        "fault: {delay: {fixedDelay: 1.5s, percentage: {value: 0.1}}, abort: {grpcStatus: UNAVAILABLE, percent: 50}}",
    );
    let fault = fault.fault.unwrap();
    assert_eq!(fault.delay, Some(FaultDelay { delay_ms: 1500, per_million: 1000 }));
    let abort = FaultAbort { http_status: 200, grpc_status: Some(14), per_million: 500_000 };
    assert_eq!(fault.abort, Some(abort));
    let never = read("fault: {abort: {httpStatus: 500}}").fault.unwrap().abort.unwrap();
    assert_eq!((never.http_status, never.per_million), (500, 0));
    let shares = |more: &str| read(more).mirrors.sent().map(|(_, share)| share).collect::<Vec<_>>();
    assert_eq!(shares("mirror: {host: b}"), [1_000_000]);
    assert_eq!(shares("mirror: {host: b}, mirrorPercentage: {value: 0}"), [0; 0]);
    assert_eq!(
        shares(
            "mirror: {host: b}, mirror_percent: 5, mirrors: [{destination: {host: c}, percentage: {value: 1}}]"
        ),
        [50_000, 10_000]
    );
    let cors = read(
        "corsPolicy: {allowOrigins: [{exact: '*'}, {regex: 'a.*'}], allowMethods: [GET], maxAge: 90s, unmatchedPreflights: IGNORE}",
    );
    let cors = cors.cors.unwrap();
    assert_eq!(cors.origins, [TextMatch::Present, TextMatch::Regex("a.*".into())]);
    assert!(!cors.forward_unmatched && cors.max_age_s == Some(90) && !cors.gateway_api);
    let headers =
        read("headers: {request: {set: {Host: x, X-A: '1'}, remove: [X-B]}, response: {add: {x-c: 'd'}}}");
    let headers = headers.headers.unwrap();
    assert_eq!(headers.request.set.iter().map(|c| &*c.name).collect::<Vec<_>>(), [":authority", "x-a"]);
    assert_eq!((&*headers.request.remove[0], &*headers.response.add[0].value), ("x-b", "d"));
    assert_eq!((read("headers: {}").headers, read("").headers), (Some(Headers::default()), None));
    let rewrite = read("rewrite: {uriRegexRewrite: {match: '/a/(.*)', rewrite: '/\\1'}, authority: b}")
        .rewrite
        .unwrap();
    assert!(matches!(rewrite.path, Some(PathChange::Regex { .. })) && rewrite.authority.is_some());
}

#[test]
fn connections_are_read() {
    let read = service(
        "  hosts: ['*.shop', web.shop]\n  tls: [{match: [{sniHosts: ['*.shop', web.shop], port: 443, destinationSubnets: [10.0.0.0/8, 1.2.3.4]}], route: [{destination: {host: a}}]}]",
    )
    .unwrap();
    let when = &read.tls[0].matches[0].when;
    let (names, when) = (&when.server_names, &when.connection);
    assert_eq!((names.len(), when.port, when.destinations.len()), (2, Some(443), 2));
    // Names within those of the hosts; a short one is a service of the object's namespace.
    for (hosts, names) in [
        ("'*'", "a.b, '*.c', '*'"),
        ("'*.com'", "a.com, a.b.com, '*.b.com', '*.com'"),
        ("web", "web, web.shop, web.shop.svc, web.shop.svc.cluster.local"),
        ("Web.Shop", "WEB.SHOP"),
    ] {
        let rule = format!("{{match: [{{sniHosts: [{names}]}}], route: [{{destination: {{host: a}}}}]}}");
        let read = service(&format!("  hosts: [{hosts}]\n  tls: [{rule}]"));
        assert!(read.is_ok(), "{hosts} {names}: {read:?}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_path() {
    for (spec, reason) in [
        ("  hosts: [web]", "spec: it has no rule"),
        ("  http: [{delegate: {name: x}}]", "spec.http: what is delegated to"),
        ("  hosts: [web]\n  http: [{}]", "spec.http[0]: it needs exactly one of route"),
        (
            "  hosts: [web]\n  http: [{redirect: {uri: /}, route: [{destination: {host: a}}]}]",
            "exactly one of route",
        ),
        (
            "  hosts: ['a b']\n  tcp: [{route: [{destination: {host: a}}]}]",
            "spec.hosts: \"a b\" is not a DNS name",
        ),
        (
            "  hosts: [a]\n  exportTo: ['*', b]\n  tcp: [{route: [{destination: {host: a}}]}]",
            "spec.exportTo: \"*\" stands alone",
        ),
        (
            "  hosts: [a]\n  http: [{route: [{destination: {}}]}]",
            "spec.http[0].route[0].destination.host: it is missing",
        ),
        (
            "  hosts: [a]\n  http: [{timeout: 0s, route: [{destination: {host: a}}]}]",
            "spec.http[0].timeout: 0s is not a time",
        ),
        (
            "  hosts: [a]\n  http: [{route: [{destination: {host: a}}], match: [{uri: {regex: '('}}]}]",
            "spec.http[0].match[0].uri.regex: \"(\" is not a regular expression",
        ),
        (
            "  hosts: [a]\n  http: [{route: [{destination: {host: a}}], match: [{uri: {exact: a, prefix: b}}]}]",
            "spec.http[0].match[0].uri: exact, prefix and regex exclude",
        ),
        (
            "  hosts: [a]\n  http: [{route: [{destination: {host: a}}], match: [{uri: {exactt: /x}}]}]",
            "spec.http[0].match[0].uri: it needs exact, prefix or regex; exactt is not known",
        ),
        (
            "  hosts: [a]\n  http: [{route: [{destination: {host: a}}], match: [{uri: {}}]}]",
            "spec.http[0].match[0].uri: it needs exact, prefix or regex",
        ),
        (
            "  hosts: [a]\n  http: [{route: [{destination: {host: a}}], match: [{uri: {prefix: ''}}]}]",
            "spec.http[0].match[0].uri.prefix: an empty one holds everything",
        ),
        (
            "  hosts: [a]\n  http: [{route: [{destination: {host: a}}], match: [{headers: {x: {suffix: b}}}]}]",
            "spec.http[0].match[0].headers[x]: it needs exact, prefix or regex; suffix is not known",
        ),
        (
            "  hosts: [a]\n  http: [{route: [{destination: {host: a}}], match: [{queryParams: {q: {exactt: b}}}]}]",
            "spec.http[0].match[0].queryParams[q]: it needs exact, prefix or regex; exactt is not known",
        ),
        (
            "  hosts: [a]\n  http: [{route: [{destination: {host: a}}], corsPolicy: {allowOrigins: [{suffix: x}]}}]",
            "spec.http[0].corsPolicy.allowOrigins[0]: it needs exact, prefix or regex; suffix is not known",
        ),
        (
            "  hosts: [a]\n  http: [{route: [{destination: {host: a}}], corsPolicy: {allowOrigins: [{}]}}]",
            "spec.http[0].corsPolicy.allowOrigins[0]: it needs exact, prefix or regex",
        ),
        (
            "  hosts: [a]\n  http: [{route: [{destination: {host: a}}], retries: {attempts: 1, retryOn: often}}]",
            "spec.http[0].retries.retryOn: \"often\" is not known",
        ),
        (
            "  hosts: [a]\n  http: [{redirect: {uri: /, redirectCode: 304}}]",
            "spec.http[0].redirect.redirectCode: 304",
        ),
        (
            "  hosts: [a]\n  http: [{route: [{destination: {host: a}}], headers: {request: {set: {':path': x}}}}]",
            "headers.request.set[:path]",
        ),
        (
            "  hosts: [a]\n  http: [{redirect: {uri: /}, fault: {abort: {httpStatus: 500}}}]",
            "spec.http[0].fault: it does not go with redirect",
        ),
        (
            "  hosts: [a]\n  http: [{directResponse: {status: 200}, fault: {abort: {httpStatus: 500}}}]",
            "spec.http[0].fault: it does not go with directResponse",
        ),
        (
            "  hosts: [a]\n  http: [{redirect: {uri: /}, rewrite: {uri: /a}}]",
            "spec.http[0].rewrite: it does not go with redirect",
        ),
        (
            "  hosts: [a]\n  http: [{directResponse: {status: 200}, rewrite: {uri: /a}}]",
            "spec.http[0].rewrite: it does not go with directResponse",
        ),
        (
            "  hosts: [a]\n  http: [{route: [{destination: {host: a}}], rewrite: {authority: b}, headers: {request: {add: {Host: c}}}}]",
            "spec.http[0].rewrite: the host is changed by rewrite.authority and by headers",
        ),
        (
            "  hosts: [a]\n  http: [{route: [{destination: {host: a}}], headers: {request: {set: {':authority': b}, add: {host: c}}}}]",
            "spec.http[0].headers.request: the host is changed twice",
        ),
        (
            "  hosts: [a]\n  http: [{route: [{destination: {host: a}, headers: {request: {set: {host: b, ':authority': c}}}}]}]",
            "spec.http[0].route[0].headers.request: the host is changed twice",
        ),
        (
            "  hosts: [a]\n  http: [{route: [{destination: {host: a}}], headers: {response: {set: {host: b}}}}]",
            "spec.http[0].headers.response.set[host]: \"host\" cannot be changed here",
        ),
        ("  hosts: [a]\n  http: [null]", "spec.http[0]: an entry may not be null"),
        ("  hosts: [a]\n  http: {}", "spec.http: {} is not a list"),
        (
            "  hosts: [a]\n  tls: [{route: [{destination: {host: a}}]}]",
            "spec.tls[0].match: a rule for TLS needs one",
        ),
        (
            "  hosts: [a.com, '*.b.com']\n  tls: [{match: [{sniHosts: [a.com]}, {sniHosts: [x.b.com, b.com]}], route: [{destination: {host: a}}]}]",
            "spec.tls[0].match[1].sniHosts: b.com is none of spec.hosts (a.com, *.b.com)",
        ),
        (
            "  hosts: [x.b.com]\n  tls: [{match: [{sniHosts: ['*.b.com']}], route: [{destination: {host: a}}]}]",
            "*.b.com is none of spec.hosts",
        ),
    ] {
        let error = service(spec).unwrap_err();
        assert!(error.contains(reason), "{spec}\n{error}");
    }
}

#[test]
fn what_does_nothing_is_noted() {
    let read = rule("colour: red, websocketUpgrade: true, match: [{statPrefix: a}], retries: {attempts: 1, retryRemoteLocalities: true}").unwrap();
    let notes: Vec<_> = read.notes.iter().map(|note| note.path.as_str()).collect();
    assert_eq!(
        notes,
        [
            "spec.http[0].colour",
            "spec.http[0].match[0].statPrefix",
            "spec.http[0].retries.retryRemoteLocalities",
            "spec.http[0].websocketUpgrade"
        ]
    );
    // What an answer of the rule's own leaves nothing to do for.
    let read = service(
        "  hosts: [web]\n  http: [{redirect: {uri: /}, timeout: 1s, retries: {attempts: 1}, mirror: {host: b}, \
         mirror_percentage: {value: 1}, mirrors: [{destination: {host: c}}], corsPolicy: {}, headers: {response: {remove: [x]}}}, \
         {directResponse: {status: 200}, timeout: 1s}]",
    )
    .unwrap();
    let notes: Vec<_> = read.notes.iter().map(|note| note.path.as_str()).collect();
    assert_eq!(
        notes,
        [
            "spec.http[0].mirror",
            "spec.http[0].mirrorPercentage",
            "spec.http[0].mirror_percentage",
            "spec.http[0].mirrors",
            "spec.http[0].retries",
            "spec.http[0].timeout",
            "spec.http[1].timeout",
        ]
    );
}
