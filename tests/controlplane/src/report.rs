//! What was measured, beside what it should be.

use crate::Cost;
use crate::alone::Alone;
use crate::cluster::Size;
use crate::process::Memory;
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// The cluster that the goals are for, and the largest that is reckoned with.
const GOAL_PODS: u32 = 50_000;
const MANY: u32 = 1_000;
const MIB: f64 = 1_048_576.0;

/// A measure, and the most that it should be where there is a goal.
#[derive(Debug)]
struct Line {
    what: String,
    value: f64,
    unit: &'static str,
    goal: Option<f64>,
    note: &'static str,
}

/// The measures as they come in.
#[derive(Debug)]
pub(crate) struct Report {
    size: Size,
    agents: u32,
    lines: Vec<Line>,
    details: serde_json::Map<String, Value>,
}

impl Report {
    pub(crate) fn new(size: Size, agents: u32) -> Self {
        let mut report = Self { size, agents, lines: Vec::new(), details: serde_json::Map::new() };
        report.details.insert("pods".to_owned(), size.pods.into());
        report.details.insert("agents".to_owned(), agents.into());
        report.details.insert("optimised".to_owned(), (!cfg!(debug_assertions)).into());
        report
    }

    /// Where this runs.
    pub(crate) fn machine(&self) -> String {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let load = read("/proc/loadavg");
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let build = if cfg!(debug_assertions) {
            "NOT optimised (use cargo xtask bench controlplane)"
        } else {
            "optimised"
        };
        format!("{build}; Linux {}, {cpus} CPUs, load {load}", read("/proc/sys/kernel/osrelease"))
    }

    fn line(&mut self, what: impl Into<String>, value: f64, unit: &'static str) -> &mut Line {
        let at = self.lines.len();
        self.lines.push(Line { what: what.into(), value, unit, goal: None, note: "" });
        &mut self.lines[at]
    }

    /// Goals are for the cluster that they were set for.
    fn goal(&self, goal: f64) -> Option<f64> {
        (self.size.pods >= GOAL_PODS).then_some(goal)
    }

    pub(crate) fn controller_started(&mut self, after: Duration, memory: Memory) {
        self.line("controller: manifests read", after.as_secs_f64(), "s");
        self.line("controller RSS without agents", mib(memory.now), "MiB");
        self.details.insert("controller_rss_kib_before".to_owned(), memory.now.into());
    }

    pub(crate) fn alone(&mut self, services: Option<u32>, alone: &Alone) {
        let (key, what, goal) = match services {
            None => ("agent_everything", "one agent RSS, everything".to_owned(), 150.0),
            Some(services) => {
                ("agent_by_interest", format!("one agent RSS, {services} services by interest"), 25.0)
            }
        };
        let goal = self.goal(goal);
        self.line(what, mib(alone.memory.now), "MiB").goal = goal;
        self.line("  at most", mib(alone.memory.peak), "MiB");
        self.details.insert(key.to_owned(), alone.json());
    }

    pub(crate) fn first_state(&mut self, states: &[Duration], cost: &Cost, memory: Memory) {
        let agents = self.agents;
        let (half, all) = (quantile(states, 0.5), quantile(states, 1.0));
        self.line(format!("first state of {agents} agents at once, p50"), half, "s");
        self.line("  the last one", all, "s");
        self.line("  bytes per agent", cost.bytes as f64 / f64::from(agents) / MIB, "MiB");
        self.line("  controller CPU per agent", cost.controller_cpu / f64::from(agents) * 1e3, "ms");
        self.line("  agent CPU", cost.agents_cpu / f64::from(agents) * 1e3, "ms");
        self.line(format!("controller RSS with {agents} agents"), mib(memory.now), "MiB");
        self.line("  at most", mib(memory.peak), "MiB");
        let many = cost.controller_cpu / f64::from(agents) * f64::from(MANY);
        let line = self.line(format!("controller CPU, first state of {MANY} agents"), many, "s");
        line.note = "extrapolated";
        let before = self.details.get("controller_rss_kib_before").and_then(Value::as_u64).unwrap_or(0);
        let each = memory.now.saturating_sub(before) as f64 / f64::from(agents);
        let line = self.line(
            format!("controller RSS with {MANY} agents"),
            (before as f64 + each * f64::from(MANY)) / 1024.0,
            "MiB",
        );
        line.note = "extrapolated";
        self.details.insert(
            "first_state_s".to_owned(),
            json!(states.iter().map(Duration::as_secs_f64).collect::<Vec<_>>()),
        );
    }

    pub(crate) fn changes(&mut self, latencies: &[Duration], changes: u32, cost: &Cost, memory: Memory) {
        let mut sorted = latencies.to_vec();
        sorted.sort();
        let agents = self.agents;
        let goal = self.goal(1000.0);
        self.line(
            format!("one endpoint's change to each of {agents} agents, p50"),
            quantile(&sorted, 0.5) * 1e3,
            "ms",
        );
        let line = self.line("  p99", quantile(&sorted, 0.99) * 1e3, "ms");
        (line.goal, line.note) = (goal, "with 60 ms of the manifests' and the pipeline's debounce");
        self.line("  slowest", quantile(&sorted, 1.0) * 1e3, "ms");
        let each = f64::from(changes.max(1)) * f64::from(agents);
        self.line("  bytes per change and agent", cost.bytes as f64 / each, "B");
        self.line("  controller CPU per change", cost.controller_cpu / f64::from(changes.max(1)) * 1e3, "ms");
        self.line("  agent CPU per change", cost.agents_cpu / each * 1e6, "us");
        self.line("controller RSS in the end", mib(memory.now), "MiB");
        let many = cost.controller_cpu / each * f64::from(MANY) * 1e3;
        let line = self.line(format!("controller CPU per change, {MANY} agents"), many, "ms");
        line.note = "extrapolated, at most: what a change costs without agents is in it";
        self.details.insert(
            "latency_ms".to_owned(),
            json!(sorted.iter().map(|one| one.as_secs_f64() * 1e3).collect::<Vec<_>>()),
        );
    }

    pub(crate) fn json(&self) -> Value {
        let lines: Vec<Value> = self
            .lines
            .iter()
            .map(|line| json!({ "what": line.what.trim(), "value": line.value, "unit": line.unit, "goal": line.goal, "note": line.note }))
            .collect();
        json!({ "machine": self.machine(), "measures": lines, "details": self.details })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "\n{}", self.size)?;
        for Line { what, value, unit, goal, note } in &self.lines {
            let goal = match goal {
                Some(goal) if value < goal => format!("goal < {goal} {unit}: met"),
                Some(goal) => format!("goal < {goal} {unit}: MISSED"),
                None => String::new(),
            };
            let note = if note.is_empty() { String::new() } else { format!("({note})") };
            writeln!(out, "  {what:<58} {value:>10.2} {unit:<4} {goal} {note}")?;
        }
        Ok(())
    }
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// Seconds; of what is sorted.
fn quantile(sorted: &[Duration], quantile: f64) -> f64 {
    let at = ((sorted.len() as f64 * quantile).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).map_or(0.0, Duration::as_secs_f64)
}
