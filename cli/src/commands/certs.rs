//! `warren certs`.

use crate::args::{AdminArgs, Output};
use crate::render;
use clap::Args;
use time::OffsetDateTime;

#[derive(Args, Debug)]
pub(crate) struct CertsArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Output,
}

pub(crate) fn run(args: &CertsArgs) -> anyhow::Result<()> {
    super::show(&args.admin, "/v1/certs", args.output, |found, style| {
        render::certs::certificates(found, OffsetDateTime::now_utc(), style)
    })
}
