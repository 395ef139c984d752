//! Brings warren into a cluster and out of it again.

pub(crate) mod apply;
pub(crate) mod manifests;
pub(crate) mod remove;
pub(crate) mod rollout;

use crate::cluster::{Cluster, ClusterError, PART_OF_WARREN};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

/// The namespace of another installation: two agents on a node would take each other's programs over.
///
/// # Errors
/// [`ClusterError::Api`].
pub(crate) async fn elsewhere(cluster: &Cluster, namespace: &str) -> Result<Option<String>, ClusterError> {
    let ours = ListParams::default().labels(PART_OF_WARREN);
    let found = cluster.all::<DaemonSet>().list(&ours).await;
    let found = found.map_err(ClusterError::doing("looking for an installation"))?;
    Ok(found.iter().filter_map(ResourceExt::namespace).find(|other| other != namespace))
}

/// Whether the namespace exists. One that was there before warren is marked, so that uninstall leaves it.
///
/// # Errors
/// [`ClusterError::Api`].
pub(crate) async fn keep_namespace(
    cluster: &Cluster,
    objects: &mut [Value],
    namespace: &str,
) -> Result<bool, ClusterError> {
    let found = cluster.all::<Namespace>().get_opt(namespace).await;
    let found = found.map_err(ClusterError::doing(format!("looking for namespace/{namespace}")))?;
    let Some(found) = found else { return Ok(false) };
    let marked = found.annotations().contains_key(remove::NOT_OURS);
    let ours = found.labels().get("app.kubernetes.io/part-of").is_some_and(|part| part == "warren");
    if marked || !ours {
        for object in objects.iter_mut().filter(|object| object["kind"] == "Namespace") {
            object["metadata"]["annotations"] = json!({ remove::NOT_OURS: "true" });
        }
    }
    Ok(true)
}
