//! `warren flows`.

use crate::args::AdminArgs;
use crate::client::{ClientError, block_on, follow, get};
use crate::render::{self, Style};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use std::collections::HashSet;
use warren_common::model::admin::{FlowEvent, FlowState, Flows};

#[derive(Args, Debug)]
pub(crate) struct FlowsArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Show connections as they end, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// With --follow: also when they begin
    #[arg(long, requires = "follow")]
    open: bool,
    /// Only connections from or to this namespace
    #[arg(short, long, value_parser = name)]
    namespace: Option<String>,
    /// Only connections from or to this pod, or the pods of this workload (Deployment ...)
    #[arg(long, value_parser = name, value_name = "NAME")]
    pod: Option<String>,
    /// Only what failed or was denied
    #[arg(long)]
    failed: bool,
    /// Only the newest so many; with --follow: begin with them
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: FlowsOutput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FlowsOutput {
    /// A sentence per connection
    Table,
    /// The same, with identities, ids and full times
    Wide,
    /// A JSON object per line
    Json,
}

pub(crate) fn run(args: &FlowsArgs) -> Result<()> {
    block_on(async { if args.follow { stream(args).await } else { list(args).await } })?
}

async fn list(args: &FlowsArgs) -> Result<()> {
    let flows = recent(args, args.last).await?;
    let shown = flows.flows.len();
    for flow in flows.flows {
        print(args, &FlowEvent::Flow(Box::new(flow)))?;
    }
    if args.output == FlowsOutput::Json {
        return Ok(());
    }
    if shown == 0 {
        super::print("no connections to show\n")?;
    }
    if flows.evicted > 0 && args.last.is_none() {
        super::print(&render::flow::evicted(flows.evicted))?;
    }
    Ok(())
}

async fn stream(args: &FlowsArgs) -> Result<()> {
    let target = query(args, &["follow=true".to_owned(), format!("open={}", args.open)]);
    let mut lines = follow(&args.admin.admin_socket, &target).await?;
    // Asked after the subscription stands: what ends in between comes twice and is printed once.
    let mut printed = HashSet::new();
    if args.last.is_some() {
        for flow in recent(args, args.last).await?.flows {
            if flow.state == FlowState::Closed {
                printed.insert(flow.id);
            }
            print(args, &FlowEvent::Flow(Box::new(flow)))?;
        }
    }
    while let Some(event) = lines.next().await? {
        if let FlowEvent::Flow(flow) = &event
            && (printed.contains(&flow.id) && (flow.state == FlowState::Open || printed.remove(&flow.id)))
        {
            continue;
        }
        print(args, &event)?;
    }
    bail!("the stream ended: the agent is shutting down or gone")
}

async fn recent(args: &FlowsArgs, last: Option<usize>) -> Result<Flows, ClientError> {
    let last: Vec<_> = last.iter().map(|last| format!("last={last}")).collect();
    get(&args.admin.admin_socket, &query(args, &last)).await
}

fn query(args: &FlowsArgs, more: &[String]) -> String {
    let namespace = args.namespace.iter().map(|namespace| format!("namespace={namespace}"));
    let pod = args.pod.iter().map(|pod| format!("pod={pod}"));
    let failed = args.failed.then(|| "failed=true".to_owned());
    let pairs: Vec<_> = namespace.chain(pod).chain(failed).chain(more.iter().cloned()).collect();
    format!("/v1/flows?{}", pairs.join("&"))
}

fn print(args: &FlowsArgs, event: &FlowEvent) -> Result<()> {
    let style = Style::detect();
    super::print(&match (args.output, event) {
        (FlowsOutput::Json, event) => serde_json::to_string(event)? + "\n",
        (output, FlowEvent::Flow(flow)) => render::flow::flow(flow, output == FlowsOutput::Wide, style),
        (_, FlowEvent::Lost { count }) => render::flow::lost(*count, style),
    })
}

/// A Kubernetes name; anything else could not match and could break the question.
fn name(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if !text.is_empty() && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a Kubernetes name (lower-case letters, digits, '-' and '.')"))
}

#[cfg(test)]
mod tests {
    use crate::args::{Cli, Command};
    use clap::Parser;

    #[test]
    fn filters_become_a_question() {
        let cli =
            Cli::try_parse_from(["warren", "flows", "-n", "shop", "--pod", "web-1", "--failed"]).unwrap();
        let Command::Flows(args) = cli.command else { panic!("another command") };
        assert_eq!(
            super::query(&args, &["last=3".into()]),
            "/v1/flows?namespace=shop&pod=web-1&failed=true&last=3"
        );
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for wrong in ["a&b", "a b", "", "A", "a\r\nb"] {
            assert!(Cli::try_parse_from(["warren", "flows", "-n", wrong]).is_err(), "{wrong:?}");
        }
        assert!(Cli::try_parse_from(["warren", "flows", "--open"]).is_err());
    }
}
