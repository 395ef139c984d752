//! `warren check`: of a node, what it offers, then its agent if one runs; of a cluster, all that can be seen from here.

mod agent;
mod cluster;
mod node;

use crate::agents::ADMIN_SOCKET;
use crate::args::{AskArgs, Output};
use crate::client::block_on;
use crate::install::manifests::NAMESPACE;
use crate::render::Style;
use crate::render::check::{Finding, Outcome, findings};
use clap::Args;
use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Look at this machine alone, even where a kubeconfig leads to a cluster
    #[arg(long, conflicts_with_all = ["kubeconfig", "context", "node"])]
    this_node: bool,
    /// Namespace that warren is in, or is to be
    #[arg(short, long, default_value = NAMESPACE)]
    namespace: String,
    /// On a node: port of the agent's metrics
    #[arg(long, default_value_t = warren_common::ports::METRICS, value_name = "PORT")]
    metrics_port: u16,
    /// On a node: port of the agent's readiness
    #[arg(long, default_value_t = warren_common::ports::READINESS, value_name = "PORT")]
    readiness_port: u16,
    #[command(flatten)]
    ask: AskArgs,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Output,
}

pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let found = if of_this_node(args, Path::new(ADMIN_SOCKET).exists(), has_kubeconfig()) {
        let mut found = node::look(Path::new("/"));
        let ports = [("metrics port", args.metrics_port), ("readiness port", args.readiness_port)];
        found.extend(node::ports(&ports));
        let socket = args.ask.admin_socket.as_deref().unwrap_or(Path::new(ADMIN_SOCKET));
        found.extend(block_on(agent::look(socket))?);
        found
    } else {
        block_on(cluster::look(args))??
    };
    match args.output {
        Output::Table => super::print(&findings(&found, Style::detect()))?,
        Output::Json => super::print_json(&found)?,
    }
    let bad = found.iter().any(|finding: &Finding| finding.result == Outcome::Bad);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Unlike the other commands, this one has something to say of a machine without agent and without cluster.
fn of_this_node(args: &CheckArgs, socket: bool, kubeconfig: bool) -> bool {
    let ask = &args.ask;
    if ask.cluster.kubeconfig.is_some() || ask.cluster.context.is_some() || ask.node.is_some() {
        return false;
    }
    args.this_node || ask.admin_socket.is_some() || socket || !kubeconfig
}

fn has_kubeconfig() -> bool {
    let said = env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty());
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
    let pod = Path::new("/var/run/secrets/kubernetes.io/serviceaccount/token");
    said || home.is_some_and(|file| file.exists()) || pod.exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    #[test]
    fn a_cluster_is_looked_at_where_there_is_one_and_this_is_no_node() {
        let table: [(&[&str], bool, bool, bool); 7] = [
            (&[], false, true, false),
            (&[], false, false, true),
            (&[], true, true, true),
            (&["--this-node"], false, true, true),
            (&["--admin-socket", "/x"], false, true, true),
            (&["--context", "c"], true, true, false),
            (&["--node", "n"], false, false, false),
        ];
        for (flags, socket, kubeconfig, expected) in table {
            let line = ["warren", "check"].iter().chain(flags);
            let Command::Check(args) = Cli::try_parse_from(line).unwrap().command else { panic!("another") };
            assert_eq!(of_this_node(&args, socket, kubeconfig), expected, "{flags:?}");
        }
    }
}
