//! Where a connection goes: pure functions over a snapshot of the mesh.

mod affinity;
mod attempts;
mod choose;
mod failing;
mod frequency;
mod headless;
pub mod http;
pub mod l4;

pub use affinity::Affinity;
pub use attempts::{Attempts, Failure, Patience, Step};
pub(crate) use choose::{Rank, rank};
pub use failing::{Extent, Failing};
pub use frequency::Frequency;
pub(crate) use headless::{Own, own_endpoint};
pub use headless::{Through, headless_at, named};

use crate::policy::is_reserved;
use crate::store::{Mesh, Sought};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;
use warren_common::model::traffic::Selector;
use warren_common::model::{
    AppProtocol, Identity, Mode, Service, ServicePort, TunnelProtocol, Workload, WorkloadUid,
};
use warren_common::ports;

/// Where a connection goes and how it gets there.
#[derive(Clone, Debug)]
pub struct Target {
    /// The address to reach: a workload's, or the original destination where nothing is known of it.
    pub address: SocketAddr,
    /// The workload behind it, if it is in the mesh's books.
    pub workload: Option<Arc<Workload>>,
    /// The service that was called, if it was one.
    pub service: Option<Arc<Service>>,
    /// How many endpoints it was chosen from, whatever their health; 0 when there was no choice.
    pub endpoints: usize,
    /// The way.
    pub hop: Hop,
}

/// The way to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hop {
    /// To a pod of this node.
    SameNode,
    /// Through a tunnel to the pod's own HBONE listener.
    Hbone {
        /// The listener.
        gateway: SocketAddr,
        /// Who must answer there.
        identity: Identity,
    },
    /// As it is: the target is not in the mesh.
    Plaintext,
    /// As [`Self::Plaintext`], to an address of this name that is yet to be looked up; only the port of
    /// [`Target::address`] counts.
    Named(Arc<str>),
}

/// Which connections to other nodes get a tunnel of their own, and so outlive this agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TunnelUse {
    /// None: all share.
    Shared,
    /// All, where the peer knows that form.
    Dedicated,
    /// Those that are rare ([`Frequency`]), unless HTTP is declared: its clients connect again without being asked.
    #[default]
    Auto,
}

impl Target {
    /// Whether HTTP in any form is declared at the service's port.
    pub fn is_http(&self, dialled: u16) -> bool {
        let is_this = |port: &&ServicePort| port.service_port == dialled || port.target_port == dialled;
        let port = self.service.as_ref().and_then(|service| service.ports.iter().find(is_this));
        port.is_some_and(|port| port.app_protocol != AppProtocol::Unknown)
    }
}

/// What steers the choice of an endpoint, apart from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// A random number.
    pub entropy: u64,
    /// Endpoints that have just failed for this connection.
    pub avoid: &'a [WorkloadUid],
    /// The endpoint that the client had last, for services with session affinity.
    pub sticky: Option<&'a WorkloadUid>,
    /// Who comes last.
    pub doubts: Doubts<'a>,
}

/// Endpoints that are chosen only where there is no other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Doubts<'a> {
    /// Nodes of which a pod has just not answered this connection.
    pub silent_nodes: &'a [Arc<str>],
    /// What this node knows of earlier failures, and the time.
    pub failing: Option<(&'a Failing, Instant)>,
}

impl Doubts<'_> {
    fn about(&self, endpoint: &Workload, port: u16) -> bool {
        self.silent_nodes.contains(&endpoint.node)
            || self.failing.is_some_and(|(failing, now)| failing.is_avoided(endpoint, port, now))
    }
}

/// Why a connection has nowhere to go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The service has no such port.
    #[error("the service {service} has no port {port}")]
    NoSuchPort {
        /// Its hostname.
        service: Arc<str>,
        /// The port that was dialled.
        port: u16,
    },
    /// Nobody healthy stands behind the service.
    #[error("the service {service} has no healthy endpoint for port {port} ({known} known)")]
    NoHealthyEndpoint {
        /// Its hostname.
        service: Arc<str>,
        /// The port that was dialled.
        port: u16,
        /// How many endpoints there are in all.
        known: usize,
    },
    /// `internalTrafficPolicy: Local`, and nobody healthy on this node.
    #[error(
        "the service {service} has no healthy endpoint for port {port} on the node {node}, \
         and internalTrafficPolicy is Local ({known} known elsewhere or not ready)"
    )]
    NoLocalEndpoint {
        /// Its hostname.
        service: Arc<str>,
        /// The port that was dialled.
        port: u16,
        /// The client's node.
        node: Arc<str>,
        /// How many endpoints there are in all.
        known: usize,
    },
    /// A client dials an endpoint of a service without an address, and it is none any more.
    #[error(
        "{dialled} is no endpoint of the service {service} any more, which has no address of its own ({known} others are; look its \
         name up again)"
    )]
    NoLongerIts {
        /// Its hostname.
        service: Arc<str>,
        /// What was dialled.
        dialled: SocketAddr,
        /// How many endpoints there are now.
        known: usize,
    },
    /// The endpoint is known by name alone to the controller, and has no name either.
    #[error("the endpoint {workload} has neither an address nor a name")]
    NoAddress {
        /// Its name.
        workload: Arc<str>,
    },
    /// The agent subscribes by interest, and the controller has not said yet what has this address or name, if anything.
    #[error("it is not known yet whether {0} is in the mesh")]
    NotAsked(Sought),
    /// A rule sends elsewhere what was dialled for somebody else, and elsewhere is wherever it was dialled.
    #[error(
        "the service {service} has no endpoints (resolution NONE): it is wherever it is dialled, and {dialled} is not its own"
    )]
    NotItsOwn {
        /// Its hostname.
        service: Arc<str>,
        /// What was dialled.
        dialled: IpAddr,
    },
    /// The port belongs to the agent of the target.
    #[error("port {0} belongs to warren and serves no application")]
    ReservedPort(u16),
}

/// Resolves what `client`, a pod of this node, dialled.
///
/// # Errors
/// [`RouteError`].
pub fn resolve(
    mesh: &Mesh,
    client: &Workload,
    dialled: SocketAddr,
    choice: &Choice<'_>,
) -> Result<Target, RouteError> {
    if let Some(service) = service_at(mesh, client, dialled.ip()) {
        return resolve_service(mesh, client, service, dialled, choice);
    }
    if !mesh.knows(dialled.ip()) {
        return Err(RouteError::NotAsked(dialled.ip().into()));
    }
    match mesh.workload_by_ip(dialled.ip()) {
        Some(workload) => {
            let service = headless_at(mesh, client, dialled).next().map(|through| through.service);
            to_workload(client, workload, dialled, service, 0)
        }
        None => {
            Ok(Target { address: dialled, workload: None, service: None, endpoints: 0, hop: Hop::Plaintext })
        }
    }
}

/// The service that has the virtual address `ip` for `client`: of several, one of its own namespace first.
pub fn service_at<'a>(mesh: &'a Mesh, client: &Workload, ip: IpAddr) -> Option<&'a Arc<Service>> {
    let mut visible = mesh.services_by_ip(ip).filter(|service| service.is_visible_in(&client.namespace));
    let first = visible.next()?;
    if first.key.namespace == client.namespace {
        return Some(first);
    }
    Some(visible.find(|service| service.key.namespace == client.namespace).unwrap_or(first))
}

fn resolve_service(
    mesh: &Mesh,
    client: &Workload,
    service: &Arc<Service>,
    dialled: SocketAddr,
    choice: &Choice<'_>,
) -> Result<Target, RouteError> {
    let backend = Backend { service, port: dialled.port(), subset: None, own: false };
    resolve_backend(mesh, client, &backend, dialled, choice)
}

/// A service that a rule sends to, whatever was dialled.
#[derive(Clone, Copy, Debug)]
pub struct Backend<'a> {
    /// The service.
    pub service: &'a Arc<Service>,
    /// Its port.
    pub port: u16,
    /// Labels of the endpoints that may be picked; none: all of them.
    pub subset: Option<&'a Selector>,
    /// Whether it was found by the endpoint that was dialled, for it has no address of its own.
    pub own: bool,
}

/// An endpoint of a backend; `dialled`: of whose family it is to be if there is a choice. A service that is passed through has no
/// endpoints: it is wherever it was dialled, unless that is somebody else's in the mesh. Of one that has no address it is the
/// endpoint that was dialled, if it is one with these labels, and no other is tried.
///
/// # Errors
/// [`RouteError`].
pub fn resolve_backend(
    mesh: &Mesh,
    client: &Workload,
    backend: &Backend<'_>,
    dialled: SocketAddr,
    choice: &Choice<'_>,
) -> Result<Target, RouteError> {
    let Backend { service, port, .. } = *backend;
    let like = dialled.ip();
    if service.steering.mode == Mode::Passthrough {
        match service_at(mesh, client, like) {
            Some(at) if at.key == service.key => {}
            None if mesh.workload_by_ip(like).is_none() => {
                if !mesh.knows(like) {
                    return Err(RouteError::NotAsked(like.into()));
                }
            }
            _ => {
                let service = Arc::clone(&service.key.hostname);
                return Err(RouteError::NotItsOwn { service, dialled: like });
            }
        }
        let (address, service) = (SocketAddr::new(like, port), Some(Arc::clone(service)));
        return Ok(Target { address, workload: None, service, endpoints: 0, hop: Hop::Plaintext });
    }
    if !service.ports.iter().any(|p| p.service_port == port) {
        return Err(RouteError::NoSuchPort { service: Arc::clone(&service.key.hostname), port });
    }
    let (workload, port) = match own_endpoint(mesh, backend, dialled) {
        Own::Endpoint(workload, port) => (workload, port),
        Own::Nothing => choose::endpoint(mesh, backend, client, choice)?,
        Own::Gone => {
            let known = mesh.endpoints(&service.key).len();
            return Err(RouteError::NoLongerIts {
                service: Arc::clone(&service.key.hostname),
                dialled,
                known,
            });
        }
    };
    target_of(mesh, client, service, workload, port, like)
}

/// How `workload`, an endpoint of `service`, is reached at its own port.
///
/// # Errors
/// [`RouteError`].
pub fn target_of(
    mesh: &Mesh,
    client: &Workload,
    service: &Arc<Service>,
    workload: &Arc<Workload>,
    port: u16,
    like: IpAddr,
) -> Result<Target, RouteError> {
    let endpoints = match headless::is_dialled(service, workload, like) {
        true => 0,
        false => mesh.endpoints(&service.key).len(),
    };
    let service = Some(Arc::clone(service));
    match (address_of(workload, like), &workload.placement.hostname) {
        (Some(ip), _) => {
            // Whoever writes down a pod's address as one of something else's gets the pod, with all that protects it.
            let is_pod = workload.has_own_addresses();
            if !is_pod && !mesh.knows(ip) {
                return Err(RouteError::NotAsked(ip.into()));
            }
            let pod = mesh.workload_by_ip(ip).filter(|holder| !is_pod && holder.has_own_addresses());
            to_workload(client, pod.unwrap_or(workload), SocketAddr::new(ip, port), service, endpoints)
        }
        (None, Some(name)) if workload.tunnel == TunnelProtocol::None => Ok(Target {
            address: SocketAddr::new(any_like(like), port),
            workload: Some(Arc::clone(workload)),
            service,
            endpoints,
            hop: Hop::Named(Arc::clone(name)),
        }),
        (None, _) => Err(RouteError::NoAddress { workload: Arc::clone(&workload.name) }),
    }
}

fn to_workload(
    client: &Workload,
    workload: &Arc<Workload>,
    address: SocketAddr,
    service: Option<Arc<Service>>,
    endpoints: usize,
) -> Result<Target, RouteError> {
    let hop = match workload.tunnel {
        TunnelProtocol::None => Hop::Plaintext,
        TunnelProtocol::Hbone if is_reserved(address.port()) => {
            return Err(RouteError::ReservedPort(address.port()));
        }
        TunnelProtocol::Hbone if workload.node == client.node => Hop::SameNode,
        TunnelProtocol::Hbone => Hop::Hbone {
            gateway: SocketAddr::new(address.ip(), ports::HBONE),
            identity: workload.identity.clone(),
        },
    };
    Ok(Target { address, workload: Some(Arc::clone(workload)), service, endpoints, hop })
}

fn any_like(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// The workload's address that was dialled, else one of its family, else any: a service may be dual-stack where its
/// workloads are not.
fn address_of(workload: &Workload, like: IpAddr) -> Option<IpAddr> {
    let same = workload.addresses.iter().find(|ip| **ip == like);
    let same_family = || workload.addresses.iter().find(|ip| ip.is_ipv4() == like.is_ipv4());
    same.or_else(same_family).or(workload.addresses.first()).copied()
}

#[cfg(test)]
mod tests;
