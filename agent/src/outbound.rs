//! The story of a connection leaving a pod.
//!
//! The kernel has redirected the application's connect to port 15001 of its own namespace. From there:
//!
//! 1. **accept**: where did it want to go ([`Dialled`])
//! 2. **route**: who is that, and how are they reached ([`Target`])
//! 3. **connect**: a pod of this node, a stream of a tunnel, or a plain socket ([`Upstream`])
//! 4. **copy** until both directions have ended
//!
//! Where rules or a DestinationRule say something to this pod of the service, a connection is [ruled]: its [requests] take
//! steps 2 to 4 each for itself, or it goes its [course] as bytes. Without, nobody looks at what it carries.
//!
//! Everything that can fail happens before the first byte is copied. Whatever fails resets the application's
//! connection at once. What should be tunnelled is tunnelled or fails: there is no way from [`Hop::Hbone`] to
//! plaintext.

mod course;
mod endpoints;
mod error;
mod hear;
mod originate;
mod requests;
mod ruled;
mod rules;
mod seats;
mod tried;
mod wire;

pub(crate) use endpoints::Balances;
pub(crate) use originate::{named, wanted as originated};
pub(crate) use requests::is_current;
pub(crate) use rules::Routes;

use course::{Course, Next};
use endpoints::Balanced;
use error::OutboundError;
use tried::{Guess, Tried};

use crate::accept::{Accepted, TunnelSocket, connect, end, for_tunnel, keep_alive, reset};
use crate::context::Context;
use crate::flow::{Dialled, Hello, Upstream};
use crate::http::Origination;
use crate::identity::{for_dedicated, widen};
use crate::inbound::{self, LocalArrival, LocalVisit};
use crate::observe::{FlowFlag, FlowHandle};
use crate::pods::Pod;
use crate::route::{Attempts, Hop, Patience, RouteError, Step, Target, TunnelUse};
use crate::standing::{Ended, Guest, Span, Standing};
use crate::store::Store;
use crate::tunnel::{
    DEDICATED_ALPN, DedicatedError, Meter, PoolError, Relay, Side, TrafficSecrets, TunnelKey, Wish,
    connect_request, copy_tunnel, open_dedicated,
};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::watch;
use warren_common::model::admin::{Direction, Transport, Verdict};
use warren_common::model::{Identity, Workload};

/// How long a connection waits for its pod's first certificate.
const CREDENTIAL_DEADLINE: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 3;

/// Carries one captured connection from accept to end. When the sender of `open` is gone, its pod's doors are closed.
pub(crate) async fn serve(
    context: Rc<Context>,
    pod: Arc<Pod>,
    accepted: Accepted,
    open: watch::Receiver<()>,
) {
    let client = pod.client_address(accepted.peer);
    let flow = context.node.observer.begin(Direction::Outbound, Some(client), None);
    flow.source_workload(&current(&context, &pod));
    let socket = match accepted.into_stream() {
        Ok(socket) => socket,
        Err(source) => return flow.fail(FlowFlag::Connect, OutboundError::Connect { to: client, source }),
    };
    let destination = match context.node.kernel.original_destination(socket.as_fd()) {
        Ok(Some(destination)) => destination,
        Ok(None) => {
            flow.fail(OutboundError::NotCaptured.flag(), OutboundError::NotCaptured);
            return reset(socket);
        }
        Err(error) => {
            flow.fail(FlowFlag::Connect, OutboundError::Kernel(error));
            return reset(socket);
        }
    };
    flow.destination_address(destination);
    // Boxed: who needs no rules shall not pay for them.
    match Box::pin(rules::routed(&context, &pod, destination)).await {
        Ok(None) => {}
        Ok(Some(routed)) => {
            return Box::pin(ruled::serve(context, pod, client, routed, socket, flow, open)).await;
        }
        Err(unlearned) => {
            let error = OutboundError::from(unlearned);
            flow.fail(error.flag(), error);
            return reset(socket);
        }
    }
    let reached = {
        let hello = Hello::Unread(&socket);
        let dialled = Dialled { pod: Arc::clone(&pod), client, destination, hello, shares: false };
        tokio::select! {
            // Boxed: what connecting needs is large and gone once connected; the copy, which may last for days, is small.
            reached = Box::pin(reach(&context, &dialled, &Course::Dialled, None, &flow)) => reached,
            () = pod.lifetime.cut() => Err(OutboundError::Gone(Arc::clone(&pod.workload.name))),
        }
    };
    match reached {
        // Boxed: connections with rules of their own share this task's form, and need none of it.
        Ok(reached) => Box::pin(convey(&context, pod, socket, reached, flow)).await,
        Err(error) => {
            flow.fail(error.flag(), error);
            reset(socket);
        }
    }
}

/// A far side that was reached.
struct Reached {
    upstream: Upstream,
    guest: Option<Guest>,
    /// Where a DestinationRule counts: held as long as the connection lasts.
    place: Option<Box<Balanced>>,
}

/// Copies until both directions have ended.
async fn convey(context: &Context, pod: Arc<Pod>, socket: TcpStream, reached: Reached, flow: FlowHandle) {
    let Reached { upstream, guest, place } = reached;
    let span = place.as_ref().map_or_else(Span::default, |place| place.span());
    flow.verdict(Verdict::Allowed, &crate::policy::outbound_rule());
    flow.established();
    let meter = Meter::new([Arc::clone(flow.bytes())]);
    let relay = match upstream {
        Upstream::Socket(server) => Relay::sockets(socket, server),
        Upstream::Dedicated(tunnel) => Relay::tunnel(socket, *tunnel, Side::Client, &meter),
        Upstream::Originated(opened) => {
            return Box::pin(originate::carry(context, pod, socket, *opened, (span, place), flow)).await;
        }
        Upstream::Tunnel(stream) => {
            let copied = {
                let copying = pin!(copy_tunnel(&socket, stream, true, &meter));
                tokio::select! {
                    copied = inbound::unless_idle(context, &pod, &flow, copying) => copied,
                    ended = span.over(flow.bytes()) => Err(ended),
                    () = pod.lifetime.cut() => Err(Ended::Gone(Arc::clone(&pod.workload.name))),
                }
            };
            return match copied {
                Ok(()) => end(socket),
                Err(error) => {
                    flow.fail(error.flag(), error);
                    reset(socket);
                }
            };
        }
    };
    Standing { relay, flow, pod, guest, span }.carry(context).await;
    drop(place);
}

/// Routes and connects, again where that is safe: not a byte of the application has been read yet. On a `guess` it takes nobody's
/// place at an endpoint, and nothing is said of endpoints.
async fn reach(
    context: &Rc<Context>,
    dialled: &Dialled<'_>,
    course: &Course,
    guess: Option<&Guess>,
    flow: &FlowHandle,
) -> Result<Reached, OutboundError> {
    if let Some(route) = course.route() {
        flow.route(route);
    }
    let mut attempts = Attempts::new(Instant::now());
    let mut last: Option<Tried> = None;
    loop {
        let Next { target, place, tls } =
            match course::next(context, dialled, course, &attempts, guess.is_some()) {
                Ok(next) => next,
                // Nobody here has talked to it before, or was led there: the controller says what it is, or that it is not in
                // the mesh.
                Err(OutboundError::Route(RouteError::NotAsked(sought))) => {
                    context.node.interest.learn(&context.node.store, sought).await?;
                    continue;
                }
                Err(error) if !error.is_of_choice() => return Err(error),
                Err(error) => match attempts.nobody_else(Instant::now()) {
                    // Every endpoint has failed: the last failure says more than "no endpoint".
                    Step::GiveUp => return Err(last.map_or(error, |tried| tried.give_up(guess))),
                    Step::Now => continue,
                    Step::After(pause) => {
                        tokio::time::sleep(pause).await;
                        continue;
                    }
                },
            };
        describe(flow, &target);
        let mut patience = attempts.patience(target.endpoints);
        let pool = place.as_ref().and_then(|place| place.pool());
        if let Some(limit) = pool.and_then(|pool| pool.connect_timeout_ms) {
            patience = patience.limited_to(Duration::from_millis(limit));
        }
        let keepalive = pool.and_then(|pool| pool.keepalive);
        let error = match over(context, dialled, &target, tls.as_deref(), keepalive, patience, flow).await {
            Ok((upstream, guest)) => {
                remember(context, dialled, &target);
                if let (Some(place), None) = (&place, guess) {
                    place.connected(true);
                }
                return Ok(Reached { upstream, guest, place });
            }
            Err(error) => error,
        };
        let failure = error.failure();
        avoid(context, &target, patience, &error);
        let tried = Tried::new(error, place, guess);
        let endpoint = target.workload.as_deref().filter(|_| target.endpoints > 0);
        match attempts.failed_at(endpoint, patience, failure, Instant::now()) {
            Step::GiveUp => return Err(tried.give_up(guess)),
            Step::Now => {}
            Step::After(pause) => tokio::time::sleep(pause).await,
        }
        last = Some(tried);
    }
}

/// Opens the way, and speaks over it what a DestinationRule asks for.
async fn over(
    context: &Rc<Context>,
    dialled: &Dialled<'_>,
    target: &Target,
    tls: Option<&Origination>,
    keepalive: Option<(u32, u32, u32)>,
    patience: Patience,
    flow: &FlowHandle,
) -> Result<(Upstream, Option<Guest>), OutboundError> {
    let way = match tls {
        None => open(context, dialled, target, patience, flow).await?,
        Some(tls) => {
            let Dialled { client, destination, .. } = *dialled;
            let hello = Hello::Known(originate::server_name(Some(tls)));
            // Over a tunnel of its own nothing of ours can be spoken.
            let shared = Dialled { pod: Arc::clone(&dialled.pod), client, destination, hello, shares: true };
            Box::pin(open(context, &shared, target, patience, flow)).await?
        }
    };
    if let (Upstream::Socket(socket), Some(keepalive)) = (&way.0, keepalive) {
        keep_alive(socket, keepalive);
    }
    match tls {
        None => Ok(way),
        Some(tls) => {
            let spoken =
                originate::originate_for_bytes(context, &dialled.pod, target, tls, way, patience.tls);
            Box::pin(spoken).await
        }
    }
}

/// Others come first for a while, at the next connections of this node.
fn avoid(context: &Context, target: &Target, patience: Patience, error: &OutboundError) {
    let Some(workload) = target.workload.as_ref().filter(|_| target.endpoints > 1) else { return };
    if let Some(extent) = error.extent(target.address.port(), patience) {
        context.node.failing.lock().failed(workload, extent, Instant::now());
    }
}

/// The endpoint answers, and the client of a service with session affinity will return to it.
fn remember(context: &Context, dialled: &Dialled<'_>, target: &Target) {
    let (Some(service), Some(workload)) = (&target.service, &target.workload) else { return };
    if target.endpoints > 1 {
        context.node.failing.lock().succeeded(workload, target.address.port());
    }
    if let Some(seconds) = service.steering.affinity_s {
        let timeout = Duration::from_secs(seconds.into());
        let client = &dialled.pod.workload;
        let now = Instant::now();
        context.node.affinity.lock().remember(client, &service.key, &workload.uid, timeout, now);
    }
}

async fn open(
    context: &Rc<Context>,
    dialled: &Dialled<'_>,
    target: &Target,
    patience: Patience,
    flow: &FlowHandle,
) -> Result<(Upstream, Option<Guest>), OutboundError> {
    match (&target.hop, &target.workload) {
        (Hop::SameNode, Some(workload)) => {
            open_local(context, dialled, target.address, workload, patience, flow).await
        }
        (Hop::Hbone { gateway, identity }, Some(workload)) => {
            flow.transport(Transport::Hbone);
            if let Some(revoked) = revoked(&context.node.store, [&dialled.pod.workload.identity, identity]) {
                return Err(OutboundError::Revoked(revoked));
            }
            let far = Far {
                address: target.address,
                workload,
                gateway: *gateway,
                identity,
                is_requests: dialled.shares,
                is_http: target.is_http(dialled.destination.port()),
            };
            let upstream = open_tunnel(context, dialled, &far, patience).await?;
            flow.source_identity(&dialled.pod.workload.identity);
            flow.destination_identity(identity);
            Ok((upstream, None))
        }
        (Hop::Plaintext, _) => {
            flow.transport(Transport::Plaintext);
            Ok((Upstream::Socket(plain_socket(&dialled.pod, target.address, patience.connect).await?), None))
        }
        (Hop::Named(name), _) => {
            flow.transport(Transport::Plaintext);
            Ok((
                Upstream::Socket(
                    open_named(context, dialled, name, target.address.port(), patience, flow).await?,
                ),
                None,
            ))
        }
        // Fails closed: whatever a route may say one day, only what is not in the mesh leaves in plaintext.
        (Hop::SameNode | Hop::Hbone { .. }, None) => Err(OutboundError::NoWorkload(target.address)),
    }
}

/// What is outside of the mesh and known by name: looked up here, as the pod's own resolver would.
async fn open_named(
    context: &Context,
    dialled: &Dialled<'_>,
    name: &Arc<str>,
    port: u16,
    patience: Patience,
    flow: &FlowHandle,
) -> Result<TcpStream, OutboundError> {
    let failed = |source| OutboundError::Lookup { name: Arc::clone(name), source };
    let mut addresses = context.node.names.lookup(name).await.map_err(failed)?;
    let turn = rand::random::<u64>() % addresses.len().max(1) as u64;
    addresses.rotate_left(turn as usize);
    // A pod of one family cannot reach the other.
    addresses.retain(|ip| dialled.pod.workload.addresses.iter().any(|own| own.is_ipv4() == ip.is_ipv4()));
    let mut last = failed(io::Error::other("it has no address of a family that the pod has"));
    for ip in addresses.into_iter().take(MAX_ADDRESSES) {
        let address = SocketAddr::new(ip, port);
        flow.endpoint(address);
        match plain_socket(&dialled.pod, address, patience.connect).await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Both pods are this agent's: the kernel proves both identities, and the bytes never touch a wire.
async fn open_local(
    context: &Rc<Context>,
    dialled: &Dialled<'_>,
    address: SocketAddr,
    workload: &Arc<Workload>,
    patience: Patience,
    flow: &FlowHandle,
) -> Result<(Upstream, Option<Guest>), OutboundError> {
    flow.transport(Transport::SameNode);
    let arrival = LocalArrival {
        source: current(context, &dialled.pod),
        client: dialled.client,
        destination: address,
        workload: Arc::clone(workload),
        hello: dialled.hello.clone(),
        patience: patience.connect,
    };
    let LocalVisit { application, guest } = inbound::deliver_local(context, arrival).await?;
    flow.source_identity(&dialled.pod.workload.identity);
    flow.destination_identity(&workload.identity);
    Ok((Upstream::Socket(application), Some(guest)))
}

/// A pod of another node.
struct Far<'a> {
    address: SocketAddr,
    workload: &'a Workload,
    gateway: SocketAddr,
    identity: &'a Identity,
    /// Requests are carried, or may be.
    is_requests: bool,
    /// HTTP is declared there.
    is_http: bool,
}

async fn open_tunnel(
    context: &Rc<Context>,
    dialled: &Dialled<'_>,
    far: &Far<'_>,
    patience: Patience,
) -> Result<Upstream, OutboundError> {
    let Far { address, workload, gateway, identity: expected, .. } = *far;
    let pod = &dialled.pod;
    let source = &pod.workload;
    let credential = context.node.identities.credential(&source.identity, CREDENTIAL_DEADLINE).await?;
    let key = TunnelKey {
        source: source.uid.clone(),
        source_pod_uid: Arc::clone(&source.enrolment.pod_uid),
        destination: workload.uid.clone(),
        destination_pod_uid: Arc::clone(&workload.enrolment.pod_uid),
        identity: expected.clone(),
        gateway,
        generation: credential.generation,
    };
    let connect = async |config: &Arc<rustls::ClientConfig>| {
        let socket = plain_socket(pod, gateway, patience.connect).await?;
        let tls = tokio_rustls::TlsConnector::from(Arc::clone(config));
        let handshake = tls.connect(gateway.ip().into(), for_tunnel(socket));
        let stream = tokio::time::timeout(patience.tls, handshake)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| OutboundError::Tls { gateway, source })?;
        let found = crate::identity::peer_identity(
            stream.get_ref().1.peer_certificates(),
            &context.node.trust_domain,
        )
        .map_err(|source| OutboundError::Peer { gateway, source })?;
        if found != *expected {
            let (found, expected) = (Box::new(found), Box::new(expected.clone()));
            return Err(OutboundError::WrongPeer { gateway, found, expected });
        }
        Ok(stream)
    };
    let request = connect_request(&Wish {
        destination: address,
        pod_uid: &workload.enrolment.pod_uid,
        client: dialled.client,
        source,
        has_alternatives: patience.has_alternatives,
    });
    let mut first = None;
    if wants_own_tunnel(context, far, &key) {
        let secrets = Arc::new(TrafficSecrets::default());
        let stream = connect(&for_dedicated(&credential.client, secrets.clone())).await?;
        if stream.get_ref().1.alpn_protocol() == Some(DEDICATED_ALPN) {
            let parts = TunnelSocket::into_parts;
            let opened = open_dedicated(stream, &secrets, &request, patience.answer, parts).await;
            return opened.map(Box::new).map(Upstream::Dedicated).map_err(|error| match error {
                DedicatedError::Refused { leaving: true, .. } => OutboundError::Leaving(address),
                DedicatedError::Refused { status, .. } => {
                    OutboundError::Tunnel { gateway, status: Some(status), reason: error.to_string() }
                }
                DedicatedError::Silent(..) => OutboundError::Silent { gateway, reason: error.to_string() },
                error => OutboundError::Tunnel { gateway, status: None, reason: error.to_string() },
            });
        }
        first = Some(stream);
    }
    let is_only = first.is_some();
    // A tunnel that was made already is the first to be used.
    let first = std::cell::Cell::new(first);
    let connect_shared = async || {
        let mut stream = match first.take() {
            Some(stream) => stream,
            None => connect(&credential.client).await?,
        };
        stream.get_mut().0.release();
        widen(stream.get_mut().1);
        Ok(stream)
    };
    let opened = context.tunnels.open_stream(&key, request, patience.answer, connect_shared).await;
    if is_only {
        context.tunnels.set_only(&key);
    }
    opened.map(Upstream::Tunnel).map_err(|error| match error {
        PoolError::Open(error) => error,
        PoolError::Refused { leaving: true, .. } => OutboundError::Leaving(address),
        PoolError::Refused { status, .. } => {
            OutboundError::Tunnel { gateway, status: Some(status), reason: error.to_string() }
        }
        PoolError::Silent(..) => OutboundError::Silent { gateway, reason: error.to_string() },
        PoolError::Http2(_) => OutboundError::Tunnel { gateway, status: None, reason: error.to_string() },
    })
}

/// Whether this connection should outlive the agent, at the price of a handshake.
fn wants_own_tunnel(context: &Context, far: &Far<'_>, key: &TunnelKey) -> bool {
    let rare = || {
        let pair = (key.source.clone(), key.destination.clone(), far.address.port());
        context.node.frequency.lock().spend(&pair, Instant::now())
    };
    let wanted = match context.node.tunnel_use {
        TunnelUse::Shared => false,
        TunnelUse::Dedicated => !far.is_requests,
        TunnelUse::Auto => !far.is_requests && !far.is_http && rare(),
    };
    wanted && !context.tunnels.is_only(key)
}

/// Whoever has a revoked identity judges nothing: the client's node does not go there in the first place.
fn revoked(store: &Store, ends: [&Identity; 2]) -> Option<Identity> {
    let mesh = store.guard();
    ends.into_iter().find(|identity| mesh.policies().revoked().contains(*identity)).cloned()
}

/// A socket of the pod to an address outside the agent.
async fn plain_socket(pod: &Pod, to: SocketAddr, patience: Duration) -> Result<TcpStream, OutboundError> {
    let failed = |source| OutboundError::Connect { to, source };
    let socket = pod.sockets.tcp(to.ip().into()).await.map_err(failed)?;
    connect(socket, to, patience).await.map_err(failed)
}

/// The pod's workload as the mesh knows it now: labels may have changed since it was enrolled.
fn current(context: &Context, pod: &Pod) -> Arc<Workload> {
    let mesh = context.node.store.guard();
    mesh.pod(&pod.workload).map_or_else(|| Arc::clone(&pod.workload), Arc::clone)
}

fn describe(flow: &FlowHandle, target: &Target) {
    if let Some(service) = &target.service {
        flow.service(service);
    }
    if let Some(workload) = &target.workload {
        flow.destination_workload(workload);
    }
    if !matches!(target.hop, Hop::Named(_)) {
        flow.endpoint(target.address);
    }
}
