//! `cargo xtask`: everything a person or CI does with this repository beyond `cargo build`.
#![allow(clippy::print_stdout, reason = "a command-line tool talks on stdout")]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
#[allow(unreachable_pub, reason = "written to be called from anywhere")]
mod build_ebpf;
mod cluster;
mod demo;
mod fuzz;
mod process;
mod setup;
mod test;
mod tidy;

/// Builds, tests, shows and measures warren.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what this machine lacks (Debian and Ubuntu as root; elsewhere: say what to install)
    Setup(setup::Options),
    /// Build the kernel object that the agent embeds, from ebpf/
    BuildEbpf {
        /// Only see whether the committed object belongs to the sources
        #[arg(long)]
        check: bool,
    },
    /// Show the mesh at work: two nodes, a few pods, step by step
    Demo(demo::Options),
    /// Run the test suites that this machine can run
    Test(test::Options),
    /// A two-node Kubernetes on this machine
    Cluster(cluster::Options),
    /// Measure the mesh against direct connections
    Bench(bench::Options),
    /// Check format, lints, import layers and the other rules of the house
    Tidy(tidy::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes helps a person; a backtrace of this tool doesn't.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Setup(options) => setup::run(&options),
        Task::BuildEbpf { check } => {
            // Without apt and root, whatever toolchain is there has to do; the build says what it lacks.
            if !check && process::is_root() && process::which("apt-get").is_some() {
                setup::ensure(&[setup::Need::Build, setup::Need::Ebpf])?;
            }
            build_ebpf::run(check)
        }
        Task::Demo(options) => demo::run_demo(&options),
        Task::Test(options) => test::run_test(&options),
        Task::Cluster(options) => cluster::run(&options),
        Task::Bench(options) => bench::run_bench(&options),
        Task::Tidy(options) => tidy::run_tidy(&options),
    }
}
