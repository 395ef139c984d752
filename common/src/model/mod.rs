//! Pure domain types: what warren talks about, free of wire formats, sockets and clocks.

mod authority;
mod authorization;
mod identity;
mod peer_authentication;
mod service;
mod sharing;
mod spelling;
mod steering;
mod trust;
mod workload;

pub mod admin;
pub mod cni;
pub mod traffic;

pub use authority::{Authority, AuthorityError};
pub use authorization::{
    AuthorizationPolicy, CONVERTED_PREFIX, Cidr, CidrError, PolicyAction, PolicyMatch, PolicyName,
    PolicyNameError, PolicyRule, PolicyScope, STATIC_STRICT, ServiceAccountMatch, StringMatch,
};
pub use identity::{Identity, IdentityError};
pub use peer_authentication::{MtlsRule, PeerAuthentication};
pub use service::{AppProtocol, Service, ServiceName, ServiceOrigin, ServicePort};
pub use sharing::Sharing;
pub use spelling::distance;
pub use steering::{Hints, Locality, Mode, Scope, Steering};
pub use trust::{TrustBundle, TrustReport};
pub use workload::{
    Enrolment, Health, HealthyTarget, Labels, Placement, PortMapping, Served, TunnelProtocol, Workload,
    WorkloadKind, WorkloadUid,
};
