//! Pods.

use super::{Map, Name};
use std::net::IpAddr;
use std::sync::Arc;

/// `status.phase`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Pending, Running, Unknown or absent: it may have processes.
    #[default]
    Live,
    /// Succeeded or Failed: it has none, and its address may be another's by now.
    Ended,
}

/// The controlling entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// For example `ReplicaSet`.
    pub kind: Arc<str>,
    /// For example `web-7d4b9c6f8`.
    pub name: Arc<str>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub name: Name,
    /// `metadata.uid`, empty when the manifest has none.
    pub uid: Arc<str>,
    /// Labels.
    pub labels: Map,
    /// Annotations under `warren.dev/`.
    pub annotations: Map,
    /// What controls it.
    pub owner: Option<Owner>,
    /// `spec.nodeName`, empty while unscheduled.
    pub node: Arc<str>,
    /// `spec.serviceAccountName`, "default" when absent.
    pub service_account: Arc<str>,
    /// `spec.hostname`, when there is a `spec.subdomain` too: the two make its DNS name.
    pub hostname: Option<(Arc<str>, Arc<str>)>,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// `status.podIPs`, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Whether it still runs.
    pub phase: Phase,
    /// The condition `Ready` is `True`.
    pub ready: bool,
    /// Its containers were ready when its kubelet was last heard of; that it is not ready says only that this is long ago.
    pub unheard: bool,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
}

impl Pod {
    /// Whether it may have processes.
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// Whether it should get traffic.
    pub fn is_healthy(&self) -> bool {
        self.ready && !self.deleting
    }
}
