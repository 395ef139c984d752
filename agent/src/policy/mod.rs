//! Permission: pure data in, verdict out, with the name of the rule that decided.
//!
//! A [`Permit`] can only be made here, and the application's socket can only be opened with one.

use std::sync::Arc;
use warren_common::model::{Identity, PeerAuthentication};
use warren_common::ports;

/// A connection that wants to enter a pod.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// Who connects: proven by certificate or, on the same node, by the kernel. None for plaintext.
    pub source: Option<&'a Identity>,
    /// Which plaintext the pod takes.
    pub peer_authentication: &'a PeerAuthentication,
    /// The pod's port.
    pub port: u16,
}

/// Leave to reach the application; says which rule gave it.
#[derive(Clone, Debug)]
pub struct Permit {
    rule: Arc<str>,
}

impl Permit {
    /// The rule that permitted.
    pub fn rule(&self) -> &Arc<str> {
        &self.rule
    }
}

/// Why a connection may not enter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("denied by {rule}: {reason}")]
pub struct Denial {
    /// The rule that denied.
    pub rule: Arc<str>,
    /// In words.
    pub reason: String,
}

/// Judges one connection.
///
/// # Errors
/// The [`Denial`].
pub fn judge(connection: &Connection<'_>) -> Result<Permit, Denial> {
    if is_reserved(connection.port) {
        return Err(Denial {
            rule: "warren/reserved-port".into(),
            reason: format!("port {} belongs to warren and serves no application", connection.port),
        });
    }
    if connection.source.is_some() {
        return Ok(Permit { rule: "warren/default-allow".into() });
    }
    let mtls = connection.peer_authentication.of_port(connection.port);
    if mtls.strict {
        return Err(Denial {
            rule: Arc::clone(&mtls.rule),
            reason: format!("only mutual TLS may enter port {}, this is plaintext", connection.port),
        });
    }
    let named = !mtls.rule.is_empty();
    Ok(Permit { rule: if named { Arc::clone(&mtls.rule) } else { "warren/permissive".into() } })
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use warren_common::model::MtlsRule;

    fn mtls(strict: bool, rule: &str) -> MtlsRule {
        MtlsRule { strict, rule: rule.into() }
    }

    #[test]
    fn rules_are_named() {
        let id = Identity::new("cluster.local", "shop", "web").unwrap();
        let none = PeerAuthentication::default();
        let strict = PeerAuthentication {
            all: mtls(true, "PeerAuthentication shop/default"),
            ports: [(90, mtls(false, "PeerAuthentication shop/web"))].into(),
        };
        let strict_port = PeerAuthentication {
            all: mtls(false, ""),
            ports: [(90, mtls(true, "PeerAuthentication shop/web"))].into(),
        };
        for (peer_authentication, source, port, expected) in [
            (&none, Some(&id), 80, Ok("warren/default-allow")),
            (&none, None, 80, Ok("warren/permissive")),
            (&strict, Some(&id), 80, Ok("warren/default-allow")),
            (&strict, None, 80, Err("PeerAuthentication shop/default")),
            (&strict, None, 90, Ok("PeerAuthentication shop/web")),
            (&strict_port, None, 80, Ok("warren/permissive")),
            (&strict_port, None, 90, Err("PeerAuthentication shop/web")),
            (&strict_port, Some(&id), 90, Ok("warren/default-allow")),
            (&none, Some(&id), 15001, Err("warren/reserved-port")),
            (&none, Some(&id), 15006, Err("warren/reserved-port")),
            (&none, Some(&id), 15008, Err("warren/reserved-port")),
            (&none, Some(&id), 15053, Err("warren/reserved-port")),
        ] {
            let verdict = judge(&Connection { source, peer_authentication, port });
            let verdict = verdict.map(|permit| permit.rule).map_err(|denial| denial.rule);
            assert_eq!(verdict, expected.map(Into::into).map_err(Into::into), "{source:?} to {port}");
        }
    }
}
