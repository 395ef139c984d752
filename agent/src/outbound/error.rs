//! Why connections do not leave, and what follows from that: for the record, for another try, for others.

use super::endpoints::Unpicked;
use super::originate::Unnamed;
use crate::identity::{CredentialError, OutsideError, PeerError};
use crate::inbound::Refusal;
use crate::interest::Unlearned;
use crate::observe::FlowFlag;
use crate::route::{Extent, Failure, Patience, RouteError};
use http::StatusCode;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use warren_common::model::Identity;

/// Why a connection did not leave, or ended badly.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutboundError {
    #[error("the kernel cannot say where the connection wanted to go: {0}")]
    Kernel(#[from] crate::kernel::KernelError),
    #[error("nobody dialled through here: the connection was made to the agent's own port")]
    NotCaptured,
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Unlearned(#[from] Unlearned),
    #[error("no rule of {objects} holds this connection")]
    NoRule { objects: Arc<str> },
    #[error("{0}")]
    LeadsNowhere(String),
    #[error(transparent)]
    Unpicked(#[from] Unpicked),
    #[error("{0} should be in the mesh, but no workload is known there; see `warren workloads`")]
    NoWorkload(SocketAddr),
    #[error("cannot connect to {to}: {source}{}", hint(*to, source))]
    Connect { to: SocketAddr, source: io::Error },
    #[error("{name} cannot be looked up from this node: {source}")]
    Lookup { name: Arc<str>, source: io::Error },
    #[error("the pod's certificate is not to be had: {0}")]
    Credential(#[from] CredentialError),
    #[error("TLS with {gateway} failed: {source}")]
    Tls { gateway: SocketAddr, source: io::Error },
    #[error("no TLS with {to} (the server {name}), which its DestinationRule asks for: {source}")]
    Outside { to: SocketAddr, name: Arc<str>, source: Box<OutsideError> },
    #[error("{gateway} is not who it should be: {source}")]
    Peer { gateway: SocketAddr, source: PeerError },
    #[error("the identity {0} was revoked: nothing goes there, and nothing leaves in its name")]
    Revoked(Identity),
    #[error(transparent)]
    Unnamed(#[from] Box<Unnamed>),
    #[error("{gateway} proved to be {found}, expected {expected}")]
    WrongPeer { gateway: SocketAddr, found: Box<Identity>, expected: Box<Identity> },
    #[error("the tunnel to {gateway} failed: {reason}")]
    Tunnel { gateway: SocketAddr, status: Option<StatusCode>, reason: String },
    #[error("the tunnel to {gateway} failed: {reason}; is that node up, and its warren agent at work?")]
    Silent { gateway: SocketAddr, reason: String },
    #[error("the pod at {0} is about to go and lets in only who has no other to go to")]
    Leaving(SocketAddr),
    #[error("the pod {0} has gone, and with it what was left of its connections")]
    Gone(Arc<str>),
    #[error(transparent)]
    Local(#[from] Refusal),
}

fn is_tunnel(to: SocketAddr) -> bool {
    to.port() == warren_common::ports::HBONE
}

fn hint(to: SocketAddr, error: &io::Error) -> &'static str {
    let tunnel = is_tunnel(to);
    match error.kind() {
        io::ErrorKind::TimedOut if tunnel => " (does a NetworkPolicy or a firewall block port 15008?)",
        io::ErrorKind::ConnectionRefused if tunnel => " (is the warren agent of that node running?)",
        _ => "",
    }
}

impl OutboundError {
    pub(super) fn flag(&self) -> FlowFlag {
        match self {
            Self::Tls { .. } => FlowFlag::TlsFailure,
            Self::Outside { .. } => FlowFlag::Outside,
            Self::Peer { .. } | Self::WrongPeer { .. } | Self::Unnamed(_) | Self::Credential(_) => {
                FlowFlag::IdentityError
            }
            Self::Tunnel { status: Some(StatusCode::UNAUTHORIZED), .. } => FlowFlag::Deny,
            Self::Tunnel { status: Some(StatusCode::MISDIRECTED_REQUEST), .. } => FlowFlag::IdentityError,
            Self::Route(RouteError::ReservedPort(_)) | Self::Local(Refusal::Denied(_)) => FlowFlag::Deny,
            Self::Revoked(_) => FlowFlag::Deny,
            Self::Tunnel { status: None, .. } | Self::Silent { .. } => FlowFlag::H2HandshakeFailure,
            Self::Route(
                RouteError::NoHealthyEndpoint { .. }
                | RouteError::NoLocalEndpoint { .. }
                | RouteError::NoLongerIts { .. },
            ) => FlowFlag::NoHealthyUpstream,
            Self::Connect { to, source } if is_tunnel(*to) && source.kind() == io::ErrorKind::TimedOut => {
                FlowFlag::NetworkPolicy
            }
            Self::NoRule { .. } => FlowFlag::NoRoute,
            Self::LeadsNowhere(_) => FlowFlag::NoCluster,
            Self::Unpicked(Unpicked::NoSuchSubset(_) | Unpicked::Refused { .. }) => FlowFlag::NoCluster,
            Self::Unpicked(Unpicked::Overflow(_)) => FlowFlag::Overload,
            Self::Unpicked(Unpicked::NoneLeft { .. } | Unpicked::Gone(_)) => FlowFlag::NoHealthyUpstream,
            Self::Gone(_) => FlowFlag::Other,
            Self::Local(Refusal::Limit(_)) => FlowFlag::Overload,
            _ => FlowFlag::Connect,
        }
    }

    /// Whether there is no endpoint, for now.
    pub(super) fn is_of_choice(&self) -> bool {
        matches!(self, Self::Route(_) | Self::Unpicked(Unpicked::NoneLeft { .. } | Unpicked::Gone(_)))
    }

    /// Whether the time for connecting was over.
    fn is_late(&self) -> bool {
        match self {
            Self::Connect { source, .. } | Self::Local(Refusal::Application { source, .. }) => {
                source.kind() == io::ErrorKind::TimedOut
            }
            Self::Silent { .. } => true,
            _ => false,
        }
    }

    /// What follows from it for the connection, of which the application's peer has not seen a byte.
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Connect { source, .. } if is_silence(source) => Failure::Silent,
            // Its node, or ours, does not know yet that the pod is in the mesh; or it is in the middle of a change.
            Self::Connect { to, source } if is_tunnel(*to) && is_refusal(source) => Failure::Unsettled,
            Self::Tls { source, .. } if source.kind() == io::ErrorKind::TimedOut => Failure::Silent,
            // The listener was closed or its certificate is not there yet, mid-handshake.
            Self::Tls { source, .. } if is_cut(source) => Failure::Unsettled,
            // The address was another pod's, or is another's by now.
            Self::WrongPeer { .. } => Failure::Unsettled,
            Self::Tunnel { status, .. } => match *status {
                None | Some(StatusCode::BAD_REQUEST | StatusCode::MISDIRECTED_REQUEST) => Failure::Unsettled,
                Some(StatusCode::UNAUTHORIZED) => Failure::Final,
                Some(_) => Failure::Refused,
            },
            Self::Silent { .. } => Failure::Silent,
            Self::Leaving(_) => Failure::Leaving,
            Self::Local(refusal) => match refusal {
                Refusal::NotEnrolled(_) => Failure::Unsettled,
                Refusal::Leaving(_) => Failure::Leaving,
                Refusal::Application { .. } | Refusal::Limit(_) => Failure::Refused,
                Refusal::Denied(_) | Refusal::NotForUs(_) | Refusal::Misdirected(_) => Failure::Final,
            },
            Self::Outside { source, .. } if source.is_ours() => Failure::Final,
            Self::Connect { .. }
            | Self::Tls { .. }
            | Self::Outside { .. }
            | Self::Peer { .. }
            | Self::Lookup { .. } => Failure::Refused,
            _ => Failure::Final,
        }
    }

    /// How much of the endpoint fails, for the connections to come of all pods; `port` is the one that was tried. What one
    /// client's DestinationRule asks for (TLS, or an answer sooner than others need it) says nothing to the others.
    pub(super) fn extent(&self, port: u16, patience: Patience) -> Option<Extent> {
        match self {
            Self::Outside { .. } => None,
            _ if patience.is_shortened && self.is_late() => None,
            Self::Tunnel { status: Some(StatusCode::SERVICE_UNAVAILABLE), .. } | Self::Local(_) => {
                Some(Extent::Port(port))
            }
            Self::Connect { to, source } if !is_tunnel(*to) && is_refusal(source) => Some(Extent::Port(port)),
            _ => match self.failure() {
                Failure::Final => None,
                Failure::Silent => Some(Extent::Silent),
                Failure::Refused | Failure::Unsettled | Failure::Leaving => Some(Extent::Pod),
            },
        }
    }
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

fn is_cut(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

/// Nobody has answered, or a router says that nobody will.
fn is_silence(error: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(error.kind(), TimedOut | HostUnreachable | NetworkUnreachable)
}
