//! VirtualServices.

use super::{About, Severity, conflict, exported_to_nobody, order, ports, subset, unseen};
use crate::index::Index;
use crate::objects::{
    HttpRoute, L4Route, MESH, Matching, Name, RouteAction, Service, Target, VirtualService,
};
use crate::resolve::ResolveConfig;
use crate::resolve::traffic::route::refusal;
use crate::resolve::traffic::{Conflict, conflicts, target, usable};
use std::net::IpAddr;
use std::sync::Arc;
use warren_common::model::traffic::Destination;

pub(super) fn check(index: &Index, config: &ResolveConfig, service: &VirtualService, about: &mut About<'_>) {
    exported_to_nobody(service.exported_to.as_deref(), about);
    if service.hosts.is_empty() {
        if index.delegating_to(&service.name).next().is_none() {
            let text = "without hosts it is for others to delegate to, and none does";
            about.warning("delegate-unused", "spec.hosts", text, None);
        }
    } else if service.is_of_mesh() {
        hosts(index, service, about);
        ports::check(index, config, service, about);
    }
    gateways(service, about);
    for (place, route) in service.http.iter().enumerate() {
        let path = format!("spec.http[{place}]");
        match &route.action {
            RouteAction::Delegate(name) => delegate(index, service, name, route, &path, about),
            RouteAction::Forward(backends) => {
                for (place, backend) in backends.iter().enumerate() {
                    let path = format!("{path}.route[{place}].destination");
                    destination(index, config, service, &backend.to, path, about);
                }
            }
            _ => {}
        }
        // A delegate and its root may have one of them each.
        let is_own = !service.hosts.is_empty() && !matches!(route.action, RouteAction::Delegate(_));
        if is_own && route.mirrors.share.is_some() && route.mirrors.one.is_none() {
            let text = "it has no effect: it is for mirror, which is not there (mirrors have percentages of their own)";
            about.warning("no-effect", format!("{path}.mirrorPercentage"), text, None);
        }
        if let Some(to) = route.mirrors.one.as_ref().filter(|_| route.mirrors.share != Some(0)) {
            destination(index, config, service, to, format!("{path}.mirror"), about);
        }
        for (place, (to, _)) in route.mirrors.several.iter().enumerate().filter(|(_, (_, share))| *share > 0)
        {
            destination(index, config, service, to, format!("{path}.mirrors[{place}].destination"), about);
        }
    }
    for (field, routes) in [("tls", &service.tls), ("tcp", &service.tcp)] {
        for (place, L4Route { backends, .. }) in routes.iter().enumerate() {
            for (backend, to) in backends.iter().enumerate() {
                let path = format!("spec.{field}[{place}].route[{backend}].destination");
                destination(index, config, service, &to.to, path, about);
            }
        }
    }
    order::check(index, service, about);
}

fn delegate(
    index: &Index,
    service: &VirtualService,
    name: &Name,
    route: &HttpRoute,
    path: &str,
    about: &mut About<'_>,
) {
    let path = format!("{path}.delegate");
    let text = match (usable(index, service, name), index.virtual_service(name)) {
        (Some(delegate), _) => {
            for (rule, Conflict { place, field }) in conflicts(route, delegate) {
                let text = format!(
                    "spec.http[{rule}] of the VirtualService {name} is left out: its match[{place}] lies within no match \
                     of this rule ({field})"
                );
                about.error("delegate-conflict", &path, text, None);
            }
            return;
        }
        (None, None) => format!("there is no VirtualService {name}: this rule is left out"),
        (None, Some(other)) if !other.hosts.is_empty() => {
            format!("the VirtualService {name} has hosts of its own: this rule is left out")
        }
        (None, Some(_)) => format!(
            "the VirtualService {name} is not exported to {}: this rule is left out",
            service.name.namespace
        ),
    };
    about.error("delegate-not-found", path, text, None);
}

/// What is for gateways does nothing: none are served.
fn gateways(service: &VirtualService, about: &mut About<'_>) {
    const CODE: &str = "gateways-not-served";
    let matches = gateways_of_matches(service);
    let is_mesh = |gateways: &[Arc<str>]| gateways.iter().any(|gateway| **gateway == *MESH);
    let others: Vec<&str> =
        service.gateways.iter().map(|gateway| &**gateway).filter(|gateway| *gateway != MESH).collect();
    let names = others.join(", ");
    if !service.is_of_mesh() && !matches.iter().any(|(_, gateways)| is_mesh(gateways)) {
        let text = format!(
            "it is for gateways alone ({names}), and none are served here: nothing follows these rules"
        );
        let fix = Some("Add mesh for clients in the mesh to follow them".to_owned());
        return about.warning(CODE, "spec.gateways", text, fix);
    }
    if !others.is_empty() {
        let text = format!("gateways ({names}) are not served here: the rules hold in the mesh alone");
        about.warning(CODE, "spec.gateways", text, None);
    }
    for (path, _) in matches.iter().filter(|(_, all)| !all.is_empty() && !is_mesh(all)) {
        let text = "gateways are not served here, and mesh is none of these: this match never holds";
        about.warning(CODE, path, text, None);
    }
}

/// The gateways of every match, with their paths.
fn gateways_of_matches(service: &VirtualService) -> Vec<(String, &[Arc<str>])> {
    fn all<'a, M>(field: &str, rule: usize, matches: &'a [Matching<M>]) -> Vec<(String, &'a [Arc<str>])> {
        let path = |place| format!("spec.{field}[{rule}].match[{place}].gateways");
        matches.iter().enumerate().map(|(place, one)| (path(place), &*one.gateways)).collect()
    }
    let http = service.http.iter().enumerate().map(|(rule, route)| all("http", rule, &route.matches));
    let tls = service.tls.iter().enumerate().map(|(rule, route)| all("tls", rule, &route.matches));
    let tcp = service.tcp.iter().enumerate().map(|(rule, route)| all("tcp", rule, &route.matches));
    http.chain(tls).chain(tcp).flatten().collect()
}

fn hosts(index: &Index, service: &VirtualService, about: &mut About<'_>) {
    for (place, host) in service.hosts.iter().enumerate() {
        let path = format!("spec.hosts[{place}]");
        let host = index.full_name(host, &service.name.namespace);
        let held = index.services_held_by(&host);
        if host.parse::<IpAddr>().is_ok() {
            let text = "an address is a host for gateways only: nothing in the mesh follows these rules";
            let fix = Some("Write the name of the service that has it".to_owned());
            about.warning("host-is-address", &path, text, fix);
        } else if held.is_empty() {
            let text = format!("no service has the name {host}: nothing in the mesh follows these rules");
            about.warning("host-not-found", &path, text, full_name_of(index, &host));
        }
        conflict::check(index, service, &host, &path, about);
        unseen::virtual_service(index, &held, &path, about);
        if host.starts_with('*') {
            continue;
        }
        let attached = held.iter().filter_map(|name| index.service(&index.kubernetes_service_name(name)?));
        if let Some(shadow) = attached.flat_map(|service| shadows(index, service)).max() {
            let Shadow { whole, route, scope } = shadow;
            let text = format!("the {route} is attached to the Service {host}, and decides{scope}");
            let severity = if whole { Severity::Warning } else { Severity::Info };
            about.add(severity, "shadowed-by-route", &path, text, None);
        }
    }
}

/// A route that counts instead of a VirtualService.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Shadow {
    /// For every client and port.
    whole: bool,
    route: String,
    /// For whom and where, if not.
    scope: String,
}

fn shadows<'a>(index: &'a Index, service: &'a Service) -> impl Iterator<Item = Shadow> + 'a {
    let attached = index.routes_of(&service.name).flat_map(move |route| {
        let parents = route.services().filter(move |(to, parent)| {
            *to == service.name && refusal(index, service, route, parent).is_none()
        });
        parents.map(move |(_, parent)| (route, parent))
    });
    attached.map(|(route, parent)| {
        let port = match (&parent.section, parent.port) {
            (None, None) => String::new(),
            (Some(name), _) => format!(" for its port {name}"),
            (None, Some(number)) => format!(" for its port {number}"),
        };
        let is_producer = route.name.namespace == service.name.namespace;
        let clients = match is_producer {
            true => String::new(),
            false => format!(" for clients of the namespace {}", route.name.namespace),
        };
        Shadow {
            whole: is_producer && (port.is_empty() || service.ports.len() == 1),
            route: format!("{} {}", route.kind.as_str(), route.name),
            scope: port + &clients,
        }
    })
}

/// What to write instead of a name that only looks full: `reviews.prod`.
pub(super) fn full_name_of(index: &Index, host: &str) -> Option<String> {
    let (name, namespace) = host.split_once('.')?;
    if namespace.contains('.') {
        return None;
    }
    let full = index.kubernetes_name(&Name::new(namespace, name)).hostname;
    let there = !index.services_named(&full).is_empty();
    there.then(|| format!("A name with a dot stands as it is: write {full}"))
}

fn destination(
    index: &Index,
    config: &ResolveConfig,
    of: &VirtualService,
    to: &Target,
    path: String,
    about: &mut About<'_>,
) {
    // Where the port that is addressed decides, every port may be the one.
    let Some(resolved) = target(index, config, &of.name.namespace, to, None) else {
        return subset::check(index, of, to, None, &path, about);
    };
    match resolved {
        Destination::Broken { wanted, why } => {
            let fix = full_name_of(index, &wanted);
            let text = format!("{wanted}: {why}; {}", failure(&path));
            about.add(severity(&path), "destination-not-found", path, text, fix);
        }
        Destination::Service { service, .. } => subset::check(index, of, to, Some(&service), &path, about),
    }
}

/// What becomes of traffic that the rule at this path leads nowhere.
pub(super) fn failure(path: &str) -> &'static str {
    match path.starts_with("spec.http") {
        true if is_of_copies(path) => "nothing is copied",
        true => "requests get 503",
        false => "connections are reset",
    }
}

/// How bad that is: without their copies, requests are answered all the same.
pub(super) fn severity(path: &str) -> Severity {
    if is_of_copies(path) { Severity::Warning } else { Severity::Error }
}

fn is_of_copies(path: &str) -> bool {
    path.contains("].mirror")
}
