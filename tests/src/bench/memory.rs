//! Resident memory of the agents: idle, with many open quiet connections between the nodes, and with many whose requests have
//! rules.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::field::{ECHO, Field};
use super::plan::{Mode, Route};
use crate::lab::poll_until;

/// Connections that are open and quiet.
const CONNECTIONS: u64 = 1000;
/// The same of HTTP, after a request each.
const HTTP_CONNECTIONS: u64 = 10_000;

/// KiB of each agent.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Memory {
    pub(crate) idle_kib: Vec<u64>,
    /// After one connection: tunnel, pools and buffers exist.
    pub(crate) warm_kib: Vec<u64>,
    pub(crate) loaded_kib: Vec<u64>,
    pub(crate) connections: u64,
    /// Before, and with, the HTTP connections; what they share exists.
    pub(crate) http_warm_kib: Vec<u64>,
    pub(crate) http_loaded_kib: Vec<u64>,
    pub(crate) http_connections: u64,
}

impl Memory {
    /// MB of the larger agent.
    pub(crate) fn idle_mb(&self) -> f64 {
        self.idle_kib.iter().max().copied().unwrap_or_default() as f64 * 1024.0 / 1e6
    }

    /// KB per connection of the agent that needs more.
    pub(crate) fn per_connection_kb(&self) -> f64 {
        per(self.connections, &self.warm_kib, &self.loaded_kib)
    }

    /// The same of HTTP connections.
    pub(crate) fn per_http_connection_kb(&self) -> f64 {
        per(self.http_connections, &self.http_warm_kib, &self.http_loaded_kib)
    }

    /// MB of the larger agent with all HTTP connections.
    pub(crate) fn http_mb(&self) -> f64 {
        self.http_loaded_kib.iter().max().copied().unwrap_or_default() as f64 * 1024.0 / 1e6
    }
}

fn per(connections: u64, warm: &[u64], loaded: &[u64]) -> f64 {
    let grown = warm.iter().zip(loaded).map(|(warm, loaded)| loaded.saturating_sub(*warm)).max();
    grown.unwrap_or_default() as f64 * 1.024 / connections as f64
}

/// Must run before any load: memory that a load has grown would hide what connections take.
pub(crate) fn measure(field: &Field<'_>) -> Result<Memory> {
    let idle_kib = field.agents_rss()?;
    let to = format!("{}:{ECHO}", field.server(Mode::Mesh, Route::CrossNode));
    let hold = |count: u64| {
        let words = ["hold", "--to", &to, "--count", &count.to_string()];
        field.client(Mode::Mesh).workload(words).with_stdin().spawn()
    };
    let limit = Duration::from_secs(30);
    let mut one = hold(1)?;
    one.wait_for("\"open\"", limit)?;
    let warm_kib = field.agents_rss()?;
    drop(one);
    let mut many = hold(CONNECTIONS)?;
    many.wait_for("\"open\"", limit)?;
    let loaded_kib = field.agents_rss()?;
    let report = many.report(limit)?;
    ensure!(report["ok"] == true, "quiet connections were lost: {report}");
    let (http_warm_kib, http_loaded_kib) = measure_http(field)?;
    let memory = Memory {
        idle_kib,
        warm_kib,
        loaded_kib,
        connections: CONNECTIONS,
        http_warm_kib,
        http_loaded_kib,
        http_connections: HTTP_CONNECTIONS,
    };
    eprintln!(
        "memory: {:.1} MB idle, {:.1} KB per quiet connection, {:.1} KB of HTTP (the larger agent of both)",
        memory.idle_mb(),
        memory.per_connection_kb(),
        memory.per_http_connection_kb()
    );
    Ok(memory)
}

/// KiB of each agent with a few HTTP connections, and with many.
fn measure_http(field: &Field<'_>) -> Result<(Vec<u64>, Vec<u64>)> {
    let limit = Duration::from_secs(180);
    let hold = |count: u64| {
        let words = ["hold", "--http", "--to", "routed:80", "--count", &count.to_string()];
        let held = field.client(Mode::Mesh).workload(words).resolve_names().with_stdin();
        let mut held = held.spawn()?;
        held.wait_for("\"open\"", limit)?;
        anyhow::Ok(held)
    };
    // Connections rest soon after their last request.
    let settled = || {
        let (mut last, mut same) = (Vec::new(), 0);
        poll_until("the agents' memory to settle", limit, || {
            let now = field.agents_rss().ok()?;
            let is_same = now.iter().zip(&last).all(|(now, last): (&u64, &u64)| now.abs_diff(*last) <= 16);
            same = if is_same && !last.is_empty() { same + 1 } else { 0 };
            last.clone_from(&now);
            (same >= 200).then_some(now)
        })
    };
    drop(hold(100)?);
    let warm = settled()?;
    let many = hold(HTTP_CONNECTIONS)?;
    let loaded = settled()?;
    let report = many.report(limit)?;
    ensure!(report["ok"] == true, "quiet HTTP connections were lost: {report}");
    Ok((warm, loaded))
}
