//! Short-lived programs that set the cluster up, and kubectl.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::binaries;
use super::layout::Layout;
use crate::process::show;

/// Runs a program to its end and takes its output; a failure shows what it said.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{shown}`"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("`{shown}` failed ({}): {}", done.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Runs a program that reads `text` as its input.
pub(crate) fn feed(command: &mut Command, text: &str) -> Result<()> {
    let shown = show(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).with_context(|| format!("`{shown}` does not read its input"))?;
    }
    let done = child.wait_with_output()?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("`{shown}` failed ({}): {}", done.status, said.trim());
    }
    Ok(())
}

/// A program in a network namespace. `nsenter`, not `ip netns exec`: that mounts a /sys without cgroups.
pub(crate) fn in_netns(netns: &str, program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{netns}")).arg("--").arg(program.as_ref());
    command
}

/// kubectl as the cluster's administrator.
pub(crate) fn kubectl(layout: &Layout) -> Result<Command> {
    let mut command = in_netns(&layout.control_plane_netns(), binaries::folder()?.join("kubectl"));
    command.arg("--kubeconfig").arg(layout.kubeconfig("admin"));
    Ok(command)
}
