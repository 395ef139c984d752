//! The cluster, asked through its API server. With `install`, the only room of the CLI that knows Kubernetes.

mod agents;
pub(crate) mod check;
mod connect;
mod error;
mod objects;
pub(crate) mod pods;
mod targets;
mod unread;

pub(crate) use agents::{AgentPod, agents, controllers};
pub(crate) use connect::Cluster;
pub(crate) use error::{ClusterError, explain, is_not_found};
pub(crate) use objects::{Objects, objects};
pub(crate) use targets::Target;
#[cfg(test)]
pub(crate) use {objects::Refused, unread::Unread};

/// The label that everything of warren carries.
pub(crate) const PART_OF_WARREN: &str = "app.kubernetes.io/part-of=warren";
