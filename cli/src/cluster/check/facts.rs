//! Everything that is looked at, fetched once.

use crate::cluster::{Cluster, ClusterError};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{ListParams, PostParams, Request};
use kube::{Api, Resource};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;

/// Objects per page of a listing.
const PAGE: u32 = 500;

/// How long the controller may take to tell its problems: the API server's proxy waits much longer for a pod that hangs.
const PROBLEMS: Duration = Duration::from_secs(5);

/// What install does, by API group, resource, verb; the last says whether in the namespace.
const NEEDED: &[(&str, &str, &str, bool)] = &[
    ("", "namespaces", "create", false),
    ("", "namespaces", "patch", false),
    ("", "serviceaccounts", "patch", true),
    ("", "services", "patch", true),
    ("apps", "deployments", "patch", true),
    ("apps", "daemonsets", "patch", true),
    ("policy", "poddisruptionbudgets", "patch", true),
    ("networking.k8s.io", "networkpolicies", "patch", true),
    ("rbac.authorization.k8s.io", "roles", "patch", true),
    ("rbac.authorization.k8s.io", "rolebindings", "patch", true),
    ("rbac.authorization.k8s.io", "clusterroles", "patch", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", "patch", false),
    // A role may only be given by those who have it, or may escalate.
    ("rbac.authorization.k8s.io", "clusterroles", "escalate", false),
    ("rbac.authorization.k8s.io", "clusterroles", "bind", false),
];

/// A problem of the mesh's configuration, as the controller tells it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Problem {
    pub(super) place: String,
    pub(super) line: Option<u64>,
    pub(super) reason: String,
}

/// What the cluster is.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// `v1.36.2`.
    pub(super) version: String,
    pub(super) nodes: Vec<Node>,
    pub(super) namespaces: Vec<Namespace>,
    /// Without those that have ended.
    pub(super) pods: Vec<Pod>,
    pub(super) policies: Vec<NetworkPolicy>,
    /// All namespaces': other meshes show there.
    pub(super) daemon_sets: Vec<DaemonSet>,
    pub(super) deployments: Vec<Deployment>,
    /// What install needs and this user may not do: `patch daemonsets.apps`. Nothing where it was not asked.
    pub(super) forbidden: Option<Vec<String>>,
    /// The controller's problems; the error where it could not be asked. Nothing where no controller is ready.
    pub(super) problems: Option<Result<Vec<Problem>, String>>,
    /// Listings that failed, and why.
    pub(super) unseen: Vec<String>,
    /// Where warren is, or is to be.
    pub(super) namespace: String,
}

impl Facts {
    /// Asks the cluster. `rights` are of interest before an installation.
    pub(super) async fn gather(
        cluster: &Cluster,
        namespace: &str,
        rights: bool,
    ) -> Result<Self, ClusterError> {
        let version = cluster.client.apiserver_version().await;
        let version =
            version.map_err(ClusterError::doing(format!("asking {} for its version", cluster.server)))?;
        let mut facts =
            Self { version: version.git_version, namespace: namespace.to_owned(), ..Self::default() };
        let (nodes, namespaces, pods, policies, daemon_sets, deployments) = tokio::join!(
            list::<Node>(cluster, "nodes"),
            list::<Namespace>(cluster, "namespaces"),
            list::<Pod>(cluster, "pods"),
            list::<NetworkPolicy>(cluster, "networkpolicies"),
            list::<DaemonSet>(cluster, "daemonsets"),
            list::<Deployment>(cluster, "deployments"),
        );
        facts.nodes = facts.seen(nodes);
        facts.namespaces = facts.seen(namespaces);
        facts.pods = facts.seen(pods);
        facts.pods.retain(|pod| !super::apps::has_ended(pod));
        facts.policies = facts.seen(policies);
        facts.daemon_sets = facts.seen(daemon_sets);
        facts.deployments = facts.seen(deployments);
        if rights {
            facts.forbidden = Some(forbidden(cluster, namespace).await?);
        }
        let serving = facts.controller().and_then(|found| found.status.as_ref()?.ready_replicas);
        if serving.is_some_and(|replicas| replicas > 0) {
            facts.problems = Some(problems(cluster, namespace).await);
        }
        Ok(facts)
    }

    fn seen<T>(&mut self, listed: Result<Vec<T>, String>) -> Vec<T> {
        listed.unwrap_or_else(|why| {
            self.unseen.push(why);
            Vec::new()
        })
    }

    /// Warren's controller.
    pub(super) fn controller(&self) -> Option<&Deployment> {
        self.deployments.iter().find(|found| is(*found, &self.namespace, "warren-controller"))
    }

    /// Warren's agents.
    pub(super) fn agents(&self) -> Option<&DaemonSet> {
        self.daemon_sets.iter().find(|found| is(*found, &self.namespace, "warren-agent"))
    }

    /// Whether any of it is there.
    pub(super) fn installed(&self) -> bool {
        self.controller().is_some() || self.agents().is_some()
    }
}

fn is(object: &impl Resource, namespace: &str, name: &str) -> bool {
    object.meta().namespace.as_deref() == Some(namespace) && object.meta().name.as_deref() == Some(name)
}

/// A whole listing, page by page.
async fn list<K>(cluster: &Cluster, what: &str) -> Result<Vec<K>, String>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = cluster.all();
    let mut found = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let listed = api.list(&page).await.map_err(ClusterError::doing(format!("listing {what}")));
        let listed = listed.map_err(|error| error.to_string())?;
        found.extend(listed.items);
        match listed.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(found),
        }
    }
}

async fn forbidden(cluster: &Cluster, namespace: &str) -> Result<Vec<String>, ClusterError> {
    let api: Api<SelfSubjectAccessReview> = cluster.all();
    let mut forbidden = Vec::new();
    for &(group, resource, verb, namespaced) in NEEDED {
        let attributes = ResourceAttributes {
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            verb: Some(verb.to_owned()),
            namespace: namespaced.then(|| namespace.to_owned()),
            ..ResourceAttributes::default()
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
            ..Default::default()
        };
        let answer = api.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(ClusterError::doing("asking what you may do"))?;
        if !answer.status.is_some_and(|status| status.allowed) {
            let dot = if group.is_empty() { "" } else { "." };
            forbidden.push(format!("{verb} {resource}{dot}{group}"));
        }
    }
    Ok(forbidden)
}

/// The controller's own list, through the API server's service proxy.
async fn problems(cluster: &Cluster, namespace: &str) -> Result<Vec<Problem>, String> {
    let path = format!("/api/v1/namespaces/{namespace}/services/http:warren-controller:http-metrics/proxy");
    let request = Request::new(path).get("debug/problems", &Default::default());
    let request = request.map_err(|error| error.to_string())?;
    match tokio::time::timeout(PROBLEMS, cluster.client.request(request)).await {
        Ok(answer) => answer.map_err(|error| crate::cluster::explain(&error)),
        Err(_) => Err(format!("no answer within {} s", PROBLEMS.as_secs())),
    }
}
