//! Where a connection goes: pure functions over a snapshot of the mesh.

use crate::policy::is_reserved;
use crate::store::Mesh;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use warren_common::model::{Health, Identity, Service, TunnelProtocol, Workload};
use warren_common::ports;

/// How many random endpoints are looked at before all are.
const SAMPLES: usize = 8;

/// Where a connection goes and how it gets there.
#[derive(Clone, Debug)]
pub struct Target {
    /// The address to reach: a workload's, or the original destination where nothing is known of it.
    pub address: SocketAddr,
    /// The workload behind it, if it is in the mesh's books.
    pub workload: Option<Arc<Workload>>,
    /// The service that was called, if it was one.
    pub service: Option<Arc<Service>>,
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
}

/// What steers the choice of an endpoint, apart from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// A random number.
    pub entropy: u64,
    /// Endpoints that have just failed for this connection.
    pub avoid: &'a [SocketAddr],
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
    /// The port belongs to the agent of the target.
    #[error("port {0} belongs to warren and serves no application")]
    ReservedPort(u16),
}

/// Resolves what a pod of `node` dialled.
///
/// # Errors
/// [`RouteError`].
pub fn resolve(
    mesh: &Mesh,
    node: &str,
    dialled: SocketAddr,
    choice: &Choice<'_>,
) -> Result<Target, RouteError> {
    if let Some(service) = mesh.service_by_ip(dialled.ip()) {
        return resolve_service(mesh, node, service, dialled, choice);
    }
    match mesh.workload_by_ip(dialled.ip()) {
        Some(workload) => to_workload(node, workload, dialled, None),
        None => Ok(Target { address: dialled, workload: None, service: None, hop: Hop::Plaintext }),
    }
}

fn resolve_service(
    mesh: &Mesh,
    node: &str,
    service: &Arc<Service>,
    dialled: SocketAddr,
    choice: &Choice<'_>,
) -> Result<Target, RouteError> {
    let hostname = || Arc::clone(&service.key.hostname);
    let port = dialled.port();
    if !service.ports.iter().any(|p| p.service_port == port) {
        return Err(RouteError::NoSuchPort { service: hostname(), port });
    }
    let known = mesh.endpoints(&service.key).len();
    let usable = |workload: &Arc<Workload>| {
        if workload.health != Health::Healthy && !service.publish_not_ready {
            return None;
        }
        let mapping = workload.services.get(&service.key)?.iter().find(|m| m.service_port == port)?;
        let address = SocketAddr::new(address_of(workload, dialled.ip())?, mapping.target_port);
        (!choice.avoid.contains(&address)).then_some(address)
    };
    let sampled = (0..SAMPLES.min(known)).find_map(|n| {
        // Weyl sequence: successive samples are spread over all endpoints.
        let sample = choice.entropy.wrapping_add((n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let workload = mesh.endpoint_at(&service.key, (sample % known as u64) as usize)?;
        Some((workload, usable(workload)?))
    });
    let found = sampled
        .or_else(|| mesh.endpoints(&service.key).find_map(|workload| Some((workload, usable(workload)?))));
    match found {
        Some((workload, address)) => to_workload(node, workload, address, Some(Arc::clone(service))),
        None => Err(RouteError::NoHealthyEndpoint { service: hostname(), port, known }),
    }
}

fn to_workload(
    node: &str,
    workload: &Arc<Workload>,
    address: SocketAddr,
    service: Option<Arc<Service>>,
) -> Result<Target, RouteError> {
    let hop = match workload.tunnel {
        TunnelProtocol::None => Hop::Plaintext,
        TunnelProtocol::Hbone if is_reserved(address.port()) => {
            return Err(RouteError::ReservedPort(address.port()));
        }
        TunnelProtocol::Hbone if &*workload.node == node => Hop::SameNode,
        TunnelProtocol::Hbone => Hop::Hbone {
            gateway: SocketAddr::new(address.ip(), ports::HBONE),
            identity: workload.identity.clone(),
        },
    };
    Ok(Target { address, workload: Some(Arc::clone(workload)), service, hop })
}

/// The workload's address of the family that was dialled, else any: a service may be dual-stack where its
/// workloads are not.
fn address_of(workload: &Workload, like: IpAddr) -> Option<IpAddr> {
    let same_family = workload.addresses.iter().find(|ip| ip.is_ipv4() == like.is_ipv4());
    same_family.or(workload.addresses.first()).copied()
}

#[cfg(test)]
mod tests;
