//! Services without an address of their own (headless Services, ServiceEntries without addresses): their clients look their
//! names up and dial an endpoint itself. Which service it was is found again by the endpoint's address and port.
//!
//! Services that have an address are never found so: who dials a pod of theirs has passed them over.

use super::Backend;
use crate::store::Mesh;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use warren_common::model::{Service, Workload};

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
            let port = ports.iter().find(|mapping| mapping.target_port == dialled.port())?.service_port;
            let service = mesh.service(name)?;
            let is_it = service.addresses.is_empty() && service.is_visible_in(&client.namespace);
            is_it.then(|| Through { service: Arc::clone(service), port })
        })
    })
}

/// Of a backend without an address: the endpoint that has the address that was dialled, and its own port. Its client has chosen it,
/// so that neither readiness nor nearness counts.
pub(crate) fn dialled_endpoint<'a>(
    mesh: &'a Mesh,
    backend: &Backend<'_>,
    dialled: IpAddr,
) -> Option<(&'a Arc<Workload>, u16)> {
    let Backend { service, port, subset } = *backend;
    if !service.addresses.is_empty() {
        return None;
    }
    who_has(mesh, dialled).find_map(|workload| {
        let mapping =
            workload.services.get(&service.key)?.iter().find(|mapping| mapping.service_port == port)?;
        let has = |(key, value)| workload.labels.get(key) == Some(value);
        let is_it = subset.is_none_or(|labels| labels.iter().all(has));
        is_it.then_some((workload, mapping.target_port))
    })
}

/// Whether `workload` is not one of a choice, but was dialled itself.
pub(super) fn is_dialled(service: &Service, workload: &Workload, dialled: IpAddr) -> bool {
    service.addresses.is_empty() && workload.addresses.contains(&dialled.to_canonical())
}

/// The workload that has the address, or all that share it with their node.
fn who_has(mesh: &Mesh, ip: IpAddr) -> impl Iterator<Item = &Arc<Workload>> {
    let is_shared = mesh.workload_by_ip(ip).is_some_and(|holder| holder.host_network);
    mesh.workloads_by_ip(ip).take(if is_shared { usize::MAX } else { 1 })
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
