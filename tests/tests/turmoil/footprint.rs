//! What an idle agent holds: descriptors by kind, memory, pods in the kernel's map.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use warren_tests::lab::{Daemon, Node, poll_until};

/// Sockets that an idle agent may have more at the end than at the beginning: tunnels stay open for a while, and so does
/// the stock of sockets of each pod.
const SOCKETS: usize = 32;
/// Memory that an idle agent may have more at the end, KiB: what its allocator keeps of the busiest moment.
const MEMORY: u64 = 24 << 10;
/// How long what was used may take to be given back.
const PATIENCE: Duration = Duration::from_secs(30);

/// What an agent holds while nobody has a connection open through it.
#[derive(Debug)]
pub(crate) struct Footprint {
    sockets: usize,
    /// Descriptors of network namespaces.
    namespaces: usize,
    /// All others: files, pipes, epoll, maps, programs and their links.
    others: usize,
    memory_kib: u64,
    captured: f64,
}

impl Footprint {
    /// Waits until nobody has a connection open, and looks.
    pub(crate) fn of(node: &Node, agent: &Daemon) -> Result<Self> {
        poll_until("no connection to be open", PATIENCE, || {
            (node.metric("istio_tcp_sockets_open", &[]).ok()? == 0.0).then_some(())
        })?;
        let pid = agent.pid().context("no agent")?;
        let mut found = Self {
            sockets: 0,
            namespaces: 0,
            others: 0,
            memory_kib: agent.rss_kib()?,
            captured: node.metric("warren_pods", &["state=\"captured\""])?,
        };
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
            // It may have been closed meanwhile.
            let Ok(target) = std::fs::read_link(entry?.path()) else { continue };
            match target.to_string_lossy() {
                text if text.starts_with("socket:") => found.sockets += 1,
                text if text.starts_with("net:") => found.namespaces += 1,
                _ => found.others += 1,
            }
        }
        Ok(found)
    }

    /// Waits until the node's agent, with the same pods as before, holds no more than `self`.
    pub(crate) fn must_return(&self, node: &Node, agent: &Daemon) -> Result<()> {
        let mut last = None;
        let returned = poll_until(&format!("{} to give back what it used", node.name()), PATIENCE, || {
            let checked = Self::of(node, agent).and_then(|now| self.is_not_less_than(&now));
            last = checked.err();
            last.is_none().then_some(())
        });
        returned.with_context(|| last.map(|error| format!("{error:#}")).unwrap_or_default())
    }

    fn is_not_less_than(&self, now: &Self) -> Result<()> {
        ensure!(now.captured == self.captured, "pods in the kernel's map: {self:?}, then {now:?}");
        ensure!(now.namespaces <= self.namespaces, "network namespaces: {self:?}, then {now:?}");
        ensure!(now.others <= self.others, "descriptors that are no sockets: {self:?}, then {now:?}");
        ensure!(now.sockets <= self.sockets + SOCKETS, "sockets: {self:?}, then {now:?}");
        ensure!(now.memory_kib <= self.memory_kib + MEMORY, "memory: {self:?}, then {now:?}");
        Ok(())
    }
}
