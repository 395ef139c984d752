//! What applications bring along that keeps them from being in the mesh. Pure.

use super::facts::Facts;
use super::ports::admits;
use super::some;
use crate::cluster::pods;
use crate::render::check::Finding;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use std::collections::BTreeMap;

/// Ports of a pod in the mesh that are the agent's.
const OURS: &[u16] = &[15001, 15006, 15008, 15053];
/// Where tunnels arrive.
const HBONE: u16 = 15008;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let namespaces: BTreeMap<&str, &Namespace> =
        facts.namespaces.iter().filter_map(|it| Some((it.metadata.name.as_deref()?, it))).collect();
    let wanted: Vec<&Pod> = facts
        .pods
        .iter()
        .filter(|pod| enrolled(pod, namespaces.get(namespace(pod)).copied()) == Some(true))
        .collect();
    let host = wanted.iter().filter(|pod| host_network(pod) && labelled(pod)).map(|pod| title(pod));
    let host: Vec<_> = host.collect();
    let meshed: Vec<&Pod> = wanted.iter().filter(|pod| !host_network(pod)).copied().collect();
    let mut found = vec![Finding::good("mesh", format!("{} pods are to be in the mesh", meshed.len()))];
    if !host.is_empty() {
        let todo = "pods on the node's network can't be told from the node; remove the label, or hostNetwork";
        found.push(Finding::warning("labelled in vain", format!("hostNetwork: {}", some(&host)), todo));
    }
    found.push(port_clashes(&meshed));
    found.push(blocked(&meshed, &facts.policies));
    found
}

/// Whether labels ask for the mesh; nothing where they say nothing. As the controller reads them: the pod's word
/// before its namespace's, our key before Istio's.
fn enrolled(pod: &Pod, namespace: Option<&Namespace>) -> Option<bool> {
    let said = |labels: Option<&BTreeMap<String, String>>| {
        let labels = labels?;
        match labels.get("warren.dev/mesh").map(String::as_str) {
            Some("enabled") => return Some(true),
            Some("disabled") => return Some(false),
            _ => {}
        }
        match labels.get("istio.io/dataplane-mode").map(String::as_str) {
            Some("ambient") => Some(true),
            Some("none") => Some(false),
            _ => None,
        }
    };
    said(pod.metadata.labels.as_ref()).or_else(|| said(namespace?.metadata.labels.as_ref()))
}

fn labelled(pod: &Pod) -> bool {
    enrolled(pod, None) == Some(true)
}

/// A pod that has done its work has no sockets any more.
pub(super) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
}

fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

fn title(pod: &Pod) -> String {
    format!("{}/{}", namespace(pod), pods::name(pod))
}

fn port_clashes(meshed: &[&Pod]) -> Finding {
    let name = "ports";
    let mut clashes = Vec::new();
    for pod in meshed {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        for port in containers.flat_map(|container| container.ports.iter().flatten()) {
            if u16::try_from(port.container_port).is_ok_and(|port| OURS.contains(&port)) {
                clashes.push(format!("{} ({})", title(pod), port.container_port));
            }
        }
    }
    if clashes.is_empty() {
        return Finding::good(name, "no pod of the mesh uses 15001, 15006, 15008 or 15053 itself");
    }
    let todo =
        "the agent listens there inside the pod and cannot enrol it; move the application to another port";
    Finding::bad(name, some(&clashes), todo)
}

fn blocked(meshed: &[&Pod], policies: &[NetworkPolicy]) -> Finding {
    let name = "NetworkPolicies";
    let blocked: Vec<_> = meshed
        .iter()
        .filter_map(|pod| {
            let by: Vec<_> = policies.iter().filter(|policy| isolates(policy, pod)).collect();
            let closed = !by.is_empty() && !by.iter().any(|policy| admits(policy, HBONE));
            closed.then(|| {
                let names: Vec<_> = by.iter().filter_map(|policy| policy.metadata.name.clone()).collect();
                format!("{} (by {})", title(pod), names.join(", "))
            })
        })
        .collect();
    if blocked.is_empty() {
        return Finding::good(name, "none blocks 15008, where tunnels arrive");
    }
    let todo = "add an ingress rule with port 15008 from the pods of the mesh; which of them may connect to what is still \
                decided by identity";
    Finding::bad(name, format!("15008 is closed: {}", some(&blocked)), todo)
}

/// Whether the policy limits what may reach the pod.
fn isolates(policy: &NetworkPolicy, pod: &Pod) -> bool {
    let Some(spec) = &policy.spec else { return false };
    let ingress = spec.policy_types.as_ref().is_none_or(|kinds| kinds.iter().any(|kind| kind == "Ingress"));
    let here = policy.metadata.namespace.as_deref() == pod.metadata.namespace.as_deref();
    here && ingress && selects(spec.pod_selector.as_ref(), pod)
}

fn selects(selector: Option<&LabelSelector>, pod: &Pod) -> bool {
    let Some(selector) = selector else { return true };
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(&labels))
}

#[cfg(test)]
#[path = "apps_tests.rs"]
mod tests;
