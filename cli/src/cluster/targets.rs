//! `deploy/cart`, `pod/cart-1`: from what a person names to pods and their nodes.

use super::{Cluster, ClusterError, pods};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ListParams;
use kube::core::Selector;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Something whose pods are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    kind: Kind,
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pod,
    Deployment,
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    Job,
    Service,
}

/// The names that kubectl knows each kind by; the first is ours.
const KINDS: &[(Kind, &[&str])] = &[
    (Kind::Pod, &["pod", "pods", "po"]),
    (Kind::Deployment, &["deployment", "deployments", "deploy"]),
    (Kind::StatefulSet, &["statefulset", "statefulsets", "sts"]),
    (Kind::DaemonSet, &["daemonset", "daemonsets", "ds"]),
    (Kind::ReplicaSet, &["replicaset", "replicasets", "rs"]),
    (Kind::Job, &["job", "jobs"]),
    (Kind::Service, &["service", "services", "svc"]),
];

impl FromStr for Target {
    type Err = String;

    /// `KIND/NAME` as kubectl takes it; a bare name is a pod's.
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once('/').unwrap_or(("pod", text));
        let kind = kind.to_ascii_lowercase();
        let found = KINDS.iter().find(|(_, names)| names.contains(&kind.as_str()));
        let Some((kind, _)) = found else {
            let known: Vec<_> = KINDS.iter().map(|(_, names)| names[names.len() - 1]).collect();
            return Err(format!(
                "{kind:?} is no kind with pods; write NAME of a pod, or KIND/NAME with {}",
                known.join(", ")
            ));
        };
        Ok(Self { kind: *kind, name: crate::args::name(name)? })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = KINDS.iter().find(|(kind, _)| *kind == self.kind).map_or("pod", |(_, names)| names[0]);
        write!(f, "{names}/{}", self.name)
    }
}

/// The pods behind a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where they run.
    pub(crate) nodes: BTreeSet<String>,
    /// What flow records call them: the pods, and the workload they belong to, for pods that are gone by now.
    pub(crate) names: BTreeSet<String>,
}

impl Target {
    /// Finds the pods.
    ///
    /// # Errors
    /// [`ClusterError`] when the target does not exist, or has no pod on any node.
    pub(crate) async fn find(&self, cluster: &Cluster, namespace: &str) -> Result<Found, ClusterError> {
        let doing = || ClusterError::doing(format!("looking for {self} in namespace {namespace}"));
        let api = cluster.within::<Pod>(namespace);
        let found = if self.kind == Kind::Pod {
            vec![api.get(&self.name).await.map_err(doing())?]
        } else {
            let selector = self.selector(cluster, namespace).await.map_err(doing())?;
            let selector = ListParams::default().labels(&selector);
            api.list(&selector).await.map_err(doing())?.items
        };
        let found = self.of(&found);
        if found.nodes.is_empty() {
            return Err(ClusterError::NotFound(format!(
                "{self} in namespace {namespace} has no pod on any node"
            )));
        }
        Ok(found)
    }

    fn of(&self, found: &[Pod]) -> Found {
        let nodes =
            found.iter().map(pods::node).filter(|node| !node.is_empty()).map(ToOwned::to_owned).collect();
        let mut names: BTreeSet<_> = found.iter().map(|pod| pods::name(pod).to_owned()).collect();
        // Records name the Deployment, not its ReplicaSets; a service's name is no workload's.
        if !matches!(self.kind, Kind::Pod | Kind::Service | Kind::ReplicaSet) {
            names.insert(self.name.clone());
        }
        Found { nodes, names }
    }

    /// The label selector of the target's pods.
    async fn selector(&self, cluster: &Cluster, namespace: &str) -> Result<String, kube::Error> {
        let name = &self.name;
        let selector = match self.kind {
            Kind::Pod => None,
            Kind::Deployment => {
                cluster.within::<Deployment>(namespace).get(name).await?.spec.map(|it| it.selector)
            }
            Kind::StatefulSet => {
                cluster.within::<StatefulSet>(namespace).get(name).await?.spec.map(|it| it.selector)
            }
            Kind::DaemonSet => {
                cluster.within::<DaemonSet>(namespace).get(name).await?.spec.map(|it| it.selector)
            }
            Kind::ReplicaSet => {
                cluster.within::<ReplicaSet>(namespace).get(name).await?.spec.map(|it| it.selector)
            }
            Kind::Job => cluster.within::<Job>(namespace).get(name).await?.spec.and_then(|it| it.selector),
            Kind::Service => cluster.within::<Service>(namespace).get(name).await?.spec.and_then(|it| {
                it.selector
                    .map(|labels| LabelSelector { match_labels: Some(labels), match_expressions: None })
            }),
        };
        Ok(words(selector))
    }
}

/// A selector as a question. Without one, nothing is selected: no label has this value.
fn words(selector: Option<LabelSelector>) -> String {
    let selector = selector.and_then(|selector| Selector::try_from(selector).ok());
    match selector {
        Some(selector) if !selector.selects_all() => selector.to_string(),
        _ => "warren.dev/none in (nothing)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn targets_are_named_as_kubectl_names_them() {
        for (text, expected) in [
            ("cart-1", "pod/cart-1"),
            ("po/cart-1", "pod/cart-1"),
            ("deploy/cart", "deployment/cart"),
            ("Deployment/cart", "deployment/cart"),
            ("sts/db", "statefulset/db"),
            ("ds/log", "daemonset/log"),
            ("job/once", "job/once"),
            ("svc/web", "service/web"),
            ("rs/web-1", "replicaset/web-1"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), expected);
        }
        for wrong in ["", "deploy/", "secret/x", "deploy/a/b", "a b", "pod/A"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn records_are_matched_by_pod_and_by_workload() {
        let pod = |name: &str, node: &str| {
            let value = json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": []}});
            serde_json::from_value::<Pod>(value).unwrap()
        };
        let pods = [pod("cart-1", "n1"), pod("cart-2", "n2"), pod("cart-3", "")];
        let names = |target: &str| target.parse::<Target>().unwrap().of(&pods).names.len();
        assert_eq!((names("deploy/cart"), names("svc/cart"), names("rs/cart-7f")), (4, 3, 3));
        assert_eq!("deploy/cart".parse::<Target>().unwrap().of(&pods).nodes.len(), 2);
    }

    #[test]
    fn a_selector_becomes_a_question_and_none_selects_nothing() {
        let selector = json!({"matchLabels": {"app": "cart"},
                              "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}]});
        let text = words(serde_json::from_value(selector).unwrap());
        assert!(text.contains("app=cart") && text.contains("tier in (a,b)"), "{text}");
        assert_eq!(words(None), words(Some(LabelSelector::default())));
        assert!(!words(None).is_empty());
    }
}
