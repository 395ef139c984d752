//! `warren status`.

use crate::args::{AdminArgs, Output};
use crate::render;
use clap::Args;

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Output,
}

pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<()> {
    super::show(&args.admin, "/v1/status", args.output, render::status::status)
}
