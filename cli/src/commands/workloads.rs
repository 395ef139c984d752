//! `warren workloads`.

use crate::args::{AdminArgs, Output};
use crate::render;
use clap::Args;
use warren_common::model::admin::Workloads;

#[derive(Args, Debug)]
pub(crate) struct WorkloadsArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Only this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Output,
}

pub(crate) fn run(args: &WorkloadsArgs) -> anyhow::Result<()> {
    super::show(&args.admin, "/v1/workloads", args.output, |found: &Workloads, style| {
        let mut shown = found.clone();
        if let Some(namespace) = &args.namespace {
            shown.workloads.retain(|workload| *workload.namespace == **namespace);
        }
        render::mesh::workloads(&shown, style)
    })
}
