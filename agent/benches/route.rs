//! What the choice of a route costs: `cargo bench -p warren-agent --bench route`.
//!
//! Half of the rules have an exact path, half a prefix; every tenth asks for a header, too. Goals: below 1 us with 100 rules and
//! below 3 us with 10,000.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot begin has nothing to say")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue};
use std::hint::black_box;
use warren_agent::route::http::{ClientView, HttpTable, Patterns, RequestView};
use warren_common::model::traffic::{
    Backend, Clients, Destination, Forward, HeaderMatch, HttpAction, HttpMatch, HttpRule, PathMatch,
    RouteApi, RouteTable, Rules, TextMatch, Traffic,
};
use warren_common::model::{Labels, ServiceName};

fn backend(name: &str, weight: u32) -> Backend {
    let service = ServiceName { namespace: "shop".into(), hostname: name.into() };
    Backend {
        to: Destination::Service { service, port: 80, subset: None },
        weight,
        request_headers: Default::default(),
        response_headers: Default::default(),
        rewrite: None,
        redirect: None,
        mirrors: vec![],
    }
}

fn path(n: usize) -> String {
    format!("/api/v{}/team-{}/resource-{n}", n % 3, n % 17)
}

fn rule(n: usize) -> HttpRule {
    let path = match n % 2 {
        0 => PathMatch::Exact(path(n).into()),
        _ => PathMatch::Segments(path(n).into()),
    };
    let header = HeaderMatch { name: "x-tenant".into(), value: TextMatch::Exact("blue".into()), not: false };
    let headers = if n % 10 == 9 { vec![header] } else { vec![] };
    let backends = vec![backend("one", 90), backend("two", 10)];
    HttpRule {
        name: format!("rule-{n}").into(),
        matches: vec![HttpMatch { path: Some(path), headers, ..HttpMatch::default() }],
        action: HttpAction::Forward(Box::new(Forward { backends, ..Forward::default() })),
        request_headers: Default::default(),
        response_headers: Default::default(),
        cors: None,
    }
}

fn table(rules: usize) -> HttpTable {
    let table = RouteTable {
        clients: Clients::default(),
        ports: None,
        api: RouteApi::Gateway,
        objects: vec![],
        rules: Rules { http: Some((0..rules).map(rule).collect()), ..Rules::default() },
    };
    let service = ServiceName { namespace: "shop".into(), hostname: "web".into() };
    let traffic = Traffic { service, tables: vec![table], policies: vec![], refused: None };
    let labels = Labels::default();
    let client = ClientView { namespace: "shop", labels: &labels };
    HttpTable::compile(&traffic, &client, 80, &Patterns::default()).unwrap().unwrap()
}

fn route(criterion: &mut Criterion) {
    // What a browser sends.
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip, deflate, br"),
        ("cookie", "session=0123456789abcdef"),
        ("x-request-id", "6f1e9c1a-0000-4000-8000-0123456789ab"),
        ("x-tenant", "blue"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let mut group = criterion.benchmark_group("route");
    for rules in [100, 10_000] {
        let table = table(rules);
        for (what, path, is_held) in [
            ("exact", path(rules / 2), true),
            ("prefix", format!("{}/items/42", path(rules / 2 + 1)), true),
            ("prefix-and-header", format!("{}/items/42", path(rules - 1)), true),
            ("none", "/api/v1/team-3/unknown".to_owned(), false),
        ] {
            let request = RequestView {
                method: "GET",
                scheme: "http",
                authority: "web.shop",
                path: &path,
                query: Some("page=1"),
                headers: &headers,
            };
            assert_eq!(table.route(&request).is_some(), is_held, "{what}");
            group.bench_function(BenchmarkId::new(what, rules), |bencher| {
                bencher.iter(|| black_box(&table).route(black_box(&request)).map(|matched| matched.place));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, route);
criterion_main!(benches);
