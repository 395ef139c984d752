//! Changes to a running lab, as `kubectl` and controllers make them in a cluster.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};

use super::builder::{MESH_LABEL, ServiceSpec};
use super::world::{Labels, PodRecord, ServiceRecord, World};
use super::{Lab, manifests, network};

impl Lab {
    /// Changes the world and publishes it.
    fn change(&self, edit: impl FnOnce(&mut World) -> Result<()>) -> Result<()> {
        let mut state = self.state();
        edit(&mut state.world)?;
        self.publish(&mut state)
    }

    fn change_pod(&self, name: &str, edit: impl FnOnce(&mut PodRecord)) -> Result<()> {
        self.change(|world| world.pod_mut(name).map(edit))
    }

    /// Sets or removes a label of a namespace.
    pub fn label_namespace(&self, namespace: &str, key: &str, value: Option<&str>) -> Result<()> {
        self.change(|world| {
            let labels = world.namespaces.get_mut(namespace);
            set(labels.with_context(|| format!("the lab has no namespace {namespace}"))?, key, value);
            Ok(())
        })
    }

    /// Enrols a namespace in the mesh, or releases it.
    pub fn enrol(&self, namespace: &str, in_mesh: bool) -> Result<()> {
        self.label_namespace(namespace, MESH_LABEL, in_mesh.then_some("enabled"))
    }

    /// Sets or removes a label of a pod.
    pub fn label_pod(&self, pod: &str, key: &str, value: Option<&str>) -> Result<()> {
        self.change_pod(pod, |record| set(&mut record.labels, key, value))
    }

    /// Sets or removes an annotation of a pod.
    pub fn annotate_pod(&self, pod: &str, key: &str, value: Option<&str>) -> Result<()> {
        self.change_pod(pod, |record| set(&mut record.annotations, key, value))
    }

    /// Makes a pod an endpoint of its services, or takes it out.
    pub fn set_ready(&self, pod: &str, ready: bool) -> Result<()> {
        self.change_pod(pod, |record| record.ready = ready)
    }

    /// Asks for a pod's deletion: the API says so, and its processes go on until the test ends them.
    pub fn terminate_pod(&self, pod: &str) -> Result<()> {
        self.change_pod(pod, |record| record.terminating = true)
    }

    /// Takes a node off the network, or puts it back: nothing gets to it or from it.
    pub fn plug_node(&self, node: &str, plugged: bool) -> Result<()> {
        let state = if plugged { "up" } else { "down" };
        network::order(self.fabric.netns(), &format!("link set {node} {state}\n"))
    }

    /// Takes a pod off its node's network, or puts it back.
    pub fn plug_pod(&self, pod: &str, plugged: bool) -> Result<()> {
        let link = self.pod(pod).link().clone();
        let state = if plugged { "up" } else { "down" };
        network::order(&link.node.netns, &format!("link set {} {state}\n", link.device()))
    }

    /// Whether a node hears of the controller.
    pub fn plug_controller(&self, node: &str, plugged: bool) -> Result<()> {
        let verb = if plugged { "del" } else { "add" };
        let node = self.node(node).ip4();
        network::order(self.ctl.netns(), &format!("route {verb} blackhole {node}/32\n"))
    }

    /// Adds a service.
    pub fn add_service(&self, spec: &ServiceSpec) -> Result<()> {
        self.change(|world| insert_service(world, spec))
    }

    /// Deletes a service.
    pub fn delete_service(&self, service: &str) -> Result<()> {
        self.change(|world| {
            let key = world.service_key(service)?;
            world.services.remove(&key);
            Ok(())
        })
    }

    /// Names a service's endpoints by hand; `None` returns to its selector.
    pub fn set_endpoints(&self, service: &str, pods: Option<&[&str]>) -> Result<()> {
        let pods = pods.map(|pods| pods.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>());
        self.change(|world| {
            let key = world.service_key(service)?;
            if let Some(record) = world.services.get_mut(&key) {
                record.endpoints = pods;
            }
            Ok(())
        })
    }

    /// Writes a manifest of the test's own, good or bad.
    pub fn write_manifest(&self, file: &str, text: &str) -> Result<()> {
        manifests::write_atomically(self.state().manifests.dir(), file, text)
    }

    /// The directory of all manifests.
    pub fn manifests_dir(&self) -> std::path::PathBuf {
        self.state().manifests.dir().to_owned()
    }

    /// Removes a manifest of the test's own.
    pub fn remove_manifest(&self, file: &str) -> Result<()> {
        std::fs::remove_file(self.state().manifests.dir().join(file))
            .with_context(|| format!("cannot remove {file}"))
    }

    /// Replaces the token of a node's agent by one with other claims.
    pub fn replace_token(&self, node: &str, edit: impl FnOnce(&mut serde_json::Value)) -> Result<()> {
        let uid = self.state().world.node(node)?.uid.clone();
        let mut claims = super::Tokens::agent_claims(node, &uid);
        edit(&mut claims);
        manifests::write_atomically(&self.dir.join("tokens"), node, &self.tokens.sign(&claims)?)
    }
}

fn set(labels: &mut Labels, key: &str, value: Option<&str>) {
    match value {
        Some(value) => labels.insert(key.to_owned(), value.to_owned()),
        None => labels.remove(key),
    };
}

/// Gives a service the lowest free addresses.
pub(super) fn insert_service(world: &mut World, spec: &ServiceSpec) -> Result<()> {
    let key = (spec.namespace.clone(), spec.name.clone());
    if world.services.contains_key(&key) {
        bail!("two services are called {}/{}", spec.namespace, spec.name);
    }
    let is_free = |number: &u16| world.services.values().all(|other| other.ip4 != network::vip4(*number));
    let number = (10..u16::MAX).find(is_free).context("no service address is free")?;
    let record = ServiceRecord {
        name: spec.name.clone(),
        namespace: spec.namespace.clone(),
        ports: spec.ports.clone(),
        selector: spec.selector.clone(),
        annotations: spec.annotations.clone(),
        endpoints: None,
        ip4: network::vip4(number),
        ip6: network::vip6(number),
    };
    world.namespaces.entry(spec.namespace.clone()).or_default();
    world.services.insert(key, record);
    Ok(())
}
