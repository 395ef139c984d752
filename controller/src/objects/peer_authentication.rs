//! PeerAuthentications: which plaintext may enter which pods.

use super::{Map, Name};
use std::collections::BTreeMap;

/// When an object was made, to order objects of which the oldest counts: Unix seconds. Files say none and come
/// first; among equals the name decides.
pub type Created = Option<i64>;

/// `mtls.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MtlsMode {
    /// Absent or `UNSET`: what is said further out applies.
    #[default]
    Unset,
    /// `DISABLE`.
    Disable,
    /// `PERMISSIVE`.
    Permissive,
    /// `STRICT`.
    Strict,
}

/// A `security.istio.io/PeerAuthentication`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Namespace and name.
    pub name: Name,
    /// Of several that could apply, the oldest does.
    pub created: Created,
    /// `selector.matchLabels`; empty: the whole namespace, or the mesh.
    pub selector: Map,
    /// `mtls.mode`.
    pub mode: MtlsMode,
    /// `portLevelMtls`, by port of the workload.
    pub ports: BTreeMap<u16, MtlsMode>,
}

/// Whether labels are at least those of a selector.
pub fn matches(selector: &Map, labels: &Map) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
