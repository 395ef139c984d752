//! The command line.

use crate::commands::{
    agent, certs, check, controller, flows, install, services, status, uninstall, version, workloads,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;
use warren_common::runtime::LogFormat;

/// A service mesh without sidecars: one agent per node, one controller per cluster.
#[derive(Debug, Parser)]
#[command(name = "warren", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
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
    /// The certificates of this node and the roots it trusts
    Certs(certs::CertsArgs),
    /// Find what is wrong with this node; exits with 1 if anything is
    Check(check::CheckArgs),
    /// Print the version
    Version(version::VersionArgs),
}

/// Where the agent is asked.
#[derive(Args, Clone, Debug)]
pub(crate) struct AdminArgs {
    /// Unix socket of the agent's admin API
    #[arg(long, env = "WARREN_ADMIN_SOCKET", default_value = "/run/warren/admin.sock", value_name = "PATH")]
    pub(crate) admin_socket: PathBuf,
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
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
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
