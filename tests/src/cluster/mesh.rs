//! warren in the cluster: installed once, from the image of this checkout.

use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;

use super::{Cluster, Mesh, Namespace, SOON, namespace, stdout};
use crate::lab::poll_until;

/// Where warren's own pods are.
pub const SYSTEM: &str = "warren-system";

/// A node's label that the agents are kept off by.
const KEEP_OFF: &str = "warren.dev/test-without-agent=";

static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();

impl Cluster {
    /// The `warren` of this checkout, with the cluster's kubeconfig.
    #[must_use]
    pub fn warren<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(std::env::var_os("WARREN_BIN").unwrap_or_else(|| "warren".into()));
        command.env("KUBECONFIG", &self.kubeconfig).args(args);
        command
    }

    /// Runs `warren`, which must succeed.
    pub fn warren_output(&self, args: &[&str]) -> Result<String> {
        let done = self.warren(args.iter().copied()).output().context("cannot start warren")?;
        stdout(&format!("warren {}", args.join(" ")), &done)
    }

    /// Installs warren, if no test has done so, and waits until all of it is ready.
    pub fn install(&self) -> Result<()> {
        let result = INSTALLED.get_or_init(|| self.install_again().map_err(|error| format!("{error:#}")));
        result.clone().map_err(|error| anyhow!("warren is not installed: {error}"))
    }

    /// Runs `warren install`, whether it was run before or not.
    pub fn install_again(&self) -> Result<()> {
        let image = self.images.warren.as_str();
        let args = ["install", "--image", image, "--image-pull-policy", "Never", "--timeout", "90s"];
        self.warren_output(&args).map(|_| ())
    }

    /// Which version of their specification warren's workloads have.
    pub fn system_generations(&self) -> Result<String> {
        let path = "jsonpath={.items[*].metadata.generation}";
        self.kubectl(["-n", SYSTEM, "get", "daemonsets,deployments", "-o", path])
    }

    /// A test's namespace in the mesh, which is installed for it.
    pub fn meshed(&self, name: &str) -> Result<Namespace<'_>> {
        self.install()?;
        self.namespace(name, Mesh::Enabled)
    }

    /// The agents' pods.
    pub fn agents(&self) -> Result<Vec<Value>> {
        let selector = "app.kubernetes.io/name=warren-agent";
        let mut list = self.json(["-n", SYSTEM, "get", "pods", "-l", selector])?;
        match list["items"].take() {
            Value::Array(pods) => Ok(pods),
            other => Err(anyhow!("no list of pods: {other}")),
        }
    }

    /// What an agent counts, in Prometheus' text format.
    pub fn agent_metrics(&self, agent: &Value) -> Result<String> {
        let name = agent["metadata"]["name"].as_str().context("a pod has a name")?;
        let path = format!("/api/v1/namespaces/{SYSTEM}/pods/{name}:15020/proxy/metrics");
        self.kubectl(["get", "--raw", &path])
    }

    /// Keeps the agent off a node, until the returned value says that it may come back or is dropped.
    pub fn without_agent(&self, node: &str) -> Result<WithoutAgent<'_>> {
        self.kubectl(["label", "node", node, KEEP_OFF])?;
        let without = WithoutAgent { cluster: self, node: node.to_owned() };
        let patch = serde_json::json!({"spec": {"template": {"spec": {"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": KEEP_OFF.trim_end_matches('='), "operator": "DoesNotExist"}
            ]}]}
        }}}}}});
        let patch = patch.to_string();
        self.kubectl(["-n", SYSTEM, "patch", "daemonset", "warren-agent", "--patch", &patch])?;
        poll_until("the agent to leave", 2 * SOON, || {
            let agents = self.agents().ok()?;
            (!agents.iter().any(|agent| agent["spec"]["nodeName"] == node)).then_some(())
        })?;
        Ok(without)
    }

    /// Restarts of warren's own containers.
    pub fn system_restarts(&self) -> Result<u64> {
        namespace::restarts(&self.json(["-n", SYSTEM, "get", "pods"])?)
    }

    /// Waits until warren's workloads are complete: `daemonset/warren-agent`, `deployment/warren-controller`.
    pub fn system_ready(&self, what: &str) -> Result<()> {
        let timeout = format!("--timeout={}s", 2 * SOON.as_secs());
        self.kubectl(["-n", SYSTEM, "rollout", "status", what, &timeout]).map(|_| ())
    }

    /// The flow records of every agent that name this namespace, as `warren flows` in the agent's own pod tells them.
    pub fn flows(&self, namespace: &str) -> Result<Vec<Value>> {
        let mut flows = Vec::new();
        for agent in self.agents()? {
            let name = agent["metadata"]["name"].as_str().context("a pod has a name")?;
            let command =
                ["-n", SYSTEM, "exec", name, "--", "/usr/bin/warren", "flows", "-n", namespace, "-o", "json"];
            let text = self.kubectl(command)?;
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                flows.push(serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?);
            }
        }
        Ok(flows)
    }

    /// Waits for a flow record that `is_it` accepts.
    pub fn flow(&self, namespace: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = Ok(Vec::new());
        let found = poll_until("a flow record", Duration::from_secs(15), || {
            last = self.flows(namespace);
            last.as_ref().ok()?.iter().find(|flow| is_it(flow)).cloned()
        });
        found.with_context(|| match &last {
            Ok(flows) => flows.iter().map(Value::to_string).collect::<Vec<_>>().join("\n"),
            Err(error) => format!("{error:#}"),
        })
    }
}

/// A load that must not have lost a single request.
pub fn lossless(report: &Value) -> Result<()> {
    ensure!(report["failed"] == 0, "requests failed: {report}");
    ensure!(report["requests"].as_u64() > Some(20), "hardly any request: {report}");
    Ok(())
}

/// A node on which no agent runs.
#[derive(Debug)]
pub struct WithoutAgent<'a> {
    cluster: &'a Cluster,
    node: String,
}

impl WithoutAgent<'_> {
    /// Lets the agent come back and waits for it.
    pub fn end(self) -> Result<()> {
        self.release()?;
        self.cluster.system_ready("daemonset/warren-agent")
    }

    fn release(&self) -> Result<()> {
        let label = KEEP_OFF.replace('=', "-");
        self.cluster.kubectl(["label", "node", &self.node, &label]).map(|_| ())
    }
}

impl Drop for WithoutAgent<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            eprintln!("{} stays without an agent: {error:#}", self.node);
        }
    }
}
