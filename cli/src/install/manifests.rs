//! The manifests of `deploy/`, embedded, and patched as data: there is one source of truth. Pure.

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// In the order of deploy/kustomization.yaml, which is the order they are applied in.
const FILES: &[(&str, &str)] = &[
    ("namespace.yaml", include_str!("../../../deploy/namespace.yaml")),
    ("rbac.yaml", include_str!("../../../deploy/rbac.yaml")),
    ("controller.yaml", include_str!("../../../deploy/controller.yaml")),
    ("agent.yaml", include_str!("../../../deploy/agent.yaml")),
    ("network-policies.yaml", include_str!("../../../deploy/network-policies.yaml")),
];

/// Without a tag; the release's own version is it.
const IMAGE: &str = "ghcr.io/warren-mesh/warren";
/// Where everything goes unless told otherwise.
pub(crate) const NAMESPACE: &str = "warren-system";

/// What may differ from `deploy/`.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Namespace of warren's own objects.
    pub(crate) namespace: String,
    /// Image of agent and controller.
    pub(crate) image: String,
    /// `Always`, `IfNotPresent` or `Never`; Kubernetes' own rule if not given.
    pub(crate) pull_policy: Option<String>,
    /// Replicas of the controller.
    pub(crate) replicas: Option<u32>,
    /// Environment of the controller, which its flags are read from.
    pub(crate) controller_env: BTreeMap<String, String>,
    /// Environment of the agents.
    pub(crate) agent_env: BTreeMap<String, String>,
    /// Directory of the node's CNI plugins.
    pub(crate) cni_bin_dir: Option<String>,
    /// Directory of the node's CNI configuration.
    pub(crate) cni_conf_dir: Option<String>,
}

impl Settings {
    /// As `deploy/` has it.
    pub(crate) fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            image: default_image(),
            pull_policy: None,
            replicas: None,
            controller_env: BTreeMap::new(),
            agent_env: BTreeMap::new(),
            cni_bin_dir: None,
            cni_conf_dir: None,
        }
    }
}

/// The image of this version.
pub(crate) fn default_image() -> String {
    format!("{IMAGE}:{}", env!("CARGO_PKG_VERSION"))
}

/// The embedded manifests are not what this code takes them for. A test keeps this from being shipped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    /// A file that is no YAML.
    #[error("deploy/{file}: {error}")]
    Yaml {
        /// Which.
        file: &'static str,
        /// Why.
        error: String,
    },
    /// An object without something that is to be changed.
    #[error("deploy/: {0} is missing")]
    Missing(String),
}

/// Everything to apply, in order.
///
/// # Errors
/// [`ManifestError`] when the embedded files have lost what a setting changes.
pub(crate) fn objects(settings: &Settings) -> Result<Vec<Value>, ManifestError> {
    let mut objects = Vec::new();
    for (file, text) in FILES {
        let parsed: Vec<Value> = serde_saphyr::from_multiple(text)
            .map_err(|error| ManifestError::Yaml { file, error: error.to_string() })?;
        objects.extend(parsed);
    }
    for object in &mut objects {
        move_to(object, &settings.namespace);
        match object["kind"].as_str() {
            Some("Deployment") => {
                let container = container(object, "controller")?;
                set_image(container, settings);
                set_env(container, &settings.controller_env);
                if let Some(replicas) = settings.replicas {
                    object["spec"]["replicas"] = json!(replicas);
                }
            }
            Some("DaemonSet") => {
                let container = container(object, "agent")?;
                set_image(container, settings);
                set_env(container, &settings.agent_env);
                set_host_path(object, "cni-bin", settings.cni_bin_dir.as_deref())?;
                set_host_path(object, "cni-conf", settings.cni_conf_dir.as_deref())?;
            }
            _ => {}
        }
    }
    Ok(objects)
}

/// As a stream of YAML documents.
///
/// # Errors
/// [`ManifestError::Yaml`] when an object cannot be written.
pub(crate) fn yaml(objects: &[Value]) -> Result<String, ManifestError> {
    let wrong = |error: &dyn ToString| ManifestError::Yaml { file: "", error: error.to_string() };
    let documents: Result<Vec<_>, _> =
        objects.iter().map(|object| serde_saphyr::to_string(object).map_err(|error| wrong(&error))).collect();
    Ok(documents?.join("---\n"))
}

fn move_to(object: &mut Value, namespace: &str) {
    if object["kind"] == "Namespace" {
        object["metadata"]["name"] = json!(namespace);
    } else if object["metadata"]["namespace"].is_string() {
        object["metadata"]["namespace"] = json!(namespace);
    }
    // `object["subjects"]` would add one where there is none.
    let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
    for subject in subjects.into_iter().flatten() {
        subject["namespace"] = json!(namespace);
    }
}

fn container<'a>(object: &'a mut Value, name: &str) -> Result<&'a mut Value, ManifestError> {
    let containers = object["spec"]["template"]["spec"]["containers"].as_array_mut();
    containers
        .and_then(|containers| containers.iter_mut().find(|container| container["name"] == name))
        .ok_or_else(|| ManifestError::Missing(format!("the container {name}")))
}

fn set_image(container: &mut Value, settings: &Settings) {
    container["image"] = json!(settings.image);
    if let Some(policy) = &settings.pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
}

fn set_env(container: &mut Value, wanted: &BTreeMap<String, String>) {
    if !container["env"].is_array() {
        container["env"] = json!([]);
    }
    let Some(env) = container["env"].as_array_mut() else { return };
    for (name, value) in wanted {
        env.retain(|variable| variable["name"] != *name);
        env.push(json!({"name": name, "value": value}));
    }
}

fn set_host_path(object: &mut Value, volume: &str, path: Option<&str>) -> Result<(), ManifestError> {
    let Some(path) = path else { return Ok(()) };
    let volumes = object["spec"]["template"]["spec"]["volumes"].as_array_mut();
    let found = volumes.and_then(|volumes| volumes.iter_mut().find(|other| other["name"] == volume));
    let found = found.ok_or_else(|| ManifestError::Missing(format!("the volume {volume}")))?;
    found["hostPath"]["path"] = json!(path);
    Ok(())
}

#[cfg(test)]
#[path = "manifests_tests.rs"]
mod tests;
