//! A real Kubernetes that `cargo xtask test kubernetes` has started, as its tests use it: through kubectl, as people do.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::Value;

mod capture;
mod exec;
mod mesh;
mod namespace;
mod objects;
mod outage;

pub use capture::{Capture, Packets};
pub use exec::Exec;
pub use mesh::{SYSTEM, WithoutAgent, lossless};
pub use namespace::{Mesh, Namespace};
pub use objects::{Pod, account, service};

/// The variable in which the cluster is described, as `cargo xtask cluster status -o json` prints it.
const VARIABLE: &str = "WARREN_CLUSTER";

/// How long the API server and kubelets may take for what people wait for.
pub const SOON: Duration = Duration::from_secs(60);

/// The cluster. This process runs in its control plane's network namespace.
#[derive(Debug, Deserialize)]
pub struct Cluster {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    images: Images,
    nodes: Vec<ClusterNode>,
}

#[derive(Debug, Deserialize)]
struct Images {
    warren: String,
    workload: String,
}

/// A node of it.
#[derive(Clone, Debug, Deserialize)]
pub struct ClusterNode {
    /// As the API server knows it.
    pub name: String,
    /// Its address.
    pub address: String,
    /// The network namespace that stands for the machine.
    netns: String,
    /// The process (as this machine counts them) that made its mounts.
    init: u32,
    /// What it has changed of its files: `etc`, `opt`, `var`, and all of `run`.
    files: PathBuf,
}

impl ClusterNode {
    /// The names in one of its directories, as `etc/cni/net.d`; none if there is no such directory.
    #[must_use]
    pub fn names_in(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.files.join(folder)).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Reads a file of the node.
    pub fn read(&self, path: &str) -> Result<String> {
        stdout(path, &self.with_files().args(["cat", path]).output().context("cannot start nsenter")?)
    }

    /// Writes a file of the node in one step.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let script = "cat > \"$0.new\" && mv \"$0.new\" \"$0\"";
        feed(self.with_files().args(["sh", "-c", script, path]), path, text).map(|_| ())
    }

    /// Removes a file of the node, if it is there.
    pub fn remove(&self, path: &str) -> Result<()> {
        let done = self.with_files().args(["rm", "-f", path]).output().context("cannot start nsenter")?;
        stdout(path, &done).map(|_| ())
    }

    /// What follows sees the node's files.
    fn with_files(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.init)).arg("--").stdin(Stdio::null());
        command
    }

    /// Whether a process of the node that is no kubelet gets a connection to an address, and an answer on it.
    pub fn reaches(&self, address: &str, port: u16) -> Result<bool> {
        let mut curl = Command::new("nsenter");
        curl.arg(format!("--net=/run/netns/{}", self.netns)).args([
            "--",
            "curl",
            "--silent",
            "--max-time",
            "5",
        ]);
        curl.arg(format!("http://{address}:{port}/")).stdin(Stdio::null()).stdout(Stdio::null());
        Ok(curl.status().context("cannot start curl")?.success())
    }
}

impl Cluster {
    /// Runs a test in the cluster. Without one the test is skipped aloud.
    #[allow(clippy::panic, reason = "a failed test panics")]
    pub fn test(test: impl FnOnce(&Self) -> Result<()>) {
        let Ok(text) = std::env::var(VARIABLE) else {
            // Past libtest's capture, so that it is seen; `cargo xtask test` counts it.
            let name = std::thread::current().name().unwrap_or("test").to_owned();
            let why = "needs a cluster, as `cargo xtask test kubernetes` starts one";
            let _ = writeln!(std::io::stdout(), "SKIPPED: {name}: {why}");
            return;
        };
        let cluster = serde_json::from_str(&text);
        let cluster = cluster.with_context(|| format!("{VARIABLE} does not describe a cluster"));
        if let Err(error) = cluster.and_then(|cluster| test(&cluster)) {
            panic!("{error:#}");
        }
    }

    /// The nodes. There are two.
    #[must_use]
    pub fn nodes(&self) -> &[ClusterNode] {
        &self.nodes
    }

    /// A kubectl command, as administrator.
    pub(crate) fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(args).stdin(Stdio::null());
        command
    }

    /// Runs kubectl, which must succeed, and takes its output.
    pub fn kubectl<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<String> {
        let args: Vec<_> = args.into_iter().collect();
        let done = self.command(args.iter().copied()).output().context("cannot start kubectl")?;
        stdout(&format!("kubectl {}", args.join(" ")), &done)
    }

    /// Runs kubectl, and reads its output as JSON.
    pub fn json<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<Value> {
        let args = args.into_iter().chain(["-o", "json"]);
        let text = self.kubectl(args)?;
        serde_json::from_str(&text).with_context(|| format!("kubectl did not print JSON: {text}"))
    }

    /// Creates or changes objects.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.feed(["apply", "-f", "-"], &list.to_string()).map(|_| ())
    }

    /// Creates one object and returns what the API server made of it.
    pub fn create(&self, object: &Value) -> Result<Value> {
        let text = self.feed(["create", "-o", "json", "-f", "-"], &object.to_string())?;
        serde_json::from_str(&text).with_context(|| format!("kubectl did not print JSON: {text}"))
    }

    /// Creates the custom resources' definitions that the mesh reads, and waits until they are served.
    pub fn apply_crds(&self) -> Result<()> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/kubernetes/crds");
        self.kubectl(["apply", "--server-side", "-f", folder])?;
        self.kubectl(["wait", "--for=condition=Established", "-f", folder, "--timeout=30s"]).map(|_| ())
    }

    /// Runs kubectl with `text` as its input.
    fn feed<'a>(&self, args: impl IntoIterator<Item = &'a str>, text: &str) -> Result<String> {
        feed(&mut self.command(args), &format!("kubectl with {text}"), text)
    }
}

/// Runs a program with `text` as its input; it must succeed.
fn feed(command: &mut Command, what: &str, text: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {what}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).with_context(|| format!("{what} does not read its input"))?;
    }
    stdout(what, &child.wait_with_output()?)
}

/// The output of a program that must have succeeded.
fn stdout(what: &str, done: &Output) -> Result<String> {
    if !done.status.success() {
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        bail!("{what}: {}\n{out}{err}", done.status);
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
