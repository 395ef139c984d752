//! `warren-bench-controlplane` (`cargo xtask bench controlplane`): a cluster that exists only as manifests, the real
//! controller in a process of its own, and agents that have everything but a data plane.
//!
//! Measured are the first state of many agents that come at once, the way of one changed endpoint to all of them, and
//! what all that costs in bytes, CPU and memory. Everything runs in a network namespace of its own, so that the
//! loopback's counters count nothing else.
#![allow(clippy::print_stdout, reason = "a command-line tool talks on stdout")]

mod agents;
mod alone;
mod cluster;
mod controller;
mod process;
mod report;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use cluster::{Cluster, Size};
use controller::Controller;
use report::Report;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Says that we already are in the namespace of our own.
const APART: &str = "WARREN_BENCH_APART";

/// Measures the control plane with a synthetic cluster.
#[derive(Clone, Debug, Parser)]
#[command(name = "warren-bench-controlplane")]
struct Options {
    /// A tenth of the cluster: 5,000 pods
    #[arg(long)]
    quick: bool,
    /// Pods of the cluster; there is a service for every ten and a node for every fifty
    #[arg(long)]
    pods: Option<u32>,
    /// Agents that follow everything at the same time, in one process
    #[arg(long, default_value_t = 100)]
    agents: u32,
    /// Endpoints that change, one after the other
    #[arg(long, default_value_t = 200)]
    changes: u32,
    /// Services that the agent by interest talks to
    #[arg(long, default_value_t = 50)]
    services: u32,
    /// Where the results are written as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Be one agent, for its memory: of this directory's controller
    #[arg(long, hide = true)]
    alone: Option<PathBuf>,
    /// ... by interest
    #[arg(long, hide = true)]
    by_interest: bool,
}

impl Options {
    fn size(&self) -> Size {
        Size::of(self.pods.unwrap_or(if self.quick { 5_000 } else { 50_000 }).max(100))
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    if std::env::var_os(APART).is_none() {
        return go_apart();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match &options.alone {
        Some(directory) => {
            let services = options.by_interest.then_some(options.services);
            println!("{}", runtime.block_on(alone::run(directory, options.size(), services))?);
            Ok(())
        }
        None => runtime.block_on(measure(options)),
    }
}

/// The same again, in a network namespace where nobody else makes traffic.
fn go_apart() -> Result<()> {
    let error = Command::new("unshare")
        .args(["--net", "--", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(APART, "1")
        .exec();
    Err(error).context("cannot run unshare (util-linux)")
}

async fn measure(options: &Options) -> Result<()> {
    let size = options.size();
    let mut report = Report::new(size, options.agents);
    eprintln!("{}", report.machine());
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::create(directory.path(), size, options.agents)?;
    eprintln!("{size}: manifests written");

    let began = Instant::now();
    let controller = Controller::start(directory.path())?;
    controller.wait_ready(Duration::from_secs(600)).await?;
    report.controller_started(began.elapsed(), controller.process().memory()?);
    eprintln!("controller ready after {:.1} s", began.elapsed().as_secs_f64());

    for services in [None, Some(options.services)] {
        let alone = alone::spawn(directory.path(), size, services)?;
        eprintln!("{alone}");
        report.alone(services, &alone);
    }

    let cost = Cost::now(&controller)?;
    let mut agents = agents::Agents::start(directory.path(), options.agents, size).await?;
    report.first_state(agents.first_states(), &cost.since(&controller)?, controller.process().memory()?);
    eprintln!("{} agents have everything after {:.1} s", options.agents, agents.last_state().as_secs_f64());

    let cost = Cost::now(&controller)?;
    let mut latencies = Vec::new();
    for number in 0..options.changes {
        let began = Instant::now();
        cluster.change(number)?;
        latencies.extend(agents.see_change(number, began).await?);
    }
    let cost = cost.since(&controller)?;
    report.changes(&latencies, options.changes, &cost, controller.process().memory()?);
    agents.stop().await;
    drop(controller);

    print!("{report}");
    if let Some(path) = &options.json {
        std::fs::write(path, format!("{:#}\n", report.json()))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if latencies.is_empty() {
        bail!("nothing was measured");
    }
    Ok(())
}

/// What was used so far, or between two moments.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Over the loopback, TLS and acknowledgements included.
    bytes: u64,
    controller_cpu: f64,
    agents_cpu: f64,
}

impl Cost {
    fn now(controller: &Controller) -> Result<Self> {
        Ok(Self {
            bytes: process::loopback_bytes()?,
            controller_cpu: controller.process().cpu_seconds()?,
            agents_cpu: process::Process::own().cpu_seconds()?,
        })
    }

    fn since(&self, controller: &Controller) -> Result<Self> {
        let now = Self::now(controller)?;
        Ok(Self {
            bytes: now.bytes - self.bytes,
            controller_cpu: now.controller_cpu - self.controller_cpu,
            agents_cpu: now.agents_cpu - self.agents_cpu,
        })
    }
}
