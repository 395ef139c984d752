//! What is wrong with a cluster, before and after warren is in it.
//!
//! ```text
//!  facts (asked, the only I/O)  --->  before: nodes, versions, rights, other meshes    --->  findings
//!                               --->  after: controller, agents, versions
//!                               --->  apps: ports, NetworkPolicies, labels
//! ```

mod after;
mod apps;
mod before;
mod facts;
mod ports;

use super::{Cluster, ClusterError};
use crate::render::check::Finding;
use facts::Facts;

/// Looks at a cluster before warren goes there, from `namespace`'s point of view.
///
/// # Errors
/// [`ClusterError`] when the API server is not reached; anything it refuses to tell is a finding.
pub(crate) async fn before(cluster: &Cluster, namespace: &str) -> Result<Vec<Finding>, ClusterError> {
    let facts = Facts::gather(cluster, namespace, true).await?;
    Ok(before::findings(&facts))
}

/// Looks at the cluster, and at warren if it is there. The agents' own reports are the caller's to ask for.
///
/// # Errors
/// As [`before`].
pub(crate) async fn everything(
    cluster: &Cluster,
    namespace: &str,
) -> Result<(bool, Vec<Finding>), ClusterError> {
    let facts = Facts::gather(cluster, namespace, false).await?;
    let mut found = before::findings(&facts);
    if !facts.installed() {
        let todo = "`warren install` brings it there";
        found.push(Finding::warning("warren", format!("not installed in namespace {namespace}"), todo));
        return Ok((false, found));
    }
    found.extend(after::findings(&facts));
    found.extend(apps::findings(&facts));
    Ok((true, found))
}

/// `a, b, c and 4 more`: a finding is a line, however big the cluster.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
