//! The cluster, asked through its API server. With `install`, the only room of the CLI that knows Kubernetes.

mod connect;
mod error;
pub(crate) mod pods;

pub(crate) use connect::Cluster;
pub(crate) use error::{ClusterError, is_not_found};

/// The label that everything of warren carries.
pub(crate) const PART_OF_WARREN: &str = "app.kubernetes.io/part-of=warren";
