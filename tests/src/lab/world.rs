//! The lab's cluster as data: namespaces, nodes, pods, services, and which pods are a service's endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, bail};

/// Kubernetes labels.
pub(crate) type Labels = BTreeMap<String, String>;

#[derive(Clone, Debug)]
pub(crate) struct NodeRecord {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) ip4: Ipv4Addr,
    pub(crate) ip6: Ipv6Addr,
    pub(crate) number: u8,
}

#[derive(Clone, Debug)]
pub(crate) struct PodRecord {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) node: String,
    pub(crate) service_account: String,
    pub(crate) labels: Labels,
    pub(crate) annotations: Labels,
    pub(crate) owner: Option<String>,
    pub(crate) ip4: Ipv4Addr,
    pub(crate) ip6: Ipv6Addr,
    pub(crate) node_ip4: Ipv4Addr,
    pub(crate) ready: bool,
    /// The API tells its addresses.
    pub(crate) addressed: bool,
    /// Its deletion has been asked for.
    pub(crate) terminating: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) target: u16,
    pub(crate) app_protocol: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct ServiceRecord {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) ports: Vec<Port>,
    pub(crate) selector: Labels,
    pub(crate) annotations: Labels,
    /// Pods named by hand instead of by the selector.
    pub(crate) endpoints: Option<BTreeSet<String>>,
    pub(crate) ip4: Ipv4Addr,
    pub(crate) ip6: Ipv6Addr,
}

/// Everything that the manifests say. Pod names are unique in a lab, whatever their namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) namespaces: BTreeMap<String, Labels>,
    pub(crate) nodes: Vec<NodeRecord>,
    pub(crate) pods: BTreeMap<String, PodRecord>,
    /// By (namespace, name).
    pub(crate) services: BTreeMap<(String, String), ServiceRecord>,
}

impl World {
    pub(crate) fn pod_mut(&mut self, name: &str) -> Result<&mut PodRecord> {
        self.pods.get_mut(name).with_context(|| format!("the lab has no pod {name}"))
    }

    pub(crate) fn node(&self, name: &str) -> Result<&NodeRecord> {
        self.nodes
            .iter()
            .find(|node| node.name == name)
            .with_context(|| format!("the lab has no node {name}"))
    }

    /// Finds a service by `name`, if only one has it, or by `namespace/name`.
    pub(crate) fn service_key(&self, name: &str) -> Result<(String, String)> {
        let mut found = match name.split_once('/') {
            Some((namespace, name)) => vec![(namespace.to_owned(), name.to_owned())],
            None => self.services.keys().filter(|key| key.1 == name).cloned().collect(),
        };
        match (found.pop(), found.is_empty()) {
            (Some(key), true) if self.services.contains_key(&key) => Ok(key),
            (Some(_), false) => bail!("more than one service is called {name}: say namespace/{name}"),
            _ => bail!("the lab has no service {name}"),
        }
    }

    /// The pods behind a service, ready or not.
    pub(crate) fn endpoints<'a>(&'a self, service: &'a ServiceRecord) -> impl Iterator<Item = &'a PodRecord> {
        self.pods.values().filter(move |pod| match &service.endpoints {
            _ if !pod.addressed => false,
            Some(names) => names.contains(&pod.name),
            None => {
                pod.namespace == service.namespace
                    && !service.selector.is_empty()
                    && service.selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
            }
        })
    }

    /// The pods that get a service's connections.
    pub(crate) fn ready_endpoints<'a>(&'a self, service: &'a ServiceRecord) -> Vec<&'a PodRecord> {
        self.endpoints(service).filter(|pod| pod.ready && !pod.terminating).collect()
    }
}
