//! Waits until what was applied runs, and says what holds it up.

use crate::cluster::{Cluster, ClusterError, pods};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rollout {
    /// The controller's Deployment.
    Controller,
    /// The agents' DaemonSet.
    Agents,
}

impl Rollout {
    /// Of the workload and its pods' label.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Controller => "warren-controller",
            Self::Agents => "warren-agent",
        }
    }

    async fn missing(self, cluster: &Cluster, namespace: &str) -> Result<Option<String>, ClusterError> {
        let name = self.name();
        let doing = || ClusterError::doing(format!("looking at {name}"));
        Ok(match self {
            Self::Controller => {
                let found = cluster.within::<Deployment>(namespace).get(name).await.map_err(doing())?;
                deployment(&found)
            }
            Self::Agents => {
                let found = cluster.within::<DaemonSet>(namespace).get(name).await.map_err(doing())?;
                daemon_set(&found)
            }
        })
    }
}

/// How waiting ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// Everything runs.
    Complete,
    /// Time is up; what is missing, and the pods that are not ready with the reason.
    Late(String, Vec<String>),
}

/// Waits for one workload until `deadline`; `say` hears how far it is, whenever that changes.
///
/// # Errors
/// [`ClusterError::Api`] when the server can't be asked; nothing is retried, the caller may.
pub(crate) async fn wait(
    cluster: &Cluster,
    namespace: &str,
    what: Rollout,
    deadline: Instant,
    mut say: impl FnMut(&str),
) -> Result<Waited, ClusterError> {
    let mut said = String::new();
    loop {
        let Some(missing) = what.missing(cluster, namespace).await? else { return Ok(Waited::Complete) };
        if missing != said {
            say(&missing);
            said.clone_from(&missing);
        }
        if Instant::now() >= deadline {
            return Ok(Waited::Late(missing, not_ready(cluster, namespace, what).await?));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The workload's pods that are not ready, a line each.
async fn not_ready(cluster: &Cluster, namespace: &str, what: Rollout) -> Result<Vec<String>, ClusterError> {
    let label = ListParams::default().labels(&format!("app.kubernetes.io/name={}", what.name()));
    let found = cluster.within::<Pod>(namespace).list(&label).await;
    let found = found.map_err(ClusterError::doing("listing the pods"))?;
    Ok(found.iter().filter(|pod| !pods::is_ready(pod)).map(pods::described).collect())
}

/// What a Deployment's rollout still lacks.
fn deployment(found: &Deployment) -> Option<String> {
    let wanted = found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = found.status.clone().unwrap_or_default();
    if status.observed_generation < found.metadata.generation {
        return Some("not looked at by Kubernetes yet".to_owned());
    }
    let updated = status.updated_replicas.unwrap_or(0).min(status.available_replicas.unwrap_or(0));
    if updated < wanted {
        return Some(format!("{updated} of {wanted} replicas ready"));
    }
    let old = status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    (old > 0).then(|| format!("{old} old replicas still there"))
}

/// What a DaemonSet's rollout still lacks.
fn daemon_set(found: &DaemonSet) -> Option<String> {
    let status = found.status.clone().unwrap_or_default();
    if status.observed_generation < found.metadata.generation {
        return Some("not looked at by Kubernetes yet".to_owned());
    }
    let wanted = status.desired_number_scheduled;
    let updated = status.updated_number_scheduled.unwrap_or(0);
    if updated < wanted {
        return Some(format!("{updated} of {wanted} nodes have the new agent"));
    }
    let ready = status.number_available.unwrap_or(0);
    (ready < wanted).then(|| format!("{ready} of {wanted} nodes ready"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_deployment_is_rolled_out_when_only_new_replicas_are_there_and_ready() {
        let table = [
            (json!({}), Some("not looked at by Kubernetes yet")),
            (json!({"observedGeneration": 1}), Some("not looked at by Kubernetes yet")),
            (
                json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1, "availableReplicas": 2}),
                Some("1 of 2 replicas ready"),
            ),
            (
                json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 3}),
                Some("1 old replicas still there"),
            ),
            (
                json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}),
                None,
            ),
        ];
        for (status, expected) in table {
            let found: Deployment = serde_json::from_value(json!({"metadata": {"generation": 2},
                "spec": {"replicas": 2, "selector": {}, "template": {}}, "status": status}))
            .unwrap();
            assert_eq!(deployment(&found).as_deref(), expected, "{status}");
        }
    }

    #[test]
    fn a_daemon_set_is_rolled_out_when_every_node_has_the_new_pod_ready() {
        let status = |updated: i32, available: i32| {
            json!({"observedGeneration": 2, "desiredNumberScheduled": 2, "updatedNumberScheduled": updated,
                   "numberAvailable": available, "currentNumberScheduled": 2, "numberMisscheduled": 0, "numberReady": 2})
        };
        let table = [
            (status(1, 2), Some("1 of 2 nodes have the new agent")),
            (status(2, 1), Some("1 of 2 nodes ready")),
            (status(2, 2), None),
        ];
        for (status, expected) in table {
            let found: DaemonSet =
                serde_json::from_value(json!({"metadata": {"generation": 2}, "status": status})).unwrap();
            assert_eq!(daemon_set(&found).as_deref(), expected);
        }
    }
}
