//! Permission: pure data in, verdict out, with the name of the rule that decided.
//!
//! ```text
//!   policies --Policies (in the snapshot)--.
//!                                          >--> Effective (of one pod) --judge(connection)--> Decision
//!   workload: names, PeerAuthentication ---'       made when either changes
//! ```
//!
//! A [`Permit`] can only be made here, and the application's socket can only be opened with one. What decides, in this
//! order; the first word is the last:
//!
//! 1. a port of warren's own serves no application
//! 2. an identity that was revoked, the client's or the pod's ([`Policies::revoke`])
//! 3. plaintext where PeerAuthentication says STRICT
//! 4. a policy that applies and cannot be had: nobody enters until it can
//! 5. a DENY policy that matches
//! 6. no ALLOW policy at all, or one that matches
//!
//! Dry-run policies are judged beside that, as if they were enforced; they change nothing and do not ask for an ALLOW.
//!
//! The server name in a client's own TLS (`connection.sni`) is looked for only where the verdict hinges on it
//! ([`Effective::hinges_on_server_name`]): there a connection has to begin with its ClientHello, and all others are judged
//! before they have said anything. What cannot be read counts as in the table of [`Connection::server_name`].

mod book;
mod client_hello;
mod compile;
mod effective;
mod text;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use book::{Policies, Refused};
pub use client_hello::{ClientHello, ServerName};
pub use effective::Effective;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use warren_common::model::{Identity, PolicyName};
use warren_common::ports;

/// A connection that wants to enter a pod.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// Who connects: proven by certificate or, on the same node, by the kernel. None for plaintext.
    pub source: Option<&'a Identity>,
    /// The address of the connection's direct peer.
    pub peer: IpAddr,
    /// The client's address, where the peer is believed to speak for another.
    pub client: IpAddr,
    /// The pod's address and port.
    pub destination: SocketAddr,
    /// The server name in the client's own TLS, in lower case, empty if it names none. None when nobody has looked, or it
    /// could not be read: then an ALLOW rule that asks for it does not match, and a DENY rule does as if it did not ask.
    pub server_name: Option<&'a str>,
}

/// What was decided.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Leave to enter, or why not.
    pub verdict: Result<Permit, Denial>,
    /// What the verdict would be with the dry-run policies that apply enforced, as `allow shop/web#1`; none when there
    /// are none.
    pub dry_run: Option<Arc<str>>,
}

/// Leave to reach the application; says which rule gave it.
#[derive(Clone, Debug)]
pub struct Permit {
    rule: Arc<str>,
}

impl Permit {
    fn new(rule: Arc<str>) -> Self {
        Self { rule }
    }

    /// The rule that permitted.
    pub fn rule(&self) -> &Arc<str> {
        &self.rule
    }
}

/// Why a connection may not enter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The port is the agent's own.
    ReservedPort(u16),
    /// This identity was revoked.
    Revoked(Identity),
    /// The client proved itself, and its proof counts no longer.
    Distrusted {
        /// Who it is.
        client: Identity,
        /// Why not.
        why: Arc<str>,
    },
    /// Only mutual TLS may enter.
    Plaintext {
        /// The PeerAuthentication that says so.
        rule: Arc<str>,
        /// The port that was dialled.
        port: u16,
    },
    /// Nobody has said yet which policies there are.
    Unknown,
    /// This policy is said to be for the pod, and has not come.
    Missing(PolicyName),
    /// This policy is, or may be, for the pod and is not understood.
    Refused {
        /// The policy.
        policy: PolicyName,
        /// What is wrong with it.
        why: Arc<str>,
    },
    /// A rule of a DENY policy matches.
    Rule(Arc<RuleName>),
    /// There are ALLOW policies, and no rule of theirs matches.
    NoRule,
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RuleName {
    /// The policy.
    pub policy: PolicyName,
    /// The rule's place in it.
    pub index: u32,
    /// As flows show it, with what it does: `deny shop/deny-all#0`.
    pub shown: Arc<str>,
}

impl Denial {
    /// Whether what is lacking is likely on its way: pods and policies come one after the other.
    pub fn may_settle(&self) -> bool {
        matches!(self, Self::Unknown | Self::Missing(_))
    }

    /// The rule that denied, as flows show it.
    pub fn rule(&self) -> Arc<str> {
        match self {
            Self::ReservedPort(_) => "warren/reserved-port".into(),
            Self::Revoked(_) => "warren/revoked-identity".into(),
            Self::Distrusted { .. } => "warren/distrusted-peer".into(),
            Self::Plaintext { rule, .. } => Arc::clone(rule),
            Self::Unknown => "warren/policies-unknown".into(),
            Self::Missing(policy) => format!("deny {policy} (not known yet)").into(),
            Self::Refused { policy, .. } => format!("deny {policy} (not understood)").into(),
            Self::Rule(rule) => Arc::clone(&rule.shown),
            Self::NoRule => "deny (no ALLOW rule matched)".into(),
        }
    }

    /// The policy that denied, as metrics show it.
    pub fn policy(&self) -> Arc<str> {
        match self {
            Self::Missing(policy) | Self::Refused { policy, .. } => policy.to_string().into(),
            Self::Rule(rule) => rule.policy.to_string().into(),
            Self::NoRule => "none".into(),
            _ => self.rule(),
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedPort(port) => write!(f, "port {port} belongs to warren and serves no application"),
            Self::Revoked(identity) => write!(f, "the identity {identity} was revoked"),
            Self::Distrusted { client, why } => write!(f, "{client} is trusted no longer: {why}"),
            Self::Plaintext { rule, port } => {
                write!(f, "denied by {rule}: only mutual TLS may enter port {port}, this is plaintext")
            }
            Self::Unknown => {
                write!(f, "it is not known yet which policies there are; nobody may enter before")
            }
            Self::Missing(policy) => write!(
                f,
                "the policy {policy} is for this pod and the controller has not sent it; nobody may enter until it has"
            ),
            Self::Refused { policy, why } => write!(
                f,
                "the policy {policy} is not understood by this agent ({why}); nobody may enter what it may be for"
            ),
            Self::Rule(rule) => write!(
                f,
                "rbac_access_denied_matched_policy[ns[{}]-policy[{}]-rule[{}]]",
                rule.policy.namespace(),
                rule.policy.name(),
                rule.index
            ),
            Self::NoRule => write!(
                f,
                "rbac_access_denied_matched_policy[none]: no rule of the ALLOW policies for this pod matches"
            ),
        }
    }
}

impl std::error::Error for Denial {}

/// The rule under which connections leave a pod: what may be reached is decided where it is.
pub fn outbound_rule() -> Arc<str> {
    static RULE: std::sync::LazyLock<Arc<str>> =
        std::sync::LazyLock::new(|| "warren/outbound-allow-any".into());
    Arc::clone(&RULE)
}

/// Ports of the agent inside every pod: to let a peer reach them through the agent would let it skip policy.
pub fn is_reserved(port: u16) -> bool {
    matches!(port, ports::OUTBOUND | ports::INBOUND_PLAINTEXT | ports::HBONE | ports::DNS)
}
