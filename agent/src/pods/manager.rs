//! Makes the set of captured pods equal to the set that should be: enrols, releases, retries, and says why.
//!
//! ```text
//!   wanted (store) --discover, verify, listen, capture--> enrolled --label gone, pod gone--> released
//!        \---- not yet possible: pending with the reason, tried again every 100 ms ----/
//! ```
//!
//! The container runtime may be ahead of the controller: [`requests`] enrols a pod that starts, in the namespace that
//! the runtime hands over.

mod requests;

use super::discover::Discovery;
use super::lifetime::{Lifetime, part};
use super::listening::{DoorSockets, HeldPods, PodListeners, listen};
use super::offline::OfflineFile;
use super::registry::{Pod, PodRegistry};
use super::request::{PodRequest, PodRequests};
use super::sandbox::Sandboxes;
use crate::accept::{Netns, NetnsThread, PodSockets};
use crate::kernel::{Kernel, PodCapture};
use crate::store::Store;
use rustix::fd::AsFd;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use warren_common::model::admin::{ControllerStatus, PodState, PodStatus};
use warren_common::model::{Enrolment, Workload};
use warren_common::runtime::DrainWatch;

/// How often a pod that could not be enrolled is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// How often enrolled pods are checked against their cgroups.
const SWEEP: Duration = Duration::from_secs(5);
/// A capture that an earlier agent left and that nobody wants is released so long after the controller's first
/// word: a big configuration comes in pieces, and a pod must not go uncaptured because its piece is late. A saved
/// configuration may be older than the newest pod, so it releases nothing.
const STRANGERS_GRACE: Duration = Duration::from_secs(3);

/// How long a predecessor goes on serving because a pod that it has handed over cannot be taken over.
const INHERITANCE_PATIENCE: Duration = Duration::from_secs(10);

/// Serves an enrolled pod's listeners; the manager's way to the data plane.
pub trait PodDoor: Send + Sync + 'static {
    /// Starts serving. Dropping `open` (its sender) closes the doors.
    fn serve(&self, pod: &Arc<Pod>, listeners: PodListeners, open: watch::Receiver<()>);
}

/// What the manager must know.
#[derive(Debug)]
pub struct PodManagerConfig {
    /// The node whose pods it manages.
    pub node: Arc<str>,
    /// Where it keeps what it must know again after a restart, and what the CNI plugin decides by without it.
    pub state_dir: Option<PathBuf>,
    /// Without an agent, pods of enrolled namespaces start unmeshed.
    pub fail_open: bool,
    /// What an earlier agent has handed over.
    pub inheritance: Inheritance,
}

/// Listeners of an earlier agent that still serves them.
#[derive(Debug)]
pub struct Inheritance {
    /// Those not yet taken over; more may come.
    pub pods: HeldPods,
    /// Told once: this agent serves all of them that it will serve soon, so the other may stop.
    pub settled: Option<oneshot::Sender<()>>,
}

/// Enrols and releases the pods of this node.
pub struct PodManager {
    config: PodManagerConfig,
    store: Arc<Store>,
    registry: Arc<PodRegistry>,
    kernel: Arc<dyn Kernel>,
    discovery: Arc<dyn Discovery>,
    door: Arc<dyn PodDoor>,
    thread: NetnsThread,
    enrolled: HashMap<Arc<str>, EnrolledPod>,
    sandboxes: Sandboxes,
    offline: OfflineFile,
    ask: PodRequests,
    asked: mpsc::Receiver<PodRequest>,
    waiting: Vec<PodRequest>,
    held: HeldPods,
    /// When the first round began.
    since: Option<Instant>,
    status: watch::Sender<Vec<PodStatus>>,
    confirmed_since: Option<Instant>,
    strangers_gone: bool,
}

#[derive(Debug)]
struct EnrolledPod {
    pod: Arc<Pod>,
    /// What the kernel was last told to leave alone.
    captured: Enrolment,
    inbound: DoorSockets,
    /// Its cgroup has been seen: when that goes, the pod is gone.
    started: bool,
    /// Closes the pod's doors when dropped.
    _open: watch::Sender<()>,
}

/// Why a pod is pending.
#[derive(Debug, thiserror::Error)]
enum EnrolError {
    #[error(transparent)]
    Discover(#[from] super::discover::DiscoverError),
    #[error("the pod's address {addresses:?} is not in its network namespace: {source}")]
    Addresses { addresses: Vec<IpAddr>, source: io::Error },
    #[error("its network namespace already belongs to pod {0}")]
    TakenBy(Arc<str>),
    #[error(
        "the plugins before warren-cni gave it no network namespace or no address; look at the CNI configuration"
    )]
    NoSandbox,
    #[error(transparent)]
    Listen(#[from] super::listening::ListenError),
    #[error(transparent)]
    Kernel(#[from] crate::kernel::KernelError),
}

impl PodManager {
    /// A manager that has enrolled nothing yet, and the state of the pods as it will change.
    #[allow(clippy::too_many_arguments)] // Wiring: each is a part of its own.
    pub fn new(
        config: PodManagerConfig,
        store: Arc<Store>,
        registry: Arc<PodRegistry>,
        kernel: Arc<dyn Kernel>,
        discovery: Arc<dyn Discovery>,
        door: Arc<dyn PodDoor>,
        thread: NetnsThread,
    ) -> (Self, watch::Receiver<Vec<PodStatus>>) {
        let (status, pods) = watch::channel(Vec::new());
        let (ask, asked) = PodRequests::channel();
        let manager = Self {
            sandboxes: Sandboxes::load(config.state_dir.clone()),
            offline: OfflineFile::load(config.state_dir.clone(), config.fail_open),
            ask,
            asked,
            waiting: Vec::new(),
            config,
            store,
            registry,
            kernel,
            discovery,
            door,
            thread,
            enrolled: HashMap::new(),
            held: HeldPods::default(),
            since: None,
            status,
            confirmed_since: None,
            strangers_gone: false,
        };
        (manager, pods)
    }

    /// The way to it for who starts pods.
    pub fn requests(&self) -> PodRequests {
        self.ask.clone()
    }

    /// The listeners of the enrolled pods, for a successor. They stay open as long as they are held there.
    pub fn held(&self) -> HeldPods {
        self.held.clone()
    }

    /// Runs until the drain begins; then the doors close and the kernel keeps capturing, so that nothing of a
    /// pod leaves in plaintext while the agent is away. `controller` says how the session with the controller is,
    /// and so whether the store holds its word and not only what was saved; `first_round` is called once everything
    /// that could be enrolled at the start is.
    pub async fn run(
        mut self,
        mut drain: DrainWatch,
        controller: impl Fn() -> Arc<ControllerStatus>,
        first_round: impl FnOnce(),
    ) {
        let mut changed = self.store.changed();
        let mut first_round = Some(first_round);
        loop {
            let session = controller();
            // Generation 0: nothing is known yet, so nothing must be released.
            let known = *changed.borrow_and_update() > 0;
            if known && self.confirmed_since.is_none() && !session.from_disk {
                self.confirmed_since = Some(Instant::now());
            }
            self.offline.refresh(&self.store.load(), &self.config.node);
            let mut pending = self.answer_requests(&session).await;
            if known {
                self.since.get_or_insert_with(Instant::now);
                pending |=
                    self.reconcile().await || !self.strangers_gone || self.config.inheritance.is_open();
                if let Some(first_round) = first_round.take() {
                    first_round();
                }
            }
            let pause = if pending { RETRY } else { SWEEP };
            tokio::select! {
                _ = changed.changed() => {}
                Some(request) = self.asked.recv() => {
                    self.waiting.push(request);
                    self.waiting.extend(std::iter::from_fn(|| self.asked.try_recv().ok()));
                }
                () = tokio::time::sleep(pause) => {}
                () = drain.started() => return,
            }
        }
    }

    /// One round. Returns whether a pod is pending.
    async fn reconcile(&mut self) -> bool {
        let mesh = self.store.load();
        let mut wanted: BTreeMap<Arc<str>, Arc<Workload>> = BTreeMap::new();
        let mut known: HashSet<&str> = HashSet::new();
        for workload in mesh.pods_of_node(&self.config.node) {
            let enrolment = &workload.enrolment;
            known.insert(&enrolment.pod_uid);
            if !enrolment.enrolled || workload.host_network || enrolment.pod_uid.is_empty() {
                continue;
            }
            // Without an address it has not started.
            if let Some(workload) = self.sandboxes.effective(workload) {
                wanted.insert(Arc::clone(&enrolment.pod_uid), workload);
            }
        }
        if self.confirmed_since.is_some() {
            self.sandboxes.retain(|uid| known.contains(uid));
        }
        self.release_unwanted(&wanted, &known);
        let mut states = Vec::with_capacity(wanted.len());
        for (uid, workload) in &wanted {
            let outcome = match self.enrolled.get_mut(uid) {
                Some(enrolled) => recapture(&*self.kernel, enrolled, workload),
                None => self.enrol(uid, workload).await,
            };
            states.push(pod_status(workload, &outcome));
        }
        self.forget_strangers(&states);
        let patient = self.since.is_none_or(|since| since.elapsed() < INHERITANCE_PATIENCE);
        let confirmed = self.confirmed_since.is_some();
        let discovery = &self.discovery;
        // A controller that lags behind does not know the newest pods: while they exist, their listeners wait for it.
        let wanted_soon = |uid: &str| patient && discovery.exists(uid);
        let keep = |uid: &str| !confirmed || wanted.contains_key(uid) || wanted_soon(uid);
        self.config.inheritance.settle(patient, keep);
        let pending = states.iter().any(|pod| pod.state == PodState::Pending);
        self.report(states);
        pending
    }

    fn release_unwanted(&mut self, wanted: &BTreeMap<Arc<str>, Arc<Workload>>, known: &HashSet<&str>) {
        let mut unwanted = Vec::new();
        for (uid, enrolled) in &mut self.enrolled {
            // A pod that starts has no cgroup of its own yet everywhere.
            let exists = self.discovery.exists(uid);
            let ended = enrolled.started && !exists;
            enrolled.started |= exists;
            let still = wanted.get(uid).is_some_and(|now| same_pod(now, &enrolled.pod.workload));
            if ended || !still {
                unwanted.push((Arc::clone(uid), ended || !known.contains(&**uid)));
            }
        }
        for (uid, deleted) in unwanted {
            self.release(&uid, deleted);
        }
    }

    /// Releases a pod, if it is enrolled. `deleted`: it does not only leave the mesh, it ends.
    fn release(&mut self, uid: &str, deleted: bool) {
        let Some(gone) = self.enrolled.remove(uid) else { return };
        if deleted {
            gone.pod.lifetime.leave();
        }
        tokio::spawn(part(Arc::clone(&self.discovery), Arc::downgrade(&gone.pod), deleted));
        self.held.remove(uid);
        self.registry.remove(&gone.pod);
        match self.kernel.release(gone.pod.cookie) {
            Ok(()) => {
                tracing::info!(pod = %gone.pod.workload.name, namespace = %gone.pod.workload.namespace, "pod released")
            }
            Err(error) => {
                tracing::warn!(pod = %gone.pod.workload.name, %error, "cannot release the pod's capture; it fails closed")
            }
        }
    }

    async fn enrol(&mut self, uid: &Arc<str>, workload: &Arc<Workload>) -> Result<u64, EnrolError> {
        let (netns, cookie) = self.find_namespace(uid, workload).await?;
        self.enrol_in(uid, workload, netns, cookie).await?;
        Ok(cookie)
    }

    async fn enrol_in(
        &mut self,
        uid: &Arc<str>,
        workload: &Arc<Workload>,
        netns: Arc<Netns>,
        cookie: u64,
    ) -> Result<(), EnrolError> {
        let inherited = self.config.inheritance.pods.get(uid);
        let inbound = listen(&self.thread, &netns, cookie, workload, inherited.as_ref()).await?;
        let sockets = PodSockets::new(self.thread.clone(), Arc::clone(&netns));
        let pod =
            Arc::new(Pod { workload: Arc::clone(workload), cookie, sockets, lifetime: Lifetime::default() });
        capture(&*self.kernel, &pod, workload, &inbound)?;
        self.registry.insert(&pod);
        let (open, closed) = watch::channel(());
        self.door.serve(&pod, inbound.listeners(), closed);
        self.held.insert(uid, inbound.clone());
        self.config.inheritance.pods.remove(uid);
        tracing::info!(pod = %workload.name, namespace = %workload.namespace, cookie, "pod enrolled");
        let captured = workload.enrolment.clone();
        let enrolled = EnrolledPod { pod, captured, inbound, started: false, _open: open };
        self.enrolled.insert(Arc::clone(uid), enrolled);
        Ok(())
    }

    /// The one namespace of the pod's processes that holds all of its addresses and is nobody else's.
    async fn find_namespace(
        &self,
        uid: &Arc<str>,
        workload: &Workload,
    ) -> Result<(Arc<Netns>, u64), EnrolError> {
        let mut problem = None;
        for netns in self.discovery.namespaces(uid)? {
            match self.verify(&netns, workload).await {
                Ok(cookie) => {
                    self.not_taken(uid, cookie)?;
                    return Ok((netns, cookie));
                }
                Err(error) => problem = Some(error),
            }
        }
        Err(problem.unwrap_or_else(|| super::discover::DiscoverError::HostNetwork.into()))
    }

    /// The cookie of a namespace that holds all addresses of the workload.
    async fn verify(&self, netns: &Arc<Netns>, workload: &Workload) -> Result<u64, EnrolError> {
        let probe = PodSockets::new(self.thread.clone(), Arc::clone(netns));
        let addresses = workload.addresses.clone();
        let verified = probe.verify_addresses(addresses.clone()).await;
        verified.map_err(|source| EnrolError::Addresses { addresses, source })
    }

    /// The namespace is not another pod's.
    fn not_taken(&self, uid: &str, cookie: u64) -> Result<(), EnrolError> {
        let owner = self.enrolled.iter().find(|(other, pod)| pod.pod.cookie == cookie && ***other != *uid);
        match owner {
            Some((other, _)) => Err(EnrolError::TakenBy(Arc::clone(other))),
            None => Ok(()),
        }
    }

    /// Releases what an earlier agent enrolled and nobody wants any more. While a pod is pending, a capture
    /// that is not ours may be that pod's, so nothing is released.
    fn forget_strangers(&mut self, states: &[PodStatus]) {
        let settled = self.confirmed_since.is_some_and(|since| since.elapsed() >= STRANGERS_GRACE);
        if self.strangers_gone || !settled || states.iter().any(|pod| pod.state == PodState::Pending) {
            return;
        }
        self.strangers_gone = true;
        let ours = |cookie: &u64| self.enrolled.values().any(|enrolled| enrolled.pod.cookie == *cookie);
        match self.kernel.enrolled() {
            Ok(cookies) => {
                for cookie in cookies.iter().filter(|cookie| !ours(cookie)) {
                    match self.kernel.release(*cookie) {
                        Ok(()) => tracing::info!(cookie, "released a capture that an earlier agent left"),
                        Err(error) => {
                            tracing::warn!(cookie, %error, "cannot release a capture that an earlier agent left")
                        }
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "cannot list the captured pods"),
        }
    }

    fn report(&self, mut states: Vec<PodStatus>) {
        states.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        self.status.send_if_modified(|current| {
            if *current == states {
                return false;
            }
            let known = |pod: &&PodStatus| current.contains(*pod);
            for pod in states.iter().filter(|pod| pod.state == PodState::Pending && !known(pod)) {
                let reason = pod.reason.as_deref().unwrap_or_default();
                tracing::warn!(pod = %pod.name, namespace = %pod.namespace, reason, "pod cannot be enrolled yet");
            }
            *current = states;
            true
        });
    }
}

impl Inheritance {
    /// An agent without a predecessor.
    pub fn none() -> Self {
        Self { pods: HeldPods::default(), settled: None }
    }

    /// Whether there is still something to take over.
    fn is_open(&self) -> bool {
        self.settled.is_some() || self.pods.retain(|_| true) > 0
    }

    /// Lets go what nobody wants any more, and says when the rest is taken over, or when that takes too long.
    fn settle(&mut self, patient: bool, wanted: impl Fn(&str) -> bool) {
        let left = self.pods.retain(wanted);
        if (left == 0 || !patient)
            && let Some(settled) = self.settled.take()
        {
            // Nobody listens when the agent is ending.
            let _ = settled.send(());
        }
    }
}

/// Tells the kernel what of an enrolled pod's traffic to leave alone now. In one step and without a release in
/// between: not a connection goes around the mesh that should not.
fn recapture(
    kernel: &dyn Kernel,
    enrolled: &mut EnrolledPod,
    workload: &Workload,
) -> Result<u64, EnrolError> {
    if enrolled.captured != workload.enrolment {
        capture(kernel, &enrolled.pod, workload, &enrolled.inbound)?;
        enrolled.captured = workload.enrolment.clone();
        tracing::info!(pod = %workload.name, namespace = %workload.namespace, "the pod's exclusions have changed");
    }
    Ok(enrolled.pod.cookie)
}

fn capture(
    kernel: &dyn Kernel,
    pod: &Pod,
    workload: &Workload,
    inbound: &DoorSockets,
) -> Result<(), EnrolError> {
    kernel.enrol(&PodCapture {
        cookie: pod.cookie,
        netns: pod.sockets.netns().as_fd(),
        addresses: &workload.addresses,
        inbound_v4: inbound.plaintext(false),
        inbound_v6: inbound.plaintext(true),
        exclude_outbound_ports: &workload.enrolment.exclude_outbound_ports,
        exclude_inbound_ports: &workload.enrolment.exclude_inbound_ports,
        exclude_outbound_cidrs: &workload.enrolment.exclude_outbound_cidrs,
    })?;
    Ok(())
}

fn pod_status(workload: &Workload, outcome: &Result<u64, EnrolError>) -> PodStatus {
    PodStatus {
        name: Arc::clone(&workload.name),
        namespace: Arc::clone(&workload.namespace),
        pod_uid: Arc::clone(&workload.enrolment.pod_uid),
        state: if outcome.is_ok() { PodState::Enrolled } else { PodState::Pending },
        reason: outcome.as_ref().err().map(ToString::to_string),
        netns_cookie: outcome.as_ref().ok().copied(),
    }
}

/// Whether it is the pod that it was. What else changes can be changed while it is captured.
fn same_pod(a: &Workload, b: &Workload) -> bool {
    a.uid == b.uid && a.addresses == b.addresses && a.identity == b.identity
}
