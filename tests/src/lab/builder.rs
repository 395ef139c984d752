//! What a lab shall contain.

use anyhow::Result;

use super::Lab;
use super::world::{Labels, Port};
use crate::sys;

/// Whether a namespace is enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mesh {
    /// Labelled `warren.dev/mesh: enabled`.
    Enabled,
    /// No label.
    Absent,
}

/// The label that enrols a namespace or a pod.
pub const MESH_LABEL: &str = "warren.dev/mesh";

/// Describes a lab; [`Self::up`] makes it.
#[derive(Clone, Debug)]
pub struct LabBuilder {
    pub(crate) nodes: Vec<String>,
    pub(crate) namespaces: Vec<(String, Labels)>,
    pub(crate) pods: Vec<PodSpec>,
    pub(crate) services: Vec<ServiceSpec>,
    pub(crate) agent_args: Vec<String>,
    pub(crate) controller_args: Vec<String>,
    pub(crate) trust_domain: String,
}

impl Default for LabBuilder {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            namespaces: vec![("default".to_owned(), Labels::new())],
            pods: Vec::new(),
            services: Vec::new(),
            agent_args: Vec::new(),
            controller_args: Vec::new(),
            trust_domain: "cluster.local".to_owned(),
        }
    }
}

impl LabBuilder {
    /// Nodes, by name; the first gets 192.168.77.1, 10.244.1.0/24, and so on.
    #[must_use]
    pub fn nodes<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.nodes.extend(names.into_iter().map(Into::into));
        self
    }

    /// A namespace; `default` exists always, outside the mesh unless said here.
    #[must_use]
    pub fn namespace(mut self, name: &str, mesh: Mesh) -> Self {
        let mut labels = Labels::new();
        if mesh == Mesh::Enabled {
            labels.insert(MESH_LABEL.to_owned(), "enabled".to_owned());
        }
        self.namespaces.retain(|known| known.0 != name);
        self.namespaces.push((name.to_owned(), labels));
        self
    }

    /// A pod; its name is unique in the lab. On the first node and in `default` unless said.
    #[must_use]
    pub fn pod(mut self, name: &str, describe: impl FnOnce(PodSpec) -> PodSpec) -> Self {
        self.pods.push(describe(PodSpec::new(name)));
        self
    }

    /// Two nodes, and in the namespace `shop` of the mesh two versions of `app: web`: `near` (v1) on the first node, where
    /// `client` is, and `far` (v2) on the second.
    #[must_use]
    pub fn two_versions(self) -> Self {
        let web = |node: &'static str, version: &'static str| {
            move |pod: PodSpec| pod.on(node).namespace("shop").label("app", "web").label("version", version)
        };
        self.nodes(["n1", "n2"])
            .namespace("shop", Mesh::Enabled)
            .pod("client", |pod| pod.on("n1").namespace("shop"))
            .pod("near", web("n1", "v1"))
            .pod("far", web("n2", "v2"))
    }

    /// A service.
    #[must_use]
    pub fn service(mut self, name: &str, describe: impl FnOnce(ServiceSpec) -> ServiceSpec) -> Self {
        self.services.push(describe(ServiceSpec::new(name)));
        self
    }

    /// One more argument for every agent.
    #[must_use]
    pub fn agent_arg(mut self, arg: &str) -> Self {
        self.agent_args.push(arg.to_owned());
        self
    }

    /// One more argument for the controller.
    #[must_use]
    pub fn controller_arg(mut self, arg: &str) -> Self {
        self.controller_args.push(arg.to_owned());
        self
    }

    /// The trust domain, `cluster.local` if not said.
    #[must_use]
    pub fn trust_domain(mut self, name: &str) -> Self {
        name.clone_into(&mut self.trust_domain);
        self
    }

    /// Makes the lab. No daemon runs yet.
    pub fn up(self) -> Result<Lab> {
        Lab::make(&self)
    }

    /// Makes the lab and runs a test in it; an error is a failed test, told with the ends of the daemons' logs.
    /// Without root it says aloud that the test is skipped.
    ///
    /// # Panics
    /// When the test fails: that is how a test says so.
    #[allow(clippy::panic, reason = "a failed test panics")]
    pub fn test(self, run: impl FnOnce(&Lab) -> Result<()>) {
        if let Some(reason) = cannot_run() {
            // Past libtest's capture, so that it is seen; `cargo xtask test` counts it.
            use std::io::Write as _;
            let name = std::thread::current().name().unwrap_or("lab test").to_owned();
            let _ = writeln!(std::io::stdout(), "SKIPPED: {name}: {reason}");
            return;
        }
        let lab = self.up().unwrap_or_else(|error| panic!("the lab doesn't come up: {error:#}"));
        if let Err(error) = run(&lab) {
            panic!("{error:#}");
        }
    }
}

/// Why there can be no lab here.
#[must_use]
pub fn cannot_run() -> Option<&'static str> {
    (!sys::is_root()).then_some("needs root (network namespaces and cgroups)")
}

/// A pod to be.
#[derive(Clone, Debug)]
pub struct PodSpec {
    pub(crate) name: String,
    pub(crate) node: Option<String>,
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) labels: Labels,
    pub(crate) annotations: Labels,
    pub(crate) owner: Option<String>,
    pub(crate) number: Option<u8>,
    pub(crate) ready: bool,
}

impl PodSpec {
    /// A pod in `default`, with the service account `default`, ready.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            node: None,
            namespace: "default".to_owned(),
            service_account: "default".to_owned(),
            labels: Labels::new(),
            annotations: Labels::new(),
            owner: None,
            number: None,
            ready: true,
        }
    }

    /// Its node.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// Its service account.
    #[must_use]
    pub fn service_account(mut self, name: &str) -> Self {
        name.clone_into(&mut self.service_account);
        self
    }

    /// A label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// An annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The name of the ReplicaSet that owns it.
    #[must_use]
    pub fn owner(mut self, replica_set: &str) -> Self {
        self.owner = Some(replica_set.to_owned());
        self
    }

    /// The last number of its addresses, to reuse those of a deleted pod. Free numbers are given out otherwise.
    #[must_use]
    pub fn number(mut self, number: u8) -> Self {
        self.number = Some(number);
        self
    }

    /// Not ready: no endpoint of its services.
    #[must_use]
    pub fn not_ready(mut self) -> Self {
        self.ready = false;
        self
    }
}

/// A service to be.
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) ports: Vec<Port>,
    pub(crate) selector: Labels,
    pub(crate) annotations: Labels,
}

impl ServiceSpec {
    /// A service in `default`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            ports: Vec::new(),
            selector: Labels::new(),
            annotations: Labels::new(),
        }
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// A TCP port and the pods' port behind it.
    #[must_use]
    pub fn port(mut self, name: &str, port: u16, target: u16) -> Self {
        self.ports.push(Port { name: name.to_owned(), port, target, app_protocol: None });
        self
    }

    /// The `appProtocol` of the last port.
    #[must_use]
    pub fn app_protocol(mut self, protocol: &str) -> Self {
        if let Some(port) = self.ports.last_mut() {
            port.app_protocol = Some(protocol.to_owned());
        }
        self
    }

    /// Pods with this label are its endpoints.
    #[must_use]
    pub fn select(mut self, key: &str, value: &str) -> Self {
        self.selector.insert(key.to_owned(), value.to_owned());
        self
    }

    /// An annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }
}
