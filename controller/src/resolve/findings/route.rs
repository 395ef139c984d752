//! Routes of the Gateway API that are attached to services.

use super::About;
use crate::index::Index;
use crate::objects::{BackendRef, Kind, Route};
use crate::resolve::ResolveConfig;
use crate::resolve::traffic::route::{Refusal, backend, refusal};

pub(super) fn check(index: &Index, config: &ResolveConfig, route: &Route, about: &mut About<'_>) {
    let mut in_mesh = false;
    for (place, parent) in route.parents.iter().enumerate().filter(|(_, parent)| parent.is_service()) {
        in_mesh = true;
        let path = format!("spec.parentRefs[{place}]");
        let name = parent.service(&route.name.namespace);
        let Some(service) = index.service(&name) else {
            about.error("parent-not-found", path, format!("there is no Service {name}"), None);
            continue;
        };
        match refusal(index, service, route, parent) {
            None => {}
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
        if rule.backends.is_empty() && rule.filters.redirect.is_none() && rule.filters.broken.is_none() {
            let fails = match route.kind {
                Kind::TLSRoute | Kind::TCPRoute => "connections are reset",
                _ => "requests get 500",
            };
            about.error("no-backend", &path, format!("it leads nowhere: {fails}"), None);
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
}

fn reference(
    index: &Index,
    config: &ResolveConfig,
    route: &Route,
    to: &BackendRef,
    path: &str,
    about: &mut About<'_>,
) {
    if let Err((_, why)) = backend(index, config, &route.name.namespace, to) {
        about.error("backend-not-found", path, why, None);
    }
}
