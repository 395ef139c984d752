//! The Kubernetes suite: a cluster of its own, the tests in its control plane's network namespace, and its end.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use super::summary::{Summary, run_counted};
use crate::cluster::{self, Extent, Layout};
use crate::process::{HOST_CRATES, cargo, host, root, target_dir};

/// Runs the suite's tests.
pub(super) fn run(filter: Option<&str>, keep: bool) -> Result<Summary> {
    let name = name();
    let layout = Layout::new(&name);
    let janitor = if keep { None } else { Some(Janitor::hire(&name)?) };
    cluster::up_with_images(&layout, Extent::Nodes)?;
    let mut command = cargo();
    command.arg("test").args(HOST_CRATES).args(["--test", "kubernetes", "--no-fail-fast"]);
    let runner = format!("CARGO_TARGET_{}_RUNNER", host().to_uppercase().replace('-', "_"));
    command.env(runner, format!("nsenter --net=/run/netns/{}", layout.control_plane_netns()));
    command.env("WARREN_CLUSTER", cluster::describe(&layout).to_string());
    command.env("WARREN_BIN", target_dir().join("debug/warren"));
    // One at a time: the tests share the mesh, and some of them disturb it.
    command.args(["--", "--test-threads", "1"]).args(filter);
    let summary = run_counted(&mut command)?;
    if !summary.is_success() {
        println!("what the cluster's parts said: {}", cluster::collect(&layout).display());
    }
    if let Some(janitor) = janitor {
        janitor.finish()?;
    }
    Ok(summary)
}

/// The suite's cluster is neither the one that a person has started nor another checkout's.
fn name() -> String {
    let hash = Sha256::digest(root().as_os_str().as_encoded_bytes());
    let tail: String = hash.iter().take(3).map(|byte| format!("{byte:02x}")).collect();
    format!("test{tail}")
}

/// A process that takes the cluster down when we end, however we end.
struct Janitor(Child);

impl Janitor {
    fn hire(name: &str) -> Result<Self> {
        // Not by its path: the tests' build may have replaced the file.
        let child = Command::new("/proc/self/exe")
            .args(["cluster", "--name", name, "down", "--after-stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // A terminal's signals are for us alone.
            .process_group(0)
            .spawn()
            .context("cannot start the janitor")?;
        Ok(Self(child))
    }

    /// Has the cluster taken down.
    fn finish(mut self) -> Result<()> {
        drop(self.0.stdin.take());
        let status = self.0.wait().context("the janitor is gone")?;
        if !status.success() {
            bail!("the cluster could not be taken down: try `cargo xtask cluster --name {} down`", name());
        }
        Ok(())
    }
}
