//! How a service's endpoints are used: DestinationRules.

use super::{Clients, ObjectName, Selector};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The DestinationRule of some clients for one service (several of one namespace and host are merged already).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopedPolicy {
    /// For whom.
    #[serde(default)]
    pub clients: Clients,
    /// The objects it was made of.
    pub objects: Vec<ObjectName>,
    /// Of the whole service.
    #[serde(default)]
    pub policy: TrafficPolicy,
    /// Parts of the endpoints, by name.
    #[serde(default)]
    pub subsets: Vec<Subset>,
}

/// A part of a service's endpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subset {
    /// Its name.
    pub name: Arc<str>,
    /// Labels of its endpoints; none: all endpoints.
    #[serde(default)]
    pub labels: Selector,
    /// What it says for itself.
    #[serde(default)]
    pub policy: TrafficPolicy,
}

/// A traffic policy as it is written; what is in force for a port and a subset follows the override rules of Istio's
/// DestinationRule: an entry of a port replaces balancer, pool, outliers and TLS as a whole, absent ones included; of a subset,
/// what is present replaces what the service says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrafficPolicy {
    /// Of all ports that have no entry.
    pub all: PortPolicy,
    /// By port of the service.
    pub ports: BTreeMap<u16, PortPolicy>,
    /// Retries at a time, as a share of the active requests; none: only `max_retries` limits them.
    pub retry_budget_percent: Option<u8>,
    /// Retries that a budget always allows.
    pub retry_budget_min: Option<u32>,
}

/// The parts of a policy that a port can have for itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PortPolicy {
    /// How an endpoint is picked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balancer: Option<Balancer>,
    /// How much may be open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<ConnectionPool>,
    /// Which endpoints are left out for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outliers: Option<Outliers>,
    /// What is spoken to endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsOrigination>,
}

/// How an endpoint is picked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Balancer {
    /// Without a hash.
    pub simple: SimpleBalancer,
    /// The same client gets the same endpoint; instead of `simple`.
    pub hash: Option<(HashKey, HashRing)>,
    /// New endpoints begin with less.
    pub warmup: Option<Warmup>,
    /// By where client and endpoint are; none: the service's own steering.
    pub locality: Option<LocalityBalancing>,
}

/// Without a hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SimpleBalancer {
    /// The one of two random endpoints that has less to do.
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// The address that was dialled.
    Passthrough,
}

/// What the hash is made of. Where it is absent, an endpoint is picked at random.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashKey {
    /// A header's value; in lower case.
    Header(Arc<str>),
    /// A cookie's value.
    Cookie {
        /// Its name.
        name: Arc<str>,
        /// `Path` of a cookie that is made here.
        path: Option<Arc<str>>,
        /// Seconds; 0: until the browser ends. None: no cookie is made.
        ttl_s: Option<u64>,
        /// Further attributes of a cookie that is made here.
        attributes: Vec<(Arc<str>, Arc<str>)>,
    },
    /// The client's address.
    SourceIp,
    /// The first query parameter of this name.
    Query(Arc<str>),
}

/// How a hash finds its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashRing {
    /// At least so many places on a ring.
    Ring {
        /// Default 1024.
        minimum: u32,
    },
    /// A table of this size, a prime.
    Maglev {
        /// Default 65537.
        size: u32,
    },
}

/// Slow start: weight = max(minimum, (age/duration)^(1/aggression)).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Warmup {
    /// How long.
    pub duration_ms: u64,
    /// Percent of its weight that an endpoint has at least; default 10.
    pub minimum_percent: f64,
    /// Default 1: linear.
    pub aggression: f64,
}

/// By where client and endpoint are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalityBalancing {
    /// False: localities don't count.
    pub enabled: bool,
    /// Shares, by where the client is.
    pub distribute: Vec<LocalityShare>,
    /// Where to go when a region fails.
    pub failover: Vec<RegionFailover>,
    /// Labels in the order in which they count: `key`, or `key=value` of the endpoint.
    pub failover_priority: Vec<Arc<str>>,
}

/// Shares of the clients of one locality.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalityShare {
    /// `region/zone/subzone`, with `*` at its end.
    pub from: Arc<str>,
    /// Percent by locality; the sum is 100.
    pub to: BTreeMap<Arc<str>, u32>,
}

/// The region to go to when one fails.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionFailover {
    /// The client's region.
    pub from: Arc<str>,
    /// The region instead.
    pub to: Arc<str>,
}

/// How much may be open to a service, port and subset, of one client pod. None: no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionPool {
    /// Connections.
    pub max_connections: Option<u32>,
    /// Default 10,000.
    pub connect_timeout_ms: Option<u64>,
    /// None: no limit.
    pub max_connection_duration_ms: Option<u64>,
    /// TCP without bytes; 0: never. Default: 1 hour for HTTP, never for TCP.
    pub idle_timeout_ms: Option<u64>,
    /// Requests that wait for a connection.
    pub max_pending_requests: Option<u32>,
    /// Active requests.
    pub max_requests: Option<u32>,
    /// 1: no keep-alive.
    pub max_requests_per_connection: Option<u32>,
    /// Retries at a time.
    pub max_retries: Option<u32>,
    /// HTTP connections without requests.
    pub http_idle_timeout_ms: Option<u64>,
    /// Streams at a time on one HTTP/2 connection.
    pub max_concurrent_streams: Option<u32>,
    /// HTTP/1.1 requests are sent as HTTP/2.
    pub upgrade_to_h2: bool,
    /// What the client speaks is what the endpoint is spoken to.
    pub use_client_protocol: bool,
    /// TCP keep-alive: probes, seconds until the first, seconds between.
    pub keepalive: Option<(u32, u32, u32)>,
}

/// Which endpoints are left out for a while. Percentages are of all endpoints of a service, port and subset.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outliers {
    /// So many errors (5xx, failed connections) in a row; 0: never. Default 5.
    pub consecutive_5xx: u32,
    /// So many of 502, 503, 504 in a row; 0: never (default).
    pub consecutive_gateway: u32,
    /// So many failed connections in a row, when they are counted for themselves.
    #[serde(default)]
    pub consecutive_local: Option<u32>,
    /// How often it is looked whether one may come back. Default 10,000.
    pub interval_ms: u64,
    /// Times the number of ejections so far, at most 300 s. Default 30,000.
    pub base_ejection_ms: u64,
    /// Compared before one is ejected. Default 10.
    pub max_ejection_percent: u8,
    /// With less left, all are used. Default 0.
    pub min_health_percent: u8,
}

/// What is spoken to endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsOrigination {
    /// Whether, and with a certificate or without.
    pub mode: TlsMode,
    /// Server name; none: the request's host.
    #[serde(default)]
    pub sni: Option<Arc<str>>,
    /// Names of which the certificate must have one; none: the server name.
    #[serde(default)]
    pub subject_alt_names: Vec<Arc<str>>,
    /// Nothing about the certificate is verified.
    #[serde(default)]
    pub insecure_skip_verify: bool,
    /// PEM file on the node with the roots; none: the node's own.
    #[serde(default)]
    pub ca_file: Option<Arc<str>>,
    /// PEM file on the node with the client's certificate.
    #[serde(default)]
    pub certificate_file: Option<Arc<str>>,
    /// PEM file on the node with the client's key.
    #[serde(default)]
    pub key_file: Option<Arc<str>>,
}

/// Whether TLS is spoken to endpoints, beside the mesh's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsMode {
    /// Not by us; against endpoints of the mesh this asks for plaintext.
    Disable,
    /// TLS without a certificate of ours.
    Simple,
    /// TLS with the certificate of the files.
    Mutual,
    /// The mesh's own identities: the tunnel.
    IstioMutual,
}
