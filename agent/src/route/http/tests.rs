//! Tables as the reference's sections 3 and 12 to 15 say.

use super::*;
use ::http::HeaderMap;
use std::collections::BTreeMap;
use std::sync::Arc;
use warren_common::model::traffic::{
    Backend, Clients, Destination, Forward, HeaderMatch, HttpAction, HttpMatch, HttpRule, ObjectName,
    PathMatch, QueryMatch, RouteApi, RouteTable, Rules, TextMatch, Traffic,
};
use warren_common::model::{Labels, ServiceName};

mod matching;
mod order;
mod outcome;
mod reference;

fn service(name: &str) -> ServiceName {
    ServiceName { namespace: "shop".into(), hostname: format!("{name}.shop.svc.cluster.local").into() }
}

fn to(name: &str, weight: u32) -> Backend {
    Backend {
        to: Destination::Service { service: service(name), port: 80, subset: None },
        weight,
        request_headers: Default::default(),
        response_headers: Default::default(),
        rewrite: None,
        redirect: None,
        mirrors: vec![],
    }
}

fn rule(name: &str, matches: Vec<HttpMatch>) -> HttpRule {
    HttpRule {
        name: name.into(),
        matches,
        action: HttpAction::Forward(Box::new(Forward { backends: vec![to(name, 1)], ..Forward::default() })),
        request_headers: Default::default(),
        response_headers: Default::default(),
        cors: None,
    }
}

fn table(api: RouteApi, rules: Vec<HttpRule>) -> RouteTable {
    let object = ObjectName { kind: "VirtualService".into(), namespace: "shop".into(), name: "web".into() };
    RouteTable {
        clients: Clients::default(),
        ports: None,
        api,
        objects: vec![object],
        rules: Rules { http: Some(rules), ..Rules::default() },
    }
}

fn traffic(tables: Vec<RouteTable>) -> Traffic {
    Traffic { service: service("web"), tables, policies: vec![], refused: None }
}

fn labels(all: &[(&str, &str)]) -> Labels {
    all.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect()
}

fn compiled(traffic: &Traffic) -> Option<HttpTable> {
    let labels = BTreeMap::new();
    let client = ClientView { namespace: "shop", labels: &labels };
    HttpTable::compile(traffic, &client, 80, &Patterns::default()).unwrap()
}

fn istio(rules: Vec<HttpRule>) -> HttpTable {
    compiled(&traffic(vec![table(RouteApi::Istio, rules)])).unwrap()
}

/// A request that owns what it is made of: `GET http://web/path?query`, with headers.
#[derive(Debug)]
struct Asked {
    method: String,
    scheme: String,
    authority: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
}

impl Asked {
    fn new(line: &str, headers: &[(&'static str, &str)]) -> Self {
        let (method, url) = line.split_once(' ').unwrap_or(("GET", line));
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let (authority, target) = match rest.find('/') {
            Some(0) => ("web", rest),
            Some(at) => rest.split_at(at),
            None => ("web", rest),
        };
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Self {
            method: method.into(),
            scheme: scheme.into(),
            authority: authority.into(),
            path: path.into(),
            query: query.map(Into::into),
            headers: map,
        }
    }

    fn view(&self) -> RequestView<'_> {
        RequestView {
            method: &self.method,
            scheme: &self.scheme,
            authority: &self.authority,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
        }
    }
}

fn routed<'t>(table: &'t HttpTable, line: &str, headers: &[(&'static str, &str)]) -> Option<&'t str> {
    let asked = Asked::new(line, headers);
    let routed = table.route(&asked.view());
    let explained = table.explain(&asked.view());
    let place = |matched: Option<Matched<'_>>| matched.map(|matched| (matched.place, matched.part));
    assert_eq!(place(routed), place(explained.matched), "what is explained is what is done: {line}");
    routed.map(|matched| &**matched.name)
}

fn path(path: PathMatch) -> HttpMatch {
    HttpMatch { path: Some(path), ..HttpMatch::default() }
}

fn prefix(text: &str) -> HttpMatch {
    path(PathMatch::Prefix(text.into()))
}

fn exact(text: &str) -> HttpMatch {
    path(PathMatch::Exact(text.into()))
}

fn segments(text: &str) -> HttpMatch {
    path(PathMatch::Segments(text.into()))
}

fn expression(text: &str) -> HttpMatch {
    path(PathMatch::Regex(text.into()))
}

fn header(name: &str, value: TextMatch) -> HttpMatch {
    HttpMatch { headers: vec![HeaderMatch { name: name.into(), value, not: false }], ..HttpMatch::default() }
}

fn without(name: &str, value: TextMatch) -> HttpMatch {
    HttpMatch { headers: vec![HeaderMatch { name: name.into(), value, not: true }], ..HttpMatch::default() }
}

fn query(name: &str, value: TextMatch) -> HttpMatch {
    HttpMatch { query: vec![QueryMatch { name: name.into(), value }], ..HttpMatch::default() }
}

fn is(text: &str) -> TextMatch {
    TextMatch::Exact(text.into())
}

fn begins(text: &str) -> TextMatch {
    TextMatch::Prefix(text.into())
}

fn like(text: &str) -> TextMatch {
    TextMatch::Regex(text.into())
}
