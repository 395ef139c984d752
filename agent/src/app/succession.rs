//! Following another agent, and being followed: who serves the pods, and the sockets that only one agent can have.

use super::{AppError, Config, io};
use crate::accept::is_own_listener;
use crate::handover::{self, ArrivedFlow, HandoverError, Lifeline, Predecessor, Rest, Retire};
use crate::observe::bind;
use crate::pods::{HeldPods, Inheritance};
use crate::store::Store;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use warren_common::runtime::{DrainTrigger, DrainWatch, Readiness, ReadinessGuard};

/// How long a predecessor with other kernel maps goes on because this agent has no configuration yet.
const CONFIGURATION_PATIENCE: Duration = Duration::from_secs(5);

/// The way from the agent that serves this node now, if there is one, to this one.
pub(super) struct Succession {
    predecessor: Option<Predecessor>,
    /// And whether connections come along it.
    lifeline: Option<(Lifeline, bool)>,
    pods: HeldPods,
    endpoints: bool,
    settled: (Option<oneshot::Sender<()>>, oneshot::Receiver<()>),
}

impl Succession {
    /// Asks whether another agent serves this node.
    pub(super) async fn begin(config: &Config) -> Result<Self, AppError> {
        let (socket, node) = (config.handover_socket.clone(), config.node.clone());
        let asked = tokio::task::spawn_blocking(move || handover::ask(&socket, &node)).await;
        let predecessor = match asked
            .map_err(std::io::Error::other)
            .map_err(io("asking for a predecessor"))?
        {
            Ok(predecessor) => predecessor,
            Err(refused @ HandoverError::Refused { .. }) => return Err(refused.into()),
            Err(error) => {
                tracing::warn!(%error, "an agent is there and does not hand over; starting without it: pods whose ports it holds are pending until it is gone");
                None
            }
        };
        let pods = HeldPods::default();
        if let Some(predecessor) = &predecessor {
            tracing::info!(pods = predecessor.pods.len(), "taking over from the agent that serves this node");
            keep(&pods, &predecessor.pods);
        }
        let (settled, told) = oneshot::channel();
        Ok(Self { predecessor, lifeline: None, pods, endpoints: false, settled: (Some(settled), told) })
    }

    /// Whether another agent serves the pods.
    pub(super) fn is_second(&self) -> bool {
        self.predecessor.is_some()
    }

    /// The listener for an address of the agent's own: the predecessor's, where both are in one network namespace.
    pub(super) async fn endpoint(&mut self, address: SocketAddr) -> Result<Endpoint, AppError> {
        let mut theirs = self.predecessor.iter_mut().flat_map(|it| it.endpoints.iter());
        match theirs.find(|fd| is_own_listener(fd.as_fd(), address.port())) {
            None => Ok(Endpoint { listener: bind(address).await?, waits: false }),
            Some(fd) => {
                let shared = fd.try_clone().map(std::net::TcpListener::from).and_then(TcpListener::from_std);
                self.endpoints = true;
                Ok(Endpoint { listener: shared.map_err(io("sharing a listener"))?, waits: true })
            }
        }
    }

    /// What the pod manager takes over.
    pub(super) fn inheritance(&mut self) -> Inheritance {
        Inheritance { pods: self.pods.clone(), settled: self.settled.0.take() }
    }

    /// A predecessor whose kernel maps are laid out differently cannot accept any more once this agent's programs are
    /// in place: it gives way before. What connects until this agent has its pods waits in their listeners.
    pub(super) async fn give_way_to_other_maps(&mut self, store: &Store, abi: &str) {
        if self.predecessor.as_ref().is_none_or(|predecessor| predecessor.abi == abi) {
            return;
        }
        let mut changed = store.changed();
        let configured = changed.wait_for(|generation| *generation > 0);
        // Without a configuration the pods would wait; longer than this is worse than a gap.
        let _ = tokio::time::timeout(CONFIGURATION_PATIENCE, configured).await;
        self.take().await;
    }

    /// Takes over once the pods are enrolled, and then it is this agent's turn.
    pub(super) async fn finish(
        mut self,
        turn: watch::Sender<bool>,
        guard: Option<ReadinessGuard>,
        resume: impl Fn(ArrivedFlow) + Send + 'static,
    ) {
        let mut settled = false;
        // Never told: this agent is ending before it has begun, and the predecessor goes on.
        if self.predecessor.is_some() {
            settled = (&mut self.settled.1).await.is_ok();
            if settled {
                self.take().await;
            }
        }
        if self.predecessor.is_none() {
            turn.send_replace(true);
            drop(guard);
            // Connections are judged when they come: by a configuration, at pods that are enrolled.
            if let Some((lifeline, true)) = self.lifeline.take_if(|(_, flows)| *flows)
                && (settled || self.settled.1.await.is_ok())
            {
                take_flows(lifeline, resume).await;
            }
            // The predecessor sees that this agent lives.
            std::future::pending::<()>().await;
        }
    }

    async fn take(&mut self) {
        let Some(predecessor) = self.predecessor.take() else { return };
        let endpoints = self.endpoints;
        let taken = tokio::task::spawn_blocking(move || predecessor.taken(endpoints)).await;
        match taken.map_err(|error| HandoverError::Wire(error.into())).and_then(|taken| taken) {
            Ok(Rest { pods, lifeline, flows }) => {
                keep(&self.pods, &pods);
                self.lifeline = Some((lifeline, flows));
                tracing::info!("this agent serves the pods now");
            }
            Err(error) => tracing::warn!(%error, "the predecessor does not answer; going on without it"),
        }
    }
}

/// Takes the predecessor's connections, until it has gone.
async fn take_flows(lifeline: Lifeline, resume: impl Fn(ArrivedFlow) + Send + 'static) {
    let taking = tokio::task::spawn_blocking(move || lifeline.take_flows(resume)).await;
    match taking.map_err(|error| HandoverError::Wire(error.into())).and_then(|taken| taken) {
        Ok(taken) => tracing::info!(taken, "the predecessor has gone; its connections go on here"),
        Err(error) => tracing::warn!(%error, "no more connections of the predecessor are taken"),
    }
}

fn keep(held: &HeldPods, pods: &[(Arc<str>, crate::pods::DoorSockets)]) {
    for (uid, sockets) in pods {
        held.insert(uid, sockets.clone());
    }
}

/// A listener of the agent's own.
pub(super) struct Endpoint {
    listener: TcpListener,
    /// A predecessor answers there as well, until it is this agent's turn.
    waits: bool,
}

/// What this agent answers at addresses of its own.
pub(super) struct Endpoints {
    turn: watch::Receiver<bool>,
    tasks: Vec<AbortHandle>,
    sockets: Vec<Arc<OwnedFd>>,
}

impl Endpoints {
    pub(super) fn new(turn: watch::Receiver<bool>) -> Self {
        Self { turn, tasks: Vec::new(), sockets: Vec::new() }
    }

    /// Serves one more: at once, or when it is this agent's turn.
    pub(super) fn serve<F>(
        &mut self,
        endpoint: Endpoint,
        serve: impl FnOnce(TcpListener) -> F,
    ) -> Result<(), AppError>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let Endpoint { listener, waits } = endpoint;
        let socket = listener.as_fd().try_clone_to_owned().map_err(io("sharing a listener"))?;
        self.sockets.push(Arc::new(socket));
        let mut turn = self.turn.clone();
        let serving = serve(listener);
        let task = tokio::spawn(async move {
            if waits {
                // An error means that the agent is ending.
                let _ = turn.wait_for(|mine| *mine).await;
            }
            serving.await;
        });
        self.tasks.push(task.abort_handle());
        Ok(())
    }
}

/// How this agent ends: first its doors, by SIGTERM or by a successor.
pub(super) struct Retirement {
    doors: Mutex<Option<DrainTrigger>>,
    deadline: Duration,
    readiness: Readiness,
    endpoints: Mutex<Option<Endpoints>>,
    retired: Mutex<Option<ReadinessGuard>>,
}

impl Retirement {
    pub(super) fn new(
        doors: DrainTrigger,
        deadline: Duration,
        readiness: Readiness,
        endpoints: Endpoints,
    ) -> Arc<Self> {
        let (doors, endpoints) = (Mutex::new(Some(doors)), Mutex::new(Some(endpoints)));
        Arc::new(Self { doors, deadline, readiness, endpoints, retired: Mutex::default() })
    }

    /// The listeners to hand over.
    pub(super) fn endpoint_sockets(&self) -> Vec<Arc<OwnedFd>> {
        self.endpoints.lock().as_ref().map(|it| it.sockets.clone()).unwrap_or_default()
    }

    /// Stops accepting from pods, and leaves the kernel as it is. Open connections go on.
    pub(super) async fn close_doors(&self) {
        let doors = self.doors.lock().take();
        if let Some(doors) = doors {
            doors.start(self.deadline).await;
        }
    }
}

impl Retire for Arc<Retirement> {
    async fn retire(&self, endpoints: bool) {
        let guard = self.readiness.wait_for("its end: a successor serves the pods");
        *self.retired.lock() = Some(guard);
        self.close_doors().await;
        if endpoints && let Some(endpoints) = self.endpoints.lock().take() {
            endpoints.tasks.iter().for_each(AbortHandle::abort);
        }
    }
}

/// Does `work` when it is this agent's turn, unless it ends before.
pub(super) async fn at_turn<E>(
    mut turn: watch::Receiver<bool>,
    mut drain: DrainWatch,
    work: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    let mine = tokio::select! {
        turn = turn.wait_for(|mine| *mine) => turn.is_ok(),
        () = drain.started() => false,
    };
    drop(drain);
    if mine { work.await } else { Ok(()) }
}
