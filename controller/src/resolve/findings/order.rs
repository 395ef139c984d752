//! Rules of a VirtualService that come after one that holds everything they hold.

use super::About;
use crate::index::{Index, hosts};
use crate::objects::{HttpRoute, L4Route, Matching, VirtualService};
use crate::resolve::traffic::{contributed, flattened};
use warren_common::model::traffic::{Clients, HttpMatch, PathMatch, TlsMatch};

pub(super) fn check(index: &Index, service: &VirtualService, about: &mut About<'_>) {
    requests(index, service, about);
    for (field, routes) in [("tls", &service.tls), ("tcp", &service.tcp)] {
        for (place, route) in routes.iter().enumerate() {
            let covers = |other: &L4Route| all_held(&other.matches, &route.matches, connection_held);
            if let Some(earlier) = routes.iter().take(place).position(covers) {
                late(field, earlier, place, "connection", about);
            }
        }
    }
}

fn late(field: &str, earlier: usize, place: usize, what: &str, about: &mut About<'_>) {
    let text = format!("it is never reached: spec.{field}[{earlier}] holds every {what} that it does");
    let fix = Some("Put the more specific rule first".to_owned());
    about.warning("rule-unreachable", format!("spec.{field}[{place}]"), text, fix);
}

fn requests(index: &Index, service: &VirtualService, about: &mut About<'_>) {
    let lists = lists(index, service);
    for place in 0..service.http.len() {
        // In every list that it is in, all that is left of it comes too late.
        let mut earlier = None;
        let is_late = lists.iter().all(|list| {
            let mut own = list.iter().enumerate().filter(|(_, (at, _))| *at == place);
            own.all(|(index, (_, route))| {
                let before = list.iter().take(index);
                let found = before
                    .filter(|(at, _)| *at != place)
                    .find(|(_, other)| all_held(&other.matches, &route.matches, request_held));
                earlier = earlier.or(found.map(|(at, _)| *at));
                found.is_some()
            })
        });
        if let (true, Some(earlier)) = (is_late, earlier) {
            late("http", earlier, place, "request", about);
        }
    }
}

/// The rules as they count, with their places: with the delegates' in place of those that are left to them. A delegate's own
/// are in one list for each rule that is left to it.
fn lists(index: &Index, service: &VirtualService) -> Vec<Vec<(usize, HttpRoute)>> {
    if !service.hosts.is_empty() {
        return vec![flattened(index, service).0];
    }
    let roots = index.delegating_to(&service.name);
    roots.flat_map(|root| contributed(index, root, service)).collect()
}

/// Whether what these matches hold, those surely do too; no matches hold everything.
fn all_held<M>(outer: &[Matching<M>], inner: &[Matching<M>], holds: impl Fn(&M, &M) -> bool) -> bool {
    let holds = |wide: &Matching<M>, narrow: &Matching<M>| {
        let gateways = wide.gateways.is_empty() || wide.gateways == narrow.gateways;
        !wide.never && gateways && holds(&wide.when, &narrow.when)
    };
    let is_held = |narrow| outer.iter().any(|wide| holds(wide, narrow));
    outer.is_empty() || (!inner.is_empty() && inner.iter().all(is_held))
}

fn connection_held(wide: &TlsMatch, narrow: &TlsMatch) -> bool {
    let names = wide.server_names.is_empty()
        || narrow
            .server_names
            .iter()
            .all(|name| wide.server_names.iter().any(|outer| outer == name || hosts::holds(outer, name)));
    let (wide, narrow) = (&wide.connection, &narrow.connection);
    let ranges = wide.destinations.is_empty()
        || (!narrow.destinations.is_empty()
            && narrow.destinations.iter().all(|range| wide.destinations.contains(range)));
    names
        && ranges
        && (wide.clients == Clients::default() || wide.clients == narrow.clients)
        && (wide.port.is_none() || wide.port == narrow.port)
}

/// Whether the outer match surely holds whatever the inner one does.
fn request_held(wide: &HttpMatch, narrow: &HttpMatch) -> bool {
    let path = match (&wide.path, &narrow.path) {
        (None, _) => true,
        (Some(PathMatch::Prefix(wide)), _) if **wide == *"/" => true,
        (Some(PathMatch::Regex(wide)), _) if **wide == *".*" => true,
        (Some(PathMatch::Prefix(wide)), Some(PathMatch::Prefix(narrow) | PathMatch::Exact(narrow))) => {
            narrow.starts_with(&**wide)
        }
        (wide, narrow) => wide == narrow,
    };
    let case = wide.path.is_none() || wide.ignore_path_case || !narrow.ignore_path_case;
    path && case
        && (wide.clients == Clients::default() || wide.clients == narrow.clients)
        && (wide.port.is_none() || wide.port == narrow.port)
        && [
            (&wide.method, &narrow.method),
            (&wide.scheme, &narrow.scheme),
            (&wide.authority, &narrow.authority),
        ]
        .into_iter()
        .all(|(wide, narrow)| wide.is_none() || wide == narrow)
        && wide.headers.iter().all(|header| narrow.headers.contains(header))
        && wide.query.iter().all(|parameter| narrow.query.contains(parameter))
}
