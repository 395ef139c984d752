//! What the controller keeps of Kubernetes objects: the fields it resolves, and nothing else.
//!
//! Sources convert at the edge (`source::convert`), so a cluster of large Pod specs costs little memory, and
//! no other room of the controller knows how Kubernetes spells things.

mod authorization_policy;
mod entry;
mod note;
mod peer_authentication;
mod pod;
mod route;
mod service;
mod traffic;

pub use authorization_policy::{AuthorizationPolicy, PolicyAction, PolicyPart, PolicyRule, PolicyTarget};
pub use entry::{
    EntryAddress, EntryEndpoint, EntryEndpoints, EntryPort, Resolution, ServiceEntry, WorkloadEntry,
};
pub use note::{FieldNote, NoteKind};
pub use peer_authentication::{Created, MtlsMode, PeerAuthentication, matches};
pub use pod::{Owner, Phase, Pod};
pub use route::{
    BackendRef, Filters, GrantFrom, GrantTo, ParentRef, PlacedMatch, RankedMatch, ReferenceGrant, Refused,
    Route, RouteRule,
};
pub use service::{Distribution, Endpoint, EndpointSlice, Service, ServicePort, SlicePort, TargetPort};
pub use traffic::{
    DestinationRule, Headers, HttpRoute, L4Route, MESH, Matching, Mirrors, RouteAction, Target,
    VirtualService, Weighted,
};

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Labels or annotations.
pub type Map = BTreeMap<Arc<str>, Arc<str>>;

/// Namespace and name of an object; the namespace is empty for cluster-scoped kinds.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// Namespace, or empty.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl Name {
    /// A name from its parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The kinds that the controller reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `v1/Namespace`.
    Namespace,
    /// `v1/Node`.
    Node,
    /// `v1/ServiceAccount`.
    ServiceAccount,
    /// `v1/Pod`.
    Pod,
    /// `v1/Service`.
    Service,
    /// `discovery.k8s.io/v1/EndpointSlice`.
    EndpointSlice,
    /// `security.istio.io/PeerAuthentication`.
    PeerAuthentication,
    /// `security.istio.io/AuthorizationPolicy`.
    AuthorizationPolicy,
    /// `networking.istio.io/ServiceEntry`.
    ServiceEntry,
    /// `networking.istio.io/WorkloadEntry`.
    WorkloadEntry,
    /// `networking.istio.io/VirtualService`.
    VirtualService,
    /// `networking.istio.io/DestinationRule`.
    DestinationRule,
    /// `gateway.networking.k8s.io/HTTPRoute`.
    HTTPRoute,
    /// `gateway.networking.k8s.io/GRPCRoute`.
    GRPCRoute,
    /// `gateway.networking.k8s.io/TLSRoute`.
    TLSRoute,
    /// `gateway.networking.k8s.io/TCPRoute`.
    TCPRoute,
    /// `gateway.networking.k8s.io/ReferenceGrant`.
    ReferenceGrant,
}

impl Kind {
    /// The kind as manifests spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::ServiceAccount => "ServiceAccount",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::ServiceEntry => "ServiceEntry",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::HTTPRoute => "HTTPRoute",
            Self::GRPCRoute => "GRPCRoute",
            Self::TLSRoute => "TLSRoute",
            Self::TCPRoute => "TCPRoute",
            Self::ReferenceGrant => "ReferenceGrant",
        }
    }
}

/// What identifies an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Kind.
    pub kind: Kind,
    /// Namespace and name.
    pub name: Name,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Name.
    pub name: Arc<str>,
    /// Labels.
    pub labels: Map,
}

/// An object of a kind of which only the existence matters so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Namespace and name.
    pub name: Name,
    /// Labels.
    pub labels: Map,
}

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A namespace.
    Namespace(Namespace),
    /// A node.
    Node(Plain),
    /// A service account.
    ServiceAccount(Plain),
    /// A pod.
    Pod(Pod),
    /// A service.
    Service(Service),
    /// A part of a service's endpoints.
    EndpointSlice(EndpointSlice),
    /// Which plaintext may enter.
    PeerAuthentication(PeerAuthentication),
    /// Who may connect.
    AuthorizationPolicy(AuthorizationPolicy),
    /// A service that Kubernetes does not know.
    ServiceEntry(ServiceEntry),
    /// A workload that is not a pod.
    WorkloadEntry(WorkloadEntry),
    /// Routes of hosts.
    VirtualService(Box<VirtualService>),
    /// How a host's endpoints are used.
    DestinationRule(Box<DestinationRule>),
    /// Routes of services or gateways.
    Route(Box<Route>),
    /// Who may refer to what.
    ReferenceGrant(ReferenceGrant),
}

impl Object {
    /// When it was made, where that counts.
    pub fn created_mut(&mut self) -> Option<&mut Created> {
        match self {
            Self::PeerAuthentication(policy) => Some(&mut policy.created),
            Self::ServiceEntry(entry) => Some(&mut entry.created),
            Self::VirtualService(service) => Some(&mut service.created),
            Self::DestinationRule(rule) => Some(&mut rule.created),
            Self::Route(route) => Some(&mut route.created),
            Self::Namespace(_)
            | Self::Node(_)
            | Self::ServiceAccount(_)
            | Self::Pod(_)
            | Self::Service(_)
            | Self::EndpointSlice(_)
            | Self::AuthorizationPolicy(_)
            | Self::WorkloadEntry(_)
            | Self::ReferenceGrant(_) => None,
        }
    }

    /// What identifies it.
    pub fn key(&self) -> Key {
        let (kind, name) = match self {
            Self::Namespace(namespace) => (Kind::Namespace, Name::new("", namespace.name.clone())),
            Self::Node(node) => (Kind::Node, node.name.clone()),
            Self::ServiceAccount(account) => (Kind::ServiceAccount, account.name.clone()),
            Self::Pod(pod) => (Kind::Pod, pod.name.clone()),
            Self::Service(service) => (Kind::Service, service.name.clone()),
            Self::EndpointSlice(slice) => (Kind::EndpointSlice, slice.name.clone()),
            Self::PeerAuthentication(policy) => (Kind::PeerAuthentication, policy.name.clone()),
            Self::AuthorizationPolicy(policy) => (Kind::AuthorizationPolicy, policy.name.clone()),
            Self::ServiceEntry(entry) => (Kind::ServiceEntry, entry.name.clone()),
            Self::WorkloadEntry(entry) => (Kind::WorkloadEntry, entry.name.clone()),
            Self::VirtualService(service) => (Kind::VirtualService, service.name.clone()),
            Self::DestinationRule(rule) => (Kind::DestinationRule, rule.name.clone()),
            Self::Route(route) => (route.kind, route.name.clone()),
            Self::ReferenceGrant(grant) => (Kind::ReferenceGrant, grant.name.clone()),
        };
        Key { kind, name }
    }
}
