//! Permission: pure data in, verdict out, with the name of the rule that decided.
//!
//! A [`Permit`] can only be made here, and the application's socket can only be opened with one.

use std::sync::Arc;
use warren_common::model::Identity;
use warren_common::ports;

/// A connection that wants to enter a pod.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// Who connects: proven by certificate or, on the same node, by the kernel. None for plaintext.
    pub source: Option<&'a Identity>,
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
    let rule = if connection.source.is_some() { "warren/default-allow" } else { "warren/permissive" };
    Ok(Permit { rule: rule.into() })
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

    #[test]
    fn rules_are_named() {
        let id = Identity::new("cluster.local", "shop", "web").unwrap();
        let rule = |source, port| judge(&Connection { source, port }).map(|permit| permit.rule().to_string());
        assert_eq!(rule(Some(&id), 80).unwrap(), "warren/default-allow");
        assert_eq!(rule(None, 80).unwrap(), "warren/permissive");
        for port in [15001, 15006, 15008, 15053] {
            assert_eq!(&*rule(Some(&id), port).unwrap_err().rule, "warren/reserved-port");
        }
    }
}
