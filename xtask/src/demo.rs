//! `cargo xtask demo`: builds what is needed and hands over to the demo itself, `warren-demo` in the tests crate.

use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::process::{build_programs, exec, is_root, target_dir};
use crate::setup::{self, Need};

#[derive(Args)]
pub(crate) struct Options {
    /// Leave everything running at the end, with instructions, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run_demo(options: &Options) -> Result<()> {
    if !is_root() {
        bail!("the demo makes network namespaces and loads kernel programs: please run it as root");
    }
    setup::ensure(&[Need::Build, Need::Lab])?;
    build_programs()?;
    let mut demo = Command::new(target_dir().join("debug/warren-demo"));
    if options.keep {
        demo.arg("--keep");
    }
    exec(&mut demo)
}
