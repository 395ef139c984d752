//! `warren flows`.

use crate::agents::{Agents, NodeAgent, find, warn};
use crate::args::{AskArgs, ScopeArgs, name};
use crate::client::{ClientError, block_on, follow};
use crate::cluster::Target;
use crate::merge::Merge;
use crate::render::{self, Style};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;
use warren_common::model::admin::{Flow, FlowEvent, FlowPeer, FlowState, Flows, encoded};

/// Events that may wait for the terminal; then the agents count what is lost.
const QUEUE: usize = 1024;

#[derive(Args, Debug)]
pub(crate) struct FlowsArgs {
    /// Only connections from or to the pods of this in the cluster: deploy/cart, sts/db, ds/log, job/once, svc/web, pod/NAME
    #[arg(value_name = "KIND/NAME")]
    target: Option<Target>,
    /// Show connections as they end, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// With --follow: also when they begin
    #[arg(long, requires = "follow")]
    open: bool,
    #[command(flatten)]
    pub(crate) scope: ScopeArgs,
    /// Only connections from or to this pod, or the pods of this workload (Deployment ...)
    #[arg(long, value_parser = name, value_name = "NAME", conflicts_with = "target")]
    pod: Option<String>,
    /// Only what failed or was denied
    #[arg(long)]
    failed: bool,
    /// Only requests with this status: 404, 5xx, or several with commas between
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Only requests for this path, query included; * stands for anything
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Only requests with this method
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Only requests that this rule held, by its name; * stands for anything
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Only the newest so many; with --follow: begin with them
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
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

pub(crate) fn run(args: &FlowsArgs) -> Result<ExitCode> {
    block_on(async {
        let agents = find(&args.ask, Some(&args.scope), args.target.as_ref()).await?;
        let shown = Shown { args, agents: &agents, width: width(&agents) };
        if args.follow { shown.stream().await } else { shown.list().await }
    })?
}

/// The node column, where several agents tell.
fn width(agents: &Agents) -> Option<usize> {
    agents
        .cluster
        .then(|| agents.list.iter().filter_map(|it| it.node.as_ref()).map(String::len).max().unwrap_or(0))
}

struct Shown<'a> {
    args: &'a FlowsArgs,
    agents: &'a Agents,
    width: Option<usize>,
}

/// What an agent's stream brought.
enum Told {
    Event(FlowEvent),
    /// It ended, and why.
    Ended(String),
}

impl Shown<'_> {
    async fn list(&self) -> Result<ExitCode> {
        let (flows, evicted, code) = self.recent().await?;
        let shown = flows.len();
        for flow in flows {
            self.print(None, &FlowEvent::Flow(Box::new(flow)))?;
        }
        if self.args.output == FlowsOutput::Json {
            return Ok(code);
        }
        if shown == 0 {
            super::print(&match (&self.agents.namespace, self.agents.cluster) {
                (Some(namespace), true) => {
                    format!("no connections to show in namespace {namespace}; -A shows those of all\n")
                }
                _ => "no connections to show\n".to_owned(),
            })?;
        }
        if evicted > 0 && self.args.last.is_none() {
            super::print(&render::flow::evicted(evicted))?;
        }
        Ok(code)
    }

    async fn stream(&self) -> Result<ExitCode> {
        let (told, mut events) = mpsc::channel(QUEUE);
        let target = self.query(&["follow=true".to_owned(), format!("open={}", self.args.open)]);
        let (mut live, mut wrong) = (0, !self.agents.missing.is_empty());
        for NodeAgent { node, agent } in &self.agents.list {
            match follow(agent, &target).await {
                Ok(lines) => {
                    live += 1;
                    tokio::spawn(relay(lines, node.as_deref().map(Arc::from), told.clone()));
                }
                Err(error) => match node {
                    Some(node) => {
                        wrong = true;
                        warn(node, &error.to_string());
                    }
                    None => return Err(error.into()),
                },
            }
        }
        drop(told);
        // Asked after the subscriptions stand: what ends in between comes twice and is printed once.
        let mut printed = HashSet::new();
        if self.args.last.is_some() {
            for flow in self.recent().await?.0 {
                if flow.state == FlowState::Closed {
                    printed.insert((flow.node.clone(), flow.id));
                }
                self.print(None, &FlowEvent::Flow(Box::new(flow)))?;
            }
        }
        let mut merge: Merge<(Option<Arc<str>>, FlowEvent)> = Merge::of(live);
        loop {
            while let Some((node, event)) = merge.pop(Instant::now()) {
                self.print_new(&mut printed, node.as_deref(), &event)?;
            }
            let due = merge.deadline();
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                told = events.recv() => match told {
                    Some((node, Told::Event(event))) => merge.push(happened(&event), (node, event), Instant::now()),
                    Some((node, Told::Ended(why))) => {
                        wrong = true;
                        warn(node.as_deref().unwrap_or("the agent"), &why);
                    }
                    None => break,
                },
                () = wait => {}
            }
        }
        for (node, event) in merge.rest() {
            self.print_new(&mut printed, node.as_deref(), &event)?;
        }
        if wrong && live == 0 {
            bail!("no agent is followed");
        }
        bail!("every stream ended: the agents are shutting down or gone")
    }

    fn print_new(
        &self,
        printed: &mut HashSet<(Arc<str>, u64)>,
        node: Option<&str>,
        event: &FlowEvent,
    ) -> Result<()> {
        if let FlowEvent::Flow(flow) = event {
            let key = (flow.node.clone(), flow.id);
            let again = printed.contains(&key) && (flow.state == FlowState::Open || printed.remove(&key));
            if again || !wanted(self.agents, flow) {
                return Ok(());
            }
        }
        self.print(node, event)
    }

    /// The newest flows of all agents, oldest first; how many older ones are not kept; the exit code.
    async fn recent(&self) -> Result<(Vec<Flow>, u64, ExitCode)> {
        // Of what is filtered here, the newest are known only afterwards.
        let last = self.args.last.filter(|_| self.agents.names.is_none());
        let last: Vec<_> = last.iter().map(|last| format!("last={last}")).collect();
        let answers = self.agents.ask::<Flows>(&self.query(&last)).await?;
        let code = answers.code();
        let evicted = answers.given.iter().map(|(_, found)| found.evicted).sum();
        let mut flows: Vec<_> = answers.given.into_iter().flat_map(|(_, found)| found.flows).collect();
        flows.retain(|flow| wanted(self.agents, flow));
        flows.sort_by_key(began);
        let skip = self.args.last.map_or(0, |last| flows.len().saturating_sub(last));
        flows.drain(..skip);
        Ok((flows, evicted, code))
    }

    fn query(&self, more: &[String]) -> String {
        let namespace = self.agents.namespace.iter().map(|namespace| format!("namespace={namespace}"));
        let pod = self.args.pod.iter().map(|pod| format!("pod={pod}"));
        let failed = self.args.failed.then(|| "failed=true".to_owned());
        let Self { args: FlowsArgs { status, path, method, route, .. }, .. } = self;
        let request = [("status", status), ("path", path), ("method", method), ("route", route)];
        let request = request
            .into_iter()
            .filter_map(|(name, wanted)| Some(format!("{name}={}", encoded(wanted.as_ref()?))));
        let pairs: Vec<_> =
            namespace.chain(pod).chain(failed).chain(request).chain(more.iter().cloned()).collect();
        format!("/v1/flows?{}", pairs.join("&"))
    }

    fn print(&self, node: Option<&str>, event: &FlowEvent) -> Result<()> {
        let style = Style::detect();
        super::print(&match (self.args.output, event) {
            (FlowsOutput::Json, event) => serde_json::to_string(event)? + "\n",
            (output, FlowEvent::Flow(flow)) => {
                render::flow::flow(flow, output == FlowsOutput::Wide, self.width, style)
            }
            (_, FlowEvent::Lost { count }) => render::flow::lost(*count, node, style),
        })
    }
}

/// Passes an agent's events on until its stream or the reader ends.
async fn relay(
    mut lines: crate::client::Lines,
    node: Option<Arc<str>>,
    told: mpsc::Sender<(Option<Arc<str>>, Told)>,
) {
    loop {
        let next: Result<Option<FlowEvent>, ClientError> = lines.next().await;
        let (event, last) = match next {
            Ok(Some(event)) => (Told::Event(event), false),
            Ok(None) => {
                (Told::Ended("the stream ended: the agent is shutting down or gone".to_owned()), true)
            }
            Err(error) => (Told::Ended(error.to_string()), true),
        };
        if told.send((node.clone(), event)).await.is_err() || last {
            return;
        }
    }
}

/// Whether the flow is of the pods that were asked for.
fn wanted(agents: &Agents, flow: &Flow) -> bool {
    let Some(names) = &agents.names else { return true };
    let is = |peer: &FlowPeer| {
        let here = peer.namespace.as_deref() == agents.namespace.as_deref();
        let named = |name: &Option<Arc<str>>| name.as_deref().is_some_and(|name| names.contains(name));
        here && (named(&peer.pod) || named(&peer.workload))
    };
    is(&flow.source) || is(&flow.destination)
}

fn began(flow: &Flow) -> OffsetDateTime {
    OffsetDateTime::parse(&flow.start, &Rfc3339).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// When what an event tells happened. A loss has no time of its own: it is told at once.
fn happened(event: &FlowEvent) -> OffsetDateTime {
    match event {
        FlowEvent::Flow(flow) if flow.state == FlowState::Closed && flow.duration_ms.is_finite() => {
            began(flow)
                .saturating_add(time::Duration::seconds_f64(flow.duration_ms.clamp(0.0, 1e12) / 1000.0))
        }
        FlowEvent::Flow(flow) => began(flow),
        FlowEvent::Lost { .. } => OffsetDateTime::UNIX_EPOCH,
    }
}

#[cfg(test)]
#[path = "flows_tests.rs"]
mod tests;
