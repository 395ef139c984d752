//! Wiring: what is made of what, on which thread, and in which order it ends. No decisions are taken here.
//!
//! ```text
//!  control runtime: xDS, certificates, pod manager, admin, metrics, readiness
//!  workers (one single-threaded runtime each): every connection
//!  netns thread: sockets in pods' namespaces        events thread: what the kernel programs report
//! ```

mod capture;
mod succession;

use crate::accept::{Names, NetnsThread};
use crate::cni::{self, InstallConfig};
use crate::context::{Context, Node};
use crate::control::{ControlConfig, Trust};
use crate::doors::Doors;
use crate::farewell;
use crate::gate::Gate;
use crate::handover::{self, ArrivedFlow, Exits, HandoverError, Offer};
use crate::identity::{ControllerCa, Identities, IdentityConfig, Outside};
use crate::interest::Interest;
use crate::kernel::{BpfKernel, KernelError};
use crate::limits::{Limits, LimitsConfig};
use crate::observe::{
    AdminView, EndpointError, ObserveConfig, Observer, report_bytes, serve_admin, serve_admin_on,
    serve_metrics, serve_readiness,
};
use crate::outbound::{Balances, Routes, is_current};
use crate::pods::{PodManager, PodManagerConfig, PodRegistry, PodRequests, ProcDiscovery};
use crate::route::TunnelUse;
use crate::standing;
use crate::store::Store;
use crate::tunnel::Pool;
use crate::view::{AgentView, counters, pod_counts};
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
use succession::{Endpoints, Retirement, Succession, at_turn};
use tokio::sync::watch;
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
    /// Unix socket where this agent hands over to a successor, and asks for a predecessor.
    pub handover_socket: PathBuf,
    /// Ask the controller for what local pods talk to, instead of following the whole mesh.
    pub by_interest: bool,
    /// Where metrics are served.
    pub metrics_address: SocketAddr,
    /// Where readiness is served.
    pub readiness_address: SocketAddr,
    /// Worker threads; 0: one per core.
    pub workers: usize,
    /// Which connections to other nodes get a tunnel of their own.
    pub tunnel_use: TunnelUse,
    /// Below it are the certificates and keys that DestinationRules may name.
    pub tls_files: PathBuf,
    /// How much may be open at a time.
    pub limits: LimitsConfig,
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
    /// Another agent serves this node.
    #[error(transparent)]
    Handover(#[from] HandoverError),
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
    let ended = control.block_on(start(config));
    // A conversation with a successor may still wait for it.
    control.shutdown_background();
    ended
}

async fn start(config: Config) -> Result<(), AppError> {
    let started = Instant::now();
    let name: Arc<str> = config.node.as_str().into();
    let readiness = Readiness::default();
    let first_configuration = readiness.wait_for("the first configuration");
    let first_pods = readiness.wait_for("the pods of this node");
    let (drain_trigger, draining) = drain();

    // Before anything is touched: a second agent on this node is a successor, or is refused.
    let (turn, my_turn) = watch::channel(false);
    let mut succession = Succession::begin(&config).await?;
    let first_turn = succession.is_second().then(|| readiness.wait_for("the agent that serves the pods now"));
    let metrics_listener = succession.endpoint(config.metrics_address).await?;
    let readiness_listener = succession.endpoint(config.readiness_address).await?;
    let observer = Observer::new(ObserveConfig {
        access_log: config.access_log,
        ..ObserveConfig::new(Arc::clone(&name))
    });
    let mut endpoints = Endpoints::new(my_turn.clone());
    endpoints.serve(metrics_listener, |listener| serve_metrics(listener, observer.clone()))?;
    endpoints.serve(readiness_listener, |listener| serve_readiness(listener, readiness.clone()))?;
    tokio::spawn(report_bytes(observer.clone(), BYTES_REPORT));

    let (store, interest) = if config.by_interest {
        (Arc::new(Store::by_interest()), Interest::asking())
    } else {
        (Arc::new(Store::new()), Interest::everything())
    };
    let controller = SharedControllerStatus::default();
    let trust = Trust::new(config.controller_ca.clone(), Some(&config.state_dir));
    tokio::spawn(trust.clone().follow(draining.clone()));
    tokio::spawn(follow_trust(trust.clone(), Arc::clone(&store), draining.clone()));
    let xds_config = XdsConfig {
        url: config.controller_url.clone(),
        controller_name: config.controller_name.clone(),
        trust: trust.clone(),
        token_file: config.token.clone(),
        node: Arc::clone(&name),
        state_dir: Some(config.state_dir.clone()),
    };
    tokio::spawn(xds::run(
        xds_config,
        Arc::clone(&store),
        interest.clone(),
        controller.clone(),
        first_configuration,
        draining.clone(),
    ));

    let identities = start_identities(&config, &trust);
    tokio::spawn(identities.clone().report_trust());
    observer.certificates_from({
        let identities = identities.clone();
        move || identities.soonest_end()
    });
    tokio::spawn(follow_identities(
        identities.clone(),
        Arc::clone(&store),
        Arc::clone(&name),
        draining.clone(),
    ));

    // Last before the kernel: with other maps than the predecessor's it must stop accepting first.
    succession.give_way_to_other_maps(&store, BpfKernel::abi()).await;
    let (pods_trigger, pods_drain) = drain();
    let Capture { kernel, pods_cgroup, kubelet } = capture::start(&config, pods_drain.clone())?;
    observer.kernel_counters_from({
        let kernel = Arc::clone(&kernel);
        move || counters(&*kernel)
    });

    let registry = Arc::new(PodRegistry::default());
    let exits = Exits::default();
    let limits = Limits::new(config.limits);
    observer.limits_from({
        let limits = limits.clone();
        move || limits.refused()
    });
    let balances = Balances::default();
    observer.ejections_from({
        let balances = balances.clone();
        move || balances.ejections()
    });
    let node = Arc::new(Node {
        trust_domain: config.trust_domain.as_str().into(),
        store: Arc::clone(&store),
        interest,
        kernel: Arc::clone(&kernel),
        identities: identities.clone(),
        outside: Outside::new(config.tls_files.clone()),
        limits: limits.clone(),
        exits: exits.clone(),
        observer: observer.clone(),
        pods: Arc::clone(&registry),
        names: Names::default(),
        tunnel_use: config.tunnel_use,
        frequency: parking_lot::Mutex::default(),
        affinity: parking_lot::Mutex::default(),
        failing: parking_lot::Mutex::default(),
        balances,
    });
    tokio::spawn(farewell::forget_clients(Arc::clone(&node)));
    let tunnels = Arc::new(AtomicU64::new(0));
    let workers = start_workers(&config, &node, &tunnels)?;
    let discovery = ProcDiscovery::new(pods_cgroup, config.proc_dir.clone())
        .map_err(io("opening the node's network namespace"))?;
    let (manager, pods) = PodManager::new(
        PodManagerConfig {
            node: Arc::clone(&name),
            state_dir: Some(config.state_dir.clone()),
            fail_open: config.fail_open,
            inheritance: succession.inheritance(),
        },
        Arc::clone(&store),
        registry,
        Arc::clone(&kernel),
        Arc::new(discovery),
        Arc::new(Doors::new(workers.clone(), limits, observer.clone())),
        NetnsThread::spawn().map_err(io("starting the namespace thread"))?,
    );
    observer.pods_from({
        let (pods, kernel) = (pods.clone(), Arc::clone(&kernel));
        move || pod_counts(&pods.borrow(), &*kernel)
    });
    let held = manager.held();
    start_cni(config.cni_socket, config.cni_install, manager.requests(), &my_turn, &pods_drain);
    tokio::spawn(manager.run(
        pods_drain,
        {
            let controller = controller.clone();
            move || controller.get()
        },
        move || drop(first_pods),
    ));

    let view = AgentView {
        started,
        node: Arc::clone(&name),
        readiness: readiness.clone(),
        controller,
        pods,
        store,
        observer: observer.clone(),
        kernel,
        identities,
        tunnels,
        kubelet,
        shared: node,
    };
    let view: Arc<dyn AdminView> = Arc::new(view);
    if let Some(address) = config.admin_address {
        let admin = succession.endpoint(address).await?;
        let (observer, view, draining) = (observer.clone(), Arc::clone(&view), draining.clone());
        endpoints.serve(admin, |listener| serve_admin_on(listener, observer, view, draining))?;
    }
    // The node's sockets are one agent's: the one whose turn it is.
    let resume = {
        let workers = workers.clone();
        move |arrived: ArrivedFlow| {
            workers.run_connection(move |context, seat| {
                tokio::task::spawn_local(async move {
                    standing::resume(context, arrived).await;
                    drop(seat);
                });
            });
        }
    };
    tokio::spawn(succession.finish(turn, first_turn, resume));
    let admin = serve_admin(config.admin_socket.clone(), observer.clone(), view, draining.clone());
    let admin = tokio::spawn(at_turn(my_turn.clone(), draining.clone(), admin));
    let retirement = Retirement::new(pods_trigger, config.drain_deadline, readiness.clone(), endpoints);
    let offer = Offer {
        node: Arc::clone(&name),
        abi: BpfKernel::abi(),
        pods: held,
        endpoints: retirement.endpoint_sockets(),
        exits,
    };
    let offer =
        handover::offer(config.handover_socket.clone(), offer, Arc::clone(&retirement), draining.clone());
    let offer = tokio::spawn(at_turn(my_turn, draining.clone(), offer));
    drop(draining);

    tracing::info!(node = %name, version = env!("CARGO_PKG_VERSION"), "warren agent started");
    let signal = tokio::select! {
        signal = shutdown_signal() => signal.map_err(io("installing signal handlers"))?,
        ended = admin => {
            let error = ended.map_err(std::io::Error::other).and_then(|served| served);
            return Err(io("serving the admin socket")(error.err().unwrap_or_else(|| std::io::ErrorKind::Other.into())));
        }
        ended = offer => {
            let orphaned = ended.map_err(std::io::Error::other).map_err(io("handing over"))?;
            return Err(orphaned.err().unwrap_or(HandoverError::Orphaned).into());
        }
    };
    tracing::info!(
        signal,
        open = observer.open_count(),
        deadline_s = config.drain_deadline.as_secs(),
        "draining"
    );
    let deadline = Instant::now() + config.drain_deadline;
    // The manager's end closes the doors; what is open may finish. Seats are counted, not flows: when the last flow
    // of a tunnel has ended, its last bytes may still wait to be sent.
    tokio::join!(drain_trigger.start(config.drain_deadline), retirement.close_doors());
    while workers.connections() > 0 && Instant::now() < deadline {
        tokio::time::sleep(DRAIN_POLL).await;
    }
    match workers.connections() {
        0 => tracing::info!("drained; goodbye"),
        open => tracing::warn!(open, "connections were cut off at the drain deadline"),
    }
    Ok(())
}

/// Answers the CNI plugin and keeps it installed, as long as the pods are this agent's.
fn start_cni(
    socket: PathBuf,
    install: Option<InstallConfig>,
    requests: PodRequests,
    turn: &watch::Receiver<bool>,
    drain: &DrainWatch,
) {
    let (turn, drain) = (turn.clone(), drain.clone());
    tokio::spawn(at_turn(turn, drain.clone(), async move {
        let bound = bind_private(&socket).inspect_err(|error| {
            tracing::error!(%error, socket = %socket.display(), "cannot make the socket of the CNI plugin; new pods of enrolled namespaces wait");
        })?;
        if let Some(install) = install {
            tokio::spawn(cni::follow(install, drain.clone()));
        }
        cni::serve(bound, requests, drain).await;
        Ok::<_, std::io::Error>(())
    }));
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
    let make = move || {
        let tunnels = Rc::new(Pool::new(Arc::clone(&tunnels)));
        tokio::task::spawn_local(farewell::close_tunnels(Rc::clone(&tunnels), Arc::clone(&node)));
        Context {
            node: Arc::clone(&node),
            gate: Gate::start(Arc::clone(&node.store)),
            tunnels,
            requests: requests_of(&node.store),
            routes: Routes::default(),
        }
    };
    Workers::start(count, make).map_err(io("starting the workers"))
}

/// Connections are kept for requests as long as both of their pods are who they were.
fn requests_of(store: &Arc<Store>) -> Rc<crate::http::Pool> {
    let store = Arc::clone(store);
    crate::http::Pool::new(move |key| is_current(&store.guard(), key))
}

fn start_identities(config: &Config, trust: &Trust) -> Identities {
    let control = ControlConfig {
        url: config.controller_url.clone(),
        controller_name: config.controller_name.clone(),
        trust: trust.clone(),
        token_file: config.token.clone(),
    };
    let identity = IdentityConfig {
        trust: trust.clone(),
        state_dir: Some(config.state_dir.clone()),
        validity: config.certificate_lifetime,
    };
    Identities::new(identity, Arc::new(ControllerCa::new(control)))
}

/// Hands on what the controller says about whom to trust.
async fn follow_trust(trust: Trust, store: Arc<Store>, mut drain: DrainWatch) {
    let mut changed = store.changed();
    let mut known = None;
    loop {
        let told = store.guard().trust().cloned();
        if let Some(bundle) = told.filter(|told| known.as_ref() != Some(told)) {
            trust.accept(bundle.as_ref().clone()).await;
            known = Some(bundle);
        }
        tokio::select! {
            more = changed.changed() => if more.is_err() { return },
            () = drain.started() => return,
        }
    }
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
