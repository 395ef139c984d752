//! Rules for connections that nobody looks into.

use super::{Backend, Clients};
use crate::model::Cidr;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// If any of the matches holds, the connection goes to one of the backends, by weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsRule {
    /// Its name in logs and flows; may be empty.
    #[serde(default)]
    pub name: Arc<str>,
    /// Alternatives.
    pub matches: Vec<TlsMatch>,
    /// Where to.
    pub backends: Vec<Backend>,
}

/// Conditions that all have to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsMatch {
    /// Server names of the ClientHello, in lower case; a leading `*.` holds any number of labels, `*` everything. Empty: any.
    pub server_names: Vec<Arc<str>>,
    /// Conditions on the connection itself.
    pub connection: TcpMatch,
}

/// If any of the matches holds, the connection goes to one of the backends, by weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpRule {
    /// Its name in logs and flows; may be empty.
    #[serde(default)]
    pub name: Arc<str>,
    /// Alternatives; none: every connection.
    #[serde(default)]
    pub matches: Vec<TcpMatch>,
    /// Where to.
    pub backends: Vec<Backend>,
}

/// Conditions that all have to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpMatch {
    /// Only for these clients.
    pub clients: Clients,
    /// Only for connections to this port of the service.
    pub port: Option<u16>,
    /// The dialled address is in one of these; empty: any.
    pub destinations: Vec<Cidr>,
}
