//! Matches of routes that get no request, because the same match of another rule comes first.

use super::About;
use super::conflict::comes_first;
use crate::index::Index;
use crate::objects::{ParentRef, PlacedMatch, Route, Service};
use crate::resolve::traffic::route::counting;

pub(super) fn check(index: &Index, route: &Route, about: &mut About<'_>) {
    let places = places(index, route);
    // Whoever serves a gateway may order them otherwise.
    let scope = if route.parents.iter().all(ParentRef::is_service) { "" } else { " in the mesh" };
    for own in route.matches() {
        let before = before(index, route, &own, &places);
        if before.is_empty() {
            continue;
        }
        let said: Vec<String> = before
            .iter()
            .map(|(other, theirs)| {
                let path = theirs.path();
                if other.name == route.name {
                    return format!("{path} holds the same requests and stands before it");
                }
                format!(
                    "{path} of the {} {} holds the same requests, and that route {}",
                    other.kind.as_str(),
                    other.name,
                    comes_first(other.created, route.created)
                )
            })
            .collect();
        let text = format!("it is never reached{scope}: {}", said.join("; "));
        let fix = Some("Remove one of them, or let their matches differ".to_owned());
        about.warning("shadowed-match", own.path(), text, fix);
    }
}

/// Where a route counts: services and their ports.
fn places<'a>(index: &'a Index, route: &Route) -> Vec<(&'a Service, u16)> {
    let mut places = Vec::new();
    for (name, parent) in route.services() {
        let Some(service) = index.service(&name) else { continue };
        places.extend(counting(index, service, route, parent).into_iter().map(|port| (service, port)));
    }
    places
}

/// What comes before a match at each of the places, every route once; nothing when it comes first at one of them. The same
/// matches have the same rank, so that the age of the routes decides, as it does in the tables.
fn before<'a>(
    index: &'a Index,
    route: &Route,
    own: &PlacedMatch<'_>,
    places: &[(&Service, u16)],
) -> Vec<(&'a Route, PlacedMatch<'a>)> {
    let mut before: Vec<(&'a Route, PlacedMatch<'a>)> = Vec::new();
    for (service, port) in places {
        let namespace = &route.name.namespace;
        let first = index.first_route(service, *port, namespace, route.kind, Some(own.ranked));
        let Some(first) = first else { return Vec::new() };
        let Some(theirs) = first.matches().find(|theirs| theirs.ranked.is_same(own.ranked)) else {
            return Vec::new();
        };
        // Alternatives of one rule are for the same.
        if first.name == route.name && theirs.rule == own.rule {
            return Vec::new();
        }
        if !before.iter().any(|(known, _)| known.name == first.name) {
            before.push((first, theirs));
        }
    }
    before
}
