//! Which table, which rules of it, and in which order (3.4, 3.5, 14).

use super::*;

fn for_client(rules: Vec<HttpRule>, namespace: &str, of: &[(&str, &str)], port: u16) -> Option<HttpTable> {
    let labels = labels(of);
    let client = ClientView { namespace, labels: &labels };
    let traffic = traffic(vec![table(RouteApi::Istio, rules)]);
    HttpTable::compile(&traffic, &client, port, &Patterns::default()).unwrap()
}

fn names(table: &HttpTable) -> Vec<&str> {
    table.entries().map(|(name, ..)| &**name).collect()
}

#[test]
fn the_first_rule_in_order_wins_whatever_finds_it() {
    let table = istio(vec![
        rule("header", vec![header("x", is("1"))]),
        rule("exact", vec![exact("/a/b")]),
        rule("long", vec![prefix("/a/b")]),
        rule("expression", vec![expression("/a/.*")]),
        rule("late-exact", vec![exact("/a/c")]),
        rule("short", vec![prefix("/a")]),
        rule("folded", vec![HttpMatch { ignore_path_case: true, ..prefix("/A") }]),
    ]);
    for (line, headers, name) in [
        ("/a/b", &[][..], Some("exact")),
        ("/a/b", &[("x", "1")], Some("header")),
        ("/a/bc", &[], Some("long")),
        ("/a/c", &[], Some("expression")),
        ("/ab", &[], Some("short")),
        ("/AB", &[], Some("folded")),
        ("/b", &[], None),
    ] {
        assert_eq!(routed(&table, line, headers), name, "{line}");
    }
}

#[test]
fn what_the_client_never_meets_is_not_there() {
    let of = |namespace: Option<&str>, wanted: &[(&str, &str)]| Clients {
        namespaces: namespace.map(|name| vec![name.into()]),
        labels: labels(wanted),
    };
    let rules = || {
        vec![
            rule("bank", vec![HttpMatch { clients: of(Some("bank"), &[]), ..exact("/a") }]),
            rule("front", vec![HttpMatch { clients: of(None, &[("tier", "front")]), ..exact("/a") }]),
            rule("port", vec![HttpMatch { port: Some(81), ..exact("/a") }]),
            rule("some", vec![HttpMatch { port: Some(81), ..exact("/b") }, exact("/c")]),
        ]
    };
    for (namespace, of, port, expected) in [
        ("shop", &[][..], 80, &["some"][..]),
        ("bank", &[], 80, &["bank", "some"]),
        ("shop", &[("tier", "front"), ("x", "y")], 80, &["front", "some"]),
        ("shop", &[("tier", "back")], 81, &["port", "some", "some"]),
    ] {
        assert_eq!(names(&for_client(rules(), namespace, of, port).unwrap()), expected, "{namespace} {port}");
    }
}

#[test]
fn the_first_match_of_everything_is_the_last_one() {
    let everything = [
        vec![],
        vec![HttpMatch::default()],
        vec![prefix("/")],
        vec![expression(".*")],
        vec![segments("")],
        vec![exact("/x"), prefix("/"), exact("/y")],
    ];
    for matches in everything {
        let count = matches.len().clamp(1, 2);
        let table = istio(vec![rule("all", matches), rule("never", vec![exact("/never")])]);
        assert_eq!(routed(&table, "/never", &[]), Some("all"));
        assert_eq!(names(&table), vec!["all"; count]);
    }
    for wanted in [
        HttpMatch { method: Some(is("GET")), ..prefix("/") },
        HttpMatch { headers: header("x", TextMatch::Present).headers, ..prefix("/") },
        HttpMatch { query: query("x", TextMatch::Present).query, ..HttpMatch::default() },
        expression("/.+"),
        prefix("/a"),
    ] {
        let table = istio(vec![rule("some", vec![wanted]), rule("rest", vec![])]);
        assert_eq!(names(&table), ["some", "rest"]);
    }
}

#[test]
fn a_virtual_service_without_rules_for_the_client_is_none() {
    let elsewhere = Clients { namespaces: Some(vec!["bank".into()]), ..Clients::default() };
    let rules = vec![rule("bank", vec![HttpMatch { clients: elsewhere, ..HttpMatch::default() }])];
    assert!(for_client(rules.clone(), "shop", &[], 80).is_none(), "the service's own endpoints");
    assert!(for_client(rules, "bank", &[], 80).is_some());
    assert!(for_client(vec![], "shop", &[], 80).is_none());
    // What remains and does not match is 404.
    assert_eq!(routed(&istio(vec![rule("a", vec![exact("/a")])]), "/b", &[]), None);
    // Routes of the Gateway API replace the service's own endpoints.
    let none = compiled(&traffic(vec![table(RouteApi::Gateway, vec![])])).unwrap();
    assert_eq!(routed(&none, "/", &[]), None);
    let tcp_alone = RouteTable { rules: Rules::default(), ..table(RouteApi::Gateway, vec![]) };
    assert!(compiled(&traffic(vec![tcp_alone])).is_none());
    assert!(compiled(&traffic(vec![])).is_none());
}

#[test]
fn the_first_table_that_holds_client_and_port_decides_alone() {
    let consumer = RouteTable {
        clients: Clients { namespaces: Some(vec!["bank".into()]), ..Clients::default() },
        ..table(RouteApi::Gateway, vec![rule("consumer", vec![exact("/c")])])
    };
    let producer = RouteTable {
        ports: Some(vec![80, 82]),
        ..table(RouteApi::Gateway, vec![rule("producer", vec![exact("/p")])])
    };
    let virtual_service = table(RouteApi::Istio, vec![rule("istio", vec![])]);
    let traffic = traffic(vec![consumer, producer, virtual_service]);
    for (namespace, port, api, path, name) in [
        ("bank", 80, RouteApi::Gateway, "/c", Some("consumer")),
        ("bank", 80, RouteApi::Gateway, "/p", None),
        ("shop", 80, RouteApi::Gateway, "/p", Some("producer")),
        ("shop", 80, RouteApi::Gateway, "/c", None),
        ("shop", 81, RouteApi::Istio, "/c", Some("istio")),
    ] {
        let labels = labels(&[]);
        let client = ClientView { namespace, labels: &labels };
        let table = HttpTable::compile(&traffic, &client, port, &Patterns::default()).unwrap().unwrap();
        assert_eq!((table.api(), routed(&table, path, &[])), (api, name), "{namespace} {port} {path}");
    }
}

#[test]
fn rules_that_cannot_be_applied_are_named() {
    let mut bad = rule("bad", vec![header("x", like("(?=a)"))]);
    let traffic = |rule: &HttpRule| {
        traffic(vec![table(RouteApi::Istio, vec![super::rule("good", vec![exact("/a")]), rule.clone()])])
    };
    let error = check(&traffic(&bad), &Checks::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(r#"rule 1 ("bad") of VirtualService shop/web: "(?=a)" is not"#), "{text}");
    let labels = labels(&[]);
    let client = ClientView { namespace: "shop", labels: &labels };
    let compiled = HttpTable::compile(&traffic(&bad), &client, 80, &Patterns::default());
    assert_eq!(compiled.unwrap_err(), error);
    // What this client never meets does not matter to it.
    bad.matches[0].port = Some(81);
    assert!(HttpTable::compile(&traffic(&bad), &client, 80, &Patterns::default()).is_ok());
    assert!(check(&traffic(&bad), &Checks::default()).is_err());
}
