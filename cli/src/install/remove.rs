//! Takes warren out of a cluster: first the nodes, by the agents themselves, then what install made.
//!
//! ```text
//!  agents  --(every pod replaced by `warren agent --cleanup`)-->  CNI entry, kernel programs, state gone; ready
//!          --(DaemonSet deleted)-->  Deployment, RBAC ...  -->  what the controller made  -->  the namespace, if ours
//! ```

use super::apply::{Address, FIELD_MANAGER};
use super::manifests::{Settings, objects};
use super::rollout::{self, Rollout, Waited};
use crate::cluster::{Cluster, ClusterError, is_not_found};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// On a namespace that was there before us: uninstall leaves it.
pub(crate) const NOT_OURS: &str = "warren.dev/existed-before-install";
/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// The label that proves an object ours.
const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "warren");

/// Why warren is still there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoveError {
    /// The server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The embedded manifests.
    #[error(transparent)]
    Manifest(#[from] super::manifests::ManifestError),
    /// Some nodes could not be cleaned.
    #[error(
        "not every node was cleaned ({missing}):\n  {}\n  nothing was deleted yet; repair them and run this again, or give \
         --force to leave their CNI entry and kernel programs behind",
        .pods.join("\n  ")
    )]
    Nodes {
        /// How far it came.
        missing: String,
        /// The pods that did not do it.
        pods: Vec<String>,
    },
    /// An object does not go.
    #[error(
        "{0} is still there; a finalizer may hold it (kubectl get -o yaml shows its metadata.finalizers)"
    )]
    Stuck(String),
}

/// Lets every node's agent take away what it put there, and waits for it. Enrolled pods go on in plaintext.
///
/// # Errors
/// [`RemoveError::Nodes`] when `deadline` passes first.
pub(crate) async fn clean_nodes(
    cluster: &Cluster,
    namespace: &str,
    deadline: Instant,
    say: impl FnMut(&str),
) -> Result<bool, RemoveError> {
    let api = cluster.within::<DaemonSet>(namespace);
    let name = Rollout::Agents.name();
    let doing = || ClusterError::doing("telling the agents to clean up");
    if api.get_opt(name).await.map_err(doing())?.is_none() {
        return Ok(false);
    }
    api.patch(name, &PatchParams::default(), &Patch::Strategic(cleanup())).await.map_err(doing())?;
    match rollout::wait(cluster, namespace, Rollout::Agents, deadline, say).await? {
        Waited::Complete => Ok(true),
        Waited::Late(missing, pods) => Err(RemoveError::Nodes { missing, pods }),
    }
}

/// The agents' DaemonSet, so that on every node the agent ends and then its cleaner runs. All nodes at once.
fn cleanup() -> Value {
    json!({"spec": {
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "100%"}},
        "template": {"spec": {"containers": [{"name": "agent", "args": ["agent", "--cleanup"]}]}},
    }})
}

/// Deletes what install made, last made first, and what the controller made for itself.
///
/// # Errors
/// [`RemoveError::Stuck`] when something is not gone at `deadline`.
pub(crate) async fn delete(
    cluster: &Cluster,
    namespace: &str,
    deadline: Instant,
    mut say: impl FnMut(&str, &str),
) -> Result<(), RemoveError> {
    let mut ours: Vec<Address> = objects(&Settings::new(namespace))?.iter().map(Address::of).collect();
    // The namespace is the first; it has a rule of its own.
    ours.remove(0);
    ours.reverse();
    for address in &ours {
        if let Some(word) = delete_one(cluster, address, true).await? {
            say(&address.title(), word);
        }
    }
    let by_controller = |api_version: &str, kind: &str, name: &str| {
        Address::of(
            &json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace}}),
        )
    };
    let made = [
        by_controller("coordination.k8s.io/v1", "Lease", "warren-controller"),
        by_controller("v1", "ConfigMap", "warren-ca-root"),
        by_controller("v1", "ConfigMap", "warren-ca-progress"),
        by_controller("v1", "Secret", "warren-ca"),
    ];
    // A controller that still ends would make them again.
    pods_gone(cluster, namespace, deadline).await?;
    for address in &made {
        if let Some(word) = delete_one(cluster, address, false).await? {
            say(&address.title(), word);
        }
    }
    for address in ours.iter().chain(&made) {
        gone(cluster, address, deadline).await?;
    }
    leave_namespace(cluster, namespace, deadline, say).await
}

/// Deletes one object if it is ours; says how it went, nothing when it was not there.
async fn delete_one(
    cluster: &Cluster,
    address: &Address,
    labelled: bool,
) -> Result<Option<&'static str>, ClusterError> {
    let api = address.api(cluster);
    let doing = || ClusterError::doing(format!("deleting {}", address.title()));
    let Some(found) = api.get_opt(&address.name).await.map_err(doing())? else { return Ok(None) };
    if labelled && found.labels().get(PART_OF.0).map(String::as_str) != Some(PART_OF.1) {
        return Ok(Some("left alone: it does not carry warren's label"));
    }
    match api.delete(&address.name, &DeleteParams::foreground()).await {
        Ok(_) => Ok(Some("deleted")),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(doing()(error)),
    }
}

async fn gone(cluster: &Cluster, address: &Address, deadline: Instant) -> Result<(), RemoveError> {
    let api = address.api(cluster);
    loop {
        let found = api.get_opt(&address.name).await;
        let found = found.map_err(ClusterError::doing(format!("looking for {}", address.title())))?;
        let ours = |object: &kube::api::DynamicObject| object.metadata.deletion_timestamp.is_some();
        if !found.as_ref().is_some_and(ours) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(RemoveError::Stuck(address.title()));
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn pods_gone(cluster: &Cluster, namespace: &str, deadline: Instant) -> Result<(), RemoveError> {
    let api = cluster.within::<Pod>(namespace);
    let ours = ListParams::default().labels(crate::cluster::PART_OF_WARREN);
    loop {
        let found = api.list(&ours).await.map_err(ClusterError::doing("listing the pods"))?;
        let Some(first) = found.iter().next() else { return Ok(()) };
        if Instant::now() >= deadline {
            return Err(RemoveError::Stuck(format!("pod/{}", first.name_any())));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Deletes the namespace if install made it; gives one that was there before its own face back.
async fn leave_namespace(
    cluster: &Cluster,
    namespace: &str,
    deadline: Instant,
    mut say: impl FnMut(&str, &str),
) -> Result<(), RemoveError> {
    let api = cluster.all::<Namespace>();
    let doing = || ClusterError::doing(format!("deleting namespace/{namespace}"));
    let Some(found) = api.get_opt(namespace).await.map_err(doing())? else { return Ok(()) };
    let title = format!("namespace/{namespace}");
    if found.labels().get(PART_OF.0).map(String::as_str) != Some(PART_OF.1) {
        say(&title, "left alone: it does not carry warren's label");
        return Ok(());
    }
    if found.annotations().contains_key(NOT_OURS) {
        let bare = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        let params = PatchParams::apply(FIELD_MANAGER).force();
        api.patch(namespace, &params, &Patch::Apply(&bare)).await.map_err(doing())?;
        say(&title, "left: it was there before warren");
        return Ok(());
    }
    api.delete(namespace, &DeleteParams::default()).await.map_err(doing())?;
    let address =
        Address::of(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}));
    gone(cluster, &address, deadline).await?;
    say(&title, "deleted");
    Ok(())
}
