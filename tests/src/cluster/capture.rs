//! What passes between the nodes, as tcpdump sees it on a node's uplink: each packet once.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::ClusterNode;
use crate::lab::poll_until;
use crate::pcap;
use crate::tls;

/// HBONE.
const TUNNEL_PORT: u16 = 15008;

/// A running tcpdump and its file.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Child,
    dir: TempDir,
}

impl Capture {
    /// Starts to record on a node's uplink.
    pub fn start(node: &ClusterNode) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", node.netns)).args(["--", "tcpdump", "-i", "eth0", "-U"]);
        command.args(["-Z", "root", "--immediate-mode", "-s", "0", "-w"]).arg(dir.path().join("pcap"));
        command.arg("tcp").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut capture = Self { tcpdump: command.spawn().context("cannot start tcpdump")?, dir };
        // It writes the file's header when it has begun to listen.
        let begun = poll_until("tcpdump to listen", Duration::from_secs(10), || {
            let ended = !matches!(capture.tcpdump.try_wait(), Ok(None));
            (ended || !capture.bytes().is_empty()).then_some(!ended)
        })?;
        if !begun {
            bail!("tcpdump did not start");
        }
        Ok(capture)
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.dir.path().join("pcap")).unwrap_or_default()
    }

    /// What has passed until now.
    #[must_use]
    pub fn packets(&self) -> Packets {
        Packets(self.bytes())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

/// Recorded packets.
#[derive(Debug)]
pub struct Packets(Vec<u8>);

impl Packets {
    /// Whether any of them carries this text.
    #[must_use]
    pub fn show(&self, text: &str) -> bool {
        pcap::segments(&self.0).any(|segment| pcap::contains(segment.payload, text.as_bytes()))
    }

    /// The ports that packets from one address to another went to or came from, as the other's; each once.
    #[must_use]
    pub fn ports(&self, client: &str, server: &str) -> Vec<u16> {
        let mut ports: Vec<_> = pcap::segments(&self.0)
            .filter(|segment| {
                segment.source.ip().to_string() == client && segment.target.ip().to_string() == server
            })
            .map(|segment| segment.target.port())
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Whether there are connections from one address to the tunnel port of another, and all begin with TLS 1.3.
    #[must_use]
    pub fn tunnels_are_tls13(&self, client: &str, server: &str) -> bool {
        let mut hellos = 0;
        let mut begun = std::collections::BTreeMap::new();
        for segment in pcap::segments(&self.0).filter(|segment| !segment.payload.is_empty()) {
            let (source, target) = (segment.source, segment.target);
            let ends = (source.ip().to_string(), target.ip().to_string());
            if target.port() == TUNNEL_PORT && ends == (client.to_owned(), server.to_owned()) {
                let first =
                    *begun.entry((source, target)).or_insert_with(|| tls::is_client_hello(segment.payload));
                if !first {
                    return false;
                }
            } else if source.port() == TUNNEL_PORT && begun.contains_key(&(target, source)) {
                hellos += usize::from(tls::server_hello(segment.payload).is_some_and(tls::Choice::is_tls13));
            }
        }
        hellos > 0 && hellos >= begun.len()
    }
}
