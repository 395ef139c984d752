//! `warren certs`.

use crate::agents::{Answers, find};
use crate::args::{AskArgs, Output};
use crate::client::block_on;
use crate::render::{self, Style};
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::process::ExitCode;
use time::OffsetDateTime;
use warren_common::model::admin::Certificates;

#[derive(Args, Debug)]
pub(crate) struct CertsArgs {
    #[command(flatten)]
    ask: AskArgs,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Output,
}

/// For programs: of several agents.
#[derive(Serialize)]
struct Nodes {
    nodes: Vec<OfNode>,
}

#[derive(Serialize)]
struct OfNode {
    node: String,
    #[serde(flatten)]
    certificates: Certificates,
}

pub(crate) fn run(args: &CertsArgs) -> Result<ExitCode> {
    let (cluster, answers): (bool, Answers<Certificates>) = block_on(async {
        let agents = find(&args.ask, None, None).await?;
        anyhow::Ok((agents.cluster, agents.ask("/v1/certs").await?))
    })??;
    let code = answers.code();
    match args.output {
        Output::Table => {
            let now = OffsetDateTime::now_utc();
            super::print(&render::certs::certificates(&answers.given, now, Style::detect()))?;
        }
        Output::Json if cluster => {
            let nodes = answers.given.into_iter();
            let nodes =
                nodes.map(|(node, certificates)| OfNode { node: node.unwrap_or_default(), certificates });
            let answer = Nodes { nodes: nodes.collect() };
            super::print_json(&super::Told { answer, unreachable: answers.unreachable })?;
        }
        Output::Json => {
            for (_, certificates) in &answers.given {
                super::print_json(certificates)?;
            }
        }
    }
    Ok(code)
}
