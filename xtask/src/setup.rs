//! `cargo xtask setup`: what the lab, the demo, the bench and the kernel object need beside Rust.
//!
//! The other commands call [`ensure`], so that each of them does everything on a fresh machine.

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::process::{self, is_root, which};

mod packages;

use packages::{PACKAGES, Package};

#[derive(Args)]
pub(crate) struct Options {
    /// Install without asking (the default when there is no terminal)
    #[arg(long)]
    yes: bool,
    /// Also what `build-ebpf` needs; `cargo build` does without, it embeds the committed kernel object
    #[arg(long)]
    ebpf: bool,
    /// Only say what is missing; exit with an error when something is
    #[arg(long)]
    check: bool,
}

/// What a command is about to do, and so what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Compile the host crates.
    Build,
    /// Nodes and pods as network namespaces, and what runs in them.
    Lab,
    /// Load generators and the proxies we compare with.
    Bench,
    /// Kubernetes nodes on this machine.
    Kubernetes,
    /// The BPF toolchain.
    Ebpf,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut needs = vec![Need::Build, Need::Lab, Need::Bench, Need::Kubernetes];
    if options.ebpf {
        needs.push(Need::Ebpf);
    }
    let missing = missing(&needs);
    if missing.is_empty() && linker_present(&needs) {
        println!("everything is there");
        return Ok(());
    }
    if options.check {
        tell(&missing);
        bail!("{} package(s) missing", missing.len());
    }
    install(&missing, options.yes)?;
    install_linker(&needs)
}

/// Installs what `needs` lack, or says how to.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let missing = missing(needs);
    if !missing.is_empty() {
        install(&missing, false)?;
    }
    install_linker(needs)
}

fn missing(needs: &[Need]) -> Vec<&'static Package> {
    PACKAGES.iter().filter(|package| needs.contains(&package.need) && !package.present()).collect()
}

fn tell(missing: &[&Package]) {
    println!("missing on this machine:");
    for package in missing {
        println!("  {:<26} {}", package.name, package.why);
    }
}

fn install(missing: &[&Package], yes: bool) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    tell(missing);
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    let by_hand = format!("apt-get install --no-install-recommends {}", names.join(" "));
    if which("apt-get").is_none() {
        bail!(
            "this is neither Debian nor Ubuntu: please install what these packages contain, then try again"
        );
    }
    if !is_root() {
        bail!("not root: please run `sudo {by_hand}`, then try again");
    }
    if !yes && std::io::stdin().is_terminal() && !confirm(&by_hand)? {
        bail!("nothing installed; by hand: {by_hand}");
    }
    if !lists_know(&names)? {
        process::run(apt().args(["update", "-q"]))?;
    }
    let daemons = KeepDaemonsDown::begin()?;
    process::run(apt().args(["install", "-y", "-q", "--no-install-recommends"]).args(&names))?;
    drop(daemons);
    Ok(())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn confirm(what: &str) -> Result<bool> {
    print!("run `{what}` now? [Y/n] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "" | "y" | "Y" | "yes"))
}

/// Whether apt's package lists name every package; a fresh image has no lists.
fn lists_know(names: &[&str]) -> Result<bool> {
    for name in names {
        let output =
            Command::new("apt-cache").args(["policy", name]).output().context("cannot run apt-cache")?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !text.contains("Candidate:") || text.contains("Candidate: (none)") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Debian starts a daemon when its package is installed, unless /usr/sbin/policy-rc.d forbids it (exit 101).
/// We need nginx's binary, never a web server on the host's port 80.
struct KeepDaemonsDown {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl KeepDaemonsDown {
    fn begin() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        fs::write(POLICY, "#!/bin/sh\nexit 101\n").context("cannot write policy-rc.d")?;
        let guard = Self { ours: true };
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(guard)
    }
}

impl Drop for KeepDaemonsDown {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("cannot remove {POLICY}, please do: {error}");
        }
    }
}

fn linker_present(needs: &[Need]) -> bool {
    !needs.contains(&Need::Ebpf) || packages::in_cargo_bin("bpf-linker")
}

fn install_linker(needs: &[Need]) -> Result<()> {
    if linker_present(needs) {
        return Ok(());
    }
    println!("installing bpf-linker, which turns Rust's LLVM bitcode into a BPF object (about 3 minutes)");
    process::run(
        process::cargo()
            .env("LLVM_PREFIX", "/usr/lib/llvm-22")
            .args(["install", "bpf-linker", "--version", "0.13.0", "--no-default-features"])
            .args(["--features", "llvm-22", "--locked"]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_says_why() {
        for package in PACKAGES {
            assert!(package.why.len() > 10, "{} has no reason", package.name);
        }
    }

    #[test]
    fn the_bpf_toolchain_is_only_for_those_who_ask() {
        let lab: Vec<_> = PACKAGES.iter().filter(|package| package.need != Need::Ebpf).collect();
        assert!(lab.iter().all(|package| !package.name.contains("llvm")));
    }
}
