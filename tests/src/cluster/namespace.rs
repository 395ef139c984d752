//! A namespace of one test, and what the test does in it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::exec::Exec;
use super::{Cluster, SOON, stdout};
use crate::lab::poll_until;

/// Whether a namespace is in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mesh {
    /// It is, by its label.
    Enabled,
    /// Nothing is said.
    Absent,
}

/// A namespace, removed when dropped.
#[derive(Debug)]
pub struct Namespace<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl Cluster {
    /// Makes a namespace.
    pub fn namespace(&self, name: &str, mesh: Mesh) -> Result<Namespace<'_>> {
        let labels = match mesh {
            Mesh::Enabled => json!({"warren.dev/mesh": "enabled"}),
            Mesh::Absent => json!({}),
        };
        let namespace = Namespace { cluster: self, name: name.to_owned() };
        let meta = json!({"name": name, "labels": labels});
        self.apply(&[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})])?;
        // Pods are refused until the controller manager has made it.
        let account = || self.kubectl(["-n", name, "get", "serviceaccount", "default"]).ok();
        poll_until("the default service account", SOON, account)?;
        Ok(namespace)
    }
}

impl<'a> Namespace<'a> {
    /// The cluster it is in.
    #[must_use]
    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs kubectl here.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.cluster.kubectl(["-n", &self.name].into_iter().chain(args.iter().copied()))
    }

    /// Runs kubectl here and reads its output as JSON.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        self.cluster.json(["-n", &self.name].into_iter().chain(args.iter().copied()))
    }

    /// Creates or changes objects here.
    pub fn apply(&self, objects: impl IntoIterator<Item = Value>) -> Result<()> {
        let mut objects: Vec<_> = objects.into_iter().collect();
        for object in &mut objects {
            object["metadata"]["namespace"] = json!(self.name);
        }
        self.cluster.apply(&objects)
    }

    /// Says whether the namespace is in the mesh, from now on.
    pub fn label(&self, mesh: Mesh) -> Result<()> {
        let label = if mesh == Mesh::Enabled { "warren.dev/mesh=enabled" } else { "warren.dev/mesh-" };
        self.cluster.kubectl(["label", "--overwrite", "namespace", &self.name, label]).map(|_| ())
    }

    /// Waits until a Deployment is wholly rolled out.
    pub fn rolled_out(&self, deployment: &str) -> Result<()> {
        let timeout = format!("--timeout={}s", SOON.as_secs());
        let what = format!("deployment/{deployment}");
        let done = self.kubectl(&["rollout", "status", &what, &timeout]);
        done.map(|_| ()).with_context(|| self.events())
    }

    /// Waits until a pod is ready.
    pub fn pod_ready(&self, pod: &str) -> Result<()> {
        self.pod_is("condition=Ready", pod)
    }

    /// Waits for a pod's state, as `kubectl wait --for` takes it.
    pub fn pod_is(&self, state: &str, pod: &str) -> Result<()> {
        let (state, what) = (format!("--for={state}"), format!("pod/{pod}"));
        let timeout = format!("--timeout={}s", SOON.as_secs());
        self.kubectl(&["wait", &state, &what, &timeout]).map(|_| ()).with_context(|| self.events())
    }

    /// What a pod has written.
    pub fn logs(&self, pod: &str) -> Result<String> {
        self.kubectl(&["logs", pod])
    }

    /// The pods of an application: `app` is the value of their label.
    pub fn pods(&self, app: &str) -> Result<Vec<Value>> {
        let selector = format!("app={app}");
        match self.json(&["get", "pods", "-l", &selector])?["items"].take() {
            Value::Array(pods) => Ok(pods),
            other => bail!("no list of pods: {other}"),
        }
    }

    /// A pod's address.
    pub fn address(&self, pod: &str) -> Result<String> {
        let pod = self.json(&["get", "pod", pod])?;
        Ok(pod["status"]["podIP"].as_str().context("the pod has no address")?.to_owned())
    }

    /// Runs the tests' own program in a pod to its end.
    pub fn exec(&self, pod: &str, args: &[&str]) -> Result<String> {
        let done = self.exec_command(pod, args).output().context("cannot start kubectl")?;
        stdout(&format!("{} in {pod}", args.join(" ")), &done)
    }

    /// Runs the tests' own program in a pod, and reads the last line of its output as JSON.
    pub fn exec_json(&self, pod: &str, args: &[&str]) -> Result<Value> {
        let text = self.exec(pod, args)?;
        let line = text.lines().last().context("no output")?;
        serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))
    }

    /// Starts the tests' own program in a pod; it ends when its input does.
    pub fn start(&self, pod: &str, args: &[&str]) -> Result<Exec> {
        Exec::start(self.exec_command(pod, args), &format!("{} in {pod}", args.join(" ")))
    }

    fn exec_command(&self, pod: &str, args: &[&str]) -> std::process::Command {
        let words = ["-n", &self.name, "exec", "-i", pod, "--", "/usr/bin/warren-workload"];
        self.cluster.command(words.into_iter().chain(args.iter().copied()))
    }

    /// The first line that a connection from a pod brings back; an error if it does not stand.
    pub fn ask(&self, pod: &str, to: &str) -> Result<String> {
        let seen = self.exec_json(pod, &["connect", "--to", to, "--timeout-ms", "5000"])?;
        ensure!(seen["ok"] == true, "{pod} to {to}: {seen}");
        Ok(seen["text"].as_str().unwrap_or_default().trim_end().to_owned())
    }

    /// How often a container of the namespace has been restarted.
    pub fn restarts(&self) -> Result<u64> {
        restarts(&self.json(&["get", "pods"])?)
    }

    /// The newest events here, for people who look at a failure.
    #[must_use]
    pub fn events(&self) -> String {
        let events =
            self.kubectl(&["get", "events,pods", "-o", "wide", "--sort-by=.metadata.creationTimestamp"]);
        events.unwrap_or_else(|error| format!("{error:#}"))
    }

    /// Waits until something holds that is asked of the cluster; the last reason why not is in the error.
    pub fn until(&self, what: &str, limit: Duration, mut holds: impl FnMut() -> Result<()>) -> Result<()> {
        let mut last = None;
        let done = poll_until(what, limit, || {
            last = holds().err();
            last.is_none().then_some(())
        });
        done.with_context(|| last.map(|error| format!("{error:#}")).unwrap_or_default())
    }
}

/// Restarts of all containers in a list of pods.
pub(super) fn restarts(pods: &Value) -> Result<u64> {
    let items = pods["items"].as_array().context("no list of pods")?;
    let statuses = items.iter().filter_map(|pod| pod["status"]["containerStatuses"].as_array()).flatten();
    Ok(statuses.filter_map(|status| status["restartCount"].as_u64()).sum())
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        // Its pods end while the next test runs.
        let gone =
            self.cluster.kubectl(["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"]);
        if let Err(error) = gone {
            eprintln!("namespace {} stays: {error:#}", self.name);
        }
    }
}
