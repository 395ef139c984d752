//! `cargo xtask test`: runs the suites that this machine can run and says which ones it can't, and why.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use crate::process::{HOST_CRATES, build_programs, cargo, is_root, target_dir};
use crate::setup::{self, Need};
use crate::{cluster, fuzz};

mod kubernetes;
mod summary;

use summary::{Summary, run_counted};

#[derive(Args)]
pub(crate) struct Options {
    /// One suite (default: all that this machine can run)
    #[arg(value_enum)]
    suite: Option<Suite>,
    /// Only tests whose name contains this
    #[arg(long)]
    filter: Option<String>,
    /// Leave the Kubernetes suite's cluster running, and use the one that an earlier run left
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Library tests of every host crate; no privileges
    Unit,
    /// The agent's kernel programs on this kernel; needs root
    Kernel,
    /// The mesh end to end, in network namespaces; needs root
    Lab,
    /// Fifty random disturbances under traffic (WARREN_CHAOS_STEPS, WARREN_CHAOS_SEED); eight of them are in the lab's suite
    Chaos,
    /// What keeps people out: the tables of policies, and the lab's suites about them; needs root
    Security,
    /// Requests: the tables of routes and balancers, the pipeline, and the lab's suites about them; needs root
    L7,
    /// The mesh on a real two-node Kubernetes; needs root, and Go once
    Kubernetes,
    /// Every parser of bytes from outside, fed with mutations for ten seconds each; no privileges
    Fuzz,
}

const ALL: &[Suite] = &[Suite::Unit, Suite::Kernel, Suite::Lab, Suite::Kubernetes, Suite::Fuzz];

/// How many things happen in a run of chaos.
const CHAOS_STEPS: &str = "WARREN_CHAOS_STEPS";
const CHAOS_SEED: &str = "WARREN_CHAOS_SEED";

/// The suite of tests that needs a cluster.
const KUBERNETES: &str = "kubernetes";

/// The lab's suites that `security` runs.
const SECURITY: &[&str] = &[
    "authorization",
    "binding",
    "boundaries",
    "limits",
    "mtls",
    "policy",
    "revocation",
    "rotation",
    "server_name",
];

/// Parts of the paths of the library tests that `security` runs.
const SECURITY_TABLES: &[&str] = &[
    "authori",
    "peer_authentication",
    "policy",
    "identity",
    "plaintext",
    "gate::",
    "limits::",
    "peek",
    "ca::",
    "trust",
    "tunnel::",
    "registry",
];

/// The lab's suites that `l7` runs, beside all whose names begin with `l7`.
const L7: &[&str] =
    &["bookinfo", "conformance", "destination_rules", "explain", "gateway_api", "headless", "l4_routes"];

/// Parts of the paths of the library tests that `l7` runs.
const L7_TABLES: &[&str] = &[
    "analyze",
    "balance::",
    "destination_rule",
    "http::",
    "observe::request",
    "observe::trace",
    "outbound::",
    "route",
    "status::routes",
    "traffic",
    "virtual_service",
];

/// How long each fuzz target runs, seconds.
const FUZZ_SECONDS: u32 = 10;

pub(crate) fn run_test(options: &Options) -> Result<()> {
    let suites = options.suite.as_ref().map_or(ALL, std::slice::from_ref);
    let mut total = Summary::default();
    for &suite in suites {
        if let Some(reason) = suite.impossible() {
            println!("\n== {suite:?}: SKIPPED: {reason}");
            total.skipped_suites += 1;
            continue;
        }
        println!("\n== {suite:?}");
        setup::ensure(suite.needs())?;
        if let Suite::Kubernetes = suite {
            total += kubernetes::run(options.filter.as_deref(), options.keep)?;
            continue;
        }
        if let Suite::Fuzz = suite {
            for (name, is_clean) in fuzz::run_all(FUZZ_SECONDS, options.filter.as_deref())? {
                total.count(&format!("fuzz target {name}"), is_clean);
            }
            continue;
        }
        for mut command in suite.commands(options.filter.as_deref())? {
            total += run_counted(&mut command)?;
        }
    }
    println!("\n{total}");
    if let Some(filter) = &options.filter
        && total.ran_nothing()
    {
        bail!("no test's name contains {filter:?}");
    }
    if !total.is_success() {
        bail!("tests failed");
    }
    Ok(())
}

impl Suite {
    fn needs(self) -> &'static [Need] {
        match self {
            Self::Unit | Self::Kernel | Self::Fuzz => &[Need::Build],
            Self::Lab | Self::Chaos | Self::Security | Self::L7 => &[Need::Build, Need::Lab],
            Self::Kubernetes => &[Need::Build, Need::Lab, Need::Kubernetes],
        }
    }

    /// Why this machine can't run the suite.
    fn impossible(self) -> Option<String> {
        match self {
            Self::Unit | Self::Fuzz => None,
            _ if !is_root() => Some("needs root (network namespaces, kernel programs)".to_owned()),
            Self::Kernel if !kernel_suite().exists() => Some("agent/tests/kernel does not exist".to_owned()),
            _ if !has_cgroup2() => Some("no cgroup2 hierarchy is mounted".to_owned()),
            Self::Kubernetes => cluster::go_missing(),
            Self::Kernel | Self::Lab | Self::Chaos | Self::Security | Self::L7 => None,
        }
    }

    fn commands(self, filter: Option<&str>) -> Result<Vec<Command>> {
        let mut commands = Vec::new();
        match self {
            Self::Fuzz | Self::Kubernetes => {}
            Self::Unit => {
                let mut command = cargo();
                command.arg("test").args(HOST_CRATES).args(["--lib", "--bins", "--no-fail-fast"]);
                commands.push(command);
                // Everything in them is on loopback.
                let mut command = cargo();
                command
                    .arg("test")
                    .args(HOST_CRATES)
                    .args(tests_of("controller", |name| name != KUBERNETES)?)
                    .arg("--no-fail-fast");
                commands.push(command);
            }
            Self::Kernel => {
                let mut command = cargo();
                command.arg("test").args(HOST_CRATES).args(["--test", "kernel", "--no-fail-fast"]);
                commands.push(command);
            }
            Self::Chaos => {
                build_programs()?;
                let mut command = cargo();
                command.arg("test").args(HOST_CRATES).args(["--test", "chaos"]);
                command.env("WARREN_BIN", target_dir().join("debug/warren"));
                if std::env::var_os(CHAOS_STEPS).is_none() {
                    command.env(CHAOS_STEPS, "50");
                }
                if std::env::var_os(CHAOS_SEED).is_none() {
                    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
                    command.env(CHAOS_SEED, now.as_secs().to_string());
                }
                command.args(["--", "--nocapture"]);
                commands.push(command);
            }
            Self::Lab => commands.push(lab(|name| name != KUBERNETES)?),
            Self::Security => {
                commands.push(tables(SECURITY_TABLES, filter));
                commands.push(lab(|name| SECURITY.contains(&name))?);
            }
            Self::L7 => {
                commands.push(tables(L7_TABLES, filter));
                commands.push(lab(|name| name.starts_with("l7") || L7.contains(&name))?);
            }
        }
        for command in &mut commands {
            command.args(filter);
        }
        Ok(commands)
    }
}

/// The library tests whose paths contain one of `names`; with a filter, it says which.
fn tables(names: &[&str], filter: Option<&str>) -> Command {
    let mut command = cargo();
    command.arg("test").args(HOST_CRATES).args(["--lib", "--no-fail-fast", "--"]);
    if filter.is_none() {
        command.args(names);
    }
    command
}

/// The lab's suites of these names, with the daemons built.
fn lab(wanted: impl Fn(&str) -> bool) -> Result<Command> {
    build_programs()?;
    let mut command = cargo();
    command.arg("test").args(HOST_CRATES).args(tests_of("tests", wanted)?).arg("--no-fail-fast");
    command.env("WARREN_BIN", target_dir().join("debug/warren"));
    // One lab at a time: some claims are about how soon something happens.
    command.args(["--", "--test-threads", "1"]);
    Ok(command)
}

/// `--test NAME` for every integration test of a crate that is wanted.
fn tests_of(folder: &str, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let dir = crate::process::root().join(folder).join("tests");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        let is_test = path.extension().is_some_and(|end| end == "rs") || path.join("main.rs").exists();
        match path.file_stem().and_then(|stem| stem.to_str()) {
            Some(name) if is_test && wanted(name) => names.push(name.to_owned()),
            _ => {}
        }
    }
    names.sort();
    Ok(names.into_iter().flat_map(|name| ["--test".to_owned(), name]).collect())
}

fn kernel_suite() -> std::path::PathBuf {
    let file = crate::process::root().join("agent/tests/kernel.rs");
    if file.exists() { file } else { file.with_extension("").join("main.rs") }
}

fn has_cgroup2() -> bool {
    std::fs::read_to_string("/proc/mounts")
        .is_ok_and(|mounts| mounts.lines().any(|line| line.split(' ').nth(2) == Some("cgroup2")))
}
