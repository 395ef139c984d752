//! A cluster of any size, as manifests: what a Deployment's pods, their Service and its EndpointSlice look like.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use warren_tests::lab::Tokens;

/// Namespaces; the first service of a hundred is in the first of them, and so on.
const NAMESPACES: u32 = 50;
const PODS_PER_SERVICE: u32 = 10;
const PODS_PER_NODE: u32 = 50;
/// Objects in one file.
const PER_FILE: usize = 500;

/// How large.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) pods: u32,
    pub(crate) services: u32,
    pub(crate) nodes: u32,
}

impl Size {
    pub(crate) fn of(pods: u32) -> Self {
        Self { pods, services: pods / PODS_PER_SERVICE, nodes: pods.div_ceil(PODS_PER_NODE) }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} pods on {} nodes behind {} services", self.pods, self.nodes, self.services)
    }
}

/// The manifests of one.
#[derive(Debug)]
pub(crate) struct Cluster {
    manifests: PathBuf,
    size: Size,
}

impl Cluster {
    /// Writes the manifests, the tokens of the first `agents` nodes and the keys that verify them.
    pub(crate) fn create(directory: &Path, size: Size, agents: u32) -> Result<Self> {
        let manifests = directory.join("manifests");
        fs::create_dir_all(&manifests)?;
        let tokens = Tokens::generate()?;
        fs::write(directory.join("jwks.json"), tokens.jwks().to_string())?;
        for number in 0..agents.max(1) {
            let node = node(number);
            let token = tokens.sign(&Tokens::agent_claims(&node, &format!("uid-{node}")))?;
            fs::write(token_file(directory, number), token)?;
        }
        let cluster = Self { manifests, size };
        cluster.write("namespaces", (0..NAMESPACES).map(namespace_object))?;
        cluster.write("pods", (0..size.pods).map(|number| pod_object(number, size)))?;
        cluster.write("services", (0..size.services).map(service_object))?;
        // Each in a file of its own: one of them is what changes.
        for service in 0..size.services {
            cluster.write_slice(service, None)?;
        }
        Ok(cluster)
    }

    /// Takes one endpoint, another for every number, out of its service: it is not ready any more.
    pub(crate) fn change(&self, number: u32) -> Result<()> {
        self.write_slice(
            changed_pod(number, self.size) % self.size.services,
            Some(changed_pod(number, self.size)),
        )
    }

    fn write_slice(&self, service: u32, unready: Option<u32>) -> Result<()> {
        let folder = self.manifests.join("slices").join(format!("{}", service / 1000));
        if unready.is_none() {
            fs::create_dir_all(&folder)?;
        }
        let endpoint = |number: u32| {
            json!({
                "addresses": [pod_ip(number)],
                "conditions": { "ready": unready != Some(number) },
                "nodeName": node(node_of(number, self.size)),
                "targetRef": { "kind": "Pod", "namespace": namespace(service), "name": pod_name(number, self.size) },
            })
        };
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-x7k2p", service_name(service)),
                "namespace": namespace(service),
                "labels": { "kubernetes.io/service-name": service_name(service) },
            },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
            "endpoints": (0..PODS_PER_SERVICE).map(|n| endpoint(n * self.size.services + service)).collect::<Vec<_>>(),
        });
        let file = folder.join(format!("{service}.json"));
        fs::write(&file, slice.to_string()).with_context(|| format!("cannot write {}", file.display()))
    }

    fn write(&self, name: &str, objects: impl Iterator<Item = Value>) -> Result<()> {
        let objects: Vec<Value> = objects.collect();
        for (number, items) in objects.chunks(PER_FILE).enumerate() {
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
            fs::write(self.manifests.join(format!("{name}-{number}.json")), list.to_string())?;
        }
        Ok(())
    }
}

/// The uid of the workload that change `number` takes out of its service.
pub(crate) fn changed_uid(number: u32, size: Size) -> String {
    let pod = changed_pod(number, size);
    format!("Kubernetes//Pod/{}/{}", namespace(pod % size.services), pod_name(pod, size))
}

/// The virtual address of a service.
pub(crate) fn service_ip(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 1)) + number))
}

pub(crate) fn node(number: u32) -> String {
    format!("worker-{number:04}.example.internal")
}

pub(crate) fn token_file(directory: &Path, agent: u32) -> PathBuf {
    directory.join(format!("token-{agent}"))
}

/// Spread over the services; each number another pod as long as there are enough.
fn changed_pod(number: u32, size: Size) -> u32 {
    (number * 7 + 3) % size.pods
}

fn namespace(service: u32) -> String {
    format!("team-{:02}", service % NAMESPACES)
}

fn service_name(number: u32) -> String {
    format!("backend-{number:04}")
}

fn node_of(pod: u32, size: Size) -> u32 {
    // Neighbours of a service are on different nodes.
    (pod.wrapping_mul(17)) % size.nodes
}

fn pod_name(number: u32, size: Size) -> String {
    format!("{}-6d5f8c7b9-{:05x}", service_name(number % size.services), number)
}

fn pod_ip(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 1)) + number))
}

fn namespace_object(number: u32) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": namespace(number), "labels": { "warren.dev/mesh": "enabled" } },
    })
}

fn pod_object(number: u32, size: Size) -> Value {
    let service = number % size.services;
    let app = service_name(service);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(number, size),
            "namespace": namespace(service),
            "uid": format!("3f0c9a51-7c1d-4b6e-9a52-{number:012x}"),
            "labels": {
                "app": app, "app.kubernetes.io/name": app, "version": "v1",
                "pod-template-hash": "6d5f8c7b9", "team": namespace(service),
            },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true,
                "name": format!("{app}-6d5f8c7b9"), "uid": format!("rs-{service}"),
            }],
        },
        "spec": { "nodeName": node(node_of(number, size)), "serviceAccountName": app, "containers": [] },
        "status": {
            "phase": "Running",
            "podIPs": [{ "ip": pod_ip(number) }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

fn service_object(number: u32) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": service_name(number), "namespace": namespace(number) },
        "spec": {
            "clusterIP": service_ip(number),
            "clusterIPs": [service_ip(number)],
            "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }],
        },
    })
}
