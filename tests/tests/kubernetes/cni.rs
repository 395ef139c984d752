//! The CNI plugin beside a real kubelet: its place in the node's configuration, and pods that no API server has made.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use warren_tests::cluster::{Cluster, ClusterNode, Namespace, SOON, service};

const CONFIGURATION: &str = "/etc/cni/net.d/10-pods.conflist";

/// The plugins' names in their order.
fn chain(node: &ClusterNode) -> Result<Vec<String>> {
    let list: Value =
        serde_json::from_str(&node.read(CONFIGURATION)?).context("the configuration is not JSON")?;
    let plugins = list["plugins"].as_array().context("no plugins")?;
    Ok(plugins.iter().map(|plugin| plugin["type"].as_str().unwrap_or_default().to_owned()).collect())
}

/// A pod says something to `echo` and hears it again.
fn greets(namespace: &Namespace<'_>, pod: &str) -> Result<()> {
    let said = namespace.exec_json(pod, &["connect", "--to", "echo:80", "--send", "hello"])?;
    ensure!(said["text"] == "hello", "{said}");
    Ok(())
}

#[test]
fn our_entry_comes_back_when_the_networks_provider_writes_its_configuration_anew() {
    Cluster::test(|cluster| {
        let namespace = cluster.meshed("mesh-chain")?;
        let node = &cluster.nodes()[0];
        let chained = ["ptp", "portmap", "warren-cni"];
        ensure!(chain(node)? == chained, "{:?}", chain(node)?);
        let mut list: Value = serde_json::from_str(&node.read(CONFIGURATION)?)?;
        list["plugins"].as_array_mut().context("no plugins")?.retain(|plugin| plugin["type"] != "warren-cni");
        // As an upgrade of the network's provider does; with a change of its own, which must stay.
        list["plugins"][0]["mtu"] = 1400.into();
        node.write(CONFIGURATION, &list.to_string())?;
        namespace.until("the entry to come back", SOON, || {
            let chain = chain(node)?;
            ensure!(chain == chained, "the chain is {chain:?}");
            Ok(())
        })?;
        let repaired: Value = serde_json::from_str(&node.read(CONFIGURATION)?)?;
        ensure!(repaired["plugins"][0]["mtu"] == 1400, "the provider's change is lost: {repaired}");
        // And a pod starts through it, in the mesh.
        namespace.apply([
            cluster.server("echo", "echo", 9000).on(&node.name).alone(),
            service("echo", 80, 9000),
        ])?;
        namespace.pod_ready("echo")?;
        namespace.apply([cluster.client("client").on(&cluster.nodes()[1].name).alone()])?;
        namespace.pod_ready("client")?;
        greets(&namespace, "client")?;
        cluster.flow("mesh-chain", |flow| flow["direction"] == "inbound" && flow["transport"] == "hbone")?;
        list["plugins"][0]["mtu"] = 1500.into();
        node.write(CONFIGURATION, &list.to_string())?;
        namespace.until("the entry to come back", SOON, || {
            let chain = chain(node)?;
            ensure!(chain == chained, "the chain is {chain:?}");
            Ok(())
        })
    });
}

/// A static pod's manifest on a node; dropping it takes the pod away.
struct Manifest<'a> {
    node: &'a ClusterNode,
    path: String,
}

impl Drop for Manifest<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.node.remove(&self.path) {
            eprintln!("a static pod stays: {error:#}");
        }
    }
}

#[test]
fn a_static_pod_is_in_the_mesh_like_any_other() {
    Cluster::test(|cluster| {
        let namespace = cluster.meshed("mesh-static")?;
        let (node, other) = (&cluster.nodes()[0], &cluster.nodes()[1]);
        namespace.apply([
            cluster.server("echo", "echo", 9000).on(&other.name).alone(),
            service("echo", 80, 9000),
        ])?;
        namespace.pod_ready("echo")?;
        let mut pod = cluster.client("static").alone();
        pod["metadata"]["namespace"] = namespace.name().into();
        let manifest = Manifest { node, path: "/etc/kubernetes/manifests/static.json".to_owned() };
        node.write(&manifest.path, &pod.to_string())?;
        let mirror = format!("static-{}", node.name);
        namespace
            .until("the static pod", SOON, || namespace.kubectl(&["get", "pod", &mirror]).map(|_| ()))?;
        namespace.pod_ready(&mirror)?;
        greets(&namespace, &mirror)?;
        cluster.flow("mesh-static", |flow| {
            flow["direction"] == "inbound"
                && flow["transport"] == "hbone"
                && flow["source"]["identity"] == "spiffe://cluster.local/ns/mesh-static/sa/default"
        })?;
        drop(manifest);
        namespace.until("the static pod to go", SOON, || {
            let pods = namespace.kubectl(&["get", "pods", "-o", "name"])?;
            ensure!(!pods.contains(&mirror), "{pods}");
            Ok(())
        })
    });
}
