//! Ends what `up` started and removes what it made, however far it came.

use std::time::Duration;

use anyhow::Result;

use super::layout::{Layout, NODES};
use super::{cgroup, control_plane, daemon, network, node};

/// How long a daemon may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ends and removes everything. Every step is fine with nothing to do.
pub(crate) fn all(layout: &Layout) -> Result<()> {
    // With its first process the kernel kills all others of a node and unmounts everything.
    for node in NODES {
        daemon::end(&layout.record(&node::daemon_name(node, "init")), Duration::ZERO)?;
    }
    for name in control_plane::DAEMONS {
        daemon::end(&layout.record(name), PATIENCE)?;
    }
    for record in layout.records() {
        daemon::end(&record, PATIENCE)?;
    }
    for node in NODES {
        cgroup::remove(layout, node)?;
    }
    network::remove(layout)?;
    layout.remove()
}
