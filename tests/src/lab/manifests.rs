//! The lab's cluster as Kubernetes manifests: one file per object, replaced atomically, in one directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::world::{NodeRecord, PodRecord, ServiceRecord, World};

/// The directory and what was last written to it.
#[derive(Debug)]
pub(crate) struct Manifests {
    dir: PathBuf,
    written: BTreeMap<String, String>,
}

impl Manifests {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, written: BTreeMap::new() }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the directory say what `world` says: writes what changed, removes what is gone.
    pub(crate) fn sync(&mut self, world: &World) -> Result<()> {
        let wanted = objects(world)
            .into_iter()
            .map(|(name, object)| Ok((name, serde_saphyr::to_string(&object).context("cannot write YAML")?)))
            .collect::<Result<BTreeMap<_, _>>>()?;
        for (name, text) in &wanted {
            if self.written.get(name) != Some(text) {
                write_atomically(&self.dir, name, text)?;
            }
        }
        for name in self.written.keys().filter(|name| !wanted.contains_key(*name)) {
            fs::remove_file(self.dir.join(name)).with_context(|| format!("cannot remove {name}"))?;
        }
        self.written = wanted;
        Ok(())
    }
}

/// Replaces a file in one step; the new one grows outside the watched directory.
pub(crate) fn write_atomically(dir: &Path, name: &str, text: &str) -> Result<()> {
    let target = dir.join(name);
    let fresh = dir.parent().unwrap_or(dir).join(format!(".new-{name}"));
    fs::write(&fresh, text).with_context(|| format!("cannot write {}", fresh.display()))?;
    fs::rename(&fresh, &target).with_context(|| format!("cannot write {}", target.display()))
}

/// Every object with its file name.
fn objects(world: &World) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for (name, labels) in &world.namespaces {
        let object = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": { "name": name, "labels": labels },
        });
        all.insert(format!("namespace-{name}.yaml"), object);
    }
    for record in &world.nodes {
        all.insert(format!("node-{}.yaml", record.name), node(record));
    }
    for record in world.pods.values() {
        all.insert(format!("pod-{}-{}.yaml", record.namespace, record.name), pod(record));
        let (account, namespace) = (&record.service_account, &record.namespace);
        let object = json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": { "name": account, "namespace": namespace },
        });
        all.insert(format!("serviceaccount-{namespace}-{account}.yaml"), object);
    }
    for ((namespace, name), record) in &world.services {
        all.insert(format!("service-{namespace}-{name}.yaml"), service(record));
        for family in ["IPv4", "IPv6"] {
            let file = format!("endpointslice-{namespace}-{name}-{}.yaml", family.to_lowercase());
            all.insert(file, endpoint_slice(world, record, family));
        }
    }
    all
}

fn node(record: &NodeRecord) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": record.name,
            "uid": record.uid,
            "labels": {
                "kubernetes.io/hostname": record.name,
                "topology.kubernetes.io/region": "lab",
                "topology.kubernetes.io/zone": format!("lab-{}", record.number),
            },
        },
        "status": {
            "addresses": [
                { "type": "InternalIP", "address": record.ip4 },
                { "type": "InternalIP", "address": record.ip6 },
                { "type": "Hostname", "address": record.name },
            ],
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

fn pod(record: &PodRecord) -> Value {
    let mut metadata = json!({
        "name": record.name,
        "namespace": record.namespace,
        "uid": record.uid,
        "labels": record.labels,
    });
    if !record.annotations.is_empty() {
        metadata["annotations"] = json!(record.annotations);
    }
    if record.terminating {
        metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        metadata["deletionGracePeriodSeconds"] = json!(30);
    }
    if let Some(owner) = &record.owner {
        metadata["ownerReferences"] =
            json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "controller": true }]);
    }
    let ready = if record.ready && record.addressed { "True" } else { "False" };
    let mut status = json!({
        "phase": if record.addressed { "Running" } else { "Pending" },
        "hostIP": record.node_ip4,
        "conditions": [{ "type": "Ready", "status": ready }],
    });
    if record.addressed {
        status["podIP"] = json!(record.ip4);
        status["podIPs"] = json!([{ "ip": record.ip4 }, { "ip": record.ip6 }]);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "nodeName": record.node,
            "serviceAccountName": record.service_account,
            "containers": [{ "name": "app", "image": "warren.dev/lab" }],
        },
        "status": status,
    })
}

fn service(record: &ServiceRecord) -> Value {
    let port = |port: &super::world::Port| {
        let mut object =
            json!({ "name": port.name, "port": port.port, "targetPort": port.target, "protocol": "TCP" });
        if let Some(protocol) = &port.app_protocol {
            object["appProtocol"] = json!(protocol);
        }
        object
    };
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": record.name,
            "namespace": record.namespace,
            "annotations": record.annotations,
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": record.ip4,
            "clusterIPs": [record.ip4, record.ip6],
            "ipFamilies": ["IPv4", "IPv6"],
            "ipFamilyPolicy": "PreferDualStack",
            "selector": record.selector,
            "ports": record.ports.iter().map(port).collect::<Vec<_>>(),
        },
    })
}

fn endpoint_slice(world: &World, record: &ServiceRecord, family: &str) -> Value {
    let endpoint = |pod: &PodRecord| {
        let address = if family == "IPv4" { pod.ip4.to_string() } else { pod.ip6.to_string() };
        json!({
            "addresses": [address],
            "conditions": {
                "ready": pod.ready && !pod.terminating,
                "serving": pod.ready,
                "terminating": pod.terminating,
            },
            "nodeName": pod.node,
            "targetRef": { "kind": "Pod", "name": pod.name, "namespace": pod.namespace, "uid": pod.uid },
        })
    };
    let port =
        |port: &super::world::Port| json!({ "name": port.name, "port": port.target, "protocol": "TCP" });
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{}-{}", record.name, family.to_lowercase()),
            "namespace": record.namespace,
            "labels": { "kubernetes.io/service-name": record.name },
        },
        "addressType": family,
        "endpoints": world.endpoints(record).map(endpoint).collect::<Vec<_>>(),
        "ports": record.ports.iter().map(port).collect::<Vec<_>>(),
    })
}
