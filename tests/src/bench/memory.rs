//! Resident memory of the agents: idle, and with many open quiet connections between the nodes.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::field::{ECHO, Field};
use super::plan::{Mode, Route};

/// Connections that are open and quiet.
const CONNECTIONS: u64 = 1000;

/// KiB of each agent.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Memory {
    pub(crate) idle_kib: Vec<u64>,
    /// After one connection: tunnel, pools and buffers exist.
    pub(crate) warm_kib: Vec<u64>,
    pub(crate) loaded_kib: Vec<u64>,
    pub(crate) connections: u64,
}

impl Memory {
    /// MB of the larger agent.
    pub(crate) fn idle_mb(&self) -> f64 {
        self.idle_kib.iter().max().copied().unwrap_or_default() as f64 * 1024.0 / 1e6
    }

    /// KB per connection of the agent that needs more.
    pub(crate) fn per_connection_kb(&self) -> f64 {
        let pairs = self.warm_kib.iter().zip(&self.loaded_kib);
        let grown = pairs.map(|(warm, loaded)| loaded.saturating_sub(*warm)).max();
        grown.unwrap_or_default() as f64 * 1.024 / self.connections as f64
    }
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
    let memory = Memory { idle_kib, warm_kib, loaded_kib, connections: CONNECTIONS };
    eprintln!(
        "memory: {:.1} MB idle, {:.1} KB per quiet connection (the larger agent of both)",
        memory.idle_mb(),
        memory.per_connection_kb()
    );
    Ok(memory)
}
