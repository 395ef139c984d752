//! Services: names and virtual addresses in front of workloads.

use super::Steering;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// `namespace/hostname`, the primary key of a service on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceName {
    /// Kubernetes namespace.
    pub namespace: Arc<str>,
    /// Fully qualified, for example `web.shop.svc.cluster.local`.
    pub hostname: Arc<str>,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.hostname)
    }
}

/// What is spoken on a port, as far as the configuration says (appProtocol, then the port's name).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppProtocol {
    /// Not declared.
    #[default]
    Unknown,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServicePort {
    /// The port clients dial.
    pub service_port: u16,
    /// The port of the workload; 0 when it is named and differs between workloads.
    pub target_port: u16,
    /// The name of the workload's port, if it is named.
    pub target_port_name: Option<Arc<str>>,
    /// What is spoken.
    pub app_protocol: AppProtocol,
}

/// What a service is beside a name in front of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceOrigin {
    /// `ExternalName`: the name that it is an alias of. It has no addresses and no endpoints then.
    pub external_name: Option<Arc<str>>,
    /// The only namespaces whose clients know it (`exportTo`); none: every namespace.
    pub exported_to: Option<Vec<Arc<str>>>,
    /// `subjectAltNames`: identities that may answer for it.
    pub subject_alt_names: Vec<Arc<str>>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Short name, for example `web`.
    pub name: Arc<str>,
    /// Namespace and hostname.
    pub key: ServiceName,
    /// Virtual addresses (cluster IPs), none for a headless service.
    pub addresses: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// `publishNotReadyAddresses`: unhealthy workloads are picked like healthy ones.
    pub publish_not_ready: bool,
    /// How its endpoints are chosen.
    #[serde(default)]
    pub steering: Steering,
    /// Where it comes from, and for whom it is.
    #[serde(default)]
    pub origin: ServiceOrigin,
}

impl Service {
    /// Whether clients of `namespace` know it.
    pub fn is_visible_in(&self, namespace: &str) -> bool {
        self.origin.exported_to.as_ref().is_none_or(|to| to.iter().any(|one| **one == *namespace))
    }
}
