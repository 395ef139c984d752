//! `warren agent`.

mod limits;

use crate::args::{LogArgs, duration};
use clap::{ArgAction, Args, ValueEnum};
use limits::LimitArgs;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use warren_agent::app::Config;
use warren_agent::cleanup::{self, CleanupConfig};
use warren_agent::cni::InstallConfig;
use warren_agent::route::TunnelUse;
use warren_cni::{Entry, PLUGIN};
use warren_common::model::cni::OFFLINE_FILE;

/// How much of the mesh an agent follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subscribe {
    /// All of it: with the controller away, pods reach whatever they have not talked to before
    Wildcard,
    /// What its pods talk to: little memory in a large mesh; the first connection to an address waits for the controller
    Interest,
}

/// Which connections to pods of other nodes get a tunnel of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Tunnel {
    /// None: all are streams of shared tunnels, the cheapest for new connections; an upgrade of the agent ends them
    Shared,
    /// All, where the other agent can; a TLS handshake each
    Dedicated,
    /// Those that are rare, as connections that are kept are: 64 per pair of pods and port, then one per second; never where
    /// the service's port declares HTTP
    Auto,
}

#[derive(Args, Debug)]
pub(crate) struct AgentArgs {
    /// Name of this node, as in spec.nodeName of its pods
    #[arg(long, env = "NODE_NAME")]
    node: String,
    /// Where the controller is
    #[arg(
        long,
        env = "WARREN_CONTROLLER",
        default_value = "https://warren-controller.warren-system.svc:15012",
        value_name = "URL"
    )]
    controller: String,
    /// Name in the controller's certificate, whatever the URL says
    #[arg(
        long,
        env = "WARREN_CONTROLLER_NAME",
        default_value = "warren-controller.warren-system.svc",
        value_name = "NAME"
    )]
    controller_name: String,
    /// PEM file with the roots that the controller and all peers are verified against; read again when it changes
    #[arg(
        long,
        env = "WARREN_CONTROLLER_CA",
        default_value = "/var/run/secrets/warren/ca/root-cert.pem",
        value_name = "FILE"
    )]
    controller_ca: PathBuf,
    /// File with this agent's service account token (audience warren.dev); read again when it changes
    #[arg(
        long,
        env = "WARREN_TOKEN",
        default_value = "/var/run/secrets/tokens/warren-token",
        value_name = "FILE"
    )]
    token: PathBuf,
    /// cgroup v2 directory above all pods. Detected if not given: what the agent's own pod is below, or the usual places
    #[arg(long, env = "WARREN_PODS_CGROUP", value_name = "DIR")]
    pods_cgroup: Option<PathBuf>,
    /// cgroup v2 directory of the kubelet: its probes are not captured. Detected if not given: root's process of that
    /// name on the node; where it has no cgroup of its own, probes are captured, and STRICT refuses them
    #[arg(long, env = "WARREN_KUBELET_CGROUP", value_name = "DIR")]
    kubelet_cgroup: Option<PathBuf>,
    /// Directory on a bpffs where kernel programs and maps are pinned
    #[arg(long, env = "WARREN_BPF_DIR", default_value = "/sys/fs/bpf/warren", value_name = "DIR")]
    bpf_dir: PathBuf,
    /// Directory for the last good configuration and certificates
    #[arg(long, env = "WARREN_STATE_DIR", default_value = "/var/lib/warren", value_name = "DIR")]
    state_dir: PathBuf,
    /// How much of the mesh to follow
    #[arg(long, env = "WARREN_SUBSCRIBE", default_value = "wildcard", value_name = "HOW")]
    subscribe: Subscribe,
    /// Unix socket of the admin API that `warren status` and the others ask
    #[arg(long, env = "WARREN_ADMIN_SOCKET", default_value = "/run/warren/admin.sock", value_name = "PATH")]
    admin_socket: PathBuf,
    /// Unix socket where the CNI plugin asks; without it, cni.sock beside the admin API's
    #[arg(long, env = "WARREN_CNI_SOCKET", value_name = "PATH")]
    cni_socket: Option<PathBuf>,
    #[command(flatten)]
    cni: CniArgs,
    /// The folder of certificates and keys that DestinationRules may name (`tls`); whoever may write those may use all of them
    #[arg(long, env = "WARREN_TLS_FILES", default_value = "/etc/warren/tls", value_name = "DIR")]
    tls_files: PathBuf,
    /// Which connections to other nodes get a TLS connection of their own, and so outlive an upgrade of the agent
    #[arg(long, env = "WARREN_TUNNEL", default_value = "auto", value_name = "WHICH")]
    tunnel: Tunnel,
    #[command(flatten)]
    limits: LimitArgs,
    /// Loopback address that serves the admin API as well (127.0.0.1:15000), for `warren` on other machines
    #[arg(long, env = "WARREN_ADMIN_ADDRESS", value_parser = loopback, value_name = "ADDRESS")]
    admin_address: Option<SocketAddr>,
    /// Unix socket where an agent that starts finds the one that serves, and takes over without a failed connection
    #[arg(
        long,
        env = "WARREN_HANDOVER_SOCKET",
        default_value = "/run/warren/handover.sock",
        value_name = "PATH"
    )]
    handover_socket: PathBuf,
    /// Where Prometheus finds /metrics
    #[arg(long, env = "WARREN_METRICS_ADDRESS", default_value = "[::]:15020", value_name = "ADDRESS")]
    metrics_address: SocketAddr,
    /// Where the kubelet finds /healthz/ready
    #[arg(long, env = "WARREN_READINESS_ADDRESS", default_value = "[::]:15021", value_name = "ADDRESS")]
    readiness_address: SocketAddr,
    /// Worker threads that carry traffic; 0 for one per core
    #[arg(long, env = "WARREN_WORKERS", default_value_t = 0, value_name = "N")]
    workers: usize,
    /// While no agent runs, let enrolled pods talk in plaintext instead of failing their connections
    #[arg(long, env = "WARREN_FAIL_OPEN")]
    fail_open: bool,
    /// Trust domain of the mesh
    #[arg(long, env = "WARREN_TRUST_DOMAIN", default_value = "cluster.local", value_name = "DOMAIN")]
    trust_domain: String,
    /// How long open connections may go on after SIGTERM (500ms, 10s, 5m)
    #[arg(long, env = "WARREN_DRAIN_DEADLINE", default_value = "10s", value_parser = duration, value_name = "TIME")]
    drain_deadline: Duration,
    /// Validity to ask certificates for; they are renewed at half of it (30m, 24h)
    #[arg(
        long,
        env = "WARREN_CERTIFICATE_LIFETIME",
        default_value = "24h",
        value_parser = duration,
        value_name = "TIME"
    )]
    certificate_lifetime: Duration,
    /// A log line at the end of every connection (true or false)
    #[arg(long, env = "WARREN_ACCESS_LOG", default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    access_log: bool,
    /// Instead of running: take kernel programs, CNI entry and keys off this node, then stay until SIGTERM. Ends no agent
    #[arg(long)]
    cleanup: bool,
    /// Let the kernel programs log what they do; slow
    #[arg(long, env = "WARREN_KERNEL_DEBUG")]
    kernel_debug: bool,
    /// procfs of the node
    #[arg(long, env = "WARREN_PROC_DIR", default_value = "/proc", value_name = "DIR")]
    proc_dir: PathBuf,
    #[command(flatten)]
    log: LogArgs,
}

/// Where the CNI plugin is installed. With neither directory it is not.
#[derive(Args, Debug)]
struct CniArgs {
    /// Directory of the node's CNI plugins (/opt/cni/bin): the plugin is copied there
    #[arg(long, env = "WARREN_CNI_BIN_DIR", requires = "cni_conf_dir", value_name = "DIR")]
    cni_bin_dir: Option<PathBuf>,
    /// Directory of the node's CNI configurations (/etc/cni/net.d): the first gets warren's entry
    #[arg(long, env = "WARREN_CNI_CONF_DIR", requires = "cni_bin_dir", value_name = "DIR")]
    cni_conf_dir: Option<PathBuf>,
    /// The plugin to copy; without it, warren-cni beside this program, or else this program
    #[arg(long, env = "WARREN_CNI_PLUGIN", value_name = "FILE")]
    cni_plugin: Option<PathBuf>,
    /// Namespace of the agent's own pod: pods there never wait for the mesh
    #[arg(long, env = "POD_NAMESPACE", default_value = "warren-system", value_name = "NAMESPACE")]
    namespace: String,
}

impl AgentArgs {
    fn cni_socket(&self) -> PathBuf {
        self.cni_socket.clone().unwrap_or_else(|| self.admin_socket.with_file_name("cni.sock"))
    }

    fn cni_install(&self) -> Option<InstallConfig> {
        let (bin_dir, conf_dir) = (self.cni.cni_bin_dir.clone()?, self.cni.cni_conf_dir.clone()?);
        Some(InstallConfig {
            bin_dir,
            conf_dir,
            plugin: self.cni.cni_plugin.clone().unwrap_or_else(plugin),
            entry: Entry {
                socket: self.cni_socket(),
                offline: self.state_dir.join(OFFLINE_FILE),
                namespace: self.cni.namespace.clone(),
                ..Entry::default()
            },
        })
    }
}

/// The small static plugin beside this program, as in the image. Without it this program, which is the plugin under
/// its name and needs the node to have the libraries that it has here.
fn plugin() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    Some(program.with_file_name(PLUGIN)).filter(|plugin| plugin.is_file()).unwrap_or(program)
}

pub(crate) fn run(args: AgentArgs) -> anyhow::Result<()> {
    args.log.init();
    if args.cleanup {
        return Ok(cleanup::run(&CleanupConfig {
            sockets: [args.admin_socket.clone(), args.cni_socket()],
            cni_install: args.cni_install(),
            bpf_dir: args.bpf_dir,
            state_dir: args.state_dir,
            readiness_address: args.readiness_address,
        })?);
    }
    raise_open_files();
    Ok(warren_agent::app::run(args.into())?)
}

impl From<AgentArgs> for Config {
    fn from(args: AgentArgs) -> Self {
        Self {
            cni_socket: args.cni_socket(),
            cni_install: args.cni_install(),
            node: args.node,
            controller_url: args.controller,
            controller_name: args.controller_name,
            controller_ca: args.controller_ca,
            token: args.token,
            pods_cgroup: args.pods_cgroup,
            kubelet_cgroup: args.kubelet_cgroup,
            bpf_dir: args.bpf_dir,
            state_dir: args.state_dir,
            admin_socket: args.admin_socket,
            admin_address: args.admin_address,
            handover_socket: args.handover_socket,
            by_interest: args.subscribe == Subscribe::Interest,
            metrics_address: args.metrics_address,
            readiness_address: args.readiness_address,
            workers: args.workers,
            tunnel_use: match args.tunnel {
                Tunnel::Shared => TunnelUse::Shared,
                Tunnel::Dedicated => TunnelUse::Dedicated,
                Tunnel::Auto => TunnelUse::Auto,
            },
            tls_files: args.tls_files,
            limits: args.limits.into(),
            fail_open: args.fail_open,
            trust_domain: args.trust_domain,
            drain_deadline: args.drain_deadline,
            kernel_debug: args.kernel_debug,
            access_log: args.access_log,
            certificate_lifetime: args.certificate_lifetime,
            proc_dir: args.proc_dir,
        }
    }
}

/// Nobody who reaches the admin API is asked who they are, so only this machine's own namespace may reach it.
pub(super) fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| format!("{text:?} is not ADDRESS:PORT, as in 127.0.0.1:15000"))?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err(format!(
        "{} is not a loopback address; the admin API may not be reached from other machines",
        address.ip()
    ))
}

/// Every captured connection is two descriptors or more; the default of 1024 would be a node's limit.
fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, ?current, "cannot raise the limit of open files");
    }
}

#[cfg(test)]
mod tests {
    use crate::args::{Cli, Command};
    use clap::Parser;
    use std::time::Duration;
    use warren_agent::app::Config;

    #[test]
    fn defaults_are_what_the_manifests_rely_on() {
        let cli = Cli::try_parse_from(["warren", "agent", "--node", "n1", "--access-log", "false"]).unwrap();
        let Command::Agent(args) = cli.command else { panic!("another command") };
        let config = Config::from(args);
        assert_eq!(config.node, "n1");
        assert_eq!(config.metrics_address.to_string(), "[::]:15020");
        assert_eq!(config.drain_deadline, Duration::from_secs(10));
        assert_eq!(config.certificate_lifetime, Duration::from_secs(86_400));
        assert!(!config.by_interest, "everything is known, also while the controller is away");
        assert!(!config.access_log && !config.fail_open && config.kubelet_cgroup.is_none());
        assert_eq!(config.admin_address, None);
        assert_eq!(config.cni_socket.to_str(), Some("/run/warren/cni.sock"));
        assert!(config.cni_install.is_none());
    }

    #[test]
    fn the_plugin_is_told_where_the_agent_is() {
        let args = ["warren", "agent", "--node", "n1", "--state-dir", "/s", "--admin-socket", "/r/a.sock"];
        let cli =
            Cli::try_parse_from(args.into_iter().chain(["--cni-bin-dir", "/b", "--cni-conf-dir", "/c"]));
        let Command::Agent(args) = cli.unwrap().command else { panic!("another command") };
        let entry = Config::from(args).cni_install.unwrap().entry;
        assert_eq!(
            (entry.socket.to_str(), entry.offline.to_str()),
            (Some("/r/cni.sock"), Some("/s/cni.json"))
        );
        assert!(Cli::try_parse_from(["warren", "agent", "--node", "n1", "--cni-bin-dir", "/b"]).is_err());
    }

    #[test]
    fn the_admin_api_is_for_this_machine() {
        for (address, good) in [
            ("127.0.0.1:15000", true),
            ("127.0.0.9:0", true),
            ("[::1]:15000", true),
            ("0.0.0.0:15000", false),
            ("[::]:15000", false),
            ("10.0.0.1:15000", false),
            ("[::ffff:127.0.0.1]:15000", false),
            ("15000", false),
        ] {
            let line = ["warren", "agent", "--node", "n", "--admin-address", address];
            assert_eq!(Cli::try_parse_from(line).is_ok(), good, "{address}");
        }
    }
}
