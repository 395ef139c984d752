//! Every kind of condition (3.3, 12.5).

use super::*;

/// Whether a rule with this match alone holds the request.
fn holds(wanted: HttpMatch, line: &str, headers: &[(&'static str, &str)]) -> bool {
    routed(&istio(vec![rule("r", vec![wanted])]), line, headers).is_some()
}

#[test]
fn paths() {
    let folded = |wanted: HttpMatch| HttpMatch { ignore_path_case: true, ..wanted };
    for (wanted, path, expected) in [
        (exact("/a"), "/a", true),
        (exact("/a"), "/a?q=1", true),
        (exact("/a"), "/a/", false),
        (exact("/a"), "/A", false),
        (folded(exact("/a")), "/A", true),
        (folded(exact("/A")), "/a", true),
        (folded(exact("/a")), "/ab", false),
        (prefix("/foo"), "/foo", true),
        (prefix("/foo"), "/foobar", true),
        (prefix("/foo"), "/foo/bar", true),
        (prefix("/foo"), "/fo", false),
        (prefix("/foo"), "/Foo", false),
        (folded(prefix("/foo")), "/FooBar", true),
        (folded(prefix("/foo")), "/fo", false),
        (segments("/foo"), "/foo", true),
        (segments("/foo"), "/foo/", true),
        (segments("/foo"), "/foo/bar", true),
        (segments("/foo"), "/foobar", false),
        (segments("/foo/"), "/foo", true),
        (segments("/foo"), "/FOO", false),
        (segments(""), "/anything", true),
        (segments("/"), "/anything", true),
        (expression("/v[12]/.*"), "/v1/x?y", true),
        (expression("/v[12]"), "/v1/x", false),
        (expression("v1"), "/v1", false),
        (expression("(?i)/ABC"), "/abc", true),
        (HttpMatch::default(), "/", true),
    ] {
        assert_eq!(holds(wanted.clone(), path, &[]), expected, "{wanted:?} {path}");
    }
}

#[test]
fn methods_schemes_and_authorities() {
    let method = |text| HttpMatch { method: Some(text), ..HttpMatch::default() };
    let scheme = |text| HttpMatch { scheme: Some(text), ..HttpMatch::default() };
    let authority = |text| HttpMatch { authority: Some(text), ..HttpMatch::default() };
    for (wanted, line, expected) in [
        (method(is("GET")), "GET /", true),
        (method(is("GET")), "POST /", false),
        (method(is("get")), "GET /", false),
        (method(like("GET|HEAD")), "HEAD /", true),
        (method(begins("P")), "PATCH /", true),
        (scheme(is("https")), "GET https://web/", true),
        (scheme(is("https")), "GET http://web/", false),
        (authority(is("web")), "GET http://WEB/", false),
        (authority(is("Web")), "GET http://Web/", true),
        (authority(like("[A-Z]+")), "GET http://WEB/", true),
        (authority(is("web")), "GET http://web:80/", false),
        (authority(begins("web")), "GET http://web.shop:80/", true),
        (authority(like(r"[a-z]+\.example\.com(:\d+)?")), "GET http://a.example.com:8080/", true),
        (authority(like("web")), "GET http://web.shop/", false),
    ] {
        assert_eq!(holds(wanted.clone(), line, &[]), expected, "{wanted:?} {line}");
    }
}

#[test]
fn headers_and_their_absence() {
    type Headers<'a> = &'a [(&'static str, &'a str)];
    let none: Headers<'_> = &[];
    for (wanted, headers, expected) in [
        (header("x", is("1")), &[("x", "1")][..], true),
        (header("x", is("1")), &[("x", "2")], false),
        (header("x", is("1")), none, false),
        (header("x", is("")), none, false),
        (header("x", is("")), &[("x", "")], true),
        (header("x", like(".*")), none, false),
        (header("x", TextMatch::Present), &[("x", "")], true),
        (header("x", TextMatch::Present), none, false),
        (header("x", begins("a")), &[("x", "abc")], true),
        (header("x", like("a.c")), &[("x", "abc")], true),
        (header("x", like("b")), &[("x", "abc")], false),
        (header("x", is("1,2")), &[("x", "1"), ("x", "2")], true),
        (header("x", is("1")), &[("x", "1"), ("x", "2")], false),
        (header("cookie", like("^(.*?;)?(user=jason)(;.*)?$")), &[("cookie", "a=b;user=jason")], true),
        (without("x", is("1")), &[("x", "1")], false),
        (without("x", is("1")), &[("x", "2")], true),
        (without("x", is("1")), none, true),
        (without("x", TextMatch::Present), none, true),
        (without("x", TextMatch::Present), &[("x", "")], false),
        // An absent header is an empty one for a value.
        (without("x", is("")), none, false),
        (without("x", like(".*")), none, false),
        (without("x", like(".+")), none, true),
        (without("x", begins("a")), &[("x", "b")], true),
        // Pseudo-headers and the host.
        (header("host", is("web")), none, true),
        (header(":method", is("GET")), none, true),
        (header(":path", is("/?q")), none, true),
    ] {
        assert_eq!(holds(wanted.clone(), "/?q", headers), expected, "{wanted:?} {headers:?}");
    }
}

#[test]
fn query_parameters() {
    for (wanted, line, expected) in [
        (query("animal", is("whale")), "/?animal=whale", true),
        (query("animal", is("whale")), "/?a=1&animal=whale", true),
        (query("animal", is("whale")), "/?animal=dolphin&animal=whale", false),
        (query("animal", is("whale")), "/?animal=whaledolphin", false),
        (query("animal", is("whale")), "/?Animal=whale", false),
        (query("animal", is("whale")), "/", false),
        (query("animal", is("a b")), "/?animal=a%20b", true),
        (query("animal", TextMatch::Present), "/?animal", true),
        (query("animal", is("")), "/?animal=", true),
        (query("animal", is("")), "/?animal", true),
        (query("animal", is("")), "/", false),
        (query("animal", like("wh.*")), "/?animal=whale", true),
        (query("animal", begins("wh")), "/?animal=whale", true),
    ] {
        assert_eq!(holds(wanted.clone(), line, &[]), expected, "{wanted:?} {line}");
    }
}

#[test]
fn all_conditions_of_a_match_and_any_match_of_a_rule() {
    let both = HttpMatch { method: Some(is("GET")), ..prefix("/a") };
    let table = istio(vec![rule("r", vec![both, header("x", is("1"))])]);
    assert_eq!(routed(&table, "GET /a", &[]), Some("r"));
    assert_eq!(routed(&table, "POST /a", &[]), None);
    assert_eq!(routed(&table, "GET /b", &[]), None);
    assert_eq!(routed(&table, "POST /b", &[("x", "1")]), Some("r"));
}

#[test]
fn names_are_the_rules_and_the_matches() {
    let named = |name: &str, wanted: HttpMatch| HttpMatch { name: name.into(), ..wanted };
    let table = istio(vec![
        rule("first", vec![named("a", exact("/a")), exact("/b")]),
        rule("", vec![named("c", exact("/c")), exact("/d")]),
    ]);
    for (path, name) in [("/a", "first.a"), ("/b", "first"), ("/c", "c"), ("/d", "")] {
        assert_eq!(routed(&table, path, &[]), Some(name));
    }
}
