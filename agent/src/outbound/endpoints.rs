//! Endpoints under a DestinationRule: one for each try of a request or a connection, with its place in what is counted. Shared
//! by all workers, for a pod's connections are on several of them.

use super::seats::{Seat, Seats, Who};
use crate::balance::{
    Ages, Ask, Cause, Circuit, Detector, Effective, Endpoint, Group, HashInput, Health, Kind, NoSuchSubset,
    NoneLeft, Overflow, Signal, Slot, hash_input, hash_of_connection, in_force,
};
use crate::explain::Seen;
use crate::hash::FastMap;
use crate::http::{self, NoWay};
use crate::route::http::{ClientView, Ended, Refusal};
use crate::route::{Backend, Own, RouteError, own_endpoint};
use crate::standing::Span;
use crate::store::Mesh;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use warren_common::model::traffic::{ConnectionPool, PortPolicy, RouteApi, Traffic};
use warren_common::model::{Mode, Service, ServiceName, Workload, WorkloadUid};

/// Most groups that are kept; those without open requests go first.
const MAX_GROUPS: usize = 4096;

/// A service, port and subset as one client sees them.
type Key = (WorkloadUid, ServiceName, u16, Option<Arc<str>>);

/// What is known of endpoints under DestinationRules. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Balances(Arc<Groups>);

#[derive(Debug, Default)]
struct Groups {
    known: Mutex<FastMap<Key, Arc<Balance>>>,
    ejections: Mutex<BTreeMap<&'static str, u64>>,
}

#[derive(Debug, Default)]
struct Balance {
    state: Mutex<State>,
    seats: Arc<Seats>,
    groups: Weak<Groups>,
}

/// An endpoint that a client does not use for a while.
#[derive(Clone, Debug)]
pub(crate) struct LeftOut {
    /// Whose endpoint.
    pub(crate) service: ServiceName,
    /// Which.
    pub(crate) endpoint: WorkloadUid,
    /// By whom, and why.
    pub(crate) why: String,
}

#[derive(Debug, Default)]
struct State {
    made: Option<Made>,
    circuit: Circuit,
    detector: Option<Detector>,
    ages: Ages,
    active: FastMap<WorkloadUid, u32>,
    turn: u64,
}

/// What is known now.
struct Now<'a> {
    state: &'a State,
    now: Instant,
}

/// What follows from the configuration.
#[derive(Clone, Debug)]
struct Made {
    traffic: Option<Arc<Traffic>>,
    client: Arc<Workload>,
    generation: u64,
    effective: Arc<Effective>,
    group: Arc<Group>,
}

/// Who asks, for what.
pub(super) struct Wanted<'a> {
    pub(super) mesh: &'a Mesh,
    /// Of the mesh.
    pub(super) generation: u64,
    pub(super) client: &'a Arc<Workload>,
    pub(super) service: &'a Arc<Service>,
    pub(super) port: u16,
    pub(super) subset: Option<&'a Arc<str>>,
    /// Of the client.
    pub(super) address: IpAddr,
    /// What it dialled.
    pub(super) dialled: SocketAddr,
    /// Whether that is an endpoint of the service, by which it was found.
    pub(super) own: bool,
}

/// What is to be carried.
#[derive(Clone, Copy)]
pub(super) enum Load<'a> {
    /// A request.
    Request(&'a http::Ask<'a>),
    /// A connection that nobody looks into; endpoints that have failed for it.
    Connection(&'a [WorkloadUid]),
    /// The same that may turn out not to be wanted: it has no place yet.
    Guess(&'a [WorkloadUid]),
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unpicked {
    #[error(transparent)]
    NoSuchSubset(#[from] NoSuchSubset),
    #[error("what is said of the traffic to {service} is not understood: {why}")]
    Refused { service: Arc<str>, why: Arc<str> },
    #[error(transparent)]
    Overflow(#[from] Overflow),
    #[error("{service}: {source}")]
    NoneLeft { service: Arc<str>, source: NoneLeft },
    #[error(transparent)]
    Gone(Box<RouteError>),
}

/// What became of it.
pub(super) enum Chosen {
    /// Nothing says which: any endpoint with the labels of this. There is a place where something is counted all the same: a
    /// service that is passed through has no endpoints to pick among.
    Any(Arc<Effective>, Option<Balanced>),
    /// This one.
    One(Picked),
}

/// An endpoint.
pub(super) struct Picked {
    pub(super) endpoint: Endpoint,
    pub(super) place: Balanced,
    /// The client gets this cookie with the response.
    pub(super) set_cookie: Option<String>,
}

/// The place of a request, or a connection, at its endpoint.
#[derive(Debug)]
pub(super) struct Balanced {
    balance: Arc<Balance>,
    /// None: whatever was dialled.
    endpoint: Option<WorkloadUid>,
    known: usize,
    effective: Arc<Effective>,
    held: Option<Held>,
}

/// What is counted of it.
#[derive(Debug)]
enum Held {
    Request(#[expect(dead_code, reason = "held until it is dropped")] Slot),
    Connection(#[expect(dead_code, reason = "held until it is dropped")] Seat),
}

impl Balances {
    /// The endpoint for one try.
    ///
    /// # Errors
    /// [`Unpicked`].
    pub(super) fn pick(&self, wanted: &Wanted<'_>, load: Load<'_>) -> Result<Chosen, Unpicked> {
        let key = &wanted.service.key;
        if let Some(why) = wanted.mesh.traffic(key).and_then(|traffic| traffic.refused.clone()) {
            return Err(Unpicked::Refused { service: key.to_string().into(), why });
        }
        let balance = self.of(wanted);
        let mut state = balance.state.lock();
        let made = state.make(wanted, &balance.seats)?;
        if made.effective.counts_nothing() {
            return Ok(Chosen::Any(made.effective, None));
        }
        let (held, tried) = match load {
            Load::Request(ask) => (Some(Held::Request(state.circuit.take(Kind::Request)?)), ask.tried),
            Load::Connection(failed) => {
                let slot = state.circuit.take(Kind::Connection)?;
                (Some(Held::Connection(balance.seats.taken(slot))), failed)
            }
            Load::Guess(failed) => (None, failed),
        };
        if wanted.service.steering.mode == Mode::Passthrough {
            drop(state);
            let effective = Arc::clone(&made.effective);
            let place = Balanced { balance, endpoint: None, known: 0, effective, held };
            return Ok(Chosen::Any(made.effective, Some(place)));
        }
        let now = Instant::now();
        if let Some(detector) = &mut state.detector {
            detector.sweep(now);
        }
        let input = match (made.group.hash_key(), load) {
            (Some(key), Load::Request(ask)) => hash_input(key, ask.request, wanted.address, ask.entropy),
            (Some(key), Load::Connection(_) | Load::Guess(_)) => hash_of_connection(key, wanted.address),
            (None, _) => HashInput::Absent,
        };
        let turn = state.turn;
        state.turn = turn.wrapping_add(1);
        let choice = Ask { turn, entropy: rand::random(), hash: input.hash(), avoid: tried };
        let none_left =
            |source| Unpicked::NoneLeft { service: Arc::clone(&wanted.service.key.hostname), source };
        let endpoint = match wanted.chosen(&made)? {
            Some(endpoint) => endpoint,
            None => made.group.pick(&choice, &Now { state: &state, now }).cloned().map_err(none_left)?,
        };
        let uid = endpoint.workload.uid.clone();
        *state.active.entry(uid.clone()).or_default() += 1;
        drop(state);
        let place = Balanced {
            balance,
            endpoint: Some(uid),
            known: made.group.endpoints().len(),
            effective: made.effective,
            held,
        };
        let set_cookie = match input {
            HashInput::NewCookie { set_cookie, .. } => Some(set_cookie),
            HashInput::Absent | HashInput::Hash(_) => None,
        };
        Ok(Chosen::One(Picked { endpoint, place, set_cookie }))
    }

    /// What is known of the endpoints of a port and subset of a service as `client` sees them, for who only looks.
    pub(crate) fn seen(
        &self,
        client: &WorkloadUid,
        service: &ServiceName,
        port: u16,
        subset: Option<&Arc<str>>,
    ) -> Seen {
        let key = (client.clone(), service.clone(), port, subset.cloned());
        let Some(balance) = self.0.known.lock().get(&key).map(Arc::clone) else { return Seen::default() };
        let now = Instant::now();
        let mut state = balance.state.lock();
        if let Some(detector) = &mut state.detector {
            detector.sweep(now);
        }
        let seen = Now { state: &state, now };
        let known = || state.made.iter().flat_map(|made| made.group.endpoints()).map(|it| &it.workload.uid);
        Seen {
            out: known().filter(|uid| seen.is_out(uid)).cloned().collect(),
            ages: known().filter_map(|uid| Some((uid.clone(), seen.age(uid)?))).collect(),
            active: state.active.clone().into_iter().collect(),
        }
    }

    fn of(&self, wanted: &Wanted<'_>) -> Arc<Balance> {
        let key =
            (wanted.client.uid.clone(), wanted.service.key.clone(), wanted.port, wanted.subset.cloned());
        let mut all = self.0.known.lock();
        if all.len() >= MAX_GROUPS && !all.contains_key(&key) {
            all.retain(|_, balance| Arc::strong_count(balance) > 1);
        }
        let balance = || Balance { groups: Arc::downgrade(&self.0), ..Balance::default() };
        Arc::clone(all.entry(key).or_insert_with(|| Arc::new(balance())))
    }

    /// How often endpoints were left out, by cause.
    pub(crate) fn ejections(&self) -> Vec<(&'static str, u64)> {
        self.0.ejections.lock().iter().map(|(cause, count)| (*cause, *count)).collect()
    }

    /// Who is left out by whom.
    pub(crate) fn left_out(&self) -> Vec<LeftOut> {
        let now = Instant::now();
        let known: Vec<_> =
            self.0.known.lock().iter().map(|(key, balance)| (key.clone(), Arc::clone(balance))).collect();
        let mut all = Vec::new();
        for ((_, service, ..), balance) in known {
            let mut state = balance.state.lock();
            let Some(client) = state.made.as_ref().map(|made| Arc::clone(&made.client)) else { continue };
            let Some(detector) = &mut state.detector else { continue };
            // Nobody may have asked since their time was over.
            detector.sweep(now);
            all.extend(detector.left_out().map(|(endpoint, cause, _)| LeftOut {
                service: service.clone(),
                endpoint: endpoint.clone(),
                why: format!("{} for {}/{}", cause.as_str(), client.namespace, client.name),
            }));
        }
        all
    }
}

impl Wanted<'_> {
    /// The endpoint that the client has chosen itself: it dialled it, and the service has no address of its own, or is not balanced.
    fn chosen(&self, made: &Made) -> Result<Option<Endpoint>, Unpicked> {
        let Self { mesh, service, port, dialled, own, .. } = *self;
        let subset = Some(&made.effective.labels);
        match own_endpoint(mesh, &Backend { service, port, subset, own }, dialled) {
            Own::Endpoint(workload, port) => Ok(Some(Endpoint { workload: Arc::clone(workload), port })),
            Own::Nothing if made.group.is_passthrough() => Ok(made.group.at(dialled.ip()).cloned()),
            Own::Nothing => Ok(None),
            Own::Gone => {
                let (service, known) =
                    (Arc::clone(&service.key.hostname), mesh.endpoints(&service.key).len());
                Err(Unpicked::Gone(Box::new(RouteError::NoLongerIts { service, dialled, known })))
            }
        }
    }
}

impl State {
    /// What is in force now.
    fn make(&mut self, wanted: &Wanted<'_>, seats: &Seats) -> Result<Made, NoSuchSubset> {
        let traffic = wanted.mesh.traffic(&wanted.service.key);
        if let Some(made) = &self.made
            && made.generation == wanted.generation
        {
            return Ok(made.clone());
        }
        let same_policy = self.made.as_ref().filter(|made| made.is_of(traffic, wanted.client));
        let effective = match same_policy {
            Some(made) => Arc::clone(&made.effective),
            None => {
                let Wanted { client, service, port, subset, .. } = *wanted;
                let view = ClientView { namespace: &client.namespace, labels: &client.labels };
                let subset = subset.map(|subset| &**subset);
                let traffic = traffic.map(|traffic| &**traffic);
                Arc::new(in_force(traffic, &service.key, &view, port, subset)?)
            }
        };
        if same_policy.is_none() {
            let PortPolicy { pool, outliers, .. } = &effective.policy;
            self.circuit = self.circuit.with_limits(pool.as_ref(), effective.retry_budget);
            seats.look_again();
            let now = Instant::now();
            match (outliers, &mut self.detector) {
                (None, detector) => *detector = None,
                (Some(outliers), Some(detector)) => detector.configure(outliers.clone(), now),
                (Some(outliers), detector) => *detector = Some(Detector::new(outliers.clone(), now)),
            }
        }
        let Wanted { mesh, client, service, port, generation, .. } = *wanted;
        let group = Arc::new(Group::new(mesh, service, client, port, &effective));
        self.ages.are(group.endpoints().iter().map(|known| &known.workload.uid), Instant::now());
        if let Some(detector) = &mut self.detector {
            detector.retain(|uid| group.endpoints().iter().any(|known| known.workload.uid == *uid));
        }
        let made =
            Made { traffic: traffic.cloned(), client: Arc::clone(client), generation, effective, group };
        self.made = Some(made.clone());
        Ok(made)
    }
}

impl Made {
    fn is_of(&self, traffic: Option<&Arc<Traffic>>, client: &Arc<Workload>) -> bool {
        let same = match (&self.traffic, traffic) {
            (Some(known), Some(now)) => Arc::ptr_eq(known, now),
            (None, None) => true,
            _ => false,
        };
        same && Arc::ptr_eq(&self.client, client)
    }
}

impl Health for Now<'_> {
    fn out(&self) -> usize {
        self.state.detector.as_ref().map_or(0, Detector::out)
    }

    fn is_out(&self, endpoint: &WorkloadUid) -> bool {
        self.state.detector.as_ref().is_some_and(|detector| detector.is_out(endpoint))
    }

    fn active(&self, endpoint: &WorkloadUid) -> u32 {
        self.state.active.get(endpoint).copied().unwrap_or(0)
    }

    fn age(&self, endpoint: &WorkloadUid) -> Option<Duration> {
        self.state.ages.of(endpoint, self.now)
    }
}

impl Balanced {
    /// How a try ended: who fails too often is left out for a while.
    pub(super) fn ended(&self, ended: Ended) {
        if let Some(signal) = Signal::of(ended) {
            self.report(signal);
        }
    }

    /// Whether a connection was made.
    pub(super) fn connected(&self, made: bool) {
        self.report(if made { Signal::Connected } else { Signal::Failed });
    }

    fn report(&self, signal: Signal) {
        let Some(endpoint) = &self.endpoint else { return };
        let cause = self
            .balance
            .state
            .lock()
            .detector
            .as_mut()
            .and_then(|detector| detector.report(endpoint, signal, self.known, Instant::now()));
        if let Some(cause) = cause {
            self.balance.ejected(cause);
            tracing::info!(%endpoint, cause = cause.as_str(), "an endpoint is left out for a while");
        }
    }

    /// Takes the place of a connection that was made on a guess.
    ///
    /// # Errors
    /// There is none left.
    pub(super) fn enter(&mut self) -> Result<(), Overflow> {
        self.held = Some(Held::Connection(self.balance.seats.taken(self.take(Kind::Connection)?)));
        Ok(())
    }

    /// Gives its place to others.
    pub(super) fn leave(&mut self) {
        self.held = None;
    }

    /// A place for one of these.
    pub(super) fn take(&self, kind: Kind) -> Result<Slot, Overflow> {
        self.balance.state.lock().circuit.take(kind)
    }

    /// Waits for the place of one more connection.
    pub(super) async fn seat(&self, who: Who) -> Seat {
        self.balance.seats.wait(who, || self.take(Kind::Connection)).await
    }

    /// What the DestinationRule says of connections.
    pub(super) fn policy(&self) -> &PortPolicy {
        &self.effective.policy
    }

    /// How much it allows.
    pub(super) fn pool(&self) -> Option<&ConnectionPool> {
        self.effective.policy.pool.as_ref()
    }

    /// How long a connection may stand that is made now.
    pub(super) fn span(&self) -> Span {
        let ms = |field: fn(&ConnectionPool) -> Option<u64>| {
            self.pool().and_then(field).filter(|ms| *ms > 0).map(Duration::from_millis)
        };
        Span::from_now(ms(|pool| pool.idle_timeout_ms), ms(|pool| pool.max_connection_duration_ms))
    }
}

impl Balance {
    fn ejected(&self, cause: Cause) {
        if let Some(groups) = self.groups.upgrade() {
            *groups.ejections.lock().entry(cause.as_str()).or_default() += 1;
        }
    }
}

impl Drop for Balanced {
    fn drop(&mut self) {
        let Some(endpoint) = &self.endpoint else { return };
        let mut state = self.balance.state.lock();
        if let Some(active) = state.active.get_mut(endpoint) {
            *active -= 1;
            if *active == 0 {
                state.active.remove(endpoint);
            }
        }
    }
}

impl Unpicked {
    /// What it means for a request that rules of this kind have brought here.
    pub(super) fn no_way(self, api: RouteApi) -> NoWay {
        let refusal = match self {
            Self::NoSuchSubset(_) | Self::Refused { .. } => Refusal::no_backend(api),
            Self::Overflow(_) => Refusal::overflow(),
            Self::NoneLeft { .. } | Self::Gone(_) => Refusal::no_endpoint(),
        };
        NoWay { refusal, why: self.to_string() }
    }
}

#[cfg(test)]
#[path = "endpoints_tests.rs"]
mod tests;
