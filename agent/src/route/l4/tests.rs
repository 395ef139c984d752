use super::*;
use proptest::prelude::*;
use warren_common::model::ServiceName;
use warren_common::model::traffic::{
    Clients, HeaderChanges, RouteTable, Rules, Selector, TcpRule, TlsMatch, TlsRule,
};

fn backend(host: &str, weight: u32) -> Backend {
    let service = ServiceName { namespace: "shop".into(), hostname: host.into() };
    Backend {
        to: Destination::Service { service, port: 80, subset: None },
        weight,
        request_headers: HeaderChanges::default(),
        response_headers: HeaderChanges::default(),
        rewrite: None,
        redirect: None,
        mirrors: vec![],
    }
}

fn tcp(name: &str, matches: Vec<TcpMatch>) -> TcpRule {
    TcpRule { name: name.into(), matches, backends: vec![backend(name, 1)] }
}

fn tls(name: &str, matches: Vec<TlsMatch>) -> TlsRule {
    TlsRule { name: name.into(), matches, backends: vec![backend(name, 1)] }
}

fn named(names: &[&str]) -> TlsMatch {
    let server_names = names.iter().map(|name| (*name).into()).collect();
    TlsMatch { server_names, connection: TcpMatch::default() }
}

fn to(range: &str) -> TcpMatch {
    TcpMatch { destinations: vec![range.parse().unwrap()], ..TcpMatch::default() }
}

fn traffic(api: RouteApi, tls: Option<Vec<TlsRule>>, tcp: Option<Vec<TcpRule>>) -> Traffic {
    let table = RouteTable {
        clients: Clients::default(),
        ports: None,
        api,
        objects: vec![ObjectName {
            kind: "VirtualService".into(),
            namespace: "shop".into(),
            name: "db".into(),
        }],
        rules: Rules { tls, tcp, ..Rules::default() },
    };
    let service = ServiceName { namespace: "shop".into(), hostname: "db".into() };
    Traffic { service, tables: vec![table], policies: vec![], refused: None }
}

fn labels(app: &str) -> Selector {
    [("app".into(), app.into())].into()
}

fn compiled(traffic: &Traffic, app: &str, port: u16) -> Option<L4Table> {
    let labels = labels(app);
    L4Table::compile(traffic, &ClientView { namespace: "shop", labels: &labels }, port)
}

/// The rule's name, `itself` or `nowhere`.
fn way(table: &L4Table, dialled: &str, said: Said<'_>) -> String {
    match table.route(dialled.parse().unwrap(), said) {
        Way::Rule(rule) => rule.name().to_string(),
        Way::Itself => "itself".to_owned(),
        Way::Nowhere => "nowhere".to_owned(),
    }
}

#[test]
fn the_first_rule_of_which_a_match_holds_decides() {
    let of_app = |app| TcpMatch {
        clients: Clients { labels: labels(app), ..Clients::default() },
        ..TcpMatch::default()
    };
    let rules = vec![
        tcp("other-port", vec![TcpMatch { port: Some(81), ..TcpMatch::default() }]),
        tcp("range", vec![to("10.1.0.0/16"), to("fd00::/8")]),
        tcp("of-web", vec![of_app("web")]),
        tcp("second", vec![of_app("web"), to("10.2.0.0/16")]),
    ];
    let traffic = traffic(RouteApi::Istio, None, Some(rules));
    for (app, port, dialled, expected) in [
        ("web", 81, "10.0.0.1", "other-port"),
        ("web", 80, "10.1.2.3", "range"),
        ("web", 80, "::ffff:10.1.2.3", "range"),
        ("web", 80, "fd00::1", "range"),
        ("web", 80, "10.0.0.1", "of-web"),
        ("cart", 80, "10.2.0.1", "second"),
        ("cart", 80, "10.0.0.1", "itself"),
    ] {
        let table = compiled(&traffic, app, port).unwrap();
        assert_eq!(way(&table, dialled, Said::Bytes), expected, "{app} {port} {dialled}");
        assert_eq!(way(&table, dialled, Said::Tls("a.example")), expected, "TLS is bytes, too");
        assert!(!table.hinges_on_name());
    }
    assert_eq!(&**compiled(&traffic, "web", 80).unwrap().objects(), "VirtualService shop/db");
}

#[test]
fn names_of_servers_decide_and_what_is_no_tls_has_none() {
    let rules = || {
        vec![tls("one", vec![named(&["a.example", "b.example"])]), tls("wide", vec![named(&["*.example"])])]
    };
    let istio = compiled(&traffic(RouteApi::Istio, Some(rules()), None), "web", 443).unwrap();
    let both = traffic(RouteApi::Istio, Some(rules()), Some(vec![tcp("plain", vec![])]));
    let both = compiled(&both, "web", 443).unwrap();
    let gateway = compiled(&traffic(RouteApi::Gateway, Some(rules()), None), "web", 443).unwrap();
    for (said, of_istio, of_both, of_gateway) in [
        (Said::Tls("a.example"), "one", "one", "one"),
        (Said::Tls("c.example"), "wide", "wide", "wide"),
        (Said::Tls("example"), "nowhere", "plain", "nowhere"),
        (Said::Tls(""), "nowhere", "plain", "nowhere"),
        (Said::Bytes, "itself", "plain", "nowhere"),
    ] {
        for (table, expected) in [(&istio, of_istio), (&both, of_both), (&gateway, of_gateway)] {
            assert!(table.hinges_on_name());
            assert_eq!(way(table, "10.0.0.1", said), expected, "{said:?} {:?}", table.api);
        }
    }
}

#[test]
fn what_no_rule_holds_may_be_for_another_service_that_is_there() {
    let empty = compiled(&traffic(RouteApi::Gateway, None, Some(vec![])), "web", 80).unwrap();
    let goes = |table, alone| super::way(table, [10, 0, 0, 1].into(), Said::Bytes, alone);
    assert!(matches!(goes(Some(&empty), true), Way::Nowhere));
    assert!(matches!(goes(Some(&empty), false), Way::Itself));
    assert!(matches!(goes(None, true), Way::Itself));
}

#[test]
fn a_table_that_says_nothing_to_a_client_is_none_for_it_unless_it_replaces_the_service() {
    let other = Clients { namespaces: Some(vec!["bank".into()]), ..Clients::default() };
    let wanted = TcpMatch { clients: other, ..TcpMatch::default() };
    let rules = Some(vec![tcp("bank", vec![wanted])]);
    assert!(compiled(&traffic(RouteApi::Istio, None, rules), "web", 80).is_none());
    assert!(compiled(&traffic(RouteApi::Istio, None, None), "web", 80).is_none());
    let empty = compiled(&traffic(RouteApi::Gateway, None, Some(vec![])), "web", 80).unwrap();
    assert_eq!(way(&empty, "10.0.0.1", Said::Bytes), "nowhere");
}

#[test]
fn backends_are_picked_by_weight() {
    let backends = vec![backend("a", 3), backend("b", 0), backend("c", 1)];
    let rule = L4Rule::new(&"r".into(), &backends);
    let host = |entropy| match rule.pick(entropy) {
        Some(Destination::Service { service, .. }) => service.hostname.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!((host(0), host(u64::MAX / 4 * 3), host(u64::MAX)), ("a".into(), "a".into(), "c".into()));
    assert!(L4Rule::new(&"r".into(), &[backend("a", 0)]).pick(7).is_none());
    assert!(L4Rule::new(&"r".into(), &[]).pick(7).is_none());
}

/// A few values of each kind, so that much holds and much does not.
fn any_match() -> impl Strategy<Value = TcpMatch> {
    let clients = prop_oneof![
        3 => Just(Clients::default()),
        1 => Just(Clients { labels: labels("web"), ..Clients::default() }),
        1 => Just(Clients { namespaces: Some(vec!["bank".into()]), ..Clients::default() }),
    ];
    let ranges =
        prop_oneof![2 => Just(vec![]), 1 => Just(vec!["10.1.0.0/16"]), 1 => Just(vec!["10.2.0.0/16"])];
    (clients, prop_oneof![Just(None), Just(Some(80)), Just(Some(81))], ranges).prop_map(
        |(clients, port, ranges)| TcpMatch {
            clients,
            port,
            destinations: ranges.into_iter().map(|range| range.parse().unwrap()).collect(),
        },
    )
}

fn any_names() -> impl Strategy<Value = Vec<Arc<str>>> {
    let name = prop_oneof![Just("a.x"), Just("b.x"), Just("*.x"), Just("*")];
    proptest::collection::vec(name.prop_map(Arc::from), 0..3)
}

/// What the rules say, read slowly and one after the other.
fn slowly(
    traffic: &Traffic,
    app: &str,
    (port, dialled): (u16, IpAddr),
    said: Said<'_>,
) -> (bool, Option<String>) {
    let Rules { tls, tcp, .. } = &traffic.tables[0].rules;
    let client = labels(app);
    let met = |one: &TcpMatch| one.clients.hold("shop", &client) && one.port.is_none_or(|p| p == port);
    let at =
        |one: &TcpMatch| one.destinations.is_empty() || one.destinations.iter().any(|r| r.contains(dialled));
    let fits = |pattern: &str, name: &str| match pattern {
        "*" => true,
        "*.x" => name.ends_with(".x") && name != ".x",
        exact => exact == name,
    };
    let mut tls_is_for_it = false;
    for rule in tls.iter().flatten() {
        for one in rule.matches.iter().filter(|one| met(&one.connection)) {
            tls_is_for_it = true;
            let Said::Tls(name) = said else { continue };
            let named = one.server_names.is_empty() || one.server_names.iter().any(|p| fits(p, name));
            if named && at(&one.connection) {
                return (true, Some(rule.name.to_string()));
            }
        }
    }
    for rule in tcp.iter().flatten() {
        if rule.matches.is_empty() || rule.matches.iter().any(|one| met(one) && at(one)) {
            return (tls_is_for_it, Some(rule.name.to_string()));
        }
    }
    (tls_is_for_it, None)
}

proptest! {
    #[test]
    fn a_table_says_what_its_rules_say(
        of_tls in proptest::collection::vec(proptest::collection::vec((any_names(), any_match()), 1..3), 0..4),
        of_tcp in proptest::collection::vec(proptest::collection::vec(any_match(), 0..3), 0..4),
        gateway: bool,
        app in prop_oneof![Just("web"), Just("cart")],
        port in prop_oneof![Just(80_u16), Just(82)],
        dialled in prop_oneof![Just("10.0.0.1"), Just("10.1.0.1"), Just("10.2.0.1")],
        name in prop_oneof![Just(None), Just(Some("")), Just(Some("a.x")), Just(Some("c.x")), Just(Some("x"))],
    ) {
        let api = if gateway { RouteApi::Gateway } else { RouteApi::Istio };
        let tls_rules = of_tls.into_iter().enumerate().map(|(n, matches)| {
            let matches = matches
                .into_iter()
                .map(|(server_names, connection)| TlsMatch { server_names, connection })
                .collect();
            tls(&format!("tls{n}"), matches)
        });
        let tcp_rules = of_tcp.into_iter().enumerate().map(|(n, matches)| tcp(&format!("tcp{n}"), matches));
        let traffic = traffic(api, Some(tls_rules.collect()), Some(tcp_rules.collect()));
        let said = name.map_or(Said::Bytes, Said::Tls);
        let (tls_is_for_it, rule) = slowly(&traffic, app, (port, dialled.parse().unwrap()), said);
        let expected = match (rule, said) {
            (Some(rule), _) => rule,
            (None, _) if gateway => "nowhere".to_owned(),
            (None, Said::Tls(_)) if tls_is_for_it => "nowhere".to_owned(),
            _ => "itself".to_owned(),
        };
        let found = match compiled(&traffic, app, port) {
            Some(table) => way(&table, dialled, said),
            None => "itself".to_owned(),
        };
        prop_assert_eq!(found, expected);
    }
}
