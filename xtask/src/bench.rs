//! `cargo xtask bench`: builds with optimisation and hands over to `warren-bench` in the tests crate.

use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::process::{cargo, exec, is_root, run, target_dir};
use crate::setup::{self, Need};

#[derive(Args)]
pub(crate) struct Options {
    /// Passed on to the bench: `controlplane` for a synthetic cluster's, `route` for the choice of a route, --quick, --only NAME, --json FILE (`cargo xtask bench -- --help` has them all)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// The first argument that measures the control plane instead of traffic.
const CONTROLPLANE: &str = "controlplane";

/// The first argument that measures the choice of a route alone.
const ROUTE: &str = "route";

pub(crate) fn run_bench(options: &Options) -> Result<()> {
    if let Some((ROUTE, rest)) = options.arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return exec(cargo().args(["bench", "-p", "warren-agent", "--bench", ROUTE, "--"]).args(rest));
    }
    if !is_root() {
        bail!("the bench makes network namespaces and loads kernel programs: please run it as root");
    }
    setup::ensure(&[Need::Build, Need::Lab, Need::Bench])?;
    if let Some((CONTROLPLANE, rest)) =
        options.arguments.split_first().map(|(first, rest)| (first.as_str(), rest))
    {
        run(cargo().args(["build", "--release", "-p", "warren", "-p", "warren-bench-controlplane"]))?;
        return exec(Command::new(target_dir().join("release/warren-bench-controlplane")).args(rest));
    }
    run(cargo().args(["build", "--release", "-p", "warren", "-p", "warren-tests"]))?;
    exec(Command::new(target_dir().join("release/warren-bench")).args(&options.arguments))
}
