//! `warren check`: looks at the node first, then at its agent if one runs.

mod agent;
mod node;

use crate::agents::ADMIN_SOCKET;
use crate::args::{AskArgs, Output};
use crate::client::block_on;
use crate::render::Style;
use crate::render::check::{Finding, Outcome, findings};
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    ask: AskArgs,
    /// Port of the agent's metrics
    #[arg(long, default_value_t = warren_common::ports::METRICS, value_name = "PORT")]
    metrics_port: u16,
    /// Port of the agent's readiness
    #[arg(long, default_value_t = warren_common::ports::READINESS, value_name = "PORT")]
    readiness_port: u16,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Output,
}

pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let mut found = node::look(Path::new("/"));
    found
        .extend(node::ports(&[("metrics port", args.metrics_port), ("readiness port", args.readiness_port)]));
    found.extend(block_on(agent::look(args.ask.admin_socket.as_deref().unwrap_or(Path::new(ADMIN_SOCKET))))?);
    match args.output {
        Output::Table => super::print(&findings(&found, Style::detect()))?,
        Output::Json => super::print_json(&found)?,
    }
    let bad = found.iter().any(|finding: &Finding| finding.result == Outcome::Bad);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
