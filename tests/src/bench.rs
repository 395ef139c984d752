//! The mesh against direct connections, taken in turns in one run, and where that stands against the budgets.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::session::{self, Session};

mod budget;
mod field;
mod load;
mod memory;
mod plan;
mod report;
mod results;
mod table;

use field::Field;
use plan::{Mode, Plan, Sample};

/// Measures the mesh against direct connections: same clients, same servers, same nodes, in turns.
#[derive(Clone, Debug, Parser)]
#[command(name = "warren-bench")]
struct Options {
    /// Fewer and shorter rounds: a first impression in less than 90 seconds
    #[arg(long)]
    quick: bool,
    /// Only what has this in its name (bulk, keep-alive, new, p50, L7, gRPC, rss, cross-node, same-node ...)
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Where all rounds are written (default: bench.json in cargo's target directory)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rounds of direct and mesh
    #[arg(long)]
    rounds: Option<u32>,
    /// Seconds that each load lasts
    #[arg(long)]
    seconds: Option<u32>,
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let options = Options::parse();
    session::run(move |session| measure(session, &options))
}

fn measure(session: &Session, options: &Options) -> Result<()> {
    let start = Instant::now();
    let (rounds, seconds) = if options.quick { (2, 1) } else { (3, 2) };
    let plan = Plan {
        rounds: options.rounds.unwrap_or(rounds).max(1),
        seconds: options.seconds.unwrap_or(seconds).max(1),
        only: options.only.clone(),
    };
    let machine = report::Machine::look();
    eprintln!("{machine}");
    let lab = session.up(field::cluster())?;
    let field = Field::set(&lab)?;
    if plan.wants_rules() {
        field.route()?;
    }
    let memory = plan.wants_memory().then(|| memory::measure(&field)).transpose()?;
    let samples = take_samples(&field, &plan);
    let results = results::of(&samples, memory.as_ref());

    let path = match &options.json {
        Some(path) => path.clone(),
        None => report::default_path()?,
    };
    let json = report::json(&machine, &plan, &samples, memory.as_ref(), &results);
    std::fs::write(&path, serde_json::to_string_pretty(&json)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    table::print(&results)?;
    eprintln!(
        "\n{} samples in {:.0} s, all in {}",
        samples.len(),
        start.elapsed().as_secs_f64(),
        path.display()
    );
    if machine.is_busy() {
        eprintln!("the machine was busy when this began: read the ratios with care");
    }
    Ok(())
}

/// Round by round, and in each direct and mesh next to each other, so that what else the machine does hits both.
fn take_samples(field: &Field<'_>, plan: &Plan) -> Vec<Sample> {
    let loads = plan.loads();
    let total = loads.len() * plan.rounds as usize * 2;
    let mut samples: Vec<Sample> = Vec::with_capacity(total);
    for round in 1..=plan.rounds {
        for &(measure, route) in &loads {
            for mode in [Mode::Direct, Mode::Mesh] {
                let sample = load::sample(field, plan, round, measure, route, mode);
                eprintln!("[{:>3}/{total}] {sample}", samples.len() + 1);
                samples.push(sample);
            }
        }
    }
    samples
}

/// How long one load may take beyond its own time before it counts as failed.
const GRACE: Duration = Duration::from_secs(15);
