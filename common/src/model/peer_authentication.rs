//! Which connections without mutual TLS may enter a workload.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is decided about plaintext, and by whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MtlsRule {
    /// Only mutual TLS may enter. Otherwise plaintext may too.
    pub strict: bool,
    /// The object that says so, for example `PeerAuthentication shop/default`; empty when nothing says anything.
    pub rule: Arc<str>,
}

/// The PeerAuthentications of one workload, resolved: mesh, namespace, workload and port in one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerAuthentication {
    /// Of every port that `ports` does not name.
    pub all: MtlsRule,
    /// Of single ports of the workload.
    pub ports: BTreeMap<u16, MtlsRule>,
}

impl PeerAuthentication {
    /// The rule of a port of the workload.
    pub fn of_port(&self, port: u16) -> &MtlsRule {
        self.ports.get(&port).unwrap_or(&self.all)
    }
}
