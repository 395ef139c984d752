//! A connection whose requests have rules: where each may go, and how it gets there.
//!
//! What happens to a request is [the pipeline's story](crate::http); here it gets endpoints, connections and records.

use super::course::cluster;
use super::endpoints::{Balanced, Chosen, Load, Picked, Wanted};
use super::originate::{self, originate};
use super::rules::Routed;
use super::seats::{Seat, Who};
use super::wire::{Wire, WireWatch, opened};
use super::{OutboundError, avoid, current, describe, open, revoked};
use crate::accept::keep_alive;
use crate::balance::{Kind, Overflow, Slot};
use crate::context::Context;
use crate::flow::{Dialled, Hello, Upstream};
use crate::http::{
    self, Ask, Cause, Client, NoWay, NotReached, Opened, Outlets, Pool, PoolKey, Stay, Terms, Way,
};
use crate::identity::Application;
use crate::inbound::Refusal as LocalRefusal;
use crate::limits::OfPod;
use crate::observe::FlowHandle;
use crate::pods::Pod;
use crate::route::http::{Ended, HttpTable, InForce, Refusal};
use crate::route::{
    Attempts, Backend, Choice, Doubts, Failure, Hop, Patience, RouteError, Step, Target, Through, named,
    resolve_backend, target_of,
};
use crate::store::Mesh;
use ::http::StatusCode;
use futures_util::future::join_all;
use std::future::pending;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::watch;
use warren_common::model::admin::{Direction, Transport, Verdict};
use warren_common::model::traffic::{ConnectionPool, Destination};
use warren_common::model::{AppProtocol, Service, ServiceName, Workload};

/// How often it is looked whether the client of a request that waits is still there.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Serves a connection that carries requests.
pub(super) async fn serve(
    context: Rc<Context>,
    pod: Arc<Pod>,
    address: SocketAddr,
    (routed, h2): (Routed, bool),
    socket: TcpStream,
    flow: FlowHandle,
    open: watch::Receiver<()>,
) {
    let Routed { service, port, candidates, dialled: destination, .. } = routed;
    let client = Client { address, dialled: destination, h2 };
    let stay = Stay { idle: idle_limit(&context), open };
    let wire = Wire::new(socket);
    let requests = Requests {
        context,
        pod: Arc::clone(&pod),
        client: address,
        destination,
        service: Through { service, port },
        candidates,
        wire: wire.watch(),
    };
    // What is cut off is reset, for it is dropped.
    tokio::select! {
        () = http::serve(Rc::new(requests), client, stay, wire) => {}
        () = pod.lifetime.cut() => {}
    }
    flow.discard();
}

/// How long a client's connection may be without requests.
pub(super) fn idle_limit(context: &Context) -> Duration {
    match context.node.limits.config().idle_connection {
        Duration::ZERO => http::IDLE,
        limit => limit,
    }
}

/// A request's place at its endpoint.
struct Place {
    target: Target,
    /// Where a DestinationRule counts.
    balanced: Option<Balanced>,
}

/// The requests of one connection.
struct Requests {
    context: Rc<Context>,
    pod: Arc<Pod>,
    client: SocketAddr,
    destination: SocketAddr,
    service: Through,
    /// If there are several: a request's host may mean another one.
    candidates: Vec<Through>,
    wire: WireWatch,
}

impl Outlets for Requests {
    type Place = Place;
    /// Among those who wait, and among the connections.
    type Seat = Option<(Slot, Seat)>;

    fn rules(&self, authority: &str, flow: &FlowHandle) -> Result<Arc<HttpTable>, String> {
        // A connection may be kept for long: what it was made for is followed as long as requests come.
        self.context.node.interest.used(self.destination.ip());
        let client = current(&self.context, &self.pod);
        let mesh = self.context.node.store.guard();
        let meant = named(&self.candidates, &client.namespace, authority);
        if let Some(meant) = meant {
            flow.service(&meant.service);
        }
        let Through { service, port } = meant.unwrap_or(&self.service);
        match self.context.routes.in_force(&mesh, &client, &service.key, *port) {
            InForce::Nothing(table) | InForce::Rules(table) => Ok(table),
            InForce::Broken(why) => Err(why.to_string()),
        }
    }

    async fn known(&self, to: &Destination) {
        let Destination::Service { service, .. } = to else { return };
        if self.context.node.interest.asks() {
            // Boxed: hardly a request waits for it.
            Box::pin(self.learn(service)).await;
        }
    }

    fn pick(&self, to: &Destination, ask: &Ask<'_>) -> Result<Way<Place>, NoWay> {
        let client = current(&self.context, &self.pod);
        // Before the snapshot: what is made of it may be older than it says, and never newer.
        let generation = self.context.node.store.generation();
        let mesh = self.context.node.store.guard();
        let nowhere = |why: String| NoWay { refusal: Refusal::no_backend(ask.api), why };
        let (name, port, subset) = match to {
            Destination::Service { service, port, subset } => (service, *port, subset.as_ref()),
            Destination::Broken { wanted, why } => {
                return Err(nowhere(format!("{wanted} leads nowhere: {why}")));
            }
        };
        let service = mesh.service(name).ok_or_else(|| {
            nowhere(match mesh.knows_service(name) {
                true => format!("there is no service {name}"),
                false => self.context.node.interest.unlearned(name.clone().into()).to_string(),
            })
        })?;
        let wanted = Wanted {
            mesh: &mesh,
            generation,
            client: &client,
            service,
            port,
            subset,
            address: self.client.ip(),
            dialled: self.destination,
            own: self.is_own(service),
        };
        let like = self.destination.ip();
        let nobody = |error: RouteError| NoWay { refusal: Refusal::no_endpoint(), why: error.to_string() };
        let name_of_server = match originate::host(ask.authority) {
            "" => &*name.hostname,
            host => host,
        };
        let picked = self.context.node.balances.pick(&wanted, Load::Request(ask));
        let (target, balanced, effective, set_cookie) =
            match picked.map_err(|unpicked| unpicked.no_way(ask.api))? {
                Chosen::One(Picked { endpoint, place, set_cookie }) => {
                    let target = target_of(&mesh, &client, service, &endpoint.workload, endpoint.port, like);
                    (target.map_err(nobody)?, Some(place), None, set_cookie)
                }
                Chosen::Any(effective, place) => {
                    let own = self.is_own(service);
                    let backend = Backend { service, port, subset: Some(&effective.labels), own };
                    let target = self.any(&mesh, &client, &backend, ask).map_err(nobody)?;
                    (target, place, Some(effective), None)
                }
            };
        let policy = balanced.as_ref().map(Balanced::policy).or(effective.as_ref().map(|one| &one.policy));
        if let Some(Err(error)) = policy.map(|policy| originate::named(policy, &target, Some(service))) {
            if let Some(balanced) = &balanced {
                balanced.ended(Ended::NoConnection);
            }
            return Err(NoWay { refusal: Refusal::no_connection(), why: error.to_string() });
        }
        let tls =
            policy.and_then(|policy| originate::wanted(policy, &target.hop, name_of_server, Some(service)));
        if let Hop::Hbone { identity, .. } = &target.hop
            && let Some(revoked) = revoked(&self.context.node.store, [&client.identity, identity])
        {
            let why = OutboundError::Revoked(revoked).to_string();
            return Err(NoWay { refusal: Refusal::no_endpoint(), why });
        }
        let cluster = cluster(name, port, subset.map(|subset| &**subset));
        let pool = balanced.as_ref().and_then(|place| place.policy().pool.as_ref());
        let counted = pool.map(|_| Arc::clone(&cluster));
        let declared = service.ports.iter().find(|known| known.service_port == port);
        let declared = declared.map_or(AppProtocol::Unknown, |port| port.app_protocol);
        Ok(Way {
            key: PoolKey { cluster: counted, tls, ..key(&client, &target, speaks_h2(declared, ask, pool)) },
            terms: pool.map_or(Terms::DEFAULT, terms),
            cluster,
            set_cookie,
            place: Place { target, balanced },
        })
    }

    async fn seat(&self, way: &Way<Place>) -> Result<Self::Seat, NotReached> {
        let Some(balanced) = &way.place.balanced else { return Ok(None) };
        let waits = balanced
            .take(Kind::Pending)
            .map_err(|overflow| NotReached { why: overflow.to_string(), cause: Cause::Overload })?;
        Ok(Some((waits, balanced.seat(who(&way.key)).await)))
    }

    async fn open(
        &self,
        way: &Way<Place>,
        seat: Self::Seat,
        flow: &FlowHandle,
    ) -> Result<Opened, NotReached> {
        let Self { pod, client, destination, .. } = self;
        let dialled = Dialled {
            pod: Arc::clone(pod),
            client: *client,
            destination: *destination,
            hello: Hello::Known(originate::server_name(way.key.tls.as_deref())),
            shares: true,
        };
        let Place { target, balanced } = &way.place;
        let mut attempts = Attempts::new(Instant::now());
        let mut patience = attempts.patience(target.endpoints);
        let (_waits, seat) = seat.unzip();
        let pool = balanced.as_ref().and_then(|place| place.policy().pool.as_ref());
        if let Some(limit) = pool.and_then(|pool| pool.connect_timeout_ms).map(Duration::from_millis) {
            patience = patience.limited_to(limit);
        }
        loop {
            let error = match Box::pin(open(&self.context, &dialled, target, patience, flow)).await {
                Ok((upstream, guest)) => {
                    if let Some(workload) = target.workload.as_ref().filter(|_| target.endpoints > 1) {
                        self.context.node.failing.lock().succeeded(workload, target.address.port());
                    }
                    if let (Upstream::Socket(socket), Some(alive)) =
                        (&upstream, pool.and_then(|it| it.keepalive))
                    {
                        keep_alive(socket, alive);
                    }
                    let way_there = opened(upstream, guest, seat);
                    let Some(tls) = &way.key.tls else { return Ok(way_there) };
                    let application = if way.key.h2 { Application::Http2 } else { Application::Http1 };
                    let (context, patience) = (&self.context, patience.tls);
                    let spoken = originate(context, pod, target, tls, application, way_there, patience);
                    return Box::pin(spoken).await.map_err(|error| not_reached(&error));
                }
                Err(error) => error,
            };
            avoid(&self.context, target, patience, &error);
            let failure = error.failure();
            // It lets in only who insists; whether there are others is the pipeline's to try.
            if failure == Failure::Leaving && patience.has_alternatives {
                patience = Patience { has_alternatives: false, ..patience };
                continue;
            }
            match attempts.failed_at(None, patience, failure, Instant::now()) {
                Step::After(pause) if failure == Failure::Unsettled => tokio::time::sleep(pause).await,
                _ => return Err(not_reached(&error)),
            }
        }
    }

    fn ended(&self, place: &Place, ended: Ended) {
        if let Some(balanced) = &place.balanced {
            balanced.ended(ended);
        }
    }

    fn retry(&self, place: &Place) -> Result<Option<Slot>, Overflow> {
        place.balanced.as_ref().map(|balanced| balanced.take(Kind::Retry)).transpose()
    }

    fn limits(&self) -> OfPod<'_> {
        self.context.node.limits.of(&self.pod.workload.uid)
    }

    async fn client_gone(&self) {
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            let Some(ended) = self.wire.ended() else { continue };
            // It was reset.
            let Ok((client, here)) = ended else { return };
            match self.pod.sockets.has_owner(client, here).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::debug!(%client, %error, "whether a client has gone is not known");
                    pending().await
                }
            }
        }
    }

    fn pool(&self) -> &Rc<Pool> {
        &self.context.requests
    }

    fn begin(&self) -> FlowHandle {
        let (client, destination) = (Some(self.client), Some(self.destination));
        let flow = self.context.node.observer.begin_request(Direction::Outbound, client, destination);
        flow.source_workload(&current(&self.context, &self.pod));
        flow.service(&self.service.service);
        flow
    }

    fn describe(&self, flow: &FlowHandle, way: &Way<Place>) {
        describe(flow, &way.place.target);
        flow.transport(match way.place.target.hop {
            Hop::SameNode => Transport::SameNode,
            Hop::Hbone { .. } => Transport::Hbone,
            Hop::Plaintext | Hop::Named(_) => Transport::Plaintext,
        });
    }

    fn connected(&self, flow: &FlowHandle, way: &Way<Place>) {
        flow.verdict(Verdict::Allowed, &crate::policy::outbound_rule());
        // Both were proven when the connection was made, and it is nobody else's.
        if let (Hop::SameNode | Hop::Hbone { .. }, Some(workload)) =
            (&way.place.target.hop, &way.place.target.workload)
        {
            flow.source_identity(&self.pod.workload.identity);
            flow.destination_identity(&workload.identity);
        }
    }
}

impl Requests {
    /// Waits until it is known whether the service is there, and who has the addresses that its requests may go to. That nothing was
    /// learned says who looks for an endpoint.
    async fn learn(&self, name: &ServiceName) {
        let (store, interest) = (&self.context.node.store, &self.context.node.interest);
        if !store.guard().knows_service(name) {
            let _ = interest.learn(store, name.clone()).await;
        }
        let unknown: Vec<_> = {
            let mesh = store.guard();
            let of_others = mesh.endpoints(name).filter(|endpoint| !endpoint.has_own_addresses());
            let addresses = of_others.flat_map(|endpoint| endpoint.addresses.iter().copied());
            let dialled =
                mesh.service(name).filter(|service| self.is_own(service)).map(|_| self.destination.ip());
            addresses.chain(dialled).filter(|ip| !mesh.knows(*ip)).collect()
        };
        join_all(unknown.into_iter().map(|ip| interest.learn(store, ip))).await;
    }

    /// Whether the service was found by its endpoint that was dialled.
    fn is_own(&self, service: &Service) -> bool {
        let is_it = |through: &Through| through.service.key == service.key;
        service.addresses.is_empty() && (is_it(&self.service) || self.candidates.iter().any(is_it))
    }

    /// An endpoint where no DestinationRule says which: as for connections.
    fn any(
        &self,
        mesh: &Mesh,
        client: &Workload,
        backend: &Backend<'_>,
        ask: &Ask<'_>,
    ) -> Result<Target, RouteError> {
        let (now, mut failing) = (Instant::now(), self.context.node.failing.lock());
        let resolve = |avoid| {
            let doubts = Doubts { silent_nodes: &[], failing: Some((&failing, now)) };
            let choice = Choice { entropy: rand::random(), avoid, sticky: None, doubts };
            resolve_backend(mesh, client, backend, self.destination, &choice)
        };
        let target = resolve(ask.tried).or_else(|error| match ask.tried {
            [] => Err(error),
            _ => resolve(&[]),
        })?;
        if let (Some(workload), 1..) = (&target.workload, target.endpoints) {
            failing.chosen(workload, target.address.port(), now);
        }
        Ok(target)
    }
}

/// What a DestinationRule says of the connections that requests share.
fn terms(pool: &ConnectionPool) -> Terms {
    let streams = pool.max_concurrent_streams.map_or(usize::MAX, |streams| streams as usize);
    let idle = match pool.http_idle_timeout_ms.or(pool.idle_timeout_ms).map(Duration::from_millis) {
        None => Terms::DEFAULT.idle,
        // 0: never.
        Some(idle) => Some(idle).filter(|idle| !idle.is_zero()),
    };
    Terms {
        max_uses: pool.max_requests_per_connection,
        max_streams: streams.min(Terms::DEFAULT.max_streams),
        idle,
        max_age: pool.max_connection_duration_ms.map(Duration::from_millis),
    }
}

/// What the port says; where it says nothing, what the client speaks. gRPC is nothing without HTTP/2, and a request for another
/// protocol goes to a server of HTTP/1 unless the port says that there is none.
fn speaks_h2(declared: AppProtocol, ask: &Ask<'_>, pool: Option<&ConnectionPool>) -> bool {
    match pool {
        _ if ask.switches() => return matches!(declared, AppProtocol::Http2 | AppProtocol::Grpc),
        Some(pool) if pool.use_client_protocol => return ask.h2,
        Some(pool) if pool.upgrade_to_h2 => return true,
        _ => {}
    }
    match declared {
        AppProtocol::Http2 | AppProtocol::Grpc => true,
        AppProtocol::Http11 => ask.grpc && ask.h2,
        AppProtocol::Unknown => ask.h2,
    }
}

fn key(client: &Workload, target: &Target, h2: bool) -> PoolKey {
    let workload = target.workload.as_ref();
    let proven = matches!(target.hop, Hop::SameNode | Hop::Hbone { .. });
    PoolKey {
        source: client.uid.clone(),
        source_pod_uid: Arc::clone(&client.enrolment.pod_uid),
        source_identity: client.identity.clone(),
        endpoint: workload.map(|workload| workload.uid.clone()),
        pod_uid: workload.map_or_else(|| "".into(), |workload| Arc::clone(&workload.enrolment.pod_uid)),
        identity: workload.filter(|_| proven).map(|workload| workload.identity.clone()),
        address: target.address,
        name: match &target.hop {
            Hop::Named(name) => Some(Arc::clone(name)),
            _ => None,
        },
        tls: None,
        h2,
        cluster: None,
    }
}

/// Whether both pods of a connection that is kept are the ones that it was made for: a pod that only has the name of one that
/// is gone was never asked for, and never let in.
pub(crate) fn is_current(mesh: &Mesh, key: &PoolKey) -> bool {
    let source = mesh.workload(&key.source).is_some_and(|workload| {
        workload.enrolment.pod_uid == key.source_pod_uid && workload.identity == key.source_identity
    });
    let is_endpoint =
        |uid| mesh.workload(uid).is_some_and(|workload| workload.enrolment.pod_uid == key.pod_uid);
    source && key.endpoint.as_ref().is_none_or(is_endpoint)
}

/// Who can use the connections of a key: this worker.
fn who(key: &PoolKey) -> Who {
    let mut hasher = DefaultHasher::new();
    (std::thread::current().id(), key).hash(&mut hasher);
    Who(hasher.finish())
}

fn not_reached(error: &OutboundError) -> NotReached {
    let cause = match error {
        OutboundError::Tunnel { status: Some(StatusCode::UNAUTHORIZED), .. }
        | OutboundError::Local(LocalRefusal::Denied(_))
        | OutboundError::Revoked(_) => Cause::Denied,
        OutboundError::Local(LocalRefusal::Limit(_)) => Cause::Overload,
        OutboundError::Lookup { .. } => Cause::Unknown,
        _ => Cause::Failed,
    };
    NotReached { why: error.to_string(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MeshChange, Store};
    use warren_common::model::{
        Enrolment, Health, Identity, PeerAuthentication, Placement, TunnelProtocol, WorkloadKind, WorkloadUid,
    };

    fn pod(name: &str, pod_uid: &str, account: &str) -> Arc<Workload> {
        Arc::new(Workload {
            uid: WorkloadUid(format!("c//Pod/shop/{name}").into()),
            name: name.into(),
            namespace: "shop".into(),
            addresses: vec![[10, 0, 0, 1].into()],
            identity: Identity::new("cluster.local", "shop", account).unwrap(),
            node: "n1".into(),
            host_network: false,
            tunnel: TunnelProtocol::Hbone,
            health: Health::Healthy,
            owner: name.into(),
            kind: WorkloadKind::Pod,
            canonical_name: name.into(),
            canonical_revision: "v1".into(),
            cluster: "c".into(),
            services: Arc::default(),
            labels: Arc::default(),
            enrolment: Enrolment { pod_uid: pod_uid.into(), enrolled: true, ..Enrolment::default() },
            peer_authentication: PeerAuthentication::default(),
            authorization_policies: Vec::new(),
            placement: Placement::default(),
        })
    }

    #[test]
    fn what_an_endpoint_is_spoken_to_in() {
        use crate::route::http::RequestView;
        use ::http::HeaderMap;
        use AppProtocol::{Grpc, Http2, Http11, Unknown};
        let plain = ConnectionPool::default();
        let client = ConnectionPool { use_client_protocol: true, ..plain.clone() };
        let upgrade = ConnectionPool { upgrade_to_h2: true, ..plain.clone() };
        let nothing = HeaderMap::new();
        let websocket = HeaderMap::from_iter([(::http::header::UPGRADE, "websocket".parse().unwrap())]);
        // Declared, pool, the client speaks HTTP/2: a request, a WebSocket, CONNECT.
        for (declared, pool, h2, expected) in [
            (Unknown, None, false, [false, false, false]),
            (Unknown, None, true, [true, false, false]),
            (Unknown, Some(&plain), true, [true, false, false]),
            (Http11, None, true, [false, false, false]),
            (Http11, Some(&upgrade), false, [true, false, false]),
            (Http11, Some(&client), true, [true, false, false]),
            (Http2, None, false, [true, true, true]),
            (Http2, Some(&client), false, [false, true, true]),
            (Grpc, None, true, [true, true, true]),
        ] {
            let requests = [("GET", &nothing), ("GET", &websocket), ("CONNECT", &nothing)];
            let spoken = requests.map(|(method, headers)| {
                let (scheme, authority, path) = ("http", "web", "/");
                let request = &RequestView { method, scheme, authority, path, query: None, headers };
                let api = warren_common::model::traffic::RouteApi::Istio;
                let ask = Ask { request, authority, entropy: 0, tried: &[], h2, grpc: false, api };
                speaks_h2(declared, &ask, pool)
            });
            assert_eq!(spoken, expected, "{declared:?} {pool:?} {h2}");
        }
    }

    #[test]
    fn who_gets_the_name_of_a_pod_does_not_get_its_connections() {
        let target = Target {
            workload: Some(pod("web-0", "w1", "web")),
            service: None,
            address: "10.0.0.2:80".parse().unwrap(),
            hop: Hop::SameNode,
            endpoints: 1,
        };
        let of = |client: &Workload| key(client, &target, false);
        let first = of(&pod("db-0", "d1", "db"));
        assert_eq!(first, of(&pod("db-0", "d1", "db")));
        assert_ne!(first, of(&pod("db-0", "d2", "db")), "made once more under the same name");
        assert_ne!(first, of(&pod("db-0", "d1", "other")), "another identity");

        let store = Store::new();
        let now = |client: Arc<Workload>, endpoint: Arc<Workload>| {
            store.apply(vec![MeshChange::Workload(client), MeshChange::Workload(endpoint)]);
            is_current(&store.guard(), &first)
        };
        let web = || pod("web-0", "w1", "web");
        assert!(!is_current(&store.guard(), &first), "nobody is here");
        assert!(now(pod("db-0", "d1", "db"), web()));
        assert!(!now(pod("db-0", "d2", "db"), web()));
        assert!(!now(pod("db-0", "d1", "other"), web()));
        assert!(!now(pod("db-0", "d1", "db"), pod("web-0", "w2", "web")));
    }
}
