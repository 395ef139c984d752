//! Which agents are asked, and all of them at once: this node's on its socket, or a cluster's through its API server.

use crate::args::{AskArgs, ScopeArgs};
use crate::client::{Agent, ClientError, get, saying};
use crate::cluster::{Cluster, Target, agents};
use crate::render::clean;
use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Where an agent's socket is on its node.
pub(crate) const ADMIN_SOCKET: &str = "/run/warren/admin.sock";
/// Port-forwards at once.
const AT_ONCE: usize = 32;

/// One agent, and where it is.
#[derive(Clone)]
pub(crate) struct NodeAgent {
    /// Its node; nothing on the node itself, where there is but one.
    pub(crate) node: Option<String>,
    pub(crate) agent: Agent,
}

/// The agents to ask, and what about.
pub(crate) struct Agents {
    pub(crate) list: Vec<NodeAgent>,
    /// Asked through the API server.
    pub(crate) cluster: bool,
    /// The only namespace that is of interest.
    pub(crate) namespace: Option<String>,
    /// The only pods and workloads that are of interest.
    pub(crate) names: Option<BTreeSet<String>>,
    /// Nodes without an agent to ask, and why.
    pub(crate) missing: Vec<Unreachable>,
}

/// An agent that was not heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Unreachable {
    pub(crate) node: String,
    pub(crate) error: String,
}

/// What the agents answered.
pub(crate) struct Answers<T> {
    pub(crate) given: Vec<(Option<String>, T)>,
    pub(crate) unreachable: Vec<Unreachable>,
}

impl<T> Answers<T> {
    /// Success only if everybody was heard.
    pub(crate) fn code(&self) -> ExitCode {
        if self.unreachable.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Whose word counts: the flags', else this node's agent, else the cluster's.
fn on_this_node(ask: &AskArgs, scope: Option<&ScopeArgs>, target: Option<&Target>, socket: bool) -> bool {
    let cluster = &ask.cluster;
    let said =
        cluster.kubeconfig.is_some() || cluster.context.is_some() || ask.node.is_some() || target.is_some();
    let said = said || scope.is_some_and(|scope| scope.all_namespaces);
    !said && (ask.admin_socket.is_some() || socket)
}

/// Finds the agents that the arguments mean.
///
/// # Errors
/// When there is neither an agent on this node nor a cluster, or the target is not found.
pub(crate) async fn find(
    ask: &AskArgs,
    scope: Option<&ScopeArgs>,
    target: Option<&Target>,
) -> Result<Agents> {
    let namespace = scope.and_then(|scope| scope.namespace.clone());
    if on_this_node(ask, scope, target, Path::new(ADMIN_SOCKET).exists()) {
        let socket = ask.admin_socket.clone().unwrap_or_else(|| ADMIN_SOCKET.into());
        let list = vec![NodeAgent { node: None, agent: Agent::Socket(socket) }];
        return Ok(Agents { list, cluster: false, namespace, names: None, missing: vec![] });
    }
    let cluster = Cluster::connect(&ask.cluster)
        .await
        .with_context(|| format!("no agent on this node ({ADMIN_SOCKET} does not exist)"))?;
    // kubectl's rule: without -n or -A, the context's namespace.
    let namespace = match scope {
        Some(scope) if !scope.all_namespaces => Some(namespace.unwrap_or_else(|| cluster.namespace.clone())),
        _ => None,
    };
    let found = match target {
        Some(target) => {
            Some(target.find(&cluster, namespace.as_deref().unwrap_or(&cluster.namespace)).await?)
        }
        None => None,
    };
    let mut list = saying("looking for the agents", agents(&cluster, ask.node.as_deref())).await?;
    let mut missing = Vec::new();
    if let Some(found) = &found {
        list.retain(|agent| found.nodes.contains(&agent.node));
        let held: BTreeSet<_> = list.iter().map(|agent| agent.node.clone()).collect();
        let without =
            found.nodes.difference(&held).filter(|node| ask.node.as_ref().is_none_or(|only| only == *node));
        missing.extend(
            without.map(|node| Unreachable { node: node.clone(), error: "no agent runs there".to_owned() }),
        );
    }
    let list = list
        .into_iter()
        .map(|pod| NodeAgent { node: Some(pod.node.clone()), agent: Agent::Pod(Box::new(pod)) });
    Ok(Agents {
        list: list.collect(),
        cluster: true,
        namespace,
        names: found.map(|found| found.names),
        missing,
    })
}

/// Finds the agent of a pod's node, and the pod's whole name.
///
/// # Errors
/// As [`find`].
pub(crate) async fn find_pod(ask: &AskArgs, namespace: Option<&str>, pod: &str) -> Result<(Agents, String)> {
    let (namespace, pod) = match pod.split_once('/') {
        Some((namespace, pod)) => (Some(namespace), pod),
        None => (namespace, pod),
    };
    let scope = ScopeArgs { namespace: namespace.map(str::to_owned), all_namespaces: false };
    let target = match on_this_node(ask, None, None, Path::new(ADMIN_SOCKET).exists()) {
        true => None,
        false => Some(format!("pod/{pod}").parse().map_err(|error: String| anyhow::anyhow!(error))?),
    };
    let agents = find(ask, Some(&scope), target.as_ref()).await?;
    let name = format!("{}/{pod}", agents.namespace.as_deref().unwrap_or("default"));
    Ok((agents, name))
}

impl Agents {
    /// Asks the only one that can know.
    ///
    /// # Errors
    /// When there is none, or it says no.
    pub(crate) async fn ask_one<T: DeserializeOwned>(&self, target: &str) -> Result<T> {
        let Some(NodeAgent { agent, .. }) = self.list.first() else {
            let why = self.missing.iter().map(|it| format!("{}: {}", it.node, it.error));
            anyhow::bail!("there is no agent to ask: {}", why.collect::<Vec<_>>().join(", "));
        };
        Ok(get(agent, target).await?)
    }

    /// Asks all of them for `target`. One that cannot be reached is named on standard error, and the rest goes on; on
    /// the node itself there is no rest.
    ///
    /// # Errors
    /// When nobody answers.
    pub(crate) async fn ask<T>(&self, target: &str) -> Result<Answers<T>>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut asked = JoinSet::new();
        for NodeAgent { node, agent } in self.list.iter().cloned() {
            let (places, target) = (Arc::clone(&places), target.to_owned());
            asked.spawn(async move {
                let _place = places.acquire_owned().await;
                (node, get::<T>(&agent, &target).await)
            });
        }
        let mut answers = Answers { given: Vec::new(), unreachable: self.missing.clone() };
        while let Some(answer) = asked.join_next().await {
            match answer? {
                (node, Ok(answer)) => answers.given.push((node, answer)),
                (None, Err(error)) => return Err(error.into()),
                (Some(node), Err(error)) => answers.unreachable.push(unreachable(node, &error)),
            }
        }
        answers.given.sort_by(|one, other| one.0.cmp(&other.0));
        answers.unreachable.sort_by(|one, other| one.node.cmp(&other.node));
        for Unreachable { node, error } in &answers.unreachable {
            warn(node, error);
        }
        anyhow::ensure!(!answers.given.is_empty(), "no agent answered");
        Ok(answers)
    }
}

/// Says that the agent of a node is not heard.
pub(crate) fn warn(node: &str, error: &str) {
    eprintln!("warren: {}: {}", clean(node), error.lines().map(clean).collect::<Vec<_>>().join("\n"));
}

/// An agent that was asked in vain.
pub(crate) fn unreachable(node: String, error: &ClientError) -> Unreachable {
    Unreachable { node, error: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    #[test]
    fn on_a_node_its_agent_is_asked_unless_a_flag_means_the_cluster() {
        let table: [(&[&str], bool, bool); 8] = [
            (&[], true, true),
            (&[], false, false),
            (&["--admin-socket", "/x"], false, true),
            (&["--admin-socket", "/x", "--context", "c"], true, false),
            (&["--kubeconfig", "f"], true, false),
            (&["--node", "n1"], true, false),
            (&["-A"], true, false),
            (&["-n", "shop"], true, true),
        ];
        for (flags, socket, expected) in table {
            let line = ["warren", "flows"].iter().chain(flags);
            let Command::Flows(args) = Cli::try_parse_from(line).unwrap().command else { panic!("another") };
            assert_eq!(on_this_node(&args.ask, Some(&args.scope), None, socket), expected, "{flags:?}");
        }
        let target = "deploy/cart".parse().unwrap();
        assert!(!on_this_node(&AskArgs::default(), None, Some(&target), true));
    }
}
