//! `cargo xtask test fuzz`: every parser of bytes from outside, fed with mutations for a while.
//!
//! Works on a stable toolchain: the coverage counters that libFuzzer steers by are made by an LLVM pass that
//! stable rustc can be told to run. No address sanitizer then; the parsers are safe Rust, so what is looked for
//! is a panic, a hang or unbounded memory.

use anyhow::{Context as _, Result};
use std::num::NonZero;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::process::{cargo, host, root, run, target_dir};

/// What makes LLVM count the edges that an input reaches.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// Runs each target for `seconds`, as many at once as there are processors: the names, and whether they found nothing.
pub(crate) fn run_all(seconds: u32, filter: Option<&str>) -> Result<Vec<(String, bool)>> {
    let waiting = Mutex::new(targets(seconds, filter)?);
    let done = Mutex::new(Vec::new());
    let one_after_the_other = || {
        loop {
            // A guard of its own: nobody waits for the target of another.
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some((name, mut command)) = next else { return };
            let is_clean = run(&mut command).is_ok();
            done.lock().unwrap_or_else(PoisonError::into_inner).push((name, is_clean));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(one_after_the_other);
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort();
    Ok(done)
}

/// Builds the targets and returns one command each, which runs for `seconds`.
fn targets(seconds: u32, filter: Option<&str>) -> Result<Vec<(String, Command)>> {
    // With a target given, cargo keeps build scripts and macros free of the coverage flags.
    let build_dir = target_dir().join("fuzz");
    let mut build = cargo();
    build
        .args(["build", "-p", "warren-fuzz", "--target", host(), "--target-dir"])
        .arg(&build_dir)
        .env("RUSTFLAGS", COVERAGE);
    run(&mut build)?;
    let mut commands = Vec::new();
    for name in names()?.into_iter().filter(|name| filter.is_none_or(|filter| name.contains(filter))) {
        let corpus = build_dir.join("corpus").join(&name);
        let findings = build_dir.join("findings").join(&name);
        for dir in [&corpus, &findings] {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let mut command = Command::new(build_dir.join(host()).join("debug").join(&name));
        command
            .arg(format!("-max_total_time={seconds}"))
            .args(["-timeout=10", "-rss_limit_mb=1024", "-verbosity=0", "-print_final_stats=1"])
            .arg(format!("-artifact_prefix={}/", findings.display()))
            .arg(corpus)
            .arg(root().join("tests/fuzz/seeds").join(&name));
        commands.push((name, command));
    }
    Ok(commands)
}

/// The targets, by the names of their files.
fn names() -> Result<Vec<String>> {
    let dir: PathBuf = root().join("tests/fuzz/src/bin");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
        if let Some(name) = entry?.path().file_stem().and_then(|stem| stem.to_str()) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}
