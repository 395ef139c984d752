//! One agent in a process of its own: what it costs in memory.

use crate::agents::{Agent, has_everything};
use crate::cluster::{Size, service_ip};
use crate::process::{Memory, Process, loopback_bytes};
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// After the last change the copy on disk is written; its buffers are part of the peak.
const SETTLE: Duration = Duration::from_secs(4);

/// What one agent cost.
#[derive(Clone, Debug)]
pub(crate) struct Alone {
    what: &'static str,
    workloads: u64,
    services: u64,
    bytes: u64,
    seconds: f64,
    pub(crate) memory: Memory,
}

impl fmt::Display for Alone {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, workloads, services, bytes, seconds, memory } = self;
        let mib = *bytes as f64 / f64::from(1 << 20);
        write!(
            out,
            "one agent, {what}: {memory}; {workloads} workloads and {services} services, {mib:.1} MiB in {seconds:.2} s"
        )
    }
}

impl Alone {
    pub(crate) fn json(&self) -> Value {
        json!({
            "workloads": self.workloads, "services": self.services, "bytes": self.bytes, "seconds": self.seconds,
            "rss_kib": self.memory.now, "peak_rss_kib": self.memory.peak,
        })
    }
}

/// Starts one and waits for what it has to say; `services`: by interest, and so many are called.
pub(crate) fn spawn(directory: &Path, size: Size, services: Option<u32>) -> Result<Alone> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--alone").arg(directory).arg("--pods").arg(size.pods.to_string());
    if let Some(services) = services {
        command.arg("--by-interest").arg("--services").arg(services.to_string());
    }
    let before = loopback_bytes()?;
    let output = command.output()?;
    if !output.status.success() {
        bail!("an agent alone failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let said: Value = serde_json::from_slice(&output.stdout).context("an agent alone said nonsense")?;
    let number = |name: &str| said[name].as_u64().with_context(|| format!("no {name}"));
    Ok(Alone {
        what: if services.is_some() { "by interest" } else { "everything" },
        workloads: number("workloads")?,
        services: number("services")?,
        bytes: loopback_bytes()? - before,
        seconds: said["seconds"].as_f64().context("no seconds")?,
        memory: Memory { now: number("rss_kib")?, peak: number("peak_rss_kib")? },
    })
}

/// Is that agent.
pub(crate) async fn run(directory: &Path, size: Size, services: Option<u32>) -> Result<Value> {
    let began = Instant::now();
    let agent = Agent::start(directory, 0, services.is_some(), true);
    match services {
        None => agent.until(|mesh| has_everything(mesh, size)).await?,
        Some(services) => {
            agent.until(|_| true).await?;
            for number in 0..services.min(size.services) {
                agent.interest.learn(&agent.store, service_ip(number)).await?;
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE).await;
    let memory = Process::own().memory()?;
    let mesh = agent.store.load();
    let said = json!({
        "workloads": mesh.workloads().len(), "services": mesh.services().len(), "seconds": seconds,
        "rss_kib": memory.now, "peak_rss_kib": memory.peak,
    });
    agent.stop().await;
    Ok(said)
}
