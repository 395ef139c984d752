//! Routes of the Gateway API as people write them.

use crate::objects::{Filters, Object, Route};
use crate::source::custom::tests::read;
use warren_common::model::traffic::{PathChange, PathMatch, RedirectPort, RetryOn, TextMatch};

fn route(kind: &str, spec: &str) -> Result<Route, String> {
    let yaml = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\n\
         metadata: {{name: web, namespace: shop, generation: 7}}\nspec: {{{spec}}}\n"
    );
    match read(&yaml)? {
        Object::Route(route) => Ok(*route),
        other => panic!("{other:?}"),
    }
}

fn http(rule: &str) -> Result<Route, String> {
    route("HTTPRoute", &format!("rules: [{{{rule}}}]"))
}

#[test]
fn heads_are_read() {
    let read = route("HTTPRoute", "parentRefs: [{group: '', kind: Service, name: web, port: 80}, {name: edge}], hostnames: [A.b, '*.c']").unwrap();
    assert_eq!(read.generation, 7);
    assert!(read.parents[0].is_service() && !read.parents[1].is_service());
    assert_eq!(read.services().count(), 1);
    assert_eq!(read.hostnames.join(" "), "a.b *.c");
    // The API's default rule: everything, and nowhere to go.
    assert!(read.rules.len() == 1 && read.rules[0].matches.is_empty() && read.rules[0].backends.is_empty());
}

#[test]
fn matches_have_ranks() {
    let exact = Some(PathMatch::Exact("/a".into()));
    let segments = Some(PathMatch::Segments("/a".into()));
    let regex = Some(PathMatch::Regex("/a.*".into()));
    for (text, path, rank) in [
        ("{}", None, [1, 1, 0, 0, 0]),
        ("{path: {value: /}}", None, [1, 1, 0, 0, 0]),
        ("{path: {value: /a/}}", segments, [1, 2, 0, 0, 0]),
        ("{path: {type: Exact, value: /a}, method: GET}", exact, [3, 2, 1, 0, 0]),
        ("{path: {type: RegularExpression, value: '/a.*'}}", regex, [2, 4, 0, 0, 0]),
        (
            "{headers: [{name: X, value: a}, {name: x, value: b}], queryParams: [{name: q, value: v}]}",
            None,
            [1, 1, 0, 1, 1],
        ),
    ] {
        let read = http(&format!("matches: [{text}]")).unwrap();
        let one = &read.rules[0].matches[0];
        assert_eq!((&one.when.path, one.rank), (&path, rank), "{text}");
    }
    let read = http("matches: [{headers: [{name: X, value: a}, {name: x, value: b}]}]").unwrap();
    let headers = &read.rules[0].matches[0].when.headers;
    assert_eq!(
        (headers.len(), &*headers[0].name, &headers[0].value),
        (1, "x", &TextMatch::Exact("a".into()))
    );
}

#[test]
fn grpc_methods_are_paths() {
    for (text, path, rank) in [
        ("{service: a.B, method: C}", Some(PathMatch::Exact("/a.B/C".into())), [3, 1, 0]),
        ("{service: a.B}", Some(PathMatch::Segments("/a.B".into())), [3, 0, 0]),
        ("{method: C}", Some(PathMatch::Regex("/[^/]+/C".into())), [0, 1, 0]),
        (
            "{type: RegularExpression, service: 'a|b', method: C}",
            Some(PathMatch::Regex("/(?:a|b)/(?:C)".into())),
            [3, 1, 0],
        ),
    ] {
        let read = route("GRPCRoute", &format!("rules: [{{matches: [{{method: {text}}}]}}]")).unwrap();
        let one = &read.rules[0].matches[0];
        assert_eq!((&one.when.path, &one.rank[..3]), (&path, &rank[..]), "{text}");
    }
}

#[test]
fn filters_are_read() {
    let filters =
        |text: &str| http(&format!("filters: [{text}]")).map(|mut route| route.rules.remove(0).filters);
    let redirect = |text: &str| {
        filters(&format!("{{type: RequestRedirect, requestRedirect: {{{text}}}}}")).unwrap().redirect.unwrap()
    };
    for (text, status, port) in [
        ("hostname: a.b", 302, RedirectPort::OfConnection),
        ("scheme: https, statusCode: 301", 301, RedirectPort::OfScheme),
        ("scheme: https, port: 8443", 302, RedirectPort::Number(8443)),
    ] {
        let redirect = redirect(text);
        assert_eq!((redirect.status, redirect.port), (status, port), "{text}");
    }
    let rewrite = filters(
        "{type: URLRewrite, urlRewrite: {hostname: a.b, path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}}",
    );
    let rewrite = rewrite.unwrap().rewrite.unwrap();
    assert_eq!(
        (rewrite.authority.as_deref(), rewrite.path),
        (Some("a.b"), Some(PathChange::Segments("/x".into())))
    );
    let mirror = |text: &str| {
        let filters = filters(&format!(
            "{{type: RequestMirror, requestMirror: {{backendRef: {{name: b, port: 80}}{text}}}}}"
        ));
        filters.unwrap().mirrors.first().map(|(_, share)| *share)
    };
    assert_eq!(mirror(""), Some(1_000_000));
    assert_eq!(mirror(", percent: 10"), Some(100_000));
    assert_eq!(mirror(", fraction: {numerator: 1, denominator: 8}"), Some(125_000));
    assert_eq!(mirror(", percent: 0"), None);
    let headers = filters(
        "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: A, value: '10%'}, {name: a, value: x}], remove: [B]}}",
    );
    let headers = headers.unwrap().request_headers;
    assert_eq!((headers.set.len(), &*headers.set[0].value, &*headers.remove[0]), (1, "10%", "b"));
    let cors = filters("{type: CORS, cors: {allowOrigins: ['https://*.a.b'], allowMethods: ['*']}}")
        .unwrap()
        .cors
        .unwrap();
    assert_eq!(cors.origins, [TextMatch::Regex("https://.*\\.a\\.b".into())]);
    assert!(cors.gateway_api && cors.max_age_s == Some(5));
    let broken = filters("{type: ExtensionRef, extensionRef: {group: a, kind: B, name: c}}").unwrap();
    assert!(broken.broken.is_some());
    assert_eq!(filters("").unwrap(), Filters::default());
}

#[test]
fn timeouts_and_retries_are_read() {
    let rule = |text: &str| http(text).map(|mut route| route.rules.remove(0));
    let plain = rule("timeouts: {request: 0s}").unwrap();
    assert_eq!((plain.timeout_ms, plain.retries), (None, None));
    let timed = rule("timeouts: {request: 1m, backendRequest: 500ms}").unwrap();
    assert_eq!((timed.timeout_ms, timed.retries.unwrap().per_try_timeout_ms), (Some(60_000), Some(500)));
    let retried = rule("retry: {codes: [500, 503], attempts: 4, backoff: 100ms}").unwrap().retries.unwrap();
    assert_eq!((retried.attempts, retried.backoff_ms), (4, 100));
    assert!(retried.on.contains(&RetryOn::Status(503)) && retried.on.contains(&RetryOn::ConnectFailure));
    // What brought no response is tried again where retries are asked for, and nowhere else.
    assert!(rule("retry: {}").unwrap().retries.unwrap().on.contains(&RetryOn::Reset));
    assert!(!rule("timeouts: {backendRequest: 1s}").unwrap().retries.unwrap().on.contains(&RetryOn::Reset));
}

#[test]
fn values_that_are_not_known_are_no_errors() {
    for (kind, rule, part) in [
        (
            "HTTPRoute",
            "matches: [{path: {type: Glob, value: /a}}]",
            "spec.rules[0].matches[0].path.type: \"Glob\"",
        ),
        ("HTTPRoute", "matches: [{path: {type: Glob, value: '*.php'}}]", "\"Glob\""),
        ("HTTPRoute", "matches: [{method: FETCH}]", "method: \"FETCH\""),
        ("HTTPRoute", "filters: [{type: Magic}]", "type: \"Magic\""),
        ("HTTPRoute", "filters: [{type: RequestRedirect, requestRedirect: {statusCode: 305}}]", "\"305\""),
        ("GRPCRoute", "matches: [{method: {type: Glob, service: 'a/*'}}]", "\"Glob\""),
        ("GRPCRoute", "filters: [{type: RequestRedirect, requestRedirect: {}}]", "\"RequestRedirect\""),
        ("GRPCRoute", "filters: [{type: URLRewrite, urlRewrite: {hostname: a}}]", "\"URLRewrite\""),
        ("GRPCRoute", "filters: [{type: CORS, cors: {}}]", "\"CORS\""),
    ] {
        let read = route(kind, &format!("rules: [{{{rule}}}]")).unwrap();
        assert!(read.unsupported.unwrap().contains(part), "{rule}");
    }
    assert!(http("matches: [{method: GET}]").unwrap().unsupported.is_none());
}

#[test]
fn what_is_wrong_is_named_with_its_path() {
    let matches = |count: usize| format!("{{matches: [{}]}}", ["{method: GET}"].repeat(count).join(", "));
    let many = format!("rules: [{}, {}, {}]", matches(64), matches(64), matches(1));
    for (kind, spec, reason) in [
        (
            "HTTPRoute",
            "rules: [{matches: [{path: {value: a}}]}]",
            "spec.rules[0].matches[0].path.value: \"a\" is not a path",
        ),
        ("HTTPRoute", "rules: [{matches: [{path: {value: /a//b}}]}]", "is not a path"),
        ("HTTPRoute", "rules: [{timeouts: {request: 1.5s}}]", "GEP-2257"),
        ("HTTPRoute", "rules: [{timeouts: {request: 1s, backendRequest: 2s}}]", "longer than request"),
        ("HTTPRoute", "rules: [{backendRefs: [{name: a, port: 0}]}]", "spec.rules[0].backendRefs[0].port"),
        ("HTTPRoute", "rules: [{backendRefs: [{port: 1}]}]", "backendRefs[0].name: it is missing"),
        (
            "HTTPRoute",
            "rules: [{backendRefs: [{name: a}], filters: [{type: RequestRedirect, requestRedirect: {}}]}]",
            "do not go with the filter RequestRedirect",
        ),
        (
            "GRPCRoute",
            "rules: [{matches: [{method: {}}]}]",
            "spec.rules[0].matches[0].method: it needs service",
        ),
        (
            "HTTPRoute",
            "rules: [{matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: \
             {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}]",
            "spec.rules[0].filters: ReplacePrefixMatch needs one match",
        ),
        (
            "HTTPRoute",
            "rules: [{matches: [{path: {value: /a}}, {path: {value: /b}}], backendRefs: [{name: a, port: 1, filters: \
             [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}]}]",
            "ReplacePrefixMatch needs one match",
        ),
        ("HTTPRoute", &many, "spec.rules: 129 matches in all; at most 128"),
        ("HTTPRoute", "rules: [{filters: [{type: CORS}]}]", "spec.rules[0].filters[0].cors: it is missing"),
        ("TLSRoute", "rules: [{backendRefs: [{name: a}]}]", "spec.hostnames: it is missing"),
        ("TCPRoute", "rules: [{}]", "spec.rules[0].backendRefs: it is missing"),
        (
            "TCPRoute",
            "rules: [{backendRefs: [{name: a}]}, {backendRefs: [{name: a}]}]",
            "spec.rules: 2 entries",
        ),
    ] {
        let error = route(kind, spec).unwrap_err();
        assert!(error.contains(reason), "{spec}: {error}");
    }
    let noted = http("sessionPersistence: {}, name: a, shape: round").unwrap();
    assert_eq!(
        noted.notes.iter().map(|note| note.path.as_str()).collect::<Vec<_>>(),
        ["spec.rules[0].sessionPersistence", "spec.rules[0].shape"]
    );
}

#[test]
fn grants_are_read() {
    let grant = |spec: &str| {
        read(&format!(
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
             metadata: {{name: g, namespace: shop}}\nspec: {{{spec}}}\n"
        ))
    };
    let Object::ReferenceGrant(read) = grant(
        "from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: bank}], to: [{group: '', kind: Service}]",
    )
    .unwrap() else {
        panic!()
    };
    assert_eq!((read.from.len(), &*read.to[0].group, read.to[0].name.is_none()), (1, "", true));
    assert!(
        grant("from: [{kind: HTTPRoute, namespace: bank}], to: [{group: '', kind: Service}]")
            .unwrap_err()
            .contains("group")
    );
    assert!(grant("from: [], to: []").unwrap_err().contains("needs from and to"));
}
