//! `warren services`.

use crate::args::{AdminArgs, Output};
use crate::render;
use clap::{Args, ValueEnum};
use warren_common::model::admin::Services;

#[derive(Args, Debug)]
pub(crate) struct ServicesArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Only this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: ServicesOutput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ServicesOutput {
    /// For people, a service per line
    Table,
    /// For people, an endpoint per line
    Wide,
    /// For programs, with everything there is
    Json,
}

pub(crate) fn run(args: &ServicesArgs) -> anyhow::Result<()> {
    let (output, wide) = match args.output {
        ServicesOutput::Table => (Output::Table, false),
        ServicesOutput::Wide => (Output::Table, true),
        ServicesOutput::Json => (Output::Json, false),
    };
    super::show(&args.admin, "/v1/services", output, |found: &Services, style| {
        let mut shown = found.clone();
        if let Some(namespace) = &args.namespace {
            shown.services.retain(|view| *view.service.key.namespace == **namespace);
        }
        render::mesh::services(&shown, wide, style)
    })
}
