//! Workloads: pods and everything else that has an address and an identity.

use super::{Identity, PeerAuthentication, ServiceName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Mesh-wide unique name of a workload, `<cluster>/<group>/<kind>/<namespace>/<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkloadUid(pub Arc<str>);

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

/// Whether a workload should get traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Ready.
    #[default]
    Healthy,
    /// Not ready, or terminating.
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

/// A workload.
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
    pub services: BTreeMap<ServiceName, Vec<PortMapping>>,
    /// Pod labels.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// What its node needs to capture it.
    pub enrolment: Enrolment,
    /// Which plaintext may enter it.
    #[serde(default)]
    pub peer_authentication: PeerAuthentication,
}

/// A map with structured keys as JSON can hold it.
mod served {
    use super::{BTreeMap, Deserialize, PortMapping, Serialize, ServiceName};
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

    pub(super) fn serialize<S: Serializer>(
        services: &BTreeMap<ServiceName, Vec<PortMapping>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(services.iter().map(|(service, ports)| EntryRef { service, ports }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<ServiceName, Vec<PortMapping>>, D::Error> {
        let entries = Vec::<Entry>::deserialize(from)?;
        Ok(entries.into_iter().map(|entry| (entry.service, entry.ports)).collect())
    }
}

impl Workload {
    /// The value of the label `app`, for telemetry.
    pub fn app(&self) -> Option<&str> {
        self.labels.get("app").map(AsRef::as_ref)
    }

    /// The value of the label `version`, for telemetry.
    pub fn version(&self) -> Option<&str> {
        self.labels.get("version").map(AsRef::as_ref)
    }
}
