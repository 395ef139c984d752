//! Applies objects on the server's side, under a field manager of our own.

use crate::cluster::{Cluster, ClusterError, is_not_found};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt};
use serde_json::Value;

/// Whose fields ours are.
pub(crate) const FIELD_MANAGER: &str = "warren";

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// It was not there.
    Created,
    /// It was there and was another.
    Configured,
    /// It already was as it should be.
    Unchanged,
}

impl Applied {
    /// As kubectl says it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        }
    }
}

/// How objects are applied.
#[derive(Clone, Debug, Default)]
pub(crate) struct How {
    /// The server checks everything and keeps nothing.
    pub(crate) dry_run: bool,
    /// Namespaced objects are tried in this namespace, because their own does not exist yet. Dry runs only.
    pub(crate) stand_in: Option<String>,
}

/// Where an object lives: found by its own words, without asking the server.
pub(crate) struct Address {
    pub(crate) resource: ApiResource,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

impl Address {
    /// Of an object of ours; every one of them is of a kind whose plural is regular.
    pub(crate) fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
        let namespace = object["metadata"]["namespace"].as_str().map(ToOwned::to_owned);
        Self { resource, namespace, name: text(&object["metadata"]["name"]) }
    }

    /// `daemonset.apps/warren-agent`, as kubectl says it.
    pub(crate) fn title(&self) -> String {
        let kind = self.resource.kind.to_ascii_lowercase();
        let group = &self.resource.group;
        let dot = if group.is_empty() { "" } else { "." };
        format!("{kind}{dot}{group}/{}", self.name)
    }

    /// The API that serves it.
    pub(crate) fn api(&self, cluster: &Cluster) -> Api<DynamicObject> {
        let client = cluster.client.clone();
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &self.resource),
            None => Api::all_with(client, &self.resource),
        }
    }
}

/// Applies one object.
///
/// # Errors
/// [`ClusterError::Api`] with what the server said.
pub(crate) async fn apply(cluster: &Cluster, object: &Value, how: &How) -> Result<Applied, ClusterError> {
    let mut object = object.clone();
    if let (Some(stand_in), true) = (&how.stand_in, object["metadata"]["namespace"].is_string()) {
        object["metadata"]["namespace"] = Value::from(stand_in.as_str());
    }
    let address = Address::of(&object);
    let api = address.api(cluster);
    let title = address.title();
    let before = match api.get_opt(&address.name).await {
        Ok(found) => found,
        Err(error) if is_not_found(&error) => None,
        Err(error) => return Err(ClusterError::doing(format!("looking for {title}"))(error)),
    };
    let mut params = PatchParams::apply(FIELD_MANAGER).validation_strict();
    // Every field of our objects is ours, whoever wrote it last.
    (params.dry_run, params.force) = (how.dry_run, true);
    let after = api
        .patch(&address.name, &params, &Patch::Apply(&object))
        .await
        .map_err(ClusterError::doing(format!("applying {title}")))?;
    Ok(match before {
        None => Applied::Created,
        Some(before) if before.resource_version() == after.resource_version() => Applied::Unchanged,
        Some(_) => Applied::Configured,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::manifests::{NAMESPACE, Settings, objects};

    #[test]
    fn every_object_of_ours_has_the_address_that_kubernetes_gives_it() {
        let paths: Vec<_> = objects(&Settings::new(NAMESPACE))
            .unwrap()
            .iter()
            .map(Address::of)
            .map(|address| {
                format!("{} {} {}", address.resource.plural, address.namespace.is_some(), address.title())
            })
            .collect();
        assert_eq!(
            paths,
            [
                "namespaces false namespace/warren-system",
                "serviceaccounts true serviceaccount/warren-agent",
                "serviceaccounts true serviceaccount/warren-controller",
                "clusterroles false clusterrole.rbac.authorization.k8s.io/warren-controller",
                "clusterrolebindings false clusterrolebinding.rbac.authorization.k8s.io/warren-controller",
                "roles true role.rbac.authorization.k8s.io/warren-controller",
                "rolebindings true rolebinding.rbac.authorization.k8s.io/warren-controller",
                "services true service/warren-controller",
                "poddisruptionbudgets true poddisruptionbudget.policy/warren-controller",
                "deployments true deployment.apps/warren-controller",
                "daemonsets true daemonset.apps/warren-agent",
                "networkpolicies true networkpolicy.networking.k8s.io/warren-controller",
                "networkpolicies true networkpolicy.networking.k8s.io/warren-agent",
            ]
        );
    }
}
