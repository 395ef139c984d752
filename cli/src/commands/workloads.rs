//! `warren workloads`.

use crate::agents::find;
use crate::args::{AskArgs, Output, ScopeArgs};
use crate::client::block_on;
use crate::render::{self, Style};
use anyhow::Result;
use clap::Args;
use std::collections::BTreeMap;
use std::process::ExitCode;
use warren_common::model::admin::Workloads;

#[derive(Args, Debug)]
pub(crate) struct WorkloadsArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    ask: AskArgs,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Output,
}

pub(crate) fn run(args: &WorkloadsArgs) -> Result<ExitCode> {
    let (namespace, answers) = block_on(async {
        let agents = find(&args.ask, Some(&args.scope), None).await?;
        anyhow::Ok((agents.namespace.clone(), agents.ask::<Workloads>("/v1/workloads").await?))
    })??;
    let code = answers.code();
    let mut shown = merged(answers.given.into_iter().map(|(_, found)| found));
    if let Some(namespace) = &namespace {
        shown.workloads.retain(|workload| *workload.namespace == **namespace);
    }
    match args.output {
        Output::Table => {
            super::print(&render::mesh::workloads(&shown, namespace.as_deref(), Style::detect()))?
        }
        Output::Json => super::print_json(&super::Told { answer: shown, unreachable: answers.unreachable })?,
    }
    Ok(code)
}

/// What any agent knows, once.
fn merged(found: impl Iterator<Item = Workloads>) -> Workloads {
    let all = found.flat_map(|found| found.workloads);
    let once: BTreeMap<_, _> =
        all.map(|it| ((it.namespace.clone(), it.name.clone(), it.uid.clone()), it)).collect();
    Workloads { workloads: once.into_values().collect() }
}
