//! Services without an address of their own (headless Services, ServiceEntries without addresses): their clients look their
//! names up and dial an endpoint itself. Which service it was is found again by the endpoint's address and port.
//!
//! Services that have an address are never found so: who dials a pod of theirs has passed them over.

use super::Backend;
use crate::store::Mesh;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use warren_common::model::{PortMapping, Service, Workload};

/// A service without an address, and its port that leads to the one that was dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Through {
    /// The service.
    pub service: Arc<Service>,
    /// Its port.
    pub port: u16,
}

/// The services without addresses of which `dialled` is an endpoint, as far as `client` knows them, in the order of their names.
/// It costs a look at each service of that one workload.
pub fn headless_at<'a>(
    mesh: &'a Mesh,
    client: &'a Workload,
    dialled: SocketAddr,
) -> impl Iterator<Item = Through> + 'a {
    who_has(mesh, dialled.ip()).flat_map(move |workload| {
        workload.services.iter().filter_map(move |(name, ports)| {
            let leads_there = |mapping: &&PortMapping| mapping.target_port == dialled.port();
            // Of several the one that its clients most likely have in mind.
            let same =
                ports.iter().filter(leads_there).find(|mapping| mapping.service_port == dialled.port());
            let port = same.or_else(|| ports.iter().find(leads_there))?.service_port;
            let service = mesh.service(name)?;
            let is_it = service.addresses.is_empty() && service.is_visible_in(&client.namespace);
            is_it.then(|| Through { service: Arc::clone(service), port })
        })
    })
}

/// What a client that dials an endpoint itself has chosen of a backend.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Own<'a> {
    /// Nothing: any endpoint will do.
    Nothing,
    /// This one, and its own port. Neither readiness nor nearness counts.
    Endpoint(&'a Arc<Workload>, u16),
    /// One that is none any more. Another one would be another database, another broker.
    Gone,
}

/// Of a backend without an address: the endpoint that has the address that was dialled.
pub(crate) fn own_endpoint<'a>(mesh: &'a Mesh, backend: &Backend<'_>, dialled: SocketAddr) -> Own<'a> {
    let Backend { service, port, subset, own } = *backend;
    if !service.addresses.is_empty() {
        return Own::Nothing;
    }
    let behind = || {
        who_has(mesh, dialled.ip()).filter_map(|workload| {
            let ports = workload.services.get(&service.key)?;
            Some((workload, ports.iter().find(|mapping| mapping.service_port == port)?.target_port))
        })
    };
    let has = |workload: &Workload| {
        let has = |(key, value)| workload.labels.get(key) == Some(value);
        subset.is_none_or(|labels| labels.iter().all(has))
    };
    let fitting = || behind().filter(|(workload, _)| has(workload));
    let same_port = fitting().find(|(_, port)| *port == dialled.port());
    match same_port.or_else(|| fitting().next()) {
        Some((workload, port)) => Own::Endpoint(workload, port),
        // A subset is what the rule says, whoever was dialled.
        None if own && subset.is_none_or(|labels| labels.is_empty()) => Own::Gone,
        None => Own::Nothing,
    }
}

/// Whether `workload` is not one of a choice, but was dialled itself.
pub(super) fn is_dialled(service: &Service, workload: &Workload, dialled: IpAddr) -> bool {
    service.addresses.is_empty() && workload.addresses.contains(&dialled.to_canonical())
}

/// The pod that has the address for itself, or all that share it.
fn who_has(mesh: &Mesh, ip: IpAddr) -> impl Iterator<Item = &Arc<Workload>> {
    let is_one = mesh.workload_by_ip(ip).is_some_and(|holder| holder.has_own_addresses());
    mesh.workloads_by_ip(ip).take(if is_one { 1 } else { usize::MAX })
}

/// Which of several services a client of `namespace` means by the host that it asks for, with or without a port: the name itself,
/// or one below it, as pods of a StatefulSet have. None: it is another name.
pub fn named<'a>(
    services: impl IntoIterator<Item = &'a Through>,
    namespace: &str,
    authority: &str,
) -> Option<&'a Through> {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.strip_suffix('.').unwrap_or(host);
    let likeness = |through: &&Through| {
        names(&through.service, namespace).filter_map(|name| is_or_below(host, &name)).max()
    };
    let of_each = services.into_iter().filter_map(|through| Some((likeness(&through)?, through)));
    // Of equals the first.
    of_each.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, through)| through)
}

/// The names that a service has for a client of a namespace.
fn names(service: &Service, namespace: &str) -> impl Iterator<Item = String> {
    let Service { name, key, .. } = service;
    let in_namespace = format!("{name}.{}", key.namespace);
    // Those of ServiceEntries have no other names.
    let is_short = key.hostname.starts_with(&format!("{in_namespace}.svc."));
    let own = (is_short && *key.namespace == *namespace).then(|| name.to_string());
    let short = is_short.then(|| [format!("{in_namespace}.svc"), in_namespace]).into_iter().flatten();
    std::iter::once(key.hostname.to_string()).chain(short).chain(own)
}

/// Whether `host` is this name, and else how long the name is that it is below of.
fn is_or_below(host: &str, name: &str) -> Option<(bool, usize)> {
    let name = name.strip_prefix("*.").unwrap_or(name);
    let before = host.len().checked_sub(name.len())?;
    let (below, same) = host.split_at_checked(before)?;
    let is_it = same.eq_ignore_ascii_case(name) && (below.is_empty() || below.ends_with('.'));
    is_it.then_some((below.is_empty(), name.len()))
}

#[cfg(test)]
#[path = "headless_tests.rs"]
mod tests;
