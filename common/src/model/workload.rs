//! Workloads: pods and everything else that has an address and an identity.

use super::{Hints, Identity, Locality, PeerAuthentication, PolicyName, ServiceName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Mesh-wide unique name of a workload, `<cluster>/<group>/<kind>/<namespace>/<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkloadUid(pub Arc<str>);

impl WorkloadUid {
    /// Whether it is a pod's.
    pub fn is_pod(&self) -> bool {
        let mut parts = self.0.split('/').skip(1);
        (parts.next(), parts.next()) == (Some(""), Some("Pod"))
    }
}

impl fmt::Display for WorkloadUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How to reach a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelProtocol {
    /// As it is, without a tunnel.
    #[default]
    None,
    /// HTTP CONNECT over mutual TLS.
    Hbone,
}

/// Whether a workload should get traffic; the least is the best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Ready.
    #[default]
    Healthy,
    /// Terminating and still serving, or on a node that was not heard of lately: for when nobody is ready.
    Terminating,
    /// Not ready.
    Unhealthy,
}

/// What owns a workload. Telemetry only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadKind {
    /// A Deployment (or anything else long-lived).
    Deployment,
    /// A CronJob.
    CronJob,
    /// A bare Pod.
    #[default]
    Pod,
    /// A Job.
    Job,
}

/// A port of a service as one workload serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortMapping {
    /// The port clients dial at the service.
    pub service_port: u16,
    /// The port of the workload.
    pub target_port: u16,
}

/// A workload and the port a connection to a service goes to there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthyTarget {
    /// The workload.
    pub workload: Arc<Workload>,
    /// Its port.
    pub port: u16,
}

/// What the node of a pod must know to capture it. Only pods have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// `metadata.uid` of the pod, empty for what is not a pod.
    pub pod_uid: Arc<str>,
    /// Whether its traffic is captured (namespace or pod label).
    pub enrolled: bool,
    /// `warren.dev/exclude-outbound-ports`.
    pub exclude_outbound_ports: Vec<u16>,
    /// `warren.dev/exclude-inbound-ports`.
    pub exclude_inbound_ports: Vec<u16>,
    /// `warren.dev/exclude-outbound-cidrs`, address and prefix length.
    pub exclude_outbound_cidrs: Vec<(IpAddr, u8)>,
}

/// Where a workload is, and how much of it there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    /// Network, empty for the one that all pods share.
    pub network: Arc<str>,
    /// Region and zone.
    pub locality: Locality,
    /// A DNS name: of a pod with `hostname` and `subdomain` its own (`db-0.db.shop.svc.cluster.local`); of what
    /// has no addresses the one that the client's node looks up.
    pub hostname: Option<Arc<str>>,
    /// Share of its services' connections, relative to other workloads.
    pub weight: u32,
    /// By service, the clients that it is meant for. In JSON a list of `{service, hints}`.
    #[serde(with = "hinted")]
    pub hints: BTreeMap<ServiceName, Hints>,
}

impl Default for Placement {
    fn default() -> Self {
        Self {
            network: Arc::default(),
            locality: Locality::default(),
            hostname: None,
            weight: 1,
            hints: BTreeMap::new(),
        }
    }
}

/// Services and, of each, the ports as one workload serves them.
pub type Served = BTreeMap<ServiceName, Vec<PortMapping>>;

/// Labels of a pod.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// A workload. Its maps are shared: most workloads have the same ones as their siblings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Mesh-wide unique name.
    pub uid: WorkloadUid,
    /// Pod name.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// SPIFFE identity.
    pub identity: Identity,
    /// Node it runs on.
    pub node: Arc<str>,
    /// Shares its node's network namespace.
    pub host_network: bool,
    /// How peers reach it.
    pub tunnel: TunnelProtocol,
    /// Whether it should get traffic.
    pub health: Health,
    /// Name of the owner (Deployment, Job ...), else of the pod.
    pub owner: Arc<str>,
    /// Kind of the owner.
    pub kind: WorkloadKind,
    /// `service.istio.io/canonical-name` and its fallbacks.
    pub canonical_name: Arc<str>,
    /// `service.istio.io/canonical-revision` and its fallbacks.
    pub canonical_revision: Arc<str>,
    /// Cluster, for example `Kubernetes`.
    pub cluster: Arc<str>,
    /// Services it stands behind, with their ports as it serves them. In JSON a list of `{service, ports}`.
    #[serde(with = "served")]
    pub services: Arc<Served>,
    /// Pod labels.
    pub labels: Arc<Labels>,
    /// What its node needs to capture it.
    pub enrolment: Enrolment,
    /// Which plaintext may enter it.
    #[serde(default)]
    pub peer_authentication: PeerAuthentication,
    /// The policies that are for it because their selector or target says so; others apply by their scope.
    #[serde(default)]
    pub authorization_policies: Vec<PolicyName>,
    /// Where it is.
    #[serde(default)]
    pub placement: Placement,
}

/// A map with structured keys as JSON can hold it.
mod served {
    use super::{Arc, Deserialize, PortMapping, Serialize, Served, ServiceName};
    use serde::{Deserializer, Serializer};

    #[derive(Deserialize)]
    struct Entry {
        service: ServiceName,
        ports: Vec<PortMapping>,
    }

    #[derive(Serialize)]
    struct EntryRef<'a> {
        service: &'a ServiceName,
        ports: &'a [PortMapping],
    }

    pub(super) fn serialize<S: Serializer>(services: &Served, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(services.iter().map(|(service, ports)| EntryRef { service, ports }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Served>, D::Error> {
        let entries = Vec::<Entry>::deserialize(from)?;
        Ok(Arc::new(entries.into_iter().map(|entry| (entry.service, entry.ports)).collect()))
    }
}

/// The same for hints.
mod hinted {
    use super::{BTreeMap, Deserialize, Hints, Serialize, ServiceName};
    use serde::{Deserializer, Serializer};

    #[derive(Deserialize)]
    struct Entry {
        service: ServiceName,
        hints: Hints,
    }

    #[derive(Serialize)]
    struct EntryRef<'a> {
        service: &'a ServiceName,
        hints: &'a Hints,
    }

    pub(super) fn serialize<S: Serializer>(
        hints: &BTreeMap<ServiceName, Hints>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(hints.iter().map(|(service, hints)| EntryRef { service, hints }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<ServiceName, Hints>, D::Error> {
        let entries = Vec::<Entry>::deserialize(from)?;
        Ok(entries.into_iter().map(|entry| (entry.service, entry.hints)).collect())
    }
}

impl Workload {
    /// The value of the label `app`, for telemetry.
    pub fn app(&self) -> Option<&str> {
        self.labels.get("app").map(AsRef::as_ref)
    }

    /// Whether nobody else has its addresses: it is a pod, and not on its node's network.
    pub fn has_own_addresses(&self) -> bool {
        !self.host_network && self.uid.is_pod()
    }

    /// The value of the label `version`, for telemetry.
    pub fn version(&self) -> Option<&str> {
        self.labels.get("version").map(AsRef::as_ref)
    }
}
