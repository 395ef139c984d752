//! What a decision hands over: the prefix, the backends, the trace.

use super::*;
use std::time::Duration;
use warren_common::model::traffic::{Mirror, PathChange, Retries, RetryOn, Rewrite};

#[test]
fn the_part_of_the_path_that_was_matched() {
    let table = istio(vec![
        rule("exact", vec![exact("/a")]),
        rule("prefix", vec![prefix("/b/")]),
        rule("segments", vec![segments("/c")]),
        rule("expression", vec![expression("/d.*")]),
        rule("none", vec![]),
    ]);
    for (path, part) in [
        ("/a", PathPart::Whole),
        ("/b/1", PathPart::Prefix(3)),
        ("/c/1", PathPart::Prefix(2)),
        ("/d1", PathPart::Whole),
        ("/e", PathPart::Unasked),
    ] {
        assert_eq!(table.route(&Asked::new(path, &[]).view()).unwrap().part, part, "{path}");
    }
}

fn forwarding(forward: Forward, api: RouteApi) -> (HttpTable, usize) {
    let action = HttpAction::Forward(Box::new(forward));
    let rules = vec![HttpRule { action, ..rule("r", vec![]) }];
    (compiled(&traffic(vec![table(api, rules)])).unwrap(), 0)
}

fn of(table: &HttpTable) -> &Forwarding {
    match &table.entries().next().unwrap().2.action {
        Action::Forward(forwarding) => forwarding,
        other => panic!("{other:?}"),
    }
}

#[test]
fn weights_of_one_and_of_none() {
    for (weights, api, expected) in [
        (&[0][..], RouteApi::Istio, Some(0)),
        (&[0], RouteApi::Gateway, None),
        (&[], RouteApi::Istio, None),
        (&[0, 0], RouteApi::Istio, None),
        (&[0, 1], RouteApi::Gateway, Some(1)),
        (&[5, 0], RouteApi::Istio, Some(0)),
    ] {
        let backends = weights.iter().map(|weight| to("b", *weight)).collect();
        let (table, _) = forwarding(Forward { backends, ..Forward::default() }, api);
        for entropy in [0, u64::MAX / 3, u64::MAX] {
            assert_eq!(of(&table).split.pick(entropy), expected, "{weights:?} {api:?}");
        }
    }
}

#[test]
fn shares_are_exact_in_every_hundred_requests() {
    let backends = [("stable", 90), ("canary", 10)].map(|(name, weight)| to(name, weight)).into();
    let (table, _) = forwarding(Forward { backends, ..Forward::default() }, RouteApi::Istio);
    for hundred in 0..20 {
        // What is drawn counts once, for the start.
        let asked = (0..100).map(|n| of(&table).next_backend(!n));
        let canary = asked.filter(|backend| backend.unwrap().to == to("canary", 0).to).count();
        assert!((9..=11).contains(&canary), "{canary} of the {hundred}th hundred");
    }
}

#[test]
fn a_backend_has_what_the_rule_says_and_its_own() {
    let mirror = |name: &str| Mirror { to: to(name, 1).to, per_million: 1_000_000, shadow_host: false };
    let rewrite = |path: &str| Rewrite { authority: None, path: Some(PathChange::Full(path.into())) };
    let own = Backend { rewrite: Some(rewrite("/own")), mirrors: vec![mirror("m2")], ..to("a", 1) };
    let forward = Forward {
        backends: vec![own, to("b", 1)],
        rewrite: Some(rewrite("/rule")),
        timeout_ms: Some(500),
        retries: Some(Retries {
            attempts: 3,
            per_try_timeout_ms: Some(100),
            on: vec![RetryOn::ServerError],
            backoff_ms: 10,
            other_endpoints: false,
        }),
        mirrors: vec![mirror("m1")],
        fault: None,
    };
    let (table, _) = forwarding(forward, RouteApi::Gateway);
    let forwarding = of(&table);
    assert_eq!(forwarding.timeout, Some(Duration::from_millis(500)));
    assert_eq!((forwarding.retries.attempts, forwarding.retries.other_endpoints), (3, false));
    let asked = Asked::new("/x?q", &[]);
    let seen: Vec<_> = forwarding
        .backends
        .iter()
        .map(|backend| {
            let rewrite = backend.rewrite.as_ref().unwrap();
            (rewrite.path_and_query(&asked.view(), PathPart::Unasked).unwrap(), backend.mirrors.len())
        })
        .collect();
    assert_eq!(seen, [("/own?q".into(), 2), ("/rule?q".into(), 1)]);
    // Each changes what it names.
    let host = |host: &str| Rewrite { authority: Some(host.into()), path: None };
    let path_only = Backend { rewrite: Some(rewrite("/own")), ..to("a", 1) };
    let host_only = Backend { rewrite: Some(host("own")), ..to("b", 1) };
    let both = Rewrite { authority: Some("rule".into()), ..rewrite("/rule") };
    let forward = Forward { backends: vec![path_only, host_only], rewrite: Some(both), ..Forward::default() };
    let (table, _) = self::forwarding(forward, RouteApi::Gateway);
    let seen = of(&table).backends.iter().map(|backend| {
        let rewrite = backend.rewrite.as_ref().unwrap();
        let path = rewrite.path_and_query(&asked.view(), PathPart::Unasked).unwrap();
        format!("{} {path}", rewrite.authority.as_ref().unwrap().to_str().unwrap())
    });
    assert_eq!(seen.collect::<Vec<_>>(), ["rule /own?q", "own /rule?q"]);
    let (table, _) = forwarding_default();
    assert_eq!(of(&table).retries, RetryPolicy::default(), "the mesh's default");
}

fn forwarding_default() -> (HttpTable, usize) {
    forwarding(Forward { backends: vec![to("a", 1)], ..Forward::default() }, RouteApi::Istio)
}

#[test]
fn traces_say_what_was_asked_and_why_not() {
    let table = istio(vec![
        rule("jason", vec![header("end-user", is("jason"))]),
        rule("whale", vec![HttpMatch { query: query("animal", is("whale")).query, ..prefix("/zoo") }]),
        rule("post", vec![HttpMatch { method: Some(is("POST")), ..HttpMatch::default() }]),
        rule("rest", vec![]),
        rule("never", vec![]),
    ]);
    let asked = Asked::new("/zoo?animal=cat", &[("end-user", "mary")]);
    let trace = table.explain(&asked.view());
    let steps: Vec<_> = trace
        .steps
        .iter()
        .map(|step| format!("{}: {} -> {}", step.name, step.wants, step.unmet.as_deref().unwrap_or("yes")))
        .collect();
    assert_eq!(
        steps,
        [
            r#"jason: header end-user "jason" -> the header end-user is "mary""#,
            r#"whale: path prefix /zoo, query parameter animal "whale" -> the query parameter animal is "cat""#,
            r#"post: method "POST" -> the method is GET"#,
            "rest: every request -> yes",
        ]
    );
    assert_eq!(trace.matched.map(|matched| matched.place), Some(3));
    let asked = Asked::new("/", &[]);
    let first = table.explain(&asked.view()).steps[0].unmet.clone();
    assert_eq!(first.as_deref(), Some("there is no header end-user"));
}
