//! Services and their endpoints. Only TCP ports are kept.

use super::Name;
use std::net::IpAddr;
use std::sync::Arc;

/// `targetPort` of a service's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// The name of a port of the pods.
    Name(Arc<str>),
}

/// One TCP port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name, empty when it has none.
    pub name: Arc<str>,
    /// The port clients dial.
    pub port: u16,
    /// The port of the pods.
    pub target: TargetPort,
    /// `appProtocol`.
    pub app_protocol: Option<Arc<str>>,
}

/// `trafficDistribution`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distribution {
    /// Every endpoint alike.
    #[default]
    Any,
    /// `PreferSameZone`, formerly `PreferClose`.
    SameZone,
    /// `PreferSameNode`.
    SameNode,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: Name,
    /// `spec.type: ExternalName`: an alias of this DNS name, without endpoints.
    pub external_name: Option<Arc<str>>,
    /// `spec.clusterIPs` without `None`.
    pub cluster_ips: Vec<IpAddr>,
    /// `None` is among them: clients find its endpoints' own addresses.
    pub headless: bool,
    /// TCP ports.
    pub ports: Vec<ServicePort>,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// `spec.sessionAffinity: ClientIP`, its timeout in seconds.
    pub affinity_s: Option<u32>,
    /// `spec.internalTrafficPolicy: Local`.
    pub local_only: bool,
    /// `spec.trafficDistribution`.
    pub distribution: Distribution,
}

/// One TCP port of an endpoint slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the service's port it serves, empty when that has none.
    pub name: Arc<str>,
    /// The port of the endpoints.
    pub port: u16,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Addresses; interchangeable, as Kubernetes says.
    pub addresses: Vec<IpAddr>,
    /// The pod, when `targetRef` names one.
    pub pod: Option<Name>,
    /// `conditions.ready`; absent counts as true.
    pub ready: bool,
    /// `conditions.serving`; absent counts as `ready`.
    pub serving: bool,
    /// `conditions.terminating`; absent counts as false.
    pub terminating: bool,
    /// `nodeName`, empty when absent.
    pub node: Arc<str>,
    /// `zone`, empty when absent.
    pub zone: Arc<str>,
    /// `hints.forZones`.
    pub for_zones: Vec<Arc<str>>,
    /// `hints.forNodes`.
    pub for_nodes: Vec<Arc<str>>,
}

/// A part of the endpoints of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub name: Name,
    /// Label `kubernetes.io/service-name`: a service of the same namespace.
    pub service: Option<Name>,
    /// Label `endpointslice.kubernetes.io/managed-by` names Kubernetes' own controller: what it says of the readiness of pods is
    /// what they say themselves, a moment later.
    pub repeats_pods: bool,
    /// TCP ports.
    pub ports: Vec<SlicePort>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
}
