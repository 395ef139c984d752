//! The cluster of the demo with its servers, and how its programs are run and shown.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::story::Story;
use super::wire::Wire;
use crate::lab::{Cmd, Lab, Pod, poll_until};
use crate::nginx::{AccessLog, Nginx};

/// Where the web servers listen.
pub(crate) const WEB_PORT: u16 = 8080;
const WEB_PODS: [&str; 2] = ["web-1", "web-2"];

/// Everything that the steps need.
pub(crate) struct Scene<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) story: Story,
    pub(crate) wire: Wire,
    pub(crate) servers: Vec<(Pod, Nginx)>,
}

impl<'a> Scene<'a> {
    /// Starts the recorder, the servers and the mesh, in this order: the capture misses nothing.
    pub(crate) fn set(lab: &'a Lab, story: Story) -> Result<Self> {
        let wire = Wire::record(lab, "n1")?;
        let start = |name| {
            let pod = lab.pod(name);
            let nginx = Nginx::start(lab, &pod, WEB_PORT, AccessLog::Kept)?;
            anyhow::Ok((pod, nginx))
        };
        let servers = WEB_PODS.into_iter().map(start).collect::<Result<_>>()?;
        lab.start_mesh()?;
        Ok(Self { lab, story, wire, servers })
    }

    /// Shows and runs a program in a pod, where service names resolve; its output, which is shown too.
    pub(crate) fn in_pod(&self, pod: &str, words: &[&str]) -> Result<String> {
        let done = pod_command(&self.lab.pod(pod), words)?.stdout()?;
        self.story.typed(&format!("{pod}$"), &shown(words))?;
        self.story.output(&done)?;
        Ok(done)
    }

    /// The same without a word: for what a person needn't see.
    pub(crate) fn quietly(&self, pod: &str, words: &[&str]) -> Result<String> {
        pod_command(&self.lab.pod(pod), words)?.stdout()
    }

    /// Shows and runs `warren ...` on a node, and shows its output.
    pub(crate) fn warren(&self, node: &str, words: &[&str]) -> Result<String> {
        let node = self.lab.node(node);
        let done = node.warren(words).stdout()?;
        let command = [&["warren"], words].concat();
        self.story.typed(&format!("{}#", node.name()), &shown(&command))?;
        self.story.output(&done)?;
        Ok(done)
    }

    /// The flow whose client has this address, as the node's agent recorded it.
    pub(crate) fn flow_from(&self, node: &str, client: &str) -> Result<Value> {
        poll_until(&format!("the flow of {client} on {node}"), Duration::from_secs(5), || {
            let found = self.lab.node(node).admin("/v1/flows").ok()?;
            let mut flows = found["flows"].as_array()?.iter().rev();
            flows.find(|flow| flow["source"]["address"] == client).cloned()
        })
    }

    /// Waits until exactly these pods are enrolled, cluster-wide.
    pub(crate) fn await_enrolled(&self, expected: &[&str]) -> Result<()> {
        let what = format!("{expected:?} to be enrolled and no other pod");
        poll_until(&what, Duration::from_secs(10), || {
            let mut enrolled = Vec::new();
            for node in self.lab.nodes() {
                let status = node.admin("/v1/status").ok()?;
                let pods = status["pods"].as_array()?.clone();
                enrolled.extend(pods.into_iter().filter(|pod| pod["state"] == "enrolled"));
            }
            let mut names: Vec<_> = enrolled.iter().filter_map(|pod| pod["name"].as_str()).collect();
            names.sort_unstable();
            (names == expected).then_some(())
        })
    }

    /// Waits until the servers have logged so many more requests.
    pub(crate) fn await_requests(&self, count: usize) -> Result<()> {
        let logged = || {
            let logs = self.servers.iter().map(|(_, nginx)| fs::read_to_string(nginx.access_log()));
            logs.map(|log| log.unwrap_or_default().lines().count()).sum::<usize>()
        };
        let wanted = logged() + count;
        poll_until(&format!("{count} more requests"), Duration::from_secs(20), || {
            (logged() >= wanted).then_some(())
        })
    }

    /// Asks `web-2`, on the other node, in one new connection; the client's own address.
    pub(crate) fn ask_far(&self, pod: &str, query: &str) -> Result<String> {
        let words = self.ask_far_words(query);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let address = self.quietly(pod, &[&words[..], &["-o", "/dev/null", "-w", OWN_ADDRESS]].concat())?;
        own_address(&address)
    }

    /// The command that asks `web-2` on its own address.
    pub(crate) fn ask_far_words(&self, query: &str) -> Vec<String> {
        let url = format!("http://{}:{WEB_PORT}/?{query}", self.lab.pod("web-2").ip4());
        vec!["curl".to_owned(), "-sS".to_owned(), url]
    }

    /// Which of the web servers gave this answer.
    pub(crate) fn server_of(&self, answer: &str) -> Result<&(Pod, Nginx)> {
        let name = answer.split(' ').next().unwrap_or_default();
        let mut servers = self.servers.iter();
        servers
            .find(|(pod, _)| pod.name() == name)
            .with_context(|| format!("no server gives this answer: {answer:?}"))
    }
}

/// What curl prints of its own end with `-w`.
pub(crate) const OWN_ADDRESS: &str = "%{local_ip} %{local_port}\\n";

/// The last line, as curl printed it, as socket addresses are written.
pub(crate) fn own_address(output: &str) -> Result<String> {
    let line = output.lines().last().unwrap_or_default();
    let (ip, port) =
        line.split_once(' ').with_context(|| format!("curl did not say its address: {output:?}"))?;
    ensure!(port.parse::<u16>().is_ok_and(|port| port > 0), "no port: {line:?}");
    Ok(if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") })
}

fn pod_command(pod: &Pod, words: &[&str]) -> Result<Cmd> {
    let (program, args) = words.split_first().context("no command")?;
    Ok(pod.command(program).args(args).resolve_names())
}

/// As a shell would take it.
fn shown(words: &[&str]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    let quoted = |word: &&str| {
        if word.chars().all(plain) { (*word).to_owned() } else { format!("'{word}'") }
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// A path's last part, for the reader.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
