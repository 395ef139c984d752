//! The command line.

use crate::commands::{
    agent, analyze, ca, certs, check, controller, flows, install, policies, routes, services, status,
    uninstall, version, why, workloads,
};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use warren_common::runtime::LogFormat;

/// A service mesh without sidecars: one agent per node, one controller per cluster.
#[derive(Debug, Parser)]
#[command(name = "warren", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// The command line of this process. As `kubectl-warren` (a kubectl plugin) it is called, and calls itself,
    /// `kubectl warren`.
    pub(crate) fn from_command_line() -> Self {
        let line: Vec<OsString> = std::env::args_os().collect();
        let parsed = Self::as_called(line.first()).try_get_matches_from(line);
        parsed.and_then(|matches| Self::from_arg_matches(&matches)).unwrap_or_else(|error| error.exit())
    }

    fn as_called(program: Option<&OsString>) -> clap::Command {
        let name = program.and_then(|path| Path::new(path).file_name());
        if name.is_some_and(|name| name == "kubectl-warren") {
            // clap takes a name with a blank for one, and shows it in every usage line.
            return Self::command().name("kubectl warren").bin_name("kubectl warren");
        }
        Self::command()
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run this node's agent
    Agent(agent::AgentArgs),
    /// Run as the CNI plugin: the container runtime starts it with CNI_COMMAND in its environment
    Cni,
    /// Run the controller: configuration and certificates
    Controller(controller::ControllerArgs),
    /// Install warren into a cluster, or bring what is installed to this version
    Install(install::InstallArgs),
    /// Take warren out of a cluster and off its nodes
    Uninstall(uninstall::UninstallArgs),
    /// How the agent is: readiness, controller, pods, kernel counters
    Status(status::StatusArgs),
    /// Who talks to whom: connections, verdicts, bytes, and why one failed
    Flows(flows::FlowsArgs),
    /// The workloads that the agent knows
    Workloads(workloads::WorkloadsArgs),
    /// The services that the agent knows, and who stands behind them
    Services(services::ServicesArgs),
    /// The policies that the agent knows, and which guard a workload
    Policies(policies::PoliciesArgs),
    /// The rules and DestinationRules that are in force for requests and connections
    Routes(routes::RoutesArgs),
    /// Where a request or a connection of a pod would go, and why; nothing is sent
    Why(why::WhyArgs),
    /// The certificates of this node and the roots it trusts
    Certs(certs::CertsArgs),
    /// The certificate authority: when it ends, who is revoked
    Ca(ca::CaArgs),
    /// Find what is wrong with this node; exits with 1 if anything is
    Check(check::CheckArgs),
    /// Find what is wrong with routes and traffic policies, in files before they are applied or in the cluster; exits with 1 on
    /// errors
    Analyze(analyze::AnalyzeArgs),
    /// Print the version
    Version(version::VersionArgs),
}

/// Which agents are asked. On a node (its admin socket exists, or --admin-socket names one): this node's. Anywhere else,
/// and with any flag that means a cluster: those of the kubeconfig's cluster, through the API server's port-forward.
#[derive(Args, Clone, Debug, Default)]
#[command(
    next_help_heading = "Which agents (this node's if its admin socket exists; else the cluster's, through kubectl's kubeconfig)"
)]
pub(crate) struct AskArgs {
    /// Unix socket of the one agent to ask [default on a node: /run/warren/admin.sock]
    #[arg(long, env = "WARREN_ADMIN_SOCKET", value_name = "PATH")]
    pub(crate) admin_socket: Option<PathBuf>,
    /// Only the agent of this node of the cluster
    #[arg(long, value_parser = name, value_name = "NODE")]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

/// Which namespaces are shown.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ScopeArgs {
    /// Only this namespace; of a cluster, the context's if not given
    #[arg(short, long, value_parser = name)]
    pub(crate) namespace: Option<String>,
    /// All namespaces of the cluster
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
}

/// Which cluster is asked; as kubectl has it.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ClusterArgs {
    /// kubeconfig of the cluster; otherwise KUBECONFIG, ~/.kube/config, or the pod's own service account
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context in the kubeconfig; otherwise its current one
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For programs, with everything there is
    Json,
}

/// What both daemons log.
#[derive(Args, Clone, Debug)]
pub(crate) struct LogArgs {
    /// What to log, as in "info,warren_agent=debug"; the access log is the target "access"
    #[arg(long, env = "WARREN_LOG", default_value = "info", value_name = "FILTER")]
    pub(crate) log: String,
    /// How log lines look; they go to standard error
    #[arg(long, env = "WARREN_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub(crate) log_format: LogLook,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLook {
    /// A readable line each
    Text,
    /// A JSON object each
    Json,
}

impl LogArgs {
    /// Installs the logger.
    pub(crate) fn init(&self) {
        let format = match self.log_format {
            LogLook::Text => LogFormat::Text,
            LogLook::Json => LogFormat::Json,
        };
        warren_common::runtime::init_logging(&self.log, format);
    }
}

/// A Kubernetes name; anything else could not match and could break a question.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if !text.is_empty() && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a Kubernetes name (lower-case letters, digits, '-' and '.')"))
}

/// A pod: its name, or its namespace and name with a slash between.
pub(crate) fn pod(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((namespace, pod)) => Ok(format!("{}/{}", name(namespace)?, name(pod)?)),
        None => name(text),
    }
}

/// A duration as people write it: `500ms`, `10s`, `5m`, `24h`, `7d`, `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write it like 500ms, 10s, 5m, 24h, 7d or 1h30m");
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let part = number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = after;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn as_a_kubectl_plugin_it_calls_itself_one() {
        for (program, expected) in [
            ("/usr/local/bin/kubectl-warren", "Usage: kubectl warren flows"),
            ("/usr/bin/warren", "Usage: warren flows"),
        ] {
            let program = OsString::from(program);
            let line = [program.clone(), "flows".into(), "--help".into()];
            let help = Cli::as_called(Some(&program)).try_get_matches_from(line).unwrap_err().to_string();
            assert!(help.contains(expected), "{help}");
        }
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for wrong in ["", "10", "s", "10x", "1h30", "99999999999999999999s", "-1s", "18446744073709551615d"] {
            assert!(duration(wrong).is_err(), "{wrong:?} was read");
        }
    }
}
