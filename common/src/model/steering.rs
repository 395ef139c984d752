//! What steers the choice among a service's endpoints.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where a node or a workload is; an empty part is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Locality {
    /// `topology.kubernetes.io/region`.
    pub region: Arc<str>,
    /// `topology.kubernetes.io/zone`.
    pub zone: Arc<str>,
    /// `topology.istio.io/subzone`.
    pub subzone: Arc<str>,
}

/// What a client and an endpoint may have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The network.
    Network,
    /// The region.
    Region,
    /// The zone, and the region.
    Zone,
    /// The subzone, the zone, and the region.
    Subzone,
    /// The node.
    Node,
    /// The cluster.
    Cluster,
}

/// What the scopes mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Every endpoint is as good as any other.
    #[default]
    Any,
    /// Only endpoints that match every scope.
    Strict,
    /// Endpoints that match the most scopes, in their order, first.
    Failover,
    /// No endpoint is chosen: the connection goes to the address that was dialled.
    Passthrough,
}

/// How a service's endpoints are chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Steering {
    /// What `scopes` means.
    pub mode: Mode,
    /// The most important first.
    pub scopes: Vec<Scope>,
    /// `sessionAffinity: ClientIP`: for so many seconds after its last connection a client returns to the same
    /// endpoint.
    pub affinity_s: Option<u32>,
}

/// The clients that an endpoint is meant for (`hints` of an EndpointSlice); empty: all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hints {
    /// Zones.
    pub zones: Vec<Arc<str>>,
    /// Nodes.
    pub nodes: Vec<Arc<str>>,
}

impl Hints {
    /// Whether it names anybody.
    pub fn is_empty(&self) -> bool {
        self.zones.is_empty() && self.nodes.is_empty()
    }
}
