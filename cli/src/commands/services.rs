//! `warren services`.

use crate::agents::find;
use crate::args::{AskArgs, ScopeArgs};
use crate::client::block_on;
use crate::render::{self, Style};
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::collections::BTreeMap;
use std::process::ExitCode;
use warren_common::model::admin::{ServiceView, Services};

#[derive(Args, Debug)]
pub(crate) struct ServicesArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    ask: AskArgs,
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

pub(crate) fn run(args: &ServicesArgs) -> Result<ExitCode> {
    let (namespace, answers) = block_on(async {
        let agents = find(&args.ask, Some(&args.scope), None).await?;
        anyhow::Ok((agents.namespace.clone(), agents.ask::<Services>("/v1/services").await?))
    })??;
    let code = answers.code();
    let mut shown = merged(answers.given.into_iter().map(|(_, found)| found));
    if let Some(namespace) = &namespace {
        shown.services.retain(|view| *view.service.key.namespace == **namespace);
    }
    let wide = args.output == ServicesOutput::Wide;
    match args.output {
        ServicesOutput::Table | ServicesOutput::Wide => {
            super::print(&render::mesh::services(&shown, wide, namespace.as_deref(), Style::detect()))?;
        }
        ServicesOutput::Json => {
            super::print_json(&super::Told { answer: shown, unreachable: answers.unreachable })?
        }
    }
    Ok(code)
}

/// What any agent knows, once, with every endpoint that any of them knows.
fn merged(found: impl Iterator<Item = Services>) -> Services {
    let mut once: BTreeMap<_, ServiceView> = BTreeMap::new();
    for view in found.flat_map(|found| found.services) {
        let known = once
            .entry(view.service.key.clone())
            .or_insert_with(|| ServiceView { service: view.service.clone(), endpoints: Vec::new() });
        for endpoint in view.endpoints {
            let mut same = known.endpoints.iter_mut();
            match same.find(|it| it.workload == endpoint.workload && it.node == endpoint.node) {
                // Each agent leaves out for its own pods.
                Some(known) => known.left_out.extend(endpoint.left_out),
                None => known.endpoints.push(endpoint),
            }
        }
    }
    Services { services: once.into_values().collect() }
}
