//! Everything in JSON: what was measured, on what, and every round.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::{Value, json};

use super::memory::Memory;
use super::plan::{Plan, Sample};
use super::results::Results;

/// Where and when this ran.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    commit: Option<String>,
    /// The working tree differs from the commit.
    changed: bool,
    kernel: String,
    cpus: usize,
    cpu_model: Option<String>,
    load_average: f64,
    started_unix: u64,
    optimised: bool,
}

impl Machine {
    /// Must be asked before the bench makes load of its own.
    pub(crate) fn look() -> Self {
        let git = |args: &[&str]| {
            let done = Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(args).output();
            let done = done.ok().filter(|done| done.status.success())?;
            Some(String::from_utf8_lossy(&done.stdout).trim().to_owned())
        };
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let average = read("/proc/loadavg");
        let model = read("/proc/cpuinfo")
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map(|(_, model)| model.to_owned());
        Self {
            commit: git(&["rev-parse", "HEAD"]),
            changed: git(&["status", "--porcelain", "--untracked-files=no"])
                .is_some_and(|text| !text.is_empty()),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            cpu_model: model,
            load_average: average.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0),
            started_unix: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            optimised: !cfg!(debug_assertions),
        }
    }

    /// Whether something else was at work.
    pub(crate) fn is_busy(&self) -> bool {
        self.load_average > 0.5 * self.cpus as f64
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commit = self.commit.as_deref().map_or("unknown", |commit| &commit[..commit.len().min(12)]);
        let changed = if self.changed { " with changes" } else { "" };
        let build = if self.optimised { "" } else { ", NOT optimised (use cargo xtask bench)" };
        write!(
            out,
            "commit {commit}{changed}{build}; Linux {}, {} CPUs, load average {:.2}",
            self.kernel, self.cpus, self.load_average
        )
    }
}

/// `bench.json` in cargo's target directory: two levels above this program.
pub(crate) fn default_path() -> Result<PathBuf> {
    let us = std::env::current_exe()?;
    let target = us.ancestors().nth(2).context("no target directory")?;
    Ok(target.join("bench.json"))
}

pub(crate) fn json(
    machine: &Machine,
    plan: &Plan,
    samples: &[Sample],
    memory: Option<&Memory>,
    results: &Results,
) -> Value {
    json!({
        "machine": machine,
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "only": plan.only,
        "results": results,
        "memory": memory,
        "samples": samples,
    })
}
