//! What the kernel says of a process and of the loopback.

use anyhow::{Context as _, Result};
use std::fmt;
use std::fs;

/// A process of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(u32);

/// Resident memory in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) now: u64,
    pub(crate) peak: u64,
}

impl Process {
    pub(crate) fn own() -> Self {
        Self(std::process::id())
    }

    pub(crate) fn new(pid: u32) -> Self {
        Self(pid)
    }

    pub(crate) fn memory(self) -> Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).context("malformed status")
        };
        Ok(Memory { now: field("VmRSS:")?, peak: field("VmHWM:")? })
    }

    /// User and system time of all its threads.
    pub(crate) fn cpu_seconds(self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        // After the command's closing parenthesis utime and stime are the 12th and 13th; USER_HZ is 100 everywhere.
        let fields: Vec<&str> =
            stat.rsplit_once(')').context("malformed stat")?.1.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
        Ok((ticks(11).context("no utime")? + ticks(12).context("no stime")?) / 100.0)
    }
}

/// Bytes that this namespace's loopback has carried.
pub(crate) fn loopback_bytes() -> Result<u64> {
    let table = fs::read_to_string("/proc/self/net/dev")?;
    let row = table.lines().find_map(|line| line.trim_start().strip_prefix("lo:")).context("no loopback")?;
    row.split_whitespace().next().context("malformed net/dev")?.parse().context("malformed net/dev")
}

impl fmt::Display for Memory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |kib: u64| kib as f64 / 1024.0;
        write!(out, "{:.1} MiB (at most {:.1})", mib(self.now), mib(self.peak))
    }
}
