//! Wiring: what is made of what, on which thread, and in which order it ends. No decisions are taken here.
//!
//! ```text
//!  control runtime: xDS, certificates, pod manager, admin, metrics, readiness
//!  workers (one single-threaded runtime each): every connection
//!  netns thread: sockets in pods' namespaces        events thread: what the kernel programs report
//! ```

mod capture;

use crate::accept::{Names, NetnsThread};
use crate::cni::{self, InstallConfig};
use crate::context::{Context, Node};
use crate::control::ControlConfig;
use crate::doors::Doors;
use crate::identity::{ControllerCa, Identities, IdentityConfig};
use crate::kernel::KernelError;
use crate::observe::{
    AdminView, EndpointError, ObserveConfig, Observer, bind, report_bytes, serve_admin, serve_admin_on,
    serve_metrics, serve_readiness,
};
use crate::pods::{PodManager, PodManagerConfig, PodRegistry, ProcDiscovery};
use crate::store::Store;
use crate::tunnel::Pool;
use crate::view::{AgentView, counters};
use crate::workers::Workers;
use crate::xds::{self, SharedControllerStatus, XdsConfig};
use capture::Capture;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use warren_common::runtime::{DrainWatch, Readiness, bind_private, drain, shutdown_signal};

/// How often the bytes of open connections are added to the metrics (as Istio's).
const BYTES_REPORT: Duration = Duration::from_secs(5);
/// How often the end of open connections is looked for while draining.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// Everything the agent can be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name, as in `spec.nodeName` of its pods.
    pub node: String,
    /// `https://host:port` of the controller.
    pub controller_url: String,
    /// The name in the controller's certificate.
    pub controller_name: String,
    /// PEM file with the roots that the controller and all peers are verified against.
    pub controller_ca: PathBuf,
    /// File with the agent's service account token.
    pub token: PathBuf,
    /// cgroup v2 directory above all pods; detected if not said.
    pub pods_cgroup: Option<PathBuf>,
    /// cgroup v2 directory of the kubelet, whose probes are not captured; detected if not said.
    pub kubelet_cgroup: Option<PathBuf>,
    /// Directory on a bpffs where programs and maps are pinned.
    pub bpf_dir: PathBuf,
    /// Directory for the last good configuration and certificates.
    pub state_dir: PathBuf,
    /// Unix socket of the admin API.
    pub admin_socket: PathBuf,
    /// Unix socket where the CNI plugin asks.
    pub cni_socket: PathBuf,
    /// Where the CNI plugin is installed, if it is.
    pub cni_install: Option<InstallConfig>,
    /// Loopback address where the admin API is served too, for the API server's port-forward.
    pub admin_address: Option<SocketAddr>,
    /// Where metrics are served.
    pub metrics_address: SocketAddr,
    /// Where readiness is served.
    pub readiness_address: SocketAddr,
    /// Worker threads; 0: one per core.
    pub workers: usize,
    /// With no agent running, enrolled pods talk in plaintext instead of failing.
    pub fail_open: bool,
    /// The mesh's trust domain.
    pub trust_domain: String,
    /// How long open connections may go on after SIGTERM.
    pub drain_deadline: Duration,
    /// Kernel programs log what they do.
    pub kernel_debug: bool,
    /// One log line per connection.
    pub access_log: bool,
    /// Validity to ask certificates for.
    pub certificate_lifetime: Duration,
    /// procfs of the node.
    pub proc_dir: PathBuf,
}

/// Why the agent could not start, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The kernel's side.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A port or socket of the agent's own.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The agent's own cgroup is not known.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::CgroupError),
    /// Threads, runtimes, files.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

fn io(what: &'static str) -> impl Fn(std::io::Error) -> AppError {
    move |source| AppError::Io { what, source }
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// [`AppError`] when it cannot start. The kernel keeps capturing enrolled pods when it ends, so that nothing of
/// them leaves in plaintext while no agent runs.
pub fn run(config: Config) -> Result<(), AppError> {
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(io("starting the control runtime"))?;
    control.block_on(start(config))
}

async fn start(config: Config) -> Result<(), AppError> {
    let started = Instant::now();
    let name: Arc<str> = config.node.as_str().into();
    let readiness = Readiness::default();
    let first_configuration = readiness.wait_for("the first configuration");
    let first_pods = readiness.wait_for("the pods of this node");
    let (drain_trigger, draining) = drain();

    // The ports first: a second agent on this node must not touch the first one's programs.
    let metrics_listener = bind(config.metrics_address).await?;
    let readiness_listener = bind(config.readiness_address).await?;
    let observer = Observer::new(ObserveConfig {
        access_log: config.access_log,
        ..ObserveConfig::new(Arc::clone(&name))
    });
    tokio::spawn(serve_metrics(metrics_listener, observer.clone()));
    tokio::spawn(serve_readiness(readiness_listener, readiness.clone()));
    tokio::spawn(report_bytes(observer.clone(), BYTES_REPORT));

    let Capture { kernel, pods_cgroup, kubelet } = capture::start(&config)?;
    observer.kernel_counters_from({
        let kernel = Arc::clone(&kernel);
        move || counters(&*kernel)
    });

    let store = Arc::new(Store::new());
    let controller = SharedControllerStatus::default();
    let xds_config = XdsConfig {
        url: config.controller_url.clone(),
        controller_name: config.controller_name.clone(),
        ca_file: config.controller_ca.clone(),
        token_file: config.token.clone(),
        node: Arc::clone(&name),
        state_dir: Some(config.state_dir.clone()),
    };
    let xds =
        xds::run(xds_config, Arc::clone(&store), controller.clone(), first_configuration, draining.clone());
    tokio::spawn(xds);

    let identities = start_identities(&config);
    tokio::spawn(follow_identities(
        identities.clone(),
        Arc::clone(&store),
        Arc::clone(&name),
        draining.clone(),
    ));

    let registry = Arc::new(PodRegistry::default());
    let node = Arc::new(Node {
        trust_domain: config.trust_domain.as_str().into(),
        store: Arc::clone(&store),
        kernel: Arc::clone(&kernel),
        identities: identities.clone(),
        observer: observer.clone(),
        pods: Arc::clone(&registry),
        names: Names::default(),
        affinity: parking_lot::Mutex::default(),
    });
    let tunnels = Arc::new(AtomicU64::new(0));
    let workers = start_workers(&config, &node, &tunnels)?;
    let discovery = ProcDiscovery::new(pods_cgroup, config.proc_dir.clone())
        .map_err(io("opening the node's network namespace"))?;
    let (manager, pods) = PodManager::new(
        PodManagerConfig {
            node: Arc::clone(&name),
            state_dir: Some(config.state_dir.clone()),
            fail_open: config.fail_open,
        },
        Arc::clone(&store),
        registry,
        Arc::clone(&kernel),
        Arc::new(discovery),
        Arc::new(Doors::new(workers.clone())),
        NetnsThread::spawn().map_err(io("starting the namespace thread"))?,
    );
    let cni_socket = bind_private(&config.cni_socket).map_err(io("making the socket of the CNI plugin"))?;
    tokio::spawn(cni::serve(cni_socket, manager.requests(), draining.clone()));
    if let Some(install) = config.cni_install {
        tokio::spawn(cni::follow(install, draining.clone()));
    }
    let manager = tokio::spawn(manager.run(
        draining.clone(),
        {
            let controller = controller.clone();
            move || controller.get()
        },
        move || drop(first_pods),
    ));

    let view = AgentView {
        started,
        node: Arc::clone(&name),
        readiness,
        controller,
        pods,
        store,
        observer: observer.clone(),
        kernel,
        identities,
        tunnels,
        kubelet,
    };
    let view: Arc<dyn AdminView> = Arc::new(view);
    if let Some(address) = config.admin_address {
        let listener = bind(address).await?;
        tokio::spawn(serve_admin_on(listener, observer.clone(), Arc::clone(&view), draining.clone()));
    }
    let admin = serve_admin(config.admin_socket.clone(), observer.clone(), view, draining.clone());
    let admin = tokio::spawn(admin);
    drop(draining);

    tracing::info!(node = %name, version = env!("CARGO_PKG_VERSION"), "warren agent started");
    let signal = tokio::select! {
        signal = shutdown_signal() => signal.map_err(io("installing signal handlers"))?,
        ended = admin => {
            let error = ended.map_err(std::io::Error::other).and_then(|served| served);
            return Err(io("serving the admin socket")(error.err().unwrap_or_else(|| std::io::ErrorKind::Other.into())));
        }
    };
    tracing::info!(
        signal,
        open = observer.open_count(),
        deadline_s = config.drain_deadline.as_secs(),
        "draining"
    );
    let deadline = Instant::now() + config.drain_deadline;
    drain_trigger.start(config.drain_deadline).await;
    // The manager's end closed the doors; what is open may finish. Seats are counted, not flows: when the last flow
    // of a tunnel has ended, its last bytes may still wait to be sent.
    let _ = manager.await;
    while workers.connections() > 0 && Instant::now() < deadline {
        tokio::time::sleep(DRAIN_POLL).await;
    }
    match workers.connections() {
        0 => tracing::info!("drained; goodbye"),
        open => tracing::warn!(open, "connections were cut off at the drain deadline"),
    }
    Ok(())
}

fn start_workers(
    config: &Config,
    node: &Arc<Node>,
    tunnels: &Arc<AtomicU64>,
) -> Result<Workers<Context>, AppError> {
    let count = match config.workers {
        0 => std::thread::available_parallelism().map_or(1, Into::into),
        count => count,
    };
    let (node, tunnels) = (Arc::clone(node), Arc::clone(tunnels));
    let make = move || Context { node: Arc::clone(&node), tunnels: Rc::new(Pool::new(Arc::clone(&tunnels))) };
    Workers::start(count, make).map_err(io("starting the workers"))
}

fn start_identities(config: &Config) -> Identities {
    let control = ControlConfig {
        url: config.controller_url.clone(),
        controller_name: config.controller_name.clone(),
        ca_file: config.controller_ca.clone(),
        token_file: config.token.clone(),
    };
    let identity = IdentityConfig {
        ca_file: config.controller_ca.clone(),
        state_dir: Some(config.state_dir.clone()),
        validity: config.certificate_lifetime,
    };
    Identities::new(identity, Arc::new(ControllerCa::new(control)))
}

/// Keeps the set of wanted certificates equal to the identities of this node's enrolled pods.
async fn follow_identities(identities: Identities, store: Arc<Store>, node: Arc<str>, mut drain: DrainWatch) {
    let mut changed = store.changed();
    // Generation 0: nothing is known, and saved keys must not be thrown away.
    let mut known = changed.wait_for(|generation| *generation > 0).await.is_ok();
    while known {
        let wanted: BTreeSet<_> = store
            .load()
            .pods_of_node(&node)
            .filter(|workload| workload.enrolment.enrolled && !workload.host_network)
            .map(|workload| workload.identity.clone())
            .collect();
        identities.want(wanted);
        known = tokio::select! {
            more = changed.changed() => more.is_ok(),
            () = drain.started() => false,
        };
    }
}
