//! `warren version`.

use crate::args::Output;
use clap::Args;

#[derive(Args, Debug)]
pub(crate) struct VersionArgs {
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Output,
}

pub(crate) fn run(args: &VersionArgs) -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    match args.output {
        Output::Table => super::print(&format!("warren {version}\n")),
        Output::Json => super::print_json(&serde_json::json!({ "version": version })),
    }
}
