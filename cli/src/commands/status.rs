//! `warren status`.

use crate::agents::{Answers, find};
use crate::args::{AskArgs, Output};
use crate::client::block_on;
use crate::render::{self, Style};
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::process::ExitCode;
use warren_common::model::admin::Status;

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    ask: AskArgs,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Output,
}

/// For programs: of several agents.
#[derive(Serialize)]
struct Nodes<'a> {
    nodes: Vec<&'a Status>,
}

pub(crate) fn run(args: &StatusArgs) -> Result<ExitCode> {
    let (cluster, answers): (bool, Answers<Status>) = block_on(async {
        let agents = find(&args.ask, None, None).await?;
        anyhow::Ok((agents.cluster, agents.ask("/v1/status").await?))
    })??;
    let code = answers.code();
    let nodes: Vec<_> = answers.given.iter().map(|(_, status)| status).collect();
    match (args.output, nodes.as_slice()) {
        (Output::Table, [status]) => super::print(&render::status::status(status, Style::detect()))?,
        (Output::Table, nodes) => super::print(&render::status::nodes(nodes, Style::detect()))?,
        (Output::Json, [status]) if !cluster => super::print_json(status)?,
        (Output::Json, _) => {
            super::print_json(&super::Told { answer: Nodes { nodes }, unreachable: answers.unreachable })?
        }
    }
    Ok(code)
}
