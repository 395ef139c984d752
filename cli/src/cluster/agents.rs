//! The agents' pods, and a way into them: the API server's port-forward to the loopback port of the admin API.

use super::{Cluster, ClusterError, pods};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use std::collections::BTreeMap;
use std::future::Future;
use tokio::io::DuplexStream;

/// What finds the agents' pods.
const AGENTS: &str = "app.kubernetes.io/name=warren-agent,app.kubernetes.io/part-of=warren";
/// What finds the controller's replicas.
const CONTROLLERS: &str = "app.kubernetes.io/name=warren-controller,app.kubernetes.io/part-of=warren";
/// Where agents are looked for by those who may not list all namespaces.
const USUAL_NAMESPACE: &str = "warren-system";
/// `WARREN_ADMIN_ADDRESS` in deploy/agent.yaml.
const ADMIN_PORT: u16 = 15000;

/// An agent in its pod.
#[derive(Clone)]
pub(crate) struct AgentPod {
    api: Api<Pod>,
    /// The pod's name.
    pub(crate) name: String,
    /// The agent's node.
    pub(crate) node: String,
}

impl AgentPod {
    /// Opens a connection to the admin API. The second part completes, with a reason if there is one, when the
    /// connection is of no use any more.
    ///
    /// # Errors
    /// [`ClusterError::Api`] when the API server does not forward.
    pub(crate) async fn connect(
        &self,
    ) -> Result<(DuplexStream, impl Future<Output = Option<String>> + Send + use<>), ClusterError> {
        let what = || format!("forwarding a port of pod/{}", self.name);
        let mut forward =
            self.api.portforward(&self.name, &[ADMIN_PORT]).await.map_err(ClusterError::doing(what()))?;
        let (stream, error) = (forward.take_stream(ADMIN_PORT), forward.take_error(ADMIN_PORT));
        match (stream, error) {
            (Some(stream), Some(error)) => Ok((stream, error)),
            // It is given once, and this is the once.
            _ => Err(ClusterError::NotFound(format!("{}: no stream", what()))),
        }
    }
}

/// The agents of all nodes, or of `node` alone: one per node, ordered by node.
///
/// # Errors
/// [`ClusterError`] when the pods can't be listed, or there is no agent at all.
pub(crate) async fn agents(cluster: &Cluster, node: Option<&str>) -> Result<Vec<AgentPod>, ClusterError> {
    let listed = list(cluster, AGENTS).await?;
    let chosen = choose(listed);
    if chosen.is_empty() {
        return Err(ClusterError::NotFound(format!(
            "no agent of warren runs in {}\n  `warren install` brings it there; `warren check` says what is wrong with one that is",
            cluster.server
        )));
    }
    let agent = |(node, pod): (String, Pod)| AgentPod {
        api: cluster.within(pod.metadata.namespace.as_deref().unwrap_or(USUAL_NAMESPACE)),
        name: pods::name(&pod).to_owned(),
        node,
    };
    let found: Vec<_> =
        chosen.into_iter().filter(|(name, _)| node.is_none_or(|wanted| name == wanted)).map(agent).collect();
    match node {
        Some(node) if found.is_empty() => {
            let hint = "`kubectl get nodes` shows the names, `warren check` why an agent is not there";
            Err(ClusterError::NotFound(format!("no agent runs on node {node}\n  {hint}")))
        }
        _ => Ok(found),
    }
}

/// A replica of the controller that most likely answers: whatever it is told, the others follow.
///
/// # Errors
/// [`ClusterError`] when the pods can't be listed, or none runs.
pub(crate) async fn controllers(cluster: &Cluster) -> Result<AgentPod, ClusterError> {
    let chosen = choose(list(cluster, CONTROLLERS).await?);
    let best = chosen.into_iter().max_by_key(|(_, pod)| (!pods::is_ending(pod), pods::is_ready(pod)));
    let (node, pod) = best.ok_or_else(|| {
        let hint = "`warren check` says what is wrong with one that is installed";
        ClusterError::NotFound(format!("no controller of warren runs in {}\n  {hint}", cluster.server))
    })?;
    let api = cluster.within(pod.metadata.namespace.as_deref().unwrap_or(USUAL_NAMESPACE));
    Ok(AgentPod { api, name: pods::name(&pod).to_owned(), node })
}

async fn list(cluster: &Cluster, labels: &str) -> Result<Vec<Pod>, ClusterError> {
    let ours = ListParams::default().labels(labels);
    let found = match cluster.all::<Pod>().list(&ours).await {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            cluster.within::<Pod>(USUAL_NAMESPACE).list(&ours).await
        }
        found => found,
    };
    Ok(found.map_err(ClusterError::doing("looking for warren's pods"))?.items)
}

/// The pod of every node that most likely answers: running, rather ready than not, rather the newest.
fn choose(listed: Vec<Pod>) -> BTreeMap<String, Pod> {
    let worth = |pod: &Pod| {
        let started = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (!pods::is_ending(pod), pods::is_ready(pod), started)
    };
    let mut chosen: BTreeMap<String, Pod> = BTreeMap::new();
    for pod in listed {
        let running = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
        let node = pods::node(&pod).to_owned();
        if running && chosen.get(&node).is_none_or(|best| worth(best) < worth(&pod)) {
            chosen.insert(node, pod);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn of_two_agents_of_a_node_the_better_one_is_asked() {
        let pod = |name: &str, node: &str, made: u8, phase: &str, ready: &str, ending: bool| {
            let ending = if ending { json!("2026-05-04T10:00:00Z") } else { json!(null) };
            serde_json::from_value::<Pod>(json!({
                "metadata": {"name": name, "creationTimestamp": format!("2026-05-04T0{made}:00:00Z"),
                             "deletionTimestamp": ending},
                "spec": {"nodeName": node, "containers": []},
                "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}}))
            .unwrap()
        };
        let chosen = choose(vec![
            pod("old", "n1", 1, "Running", "True", true),
            pod("new", "n1", 2, "Running", "True", false),
            pod("ready", "n2", 1, "Running", "True", false),
            pod("starts", "n2", 2, "Running", "False", false),
            pod("waits", "n3", 1, "Pending", "False", false),
            pod("alone", "n4", 1, "Running", "False", true),
        ]);
        let names: Vec<_> = chosen.iter().map(|(node, pod)| (node.as_str(), pods::name(pod))).collect();
        assert_eq!(names, [("n1", "new"), ("n2", "ready"), ("n4", "alone")]);
    }
}
