//! What passes between the nodes, as tcpdump sees it on the first node's uplink.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::lab::{Lab, Pod, Proc, poll_until};
use crate::pcap::{self, Segment};
use crate::tls;

/// HBONE.
pub(crate) const TUNNEL_PORT: u16 = 15008;
const CONTROLLER_PORT: u16 = 15012;

/// A running tcpdump and its file.
#[derive(Debug)]
pub(crate) struct Wire {
    file: PathBuf,
    _tcpdump: Proc,
}

impl Wire {
    /// Starts to record at `node`'s port of the bridge, where each packet to or from the node passes once.
    pub(crate) fn record(lab: &Lab, node: &str) -> Result<Self> {
        let file = lab.dir().join("wire.pcap");
        let command = lab.fabric().command("tcpdump").args(["-i", node, "-Z", "root", "-U"]);
        let mut tcpdump = command.args(["--immediate-mode", "-s", "0", "-w"]).arg(&file).spawn()?;
        // It writes the file's header when it has begun to listen.
        let started = poll_until("tcpdump to listen", Duration::from_secs(10), || {
            let begun = fs::metadata(&file).is_ok_and(|meta| meta.len() > 0);
            (begun || !tcpdump.is_running()).then_some(begun)
        })?;
        if !started {
            bail!("tcpdump did not start: {}", tcpdump.wait(Duration::from_secs(1))?);
        }
        Ok(Self { file, _tcpdump: tcpdump })
    }

    /// The capture's path.
    pub(crate) fn path(&self) -> &Path {
        &self.file
    }

    /// What has been seen until now.
    pub(crate) fn seen(&self) -> Result<Seen> {
        Ok(Seen(fs::read(&self.file)?))
    }

    /// What has been seen when `mark` has passed in the clear.
    pub(crate) fn seen_until(&self, mark: &str) -> Result<Seen> {
        poll_until("a packet in the capture", Duration::from_secs(10), || {
            self.seen().ok().filter(|seen| seen.shows(mark))
        })
    }
}

/// A capture's bytes.
pub(crate) struct Seen(Vec<u8>);

impl Seen {
    fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        pcap::segments(&self.0)
    }

    /// Whether a packet carries this text.
    pub(crate) fn shows(&self, text: &str) -> bool {
        self.segments().any(|segment| pcap::contains(segment.payload, text.as_bytes()))
    }

    /// TCP packets to or from each well-known port, and what the port is for.
    pub(crate) fn by_port(&self) -> BTreeMap<u16, (u64, &'static str)> {
        let mut counts = BTreeMap::new();
        for segment in self.segments() {
            // The server's port is the lower one here: clients' begin at 10240, and ours are told by name.
            let known = |port: u16| matches!(port, TUNNEL_PORT | CONTROLLER_PORT);
            let (one, other) = (segment.source.port(), segment.target.port());
            let port = [one, other].into_iter().find(|&port| known(port)).unwrap_or(one.min(other));
            counts.entry(port).or_insert((0, purpose(port))).0 += 1;
        }
        counts
    }

    /// The ports of the packets between two pods that are neither pod's own choice: those connected to.
    pub(crate) fn ports_between(&self, client: &Pod, server: &Pod) -> BTreeMap<u16, u64> {
        let is = |pod: &Pod, ip: IpAddr| ip == IpAddr::from(pod.ip4()) || ip == IpAddr::from(pod.ip6());
        let mut ports = BTreeMap::new();
        for segment in self.segments() {
            let (source, target) = (segment.source, segment.target);
            if is(client, source.ip()) && is(server, target.ip()) {
                *ports.entry(target.port()).or_default() += 1;
            } else if is(server, source.ip()) && is(client, target.ip()) {
                *ports.entry(source.port()).or_default() += 1;
            }
        }
        ports
    }

    /// For every connection to the tunnel port: where from, where to, its client's first bytes, its server's choice.
    pub(crate) fn handshakes(&self) -> Vec<Handshake> {
        let mut begun: BTreeMap<(SocketAddr, SocketAddr), Handshake> = BTreeMap::new();
        for Segment { source, target, payload } in
            self.segments().filter(|segment| !segment.payload.is_empty())
        {
            if target.port() == TUNNEL_PORT {
                begun.entry((source, target)).or_insert_with(|| Handshake {
                    client: source,
                    server: target,
                    first: payload[..payload.len().min(16)].to_vec(),
                    choice: None,
                });
            } else if let Some(handshake) = begun.get_mut(&(target, source)) {
                handshake.choice = handshake.choice.or_else(|| tls::server_hello(payload));
            }
        }
        begun.into_values().collect()
    }
}

/// How a connection to the tunnel port began.
#[derive(Debug)]
pub(crate) struct Handshake {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
    pub(crate) first: Vec<u8>,
    pub(crate) choice: Option<tls::Choice>,
}

impl Handshake {
    /// Whether both sides began with TLS 1.3.
    pub(crate) fn is_tls13(&self) -> bool {
        tls::is_client_hello(&self.first) && self.choice.is_some_and(tls::Choice::is_tls13)
    }
}

fn purpose(port: u16) -> &'static str {
    match port {
        TUNNEL_PORT => "tunnels between pods of the mesh",
        CONTROLLER_PORT => "agents and their controller, TLS too",
        8080 => "the web servers' own port",
        _ => "",
    }
}
