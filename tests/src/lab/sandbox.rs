//! Pods as a container runtime starts them: the API tells of the pod, its network is made, the CNI plugin has its say,
//! and only then comes the first process.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::builder::PodSpec;
use super::network::{self, Link};
use super::pod::Pod;
use super::world::PodRecord;
use super::{Lab, netns, warren_path};

/// A pod whose network is there and whose first process is not.
#[derive(Debug)]
pub struct Sandbox<'a> {
    lab: &'a Lab,
    record: PodRecord,
    link: Link,
    container: String,
}

/// What the plugin said.
#[derive(Clone, Debug)]
pub struct PluginOutcome {
    /// It exited with 0.
    pub success: bool,
    /// Its output.
    pub output: String,
}

impl Lab {
    /// A pod that is scheduled, known to the API without an address, and has a network.
    pub fn sandbox(&self, spec: &PodSpec) -> Result<Sandbox<'_>> {
        let netns = self.pod_netns(&spec.name)?;
        let mut state = self.state();
        let (mut record, link) = self.plan_pod(&state, spec, &netns)?;
        record.addressed = false;
        network::attach(&link)?;
        state.world.namespaces.entry(record.namespace.clone()).or_default();
        state.world.pods.insert(record.name.clone(), record.clone());
        self.publish(&mut state)?;
        drop(state);
        Ok(Sandbox { lab: self, record, link, container: format!("{}-1", spec.name) })
    }

    /// The API learns the addresses of a pod.
    pub fn report_addresses(&self, pod: &str) -> Result<()> {
        let mut state = self.state();
        state.world.pod_mut(pod)?.addressed = true;
        self.publish(&mut state)
    }
}

impl Sandbox<'_> {
    /// The result of the plugins before ours.
    #[must_use]
    pub fn previous(&self) -> Value {
        let netns = self.netns();
        json!({
            "cniVersion": "1.0.0",
            "interfaces": [
                { "name": self.link.device(), "mac": "ee:ee:ee:ee:ee:ee" },
                { "name": "eth0", "sandbox": netns },
            ],
            "ips": [
                { "interface": 1, "address": format!("{}/24", self.record.ip4), "gateway": "169.254.1.1" },
                { "interface": 1, "address": format!("{}/64", self.record.ip6) },
            ],
            "routes": [{ "dst": "0.0.0.0/0" }],
            "dns": {},
        })
    }

    fn netns(&self) -> PathBuf {
        netns::path(self.link.netns.name())
    }

    /// Runs the plugin as the node's container runtime would.
    pub fn plugin(&self, command: &str) -> Result<PluginOutcome> {
        let node = self.lab.node(&self.record.node);
        let config = json!({
            "cniVersion": "1.0.0",
            "name": "lab",
            "type": "warren-cni",
            "socket": node.admin_socket().with_file_name("cni.sock"),
            "offline": node.admin_socket().with_file_name("state").join("cni.json"),
            "prevResult": self.previous(),
        });
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            self.record.namespace, self.record.name, self.container, self.record.uid
        );
        let mut running = node
            .command(warren_path())
            .arg("cni")
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &self.container)
            .env("CNI_NETNS", self.netns())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", args)
            .env("CNI_PATH", "/opt/cni/bin")
            .with_stdin()
            .spawn()?;
        let input = running.stdin().context("the plugin has no input")?;
        input.write_all(config.to_string().as_bytes()).context("the plugin takes no input")?;
        running.close_stdin();
        let done = running.wait(Duration::from_secs(30))?;
        Ok(PluginOutcome { success: done.status.success(), output: done.stdout })
    }

    /// Runs `ADD`, which must succeed.
    pub fn add(&self) -> Result<()> {
        let done = self.plugin("ADD")?;
        if !done.success {
            bail!("ADD of {}: {}", self.record.name, done.output);
        }
        Ok(())
    }

    /// The pod's first process starts. The API does not know its addresses yet.
    pub fn start(&self) -> Result<Pod> {
        let mut state = self.lab.state();
        self.lab.start_pod(&mut state, self.record.clone(), &self.link)
    }

    /// The sandbox is made again, with another network; the API still knows what it knew of the first.
    pub fn again(self) -> Result<Self> {
        let Self { lab, mut record, link, container } = self;
        let netns = lab.pod_netns(&format!("{}-again", record.name))?;
        let number = 251;
        let link = Link { pod: number, netns, ..link };
        record.ip4 = network::pod4(link.node.number, number);
        record.ip6 = network::pod6(link.node.number, number);
        network::attach(&link)?;
        Ok(Self { lab, record, link, container: container + "-again" })
    }
}
