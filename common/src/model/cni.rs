//! What the CNI plugin and its node's agent say to each other, and what the agent leaves on disk for it.
//!
//! One exchange per connection to the agent's unix socket: a [`Request`], then an [`Answer`], each as JSON behind its
//! length (4 bytes, big endian). With `ADD` and `CHECK` the pod's network namespace travels as an open descriptor
//! (`SCM_RIGHTS`): the plugin sees the node's files, the agent only those mounted into its own pod.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Longest message, bytes: a result of every plugin of a chain fits many times over.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// What the container runtime does to a pod's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Command {
    /// The pod's network is there, its first process is not.
    Add,
    /// The pod's network goes.
    Del,
    /// Is the pod's network as it should be?
    Check,
}

/// A pod as the kubelet names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.uid`; empty when the container runtime does not say it (before containerd 1.6 and CRI-O 1.18).
    pub uid: String,
}

/// What the plugin asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What happens.
    pub command: Command,
    /// To which pod.
    pub pod: PodName,
    /// `CNI_CONTAINERID`: the pod's sandbox. A pod gets a new one when its sandbox is made again.
    pub container_id: String,
    /// The pod's addresses, the first of each family, as the plugins before us have set them. None with `DEL`.
    pub addresses: Vec<IpAddr>,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// The pod is captured. To `DEL`: it is not any more.
    Done,
    /// The pod is not in the mesh.
    NotInMesh,
    /// It should be and cannot, for now: what happened, why, and what to do.
    NotYet(String),
}

/// What the plugin decides by while no agent answers. Kept by the agent as `cni.json` in its state directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Offline {
    /// Namespaces whose label enrols their pods, and those with an enrolled pod on this node.
    pub enrolled_namespaces: BTreeSet<String>,
    /// `--fail-open`: without an agent, pods start unmeshed.
    pub fail_open: bool,
}

/// The name of the file that holds [`Offline`], in the agent's state directory.
pub const OFFLINE_FILE: &str = "cni.json";
