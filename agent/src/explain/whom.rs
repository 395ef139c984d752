//! Who asks, and what a name leads to: as the pod's own resolver would find it.

use crate::route::service_at;
use crate::store::Mesh;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use warren_common::model::{Service, Workload, distance};

/// Names in an error, at most.
const SUGGESTIONS: usize = 3;
/// A resolver with the options of Kubernetes takes a name with fewer dots for an abbreviation first.
const NDOTS: usize = 5;
/// How often an alias may lead to another name.
const MAX_ALIASES: usize = 4;

/// Why there is no such client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoClient {
    /// Nobody has this name.
    #[error("there is no pod {name}{}", suggested(near))]
    Unknown {
        /// What was asked for.
        name: String,
        /// Names like it.
        near: Vec<String>,
    },
    /// It is another agent's.
    #[error("{name} runs on the node {node}, and its agent decides: ask there (--node {node})")]
    Elsewhere {
        /// The pod.
        name: String,
        /// Its node.
        node: Arc<str>,
    },
}

fn suggested(near: &[String]) -> String {
    match near {
        [] => "; `warren workloads` shows those that are known".to_owned(),
        near => format!("; is it {}?", near.join(", or ")),
    }
}

/// The pod `namespace/name`, of this node if one is said.
pub(super) fn client<'a>(
    mesh: &'a Mesh,
    node: Option<&str>,
    wanted: &str,
) -> Result<&'a Arc<Workload>, NoClient> {
    let found = mesh.workloads().filter(|workload| is_named(workload, wanted));
    match found.min_by_key(|workload| node.is_some_and(|node| *workload.node != *node)) {
        Some(workload) if node.is_none_or(|node| *workload.node == *node) => Ok(workload),
        Some(workload) => {
            Err(NoClient::Elsewhere { name: wanted.to_owned(), node: Arc::clone(&workload.node) })
        }
        None => {
            let here = mesh.workloads().filter(|workload| node.is_none_or(|node| *workload.node == *node));
            let names = here.map(|workload| shown(workload));
            Err(NoClient::Unknown { name: wanted.to_owned(), near: close(wanted, names) })
        }
    }
}

fn is_named(workload: &Workload, wanted: &str) -> bool {
    let name = wanted.strip_prefix(&*workload.namespace).and_then(|rest| rest.strip_prefix('/'));
    name.is_some_and(|name| *name == *workload.name)
}

/// `namespace/name`.
pub(super) fn shown(workload: &Workload) -> String {
    format!("{}/{}", workload.namespace, workload.name)
}

/// What a client reaches.
#[derive(Debug)]
pub(super) enum Whom {
    /// A service, at its address. None: it has not got one yet (in files).
    Service(Arc<Service>, Option<SocketAddr>),
    /// A ServiceEntry that has none: a connection does not tell that it is for it.
    Unaddressed(Arc<Service>),
    /// Whoever has this address.
    Address(SocketAddr),
    /// No name of the mesh; names like it.
    Stranger(Vec<String>),
}

/// What `host` leads to for `client`, and the aliases on the way.
pub(super) fn whom(mesh: &Mesh, client: &Workload, host: &str, port: u16) -> (Whom, Vec<Arc<str>>) {
    let (mut host, mut aliases): (Arc<str>, _) = (host.into(), Vec::new());
    loop {
        match found(mesh, client, &host) {
            Found::Alias(of) if aliases.len() < MAX_ALIASES => {
                aliases.push(Arc::clone(&of));
                host = of;
            }
            Found::Address(ip) => return (at(mesh, client, SocketAddr::new(ip, port)), aliases),
            Found::Service(service) if is_entry(&service) => return (Whom::Unaddressed(service), aliases),
            Found::Service(service) => return (Whom::Service(service, None), aliases),
            Found::Alias(_) | Found::Nothing => {
                let visible = mesh.services().filter(|service| service.is_visible_in(&client.namespace));
                let names = visible.map(|service| match service.key.namespace == client.namespace {
                    true => service.name.to_string(),
                    false => format!("{}.{}", service.name, service.key.namespace),
                });
                return (Whom::Stranger(close(&host, names)), aliases);
            }
        }
    }
}

fn at(mesh: &Mesh, client: &Workload, dialled: SocketAddr) -> Whom {
    match service_at(mesh, client, dialled.ip()) {
        Some(service) => Whom::Service(Arc::clone(service), Some(dialled)),
        None => Whom::Address(dialled),
    }
}

enum Found {
    Address(IpAddr),
    Service(Arc<Service>),
    Alias(Arc<str>),
    Nothing,
}

fn found(mesh: &Mesh, client: &Workload, host: &str) -> Found {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Found::Address(ip.to_canonical());
    }
    for name in names(mesh, client, host) {
        let visible = mesh.services().filter(|service| service.is_visible_in(&client.namespace));
        let same = visible.filter(|service| holds(&service.key.hostname, &name));
        // Of several, the client's own.
        if let Some(service) = same.min_by_key(|service| service.key.namespace != client.namespace) {
            return of_service(mesh, client, service);
        }
        let has_name = |workload: &&Arc<Workload>| workload.placement.hostname.as_deref() == Some(&*name);
        if let Some(ip) = mesh.workloads().find(has_name).and_then(|it| same_family(client, &it.addresses)) {
            return Found::Address(ip);
        }
    }
    Found::Nothing
}

fn of_service(mesh: &Mesh, client: &Workload, service: &Arc<Service>) -> Found {
    if let Some(of) = &service.origin.external_name {
        return Found::Alias(Arc::clone(of));
    }
    let headless = || {
        // Names of ServiceEntries are looked up by others, who find what they find.
        if is_entry(service) {
            return None;
        }
        let ready = mesh.endpoints(&service.key).min_by_key(|endpoint| endpoint.health);
        ready.and_then(|endpoint| same_family(client, &endpoint.addresses))
    };
    match same_family(client, &service.addresses).or_else(headless) {
        Some(ip) => Found::Address(ip),
        None => Found::Service(Arc::clone(service)),
    }
}

/// Whether a ServiceEntry gives it, and not Kubernetes.
fn is_entry(service: &Service) -> bool {
    service.name == service.key.hostname
}

/// Every name that a resolver looks up, in its order.
fn names(mesh: &Mesh, client: &Workload, host: &str) -> Vec<String> {
    let mut names = Vec::new();
    if host.matches('.').count() < NDOTS
        && let Some(domain) = domain(mesh)
    {
        names.push(format!("{host}.{}.svc.{domain}", client.namespace));
        names.push(format!("{host}.svc.{domain}"));
        names.push(format!("{host}.{domain}"));
    }
    names.push(host.to_owned());
    names
}

/// The DNS suffix of the cluster's services.
fn domain(mesh: &Mesh) -> Option<&str> {
    mesh.services().find_map(|service| {
        let rest = service.key.hostname.strip_prefix(&*service.name)?.strip_prefix('.')?;
        rest.strip_prefix(&*service.key.namespace)?.strip_prefix(".svc.")
    })
}

/// A host of a ServiceEntry may begin with a wildcard.
fn holds(hostname: &str, name: &str) -> bool {
    match hostname.strip_prefix('*') {
        Some(suffix) => name.ends_with(suffix) && name.len() > suffix.len(),
        None => *hostname == *name,
    }
}

fn same_family(client: &Workload, addresses: &[IpAddr]) -> Option<IpAddr> {
    let own = client.addresses.first().map(IpAddr::is_ipv4);
    let same = addresses.iter().find(|ip| own.is_none_or(|own| own == ip.is_ipv4()));
    same.or(addresses.first()).copied()
}

/// The names that are most like `wanted`, if any is much like it.
pub(super) fn close(wanted: &str, names: impl Iterator<Item = String>) -> Vec<String> {
    let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    let limit = (last(wanted).chars().count() / 3).max(1);
    let mut near: Vec<(usize, String)> = names
        .filter_map(|name| {
            let far = distance(wanted, &name).min(distance(&last(wanted), &last(&name)));
            let begins = last(&name).starts_with(&last(wanted));
            (far <= limit || begins).then_some((far, name))
        })
        .collect();
    near.sort();
    near.dedup();
    near.into_iter().take(SUGGESTIONS).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_names_are_found_and_others_are_not() {
        let names = || ["shop/web-1", "shop/web-2", "bank/web-1", "shop/db"].map(str::to_owned).into_iter();
        assert_eq!(close("shop/web-3", names()), ["bank/web-1", "shop/web-1", "shop/web-2"]);
        assert_eq!(close("shop/web", names()), ["bank/web-1", "shop/web-1", "shop/web-2"]);
        assert_eq!(close("default/weeb-1", names()).len(), 3);
        assert!(close("shop/nothing", names()).is_empty());
    }

    #[test]
    fn wildcards_hold_every_name_below() {
        assert!(holds("*.example.com", "a.example.com") && holds("*.example.com", "a.b.example.com"));
        assert!(!holds("*.example.com", "example.com") && !holds("*.example.com", ".example.com"));
        assert!(holds("web", "web") && !holds("web", "web2"));
    }
}
