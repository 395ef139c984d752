//! What a worker and the node forget when pods go: tunnels that are theirs, and what was remembered of them.

use crate::context::Node;
use crate::tunnel::{Pool, TunnelKey};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Between two rounds: a big configuration comes in many steps.
const PAUSE: Duration = Duration::from_millis(100);

/// Closes the worker's tunnels from and to pods that have gone: at once if nothing goes through them, else with the last
/// of what does.
pub(crate) async fn close_tunnels(tunnels: Rc<Pool>, node: Arc<Node>) {
    let mut mesh_changed = node.store.changed();
    let mut pods_changed = node.pods.changed();
    loop {
        tokio::select! {
            more = mesh_changed.changed() => if more.is_err() { return },
            more = pods_changed.changed() => if more.is_err() { return },
        }
        tunnels.close(|key| is_gone(&node, key));
        tokio::time::sleep(PAUSE).await;
    }
}

fn is_gone(node: &Node, key: &TunnelKey) -> bool {
    let mesh = node.store.guard();
    let there = mesh.workload(&key.destination);
    there.is_none_or(|there| there.enrolment.pod_uid != key.destination_pod_uid)
        || !node.pods.is_here(&key.source, &key.source_pod_uid)
}

/// Forgets what the node remembers of its own pods when they go.
pub(crate) async fn forget_clients(node: Arc<Node>) {
    let mut changed = node.pods.changed();
    while changed.changed().await.is_ok() {
        let here: HashSet<Arc<str>> = node.pods.uids().into_iter().collect();
        node.affinity.lock().retain(|client| here.contains(client));
        tokio::time::sleep(PAUSE).await;
    }
}
