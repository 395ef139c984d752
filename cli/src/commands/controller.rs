//! `warren controller`.

use crate::args::{LogArgs, duration};
use anyhow::Context;
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use warren_common::runtime::{DrainWatch, Readiness, drain, shutdown_signal};
use warren_controller::app::{
    self, AdminConfig, CaConfig, Config, KubernetesConfig, ManifestsConfig, PipelineConfig, ResolveConfig,
    RootNamespaces, Source,
};
use warren_controller::ca::RotationConfig;
use warren_controller::ca::serving::ServingConfig;
use warren_controller::objects::Name;

#[derive(Args, Debug)]
pub(crate) struct ControllerArgs {
    /// Directory of Kubernetes manifests (*.yaml, *.yml, *.json) to follow; without it a cluster is
    #[arg(long, env = "WARREN_MANIFESTS", value_name = "DIR", requires = "jwks")]
    manifests: Option<PathBuf>,
    /// How to reach the cluster; without it as the pod's own service account
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The controller's own namespace in the cluster: CA, root for agents and lease are there
    #[arg(long, env = "POD_NAMESPACE", default_value = "warren-system", value_name = "NAMESPACE")]
    namespace: String,
    /// This replica's name in the cluster, unique among replicas; the host's name if not given
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    instance: Option<String>,
    /// Read lists as streams where the API server offers it (Kubernetes 1.34); `false`: page by page, as older ones do
    #[arg(long, env = "WARREN_STREAM_LISTS", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    stream_lists: bool,
    /// Where agents connect: configuration and certificates, gRPC over TLS
    #[arg(long, env = "WARREN_LISTEN", default_value = "[::]:15012", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where Prometheus finds /metrics and the kubelet readiness
    #[arg(long, env = "WARREN_METRICS_LISTEN", default_value = "[::]:15014", value_name = "ADDRESS")]
    metrics_listen: SocketAddr,
    /// Unix socket where `warren ca` asks and revokes; only its owner may open it
    #[arg(long, env = "WARREN_CONTROLLER_SOCKET", value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// Loopback address where the same is served, for the API server's port-forward; anybody who reaches it may revoke
    #[arg(long, env = "WARREN_ADMIN_ADDRESS", value_name = "ADDRESS", value_parser = super::agent::loopback)]
    admin_address: Option<SocketAddr>,
    /// With --manifests: directory of the CA (root-cert.pem, ca-cert.pem, ca-key.pem, cert-chain.pem), followed; made if empty
    #[arg(long, env = "WARREN_CA_DIR", default_value = "/var/lib/warren/ca", value_name = "DIR")]
    ca_dir: PathBuf,
    /// With --manifests: public keys that tokens are verified with (JWK Set); read again when the file changes
    #[arg(long, env = "WARREN_JWKS", value_name = "FILE", requires = "manifests")]
    jwks: Option<PathBuf>,
    /// Audience that a token must have
    #[arg(long, env = "WARREN_TOKEN_AUDIENCE", default_value = "warren.dev", value_name = "AUDIENCE")]
    token_audience: String,
    /// With --manifests: issuer that a token must have; any if not given
    #[arg(long, env = "WARREN_TOKEN_ISSUER", value_name = "ISSUER")]
    token_issuer: Option<String>,
    /// Service account that agents run as, NAMESPACE/NAME; may be given more than once
    #[arg(
        long = "agent-account",
        env = "WARREN_AGENT_ACCOUNTS",
        value_delimiter = ',',
        default_value = "warren-system/warren-agent",
        value_parser = account,
        value_name = "ACCOUNT"
    )]
    agent_accounts: Vec<Name>,
    /// Trust domain of the mesh
    #[arg(long, env = "WARREN_TRUST_DOMAIN", default_value = "cluster.local", value_name = "DOMAIN")]
    trust_domain: String,
    /// Longest validity of a workload's certificate (30m, 24h)
    #[arg(
        long,
        env = "WARREN_CERTIFICATE_LIFETIME",
        default_value = "24h",
        value_parser = duration,
        value_name = "TIME"
    )]
    certificate_lifetime: Duration,
    /// Lifetime of a root that the controller makes
    #[arg(long, env = "WARREN_CA_ROOT_LIFETIME", default_value = "3650d", value_parser = duration, value_name = "TIME")]
    ca_root_lifetime: Duration,
    /// Lifetime of a signing certificate that the controller makes
    #[arg(long, env = "WARREN_CA_SIGNER_LIFETIME", default_value = "365d", value_parser = duration, value_name = "TIME")]
    ca_signer_lifetime: Duration,
    /// Percent of their lifetime after which root and signing certificate are replaced; 0: by `warren ca rotate` alone
    #[arg(
        long,
        env = "WARREN_CA_ROTATE_AT",
        default_value = "66",
        value_parser = clap::value_parser!(u8).range(0..=90),
        value_name = "PERCENT"
    )]
    ca_rotate_at: u8,
    /// How long each phase of a rotation lasts at least: agents that are not connected find new roots in their file by then
    #[arg(long, env = "WARREN_CA_SETTLE", default_value = "10m", value_parser = duration, value_name = "TIME")]
    ca_settle: Duration,
    /// Namespace whose objects without a selector hold for the whole mesh; may be given more than once, the most
    /// important first
    #[arg(
        long = "root-namespace",
        env = "WARREN_ROOT_NAMESPACES",
        value_delimiter = ',',
        default_value = "warren-system,istio-system",
        value_name = "NAMESPACE"
    )]
    root_namespaces: Vec<String>,
    /// Name of this cluster
    #[arg(long, env = "WARREN_CLUSTER", default_value = "Kubernetes", value_name = "NAME")]
    cluster: String,
    /// DNS suffix of the cluster's services
    #[arg(long, env = "WARREN_CLUSTER_DOMAIN", default_value = "cluster.local", value_name = "DOMAIN")]
    cluster_domain: String,
    /// DNS name or IP address that agents dial, for the server's certificate; may be given more than once; if not given,
    /// those of the Service warren-controller
    #[arg(long = "serving-name", env = "WARREN_SERVING_NAMES", value_delimiter = ',', value_name = "NAME")]
    serving_names: Vec<String>,
    /// Validity of the server's certificate; a new one is made at half of it
    #[arg(
        long,
        env = "WARREN_SERVING_LIFETIME",
        default_value = "24h",
        value_parser = duration,
        value_name = "TIME"
    )]
    serving_lifetime: Duration,
    /// How long open requests may go on after SIGTERM (500ms, 10s)
    #[arg(long, env = "WARREN_DRAIN_DEADLINE", default_value = "10s", value_parser = duration, value_name = "TIME")]
    drain_deadline: Duration,
    #[command(flatten)]
    log: LogArgs,
}

pub(crate) fn run(args: ControllerArgs) -> anyhow::Result<()> {
    args.log.init();
    let deadline = args.drain_deadline;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(until_signal(args.into(), deadline))
}

async fn until_signal(config: Config, deadline: Duration) -> anyhow::Result<()> {
    let (trigger, watch) = drain();
    let mut controller = tokio::spawn(serve(config, watch));
    let signal = tokio::select! {
        ended = &mut controller => return ended.context("the controller panicked")?,
        signal = shutdown_signal() => signal.context("installing signal handlers")?,
    };
    tracing::info!(signal, deadline_s = deadline.as_secs(), "draining");
    if !trigger.start(deadline).await {
        tracing::warn!("the drain deadline passed; open streams are cut off");
        return Ok(());
    }
    controller.await.context("the controller panicked")?
}

async fn serve(config: Config, drain: DrainWatch) -> anyhow::Result<()> {
    Ok(app::run(config, drain, Readiness::default()).await?)
}

impl From<ControllerArgs> for Config {
    fn from(args: ControllerArgs) -> Self {
        Self {
            serving: ServingConfig { names: args.serving_names(), lifetime: args.serving_lifetime },
            source: match (args.manifests, args.jwks) {
                (Some(manifests), Some(jwks)) => Source::Manifests {
                    manifests: ManifestsConfig::new(manifests),
                    ca_directory: args.ca_dir,
                    jwks,
                    issuer: args.token_issuer,
                },
                _ => Source::Kubernetes(KubernetesConfig {
                    kubeconfig: args.kubeconfig,
                    namespace: args.namespace,
                    instance: args.instance.unwrap_or_else(host_name),
                    stream_lists: args.stream_lists,
                }),
            },
            resolve: ResolveConfig {
                cluster: args.cluster.into(),
                cluster_domain: args.cluster_domain.into(),
                trust_domain: args.trust_domain.into(),
            },
            root_namespaces: RootNamespaces(args.root_namespaces.into_iter().map(Into::into).collect()),
            pipeline: PipelineConfig::default(),
            ca: CaConfig {
                lifetime: args.certificate_lifetime,
                rotation: RotationConfig {
                    root_lifetime: args.ca_root_lifetime,
                    signer_lifetime: args.ca_signer_lifetime,
                    rotate_at: (args.ca_rotate_at > 0).then(|| f64::from(args.ca_rotate_at) / 100.0),
                    settle: args.ca_settle,
                },
                agent_accounts: args.agent_accounts,
            },
            audience: args.token_audience,
            listen: args.listen,
            metrics_listen: args.metrics_listen,
            admin: AdminConfig { socket: args.admin_socket, address: args.admin_address },
        }
    }
}

impl ControllerArgs {
    /// All the names that a pod can dial the Service by.
    fn serving_names(&self) -> Vec<String> {
        if !self.serving_names.is_empty() {
            return self.serving_names.clone();
        }
        let short = format!("warren-controller.{}", self.namespace);
        vec![format!("{short}.svc"), format!("{short}.svc.{}", self.cluster_domain), short]
    }
}

/// Unique for every replica in Kubernetes, where it is the pod's name.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() {
        format!("warren-controller-{}", std::process::id())
    } else {
        name.trim().to_owned()
    }
}

fn account(text: &str) -> Result<Name, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(Name { namespace: namespace.into(), name: name.into() })
        }
        _ => Err(format!("{text:?} is not NAMESPACE/NAME")),
    }
}

#[cfg(test)]
mod tests {
    use crate::args::{Cli, Command};
    use clap::Parser;
    use warren_controller::app::{Config, Source};

    fn parse(flags: &[&str]) -> Result<Config, clap::Error> {
        let cli = Cli::try_parse_from(["warren", "controller"].iter().chain(flags))?;
        let Command::Controller(args) = cli.command else { panic!("another command") };
        Ok(Config::from(args))
    }

    #[test]
    fn lists_may_be_given_more_than_once() {
        let line = ["--manifests", "m", "--jwks", "j", "--serving-name", "a", "--serving-name", "b,c"];
        let config = parse(&[line.as_slice(), &["--agent-account", "x/y"]].concat()).unwrap();
        assert_eq!(config.serving.names, ["a", "b", "c"]);
        assert_eq!(config.ca.agent_accounts[0].to_string(), "x/y");
        assert!(super::account("nobody").is_err());
    }

    #[test]
    fn without_manifests_it_is_a_cluster() {
        let config = parse(&["--namespace", "mesh", "--instance", "a"]).unwrap();
        assert!(matches!(config.source, Source::Kubernetes(cluster) if cluster.namespace == "mesh"));
        let names = [
            "warren-controller.mesh.svc",
            "warren-controller.mesh.svc.cluster.local",
            "warren-controller.mesh",
        ];
        assert_eq!(config.serving.names, names);
        let config = parse(&["--manifests", "m", "--jwks", "j"]).unwrap();
        assert!(matches!(config.source, Source::Manifests { .. }));
        for wrong in [["--manifests", "m"], ["--jwks", "j"]] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }
}
