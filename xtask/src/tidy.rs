//! `cargo xtask tidy`: format, lints, and the invariants of the house that neither of them can see.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::process::{cargo, host, root, run, target_dir};

mod paths;
mod rules;
mod source;

/// A broken rule: where, which, and why the rule exists.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    file: String,
    line: usize,
    rule: &'static str,
    what: String,
    why: &'static str,
}

#[derive(Args)]
pub(crate) struct Options {
    /// Only the rules of the house, not rustfmt and clippy
    #[arg(long)]
    house: bool,
}

pub(crate) fn run_tidy(options: &Options) -> Result<()> {
    let violations = check_tree(&root())?;
    for found in &violations {
        println!("{}:{}: {}: {}: {}", found.file, found.line, found.rule, found.what, found.why);
    }
    if !options.house {
        run(cargo().args(["fmt", "--all", "--check"]))?;
        // The kernel programs build for another target only; `build-ebpf` lints them there.
        run(cargo()
            .args(["clippy", "--workspace", "--exclude", "warren-ebpf", "--all-targets"])
            .args(["--quiet", "--", "-D", "warnings"]))?;
        // The kernel programs as host code: clippy needs no BPF target to read them.
        run(cargo()
            .args(["clippy", "-p", "warren-ebpf", "--quiet", "--target", host(), "--target-dir"])
            .arg(target_dir().join("ebpf-clippy"))
            .args(["--", "-D", "warnings"])
            .env("RUSTFLAGS", "-Cpanic=abort"))?;
    }
    if !violations.is_empty() {
        bail!("{} violation(s) of the rules of the house", violations.len());
    }
    println!("tidy");
    Ok(())
}

/// Checks every Rust source below `root`.
fn check_tree(root: &Path) -> Result<Vec<Violation>> {
    let mut files = Vec::new();
    for room in ["common", "ebpf", "agent", "controller", "cli", "xtask", "tests"] {
        rust_files(&root.join(room), &mut files)?;
    }
    files.sort();
    let mut violations = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        violations.extend(rules::check(&name, &text));
    }
    Ok(violations)
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    if !dir.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with("target") {
                rust_files(&path, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}
