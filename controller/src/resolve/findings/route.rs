//! Routes of the Gateway API that are attached to services.

use super::{About, shadowed};
use crate::index::Index;
use crate::objects::{BackendRef, Kind, ParentRef, Route, Service};
use crate::resolve::ResolveConfig;
use crate::resolve::traffic::route::{
    Refusal, Unresolved, backend, is_of_requests, older, refusal, undeclared,
};

const GATEWAY_API: &str = "gateway.networking.k8s.io";

pub(super) fn check(index: &Index, config: &ResolveConfig, route: &Route, about: &mut About<'_>) {
    if route.is_unread() {
        // Who read it has said why.
        return;
    }
    let mut in_mesh = false;
    for (place, parent) in route.parents.iter().enumerate() {
        let path = format!("spec.parentRefs[{place}]");
        if !parent.is_service() {
            other_parent(parent, path, about);
            continue;
        }
        in_mesh = true;
        let name = parent.service(&route.name.namespace);
        let Some(service) = index.service(&name) else {
            about.error("parent-not-found", path, format!("there is no Service {name}"), None);
            continue;
        };
        match refusal(index, service, route, parent) {
            None => accepted(index, service, route, parent, path, about),
            Some(Refusal::NoSuchPort) => {
                about.error("port-not-found", path, format!("the Service {name} has no such TCP port"), None);
            }
            Some(Refusal::Unattachable) => {
                let text = format!("the Service {name} has no address of its own that clients could mean");
                about.error("parent-unattachable", path, text, None);
            }
            Some(Refusal::Conflicted) => {
                let text =
                    format!("routes of a more specific kind are attached to the Service {name}, and decide");
                about.error("kind-conflict", path, text, None);
            }
            Some(Refusal::Unsupported) => {
                let text = route.unsupported.clone().unwrap_or_default();
                about.error("unsupported-value", path, text, None);
            }
        }
    }
    if !in_mesh {
        return;
    }
    if !route.hostnames.is_empty() && route.kind != Kind::TLSRoute {
        let text = "they mean nothing in the mesh: the Service that is addressed is the name";
        about.warning("hostnames-ignored", "spec.hostnames", text, None);
    }
    for (place, rule) in route.rules.iter().enumerate() {
        let path = format!("spec.rules[{place}]");
        if let Some(filter) = &rule.filters.broken {
            about.error(
                "unsupported-filter",
                format!("{path}.filters"),
                format!("{filter}; requests get 500"),
                None,
            );
        }
        let fails = match route.kind {
            Kind::TLSRoute | Kind::TCPRoute => "connections are reset",
            _ => "requests get 500",
        };
        if rule.backends.is_empty() && rule.filters.redirect.is_none() && rule.filters.broken.is_none() {
            about.error("no-backend", &path, format!("it leads nowhere: {fails}"), None);
        }
        if !rule.backends.is_empty() && rule.backends.iter().all(|to| to.weight == 0) {
            let text = format!("the sum of the weights is 0: {fails}");
            about.error("no-weight", format!("{path}.backendRefs"), text, None);
        }
        for (place, to) in rule.backends.iter().enumerate() {
            let path = format!("{path}.backendRefs[{place}]");
            if let Some(filter) = &to.filters.broken {
                about.error(
                    "unsupported-filter",
                    format!("{path}.filters"),
                    format!("{filter}; its share gets 500"),
                    None,
                );
            }
            reference(index, config, route, to, &path, about);
            to.filters.mirrors.iter().for_each(|(to, _)| reference(index, config, route, to, &path, about));
        }
        for (to, _) in &rule.filters.mirrors {
            reference(index, config, route, to, &format!("{path}.filters"), about);
        }
    }
    shadowed::check(index, route, about);
}

/// What the author of a route that counts may not expect.
fn accepted(
    index: &Index,
    service: &Service,
    route: &Route,
    parent: &ParentRef,
    path: String,
    about: &mut About<'_>,
) {
    let listed = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    let older = older(index, service, route, parent);
    if let Some(other) = older.values().next() {
        let ports: Vec<u16> = older.keys().copied().collect();
        let text = format!(
            "the older TCPRoute {} has all connections to port {} of the Service {}: of several the oldest counts",
            other.name,
            listed(&ports),
            service.name
        );
        about.warning("older-route", &path, text, Some("Put the backends into one of them".to_owned()));
    }
    let undeclared = undeclared(service, parent);
    if is_of_requests(route.kind) && !undeclared.is_empty() {
        let text = format!(
            "port {} of the Service {} does not say that it is HTTP: connections that turn out to be something else go on \
             without these rules",
            listed(&undeclared),
            service.name
        );
        let fix = "Say `appProtocol: http` (or http2, grpc) at the Service's port";
        about.info("port-undeclared", path, text, Some(fix.to_owned()));
    }
}

/// Parents that are no Services: gateways are others' to look after, the rest leads nowhere.
fn other_parent(parent: &ParentRef, path: String, about: &mut About<'_>) {
    let ParentRef { group, kind, name, .. } = parent;
    match (&**group, &**kind) {
        (GATEWAY_API, "Gateway" | "ListenerSet") => {}
        (_, "Service") => {
            let text =
                format!("a Service is of the core group, and this one ({group}) has none: it has no effect");
            about.error(
                "parent-not-found",
                path,
                text,
                Some(format!("Write `group: \"\"` beside `name: {name}`")),
            );
        }
        (_, kind) => {
            let group = if group.is_empty() { "the core group" } else { group };
            let text = format!("nothing here is attached to a {kind} of {group}: it has no effect");
            let fix = "Routes can be attached to a Service: `group: \"\"`, `kind: Service`";
            about.warning("parent-unknown", path, text, Some(fix.to_owned()));
        }
    }
}

fn reference(
    index: &Index,
    config: &ResolveConfig,
    route: &Route,
    to: &BackendRef,
    path: &str,
    about: &mut About<'_>,
) {
    if let Err((unresolved, why)) = backend(index, config, route, to) {
        let code = match unresolved {
            Unresolved::Kind | Unresolved::Missing => "backend-not-found",
            Unresolved::Protocol => "backend-protocol",
        };
        about.error(code, path, why, None);
    }
}
