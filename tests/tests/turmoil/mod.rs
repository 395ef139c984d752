//! What the suites about change and failure share: traffic that counts its losses, captures, and questions to daemons.
#![allow(dead_code, unused_imports, reason = "each suite uses its own part")]

mod footprint;

pub(crate) use footprint::Footprint;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use warren_tests::lab::{Cmd, Lab, LabBuilder, Mesh, Node, Pod, Proc, poll_until};

/// Long enough for a busy machine, short enough to see a hang.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Two nodes; `client` and `near` on the first, `far` on the second, all in the mesh; one pod outside it on each.
pub(crate) fn shop() -> LabBuilder {
    Lab::builder()
        .nodes(["n1", "n2"])
        .namespace("shop", Mesh::Enabled)
        .pod("client", |pod| pod.on("n1").namespace("shop").service_account("client"))
        .pod("near", |pod| pod.on("n1").namespace("shop").service_account("web").label("app", "web"))
        .pod("far", |pod| pod.on("n2").namespace("shop").service_account("web").label("app", "web"))
        .pod("outside-near", |pod| pod.on("n1"))
        .pod("outside-far", |pod| pod.on("n2"))
        .service("web", |service| service.namespace("shop").port("tcp-echo", 90, 9000).select("app", "web"))
}

/// `address:port` of a pod.
pub(crate) fn at(pod: &Pod, port: u16) -> String {
    format!("{}:{port}", pod.ip4())
}

/// Checked ping-pong until it is asked for its report.
pub(crate) fn stream(from: &Pod, to: &str, more: &[&str]) -> Result<Proc> {
    let mut stream = from.workload(["stream", "--to", to]).args(more).with_stdin().spawn()?;
    stream.wait_for("streaming", SOON)?;
    Ok(stream)
}

/// Ends a stream, which must not have lost or changed anything, and must have been at work.
pub(crate) fn must_be_clean(stream: Proc, what: &str) -> Result<Value> {
    let report = stream.report(Duration::from_secs(20))?;
    ensure!(report["ok"] == true, "{what}: {report}");
    Ok(report)
}

/// One connection: says `text` and reads the answer to its end.
pub(crate) fn say(from: &Pod, to: &str, text: &str) -> Result<Value> {
    from.workload(["connect", "--to", to, "--send", text]).json()
}

/// Tries until a connection goes through, or fails with what the last one said.
pub(crate) fn until_reached(from: &Pod, to: &str) -> Result<()> {
    let mut last = Value::Null;
    let reached = poll_until(&format!("{} to reach {to}", from.name()), SOON, || {
        last = say(from, to, "hello").ok()?;
        (last["ok"] == true && last["text"] == "hello").then_some(())
    });
    reached.with_context(|| format!("the last attempt: {last}"))
}

/// Waits until a node's agent has enrolled exactly `count` pods and none is pending.
pub(crate) fn until_enrolled(node: &Node, count: usize) -> Result<()> {
    let mut last = Value::Null;
    let enrolled = poll_until(&format!("{count} pods of {} to be enrolled", node.name()), SOON, || {
        last = node.admin("/v1/status").ok()?["pods"].clone();
        let pods = last.as_array()?;
        (pods.len() == count && pods.iter().all(|pod| pod["state"] == "enrolled")).then_some(())
    });
    enrolled.with_context(|| format!("the last status: {last}"))
}

/// Waits until an agent's status fits.
pub(crate) fn until_status(node: &Node, what: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = Value::Null;
    let found = poll_until(&format!("{} to say {what}", node.name()), SOON, || {
        last = node.admin("/v1/status").ok()?;
        fits(&last).then(|| last.clone())
    });
    found.with_context(|| format!("the last status: {last:#}"))
}

/// A command of the binary under test, at a node.
pub(crate) fn warren(node: &Node, command: &[&str]) -> Cmd {
    let socket = node.admin_socket().display().to_string();
    node.command(warren_path()).args(command).args(["--admin-socket", &socket])
}

/// The binary under test: beside the directory that tests are built into.
pub(crate) fn warren_path() -> PathBuf {
    let beside = || {
        let us = std::env::current_exe().unwrap_or_default();
        us.ancestors().nth(2).map(|dir| dir.join("warren")).unwrap_or_default()
    };
    std::env::var_os("WARREN_BIN").map_or_else(beside, PathBuf::from)
}

/// A packet capture between the nodes.
pub(crate) struct Wire {
    tcpdump: Proc,
    file: PathBuf,
}

impl Wire {
    /// Begins to capture what fits `filter` and returns when it does.
    pub(crate) fn capture(lab: &Lab, name: &str, filter: &str) -> Result<Self> {
        let file = lab.dir().join(format!("{name}.pcap"));
        let line = format!("exec tcpdump -i br0 -U -s 0 -Z root -w {} '{filter}' 2>&1", file.display());
        let mut tcpdump = lab.fabric().command("sh").args(["-c", &line]).spawn()?;
        tcpdump.wait_for("listening on", SOON)?;
        Ok(Self { tcpdump, file })
    }

    /// Whether these bytes have been on the wire.
    pub(crate) fn has(&self, text: &str) -> Result<bool> {
        let bytes = std::fs::read(&self.file)?;
        Ok(bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    }

    /// Ends the capture and prints what it holds, one line per packet.
    pub(crate) fn packets(self, lab: &Lab) -> Result<Vec<String>> {
        self.tcpdump.signal(libc::SIGINT)?;
        self.tcpdump.wait(SOON)?;
        let file = self.file.display().to_string();
        let text = lab.fabric().command("tcpdump").args(["-nn", "-r", &file]).stdout()?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}
