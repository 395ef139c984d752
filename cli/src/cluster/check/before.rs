//! Whether warren could live here. Pure.

use super::facts::Facts;
use super::some;
use crate::render::check::Finding;
use k8s_openapi::api::core::v1::Node;

/// The oldest Kubernetes whose API has all that deploy/ says (`appArmorProfile`).
const OLDEST: (u32, u32) = (1, 30);
/// The oldest kernel that the programs load on (ARCHITECTURE.md).
const OLDEST_KERNEL: (u32, u32) = (6, 1);
/// Namespaces and DaemonSets that other meshes come with.
const OTHERS: &[(&str, &str)] = &[
    ("istio-cni-node", "Istio's CNI agent"),
    ("ztunnel", "Istio ambient's ztunnel"),
    ("linkerd-cni", "Linkerd's CNI plugin"),
];

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![version(&facts.version)];
    for why in &facts.unseen {
        let (what, _) = why.split_once('\n').unwrap_or((why, ""));
        found.push(Finding::warning("permissions", what, "what follows is judged without it"));
    }
    if let Some(forbidden) = &facts.forbidden {
        found.push(rights(forbidden));
    }
    found.push(kernels(&facts.nodes));
    found.push(runtimes(&facts.nodes));
    found.extend(others(facts));
    found
}

fn version(text: &str) -> Finding {
    let name = "Kubernetes";
    match numbers(text) {
        Some(found) if found >= OLDEST => Finding::good(name, text),
        Some(_) => {
            let (major, minor) = OLDEST;
            Finding::bad(name, format!("{text} is older than {major}.{minor}"), "upgrade the control plane")
        }
        None => Finding::warning(name, format!("{text:?} is no version"), "is this a Kubernetes API server?"),
    }
}

fn rights(forbidden: &[String]) -> Finding {
    if forbidden.is_empty() {
        return Finding::good("your rights", "enough to install");
    }
    let todo = "install as a user who may (cluster-admin), or ask one to run kubectl apply -k deploy/";
    Finding::bad("your rights", format!("you may not {}", some(forbidden)), todo)
}

fn kernels(nodes: &[Node]) -> Finding {
    let name = "kernels";
    let linux: Vec<_> =
        nodes.iter().filter_map(info).filter(|(_, info)| info.operating_system != "windows").collect();
    let old: Vec<_> = linux
        .iter()
        .filter(|(_, info)| numbers(&info.kernel_version).is_none_or(|found| found < OLDEST_KERNEL))
        .map(|(node, info)| format!("{node} ({})", info.kernel_version))
        .collect();
    if linux.is_empty() {
        return Finding::warning(name, "no Linux node", "agents run on Linux nodes only");
    }
    if old.is_empty() {
        return Finding::good(name, format!("all {} Linux nodes have 6.1 or later", linux.len()));
    }
    let todo = "upgrade the kernel there, or keep warren off with a nodeSelector: pods of those nodes can't be in the mesh";
    Finding::bad(name, format!("older than 6.1: {}", some(&old)), todo)
}

fn runtimes(nodes: &[Node]) -> Finding {
    let name = "container runtimes";
    let strange: Vec<_> = nodes
        .iter()
        .filter_map(info)
        .filter(|(_, info)| {
            let runtime = &info.container_runtime_version;
            !["containerd://", "cri-o://", "docker://"].iter().any(|known| runtime.starts_with(known))
        })
        .map(|(node, info)| format!("{node} ({})", info.container_runtime_version))
        .collect();
    if strange.is_empty() {
        return Finding::good(name, "containerd or CRI-O, in plain Linux namespaces");
    }
    let todo =
        "pods in virtual machines or user-space kernels have sockets that the node's kernel does not see";
    Finding::warning(name, format!("not known: {}", some(&strange)), todo)
}

fn info(node: &Node) -> Option<(&str, &k8s_openapi::api::core::v1::NodeSystemInfo)> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    Some((name, node.status.as_ref()?.node_info.as_ref()?))
}

fn others(facts: &Facts) -> Option<Finding> {
    let mut seen = Vec::new();
    for set in &facts.daemon_sets {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        seen.extend(OTHERS.iter().filter(|(other, _)| *other == name).map(|(_, what)| (*what).to_owned()));
    }
    for namespace in &facts.namespaces {
        let labels = namespace.metadata.labels.iter().flatten();
        let injected = labels
            .into_iter()
            .any(|(key, value)| (key == "istio-injection" && value == "enabled") || key == "istio.io/rev");
        let annotations = namespace.metadata.annotations.iter().flatten();
        let linkerd =
            annotations.into_iter().any(|(key, value)| key == "linkerd.io/inject" && value == "enabled");
        if injected || linkerd {
            let mesh = if linkerd { "Linkerd" } else { "Istio" };
            seen.push(format!(
                "{mesh} sidecars in namespace {}",
                namespace.metadata.name.as_deref().unwrap_or_default()
            ));
        }
    }
    if seen.is_empty() {
        return None;
    }
    let todo = "one mesh per pod: don't enrol namespaces that another one captures; with Istio ambient, its label \
                istio.io/dataplane-mode enrols pods in both";
    Some(Finding::warning("other meshes", some(&seen), todo))
}

/// Major and minor of `v1.36.2` or `6.1.0-13-amd64`.
pub(super) fn numbers(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim_start_matches('v').split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::check::Outcome;
    use serde_json::json;

    fn node(name: &str, kernel: &str, runtime: &str) -> Node {
        serde_json::from_value(json!({"metadata": {"name": name}, "status": {"nodeInfo": {
            "kernelVersion": kernel, "containerRuntimeVersion": runtime, "operatingSystem": "linux",
            "architecture": "", "bootID": "", "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "",
            "osImage": "", "systemUUID": ""}}}))
        .unwrap()
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for (text, expected) in [
            ("v1.36.2", Outcome::Good),
            ("v1.30.0+k3s1", Outcome::Good),
            ("v1.9.7", Outcome::Bad),
            ("v1.29.14", Outcome::Bad),
            ("", Outcome::Warning),
        ] {
            assert_eq!(version(text).result, expected, "{text}");
        }
    }

    #[test]
    fn old_kernels_are_named() {
        let good = [node("n1", "6.1.0-13-amd64", "containerd://1.7"), node("n2", "6.18.2", "cri-o://1.30")];
        assert_eq!(kernels(&good).result, Outcome::Good);
        assert_eq!(runtimes(&good).result, Outcome::Good);
        let bad =
            [node("n1", "6.1.0", "containerd://2"), node("n2", "5.15.0", "kata://3"), node("n3", "?", "")];
        let found = kernels(&bad);
        assert_eq!(
            (found.result, found.detail.as_str()),
            (Outcome::Bad, "older than 6.1: n2 (5.15.0), n3 (?)")
        );
        assert_eq!(runtimes(&bad).result, Outcome::Warning);
        assert_eq!(kernels(&[]).result, Outcome::Warning);
    }

    #[test]
    fn other_meshes_and_missing_rights_are_seen() {
        let facts = Facts {
            daemon_sets: vec![serde_json::from_value(json!({"metadata": {"name": "ztunnel"}})).unwrap()],
            namespaces: vec![
                serde_json::from_value(
                    json!({"metadata": {"name": "a", "labels": {"istio-injection": "enabled"}}}),
                )
                .unwrap(),
                serde_json::from_value(
                    json!({"metadata": {"name": "b", "annotations": {"linkerd.io/inject": "enabled"}}}),
                )
                .unwrap(),
            ],
            ..Facts::default()
        };
        let found = others(&facts).unwrap();
        assert_eq!(
            found.detail,
            "Istio ambient's ztunnel, Istio sidecars in namespace a, Linkerd sidecars in namespace b"
        );
        assert!(others(&Facts::default()).is_none());
        assert_eq!(rights(&[]).result, Outcome::Good);
        assert_eq!(rights(&["patch nodes".into()]).result, Outcome::Bad);
    }
}
