//! The story of a connection leaving a pod.
//!
//! The kernel has redirected the application's connect to port 15001 of its own namespace. From there:
//!
//! 1. **accept**: where did it want to go ([`Dialled`])
//! 2. **route**: who is that, and how are they reached ([`Target`])
//! 3. **connect**: a pod of this node, a stream of a tunnel, or a plain socket ([`Upstream`])
//! 4. **copy** until both directions have ended
//!
//! Everything that can fail happens before the first byte is copied. Whatever fails resets the application's
//! connection at once. What should be tunnelled is tunnelled or fails: there is no way from [`Hop::Hbone`] to
//! plaintext.

use crate::accept::{Accepted, connect, end, for_tunnel, reset};
use crate::context::Context;
use crate::flow::{Dialled, Upstream};
use crate::identity::{CredentialError, PeerError, widen};
use crate::inbound::{self, Ended, LocalArrival, LocalGuest, LocalVisit, Refusal};
use crate::interest::Unlearned;
use crate::observe::{FlowFlag, FlowHandle};
use crate::pods::Pod;
use crate::route::{Choice, Hop, RouteError, Target, resolve, service_at};
use crate::tunnel::{Meter, PoolError, TunnelKey, connect_request, copy_sockets, copy_tunnel};
use http::StatusCode;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;
use warren_common::model::admin::{Direction, Transport, Verdict};
use warren_common::model::{Identity, Workload, WorkloadUid};

/// How long one attempt to reach a socket may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long the TLS handshake with another agent may take.
const TLS_DEADLINE: Duration = Duration::from_secs(10);
/// How long a connection waits for its pod's first certificate.
const CREDENTIAL_DEADLINE: Duration = Duration::from_secs(5);
/// How long a target that should be in the mesh may be missing: labels travel to two nodes at different times.
const SETTLE_DEADLINE: Duration = Duration::from_secs(4);
/// Pauses between attempts while it settles.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// Endpoints of one service that are tried.
const MAX_ENDPOINTS: usize = 3;

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 3;

/// Why a connection did not leave, or ended badly.
#[derive(Debug, thiserror::Error)]
enum OutboundError {
    #[error("the kernel cannot say where the connection wanted to go: {0}")]
    Kernel(#[from] crate::kernel::KernelError),
    #[error("nobody dialled through here: the connection was made to the agent's own port")]
    NotCaptured,
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Unlearned(#[from] Unlearned),
    #[error("{0} should be in the mesh, but no workload is known there; see `warren workloads`")]
    NoWorkload(SocketAddr),
    #[error("cannot connect to {to}: {source}{}", hint(*to, source))]
    Connect { to: SocketAddr, source: io::Error },
    #[error("{name} cannot be looked up from this node: {source}")]
    Lookup { name: Arc<str>, source: io::Error },
    #[error("the pod's certificate is not to be had: {0}")]
    Credential(#[from] CredentialError),
    #[error("TLS with {gateway} failed: {source}")]
    Tls { gateway: SocketAddr, source: io::Error },
    #[error("{gateway} is not who it should be: {source}")]
    Peer { gateway: SocketAddr, source: PeerError },
    #[error("the identity {0} was revoked: nothing goes there, and nothing leaves in its name")]
    Revoked(Identity),
    #[error("{gateway} proved to be {found}, expected {expected}")]
    WrongPeer { gateway: SocketAddr, found: Identity, expected: Identity },
    #[error("the tunnel to {gateway} failed: {reason}")]
    Tunnel { gateway: SocketAddr, status: Option<StatusCode>, reason: String },
    #[error(transparent)]
    Local(#[from] Refusal),
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// Carries one captured connection from accept to end.
pub(crate) async fn serve(context: Rc<Context>, pod: Arc<Pod>, accepted: Accepted) {
    let client = pod.client_address(accepted.peer);
    let flow = context.node.observer.begin(Direction::Outbound, Some(client), None);
    flow.source_workload(&current(&context, &pod));
    let socket = match accepted.into_stream() {
        Ok(socket) => socket,
        Err(source) => return flow.fail(FlowFlag::Connect, OutboundError::Connect { to: client, source }),
    };
    match carry(&context, &pod, client, &socket, &flow).await {
        Ok(()) => end(socket),
        Err(error) => {
            flow.fail(error.flag(), error);
            reset(socket);
        }
    }
}

async fn carry(
    context: &Rc<Context>,
    pod: &Arc<Pod>,
    client: SocketAddr,
    socket: &TcpStream,
    flow: &FlowHandle,
) -> Result<(), OutboundError> {
    use std::os::fd::AsFd;
    let destination =
        context.node.kernel.original_destination(socket.as_fd())?.ok_or(OutboundError::NotCaptured)?;
    flow.destination_address(destination);
    let dialled = Dialled { pod: Arc::clone(pod), client, destination, socket };
    // Boxed: what connecting needs is large and gone once connected; the copy, which may last for days, is small.
    let (upstream, mut local) = Box::pin(reach(context, &dialled, flow)).await?;
    flow.verdict(Verdict::Allowed, &crate::policy::outbound_rule());
    flow.established();
    let mut records = vec![Arc::clone(flow.bytes())];
    records.extend(local.as_ref().map(|guest| Arc::clone(guest.flow.bytes())));
    let meter = Meter::new(records);
    match upstream {
        Upstream::Socket(server) => {
            let copying = copy_sockets(socket, &server, &meter);
            let copying = inbound::unless_idle(context, pod, flow, copying);
            let copied = match &mut local {
                Some(guest) => guest.hold(copying).await,
                None => copying.await,
            };
            match &copied {
                Ok(()) => end(server),
                Err(_) => reset(server),
            }
            Ok(copied?)
        }
        Upstream::Tunnel(stream) => {
            let copying = copy_tunnel(socket, stream, true, &meter);
            Ok(inbound::unless_idle(context, pod, flow, copying).await?)
        }
    }
}

/// Routes and connects, again where that is safe: not a byte of the application has been read yet.
async fn reach(
    context: &Rc<Context>,
    dialled: &Dialled<'_>,
    flow: &FlowHandle,
) -> Result<(Upstream, Option<LocalGuest>), OutboundError> {
    context.node.interest.used(dialled.destination.ip());
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut failed: Vec<WorkloadUid> = Vec::new();
    let mut last = None;
    loop {
        let target = match route(context, dialled, &failed) {
            Ok(target) => target,
            // Nobody here has talked to it before: the controller says who it is, or that it is outside the mesh.
            Err(RouteError::NotAsked(address)) => {
                context.node.interest.learn(&context.node.store, address).await?;
                continue;
            }
            // Every other endpoint has failed: the last failure says more than "no endpoint".
            Err(error) => return Err(last.unwrap_or_else(|| error.into())),
        };
        describe(flow, &target);
        let error = match open(context, dialled, &target, flow).await {
            Ok(reached) => {
                remember(context, dialled, &target);
                return Ok(reached);
            }
            Err(error) => error,
        };
        if error.may_settle() && started.elapsed() < SETTLE_DEADLINE {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            continue;
        }
        match (&target.service, &target.workload) {
            (Some(_), Some(workload)) if failed.len() + 1 < MAX_ENDPOINTS && error.is_unprocessed() => {
                failed.push(workload.uid.clone());
                last = Some(error);
            }
            _ => return Err(error),
        }
    }
}

fn route(context: &Context, dialled: &Dialled<'_>, failed: &[WorkloadUid]) -> Result<Target, RouteError> {
    let client = current(context, &dialled.pod);
    let mesh = context.node.store.guard();
    let affine = service_at(&mesh, &client, dialled.destination.ip());
    let sticky = affine.filter(|service| service.steering.affinity_s.is_some()).and_then(|service| {
        let affinity = context.node.affinity.lock();
        affinity.last(&client.uid, &service.key, std::time::Instant::now()).cloned()
    });
    let choice = Choice { entropy: rand::random(), avoid: failed, sticky: sticky.as_ref() };
    resolve(&mesh, &client, dialled.destination, &choice)
}

/// The client of a service with session affinity will return to this endpoint.
fn remember(context: &Context, dialled: &Dialled<'_>, target: &Target) {
    let (Some(service), Some(workload)) = (&target.service, &target.workload) else { return };
    if let Some(seconds) = service.steering.affinity_s {
        let timeout = Duration::from_secs(seconds.into());
        let client = &dialled.pod.workload.uid;
        let now = std::time::Instant::now();
        context.node.affinity.lock().remember(client, &service.key, &workload.uid, timeout, now);
    }
}

async fn open(
    context: &Rc<Context>,
    dialled: &Dialled<'_>,
    target: &Target,
    flow: &FlowHandle,
) -> Result<(Upstream, Option<LocalGuest>), OutboundError> {
    match (&target.hop, &target.workload) {
        (Hop::SameNode, Some(workload)) => open_local(context, dialled, target.address, workload, flow).await,
        (Hop::Hbone { gateway, identity }, Some(workload)) => {
            flow.transport(Transport::Hbone);
            if let Some(revoked) = revoked(context, [&dialled.pod.workload.identity, identity]) {
                return Err(OutboundError::Revoked(revoked));
            }
            let upstream =
                open_tunnel(context, dialled, target.address, workload, *gateway, identity).await?;
            flow.source_identity(&dialled.pod.workload.identity);
            flow.destination_identity(identity);
            Ok((upstream, None))
        }
        (Hop::Plaintext, _) => {
            flow.transport(Transport::Plaintext);
            Ok((Upstream::Socket(plain_socket(&dialled.pod, target.address).await?), None))
        }
        (Hop::Named(name), _) => {
            flow.transport(Transport::Plaintext);
            Ok((
                Upstream::Socket(open_named(context, dialled, name, target.address.port(), flow).await?),
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
        match plain_socket(&dialled.pod, address).await {
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
    flow: &FlowHandle,
) -> Result<(Upstream, Option<LocalGuest>), OutboundError> {
    flow.transport(Transport::SameNode);
    let arrival = LocalArrival {
        source: current(context, &dialled.pod),
        client: dialled.client,
        destination: address,
        workload: Arc::clone(workload),
        socket: dialled.socket,
    };
    let LocalVisit { application, guest } = inbound::deliver_local(context, arrival).await?;
    flow.source_identity(&dialled.pod.workload.identity);
    flow.destination_identity(&workload.identity);
    Ok((Upstream::Socket(application), Some(guest)))
}

async fn open_tunnel(
    context: &Rc<Context>,
    dialled: &Dialled<'_>,
    address: SocketAddr,
    workload: &Workload,
    gateway: SocketAddr,
    expected: &Identity,
) -> Result<Upstream, OutboundError> {
    let pod = &dialled.pod;
    let source = &pod.workload;
    let credential = context.node.identities.credential(&source.identity, CREDENTIAL_DEADLINE).await?;
    let key = TunnelKey {
        source: source.uid.clone(),
        destination: workload.uid.clone(),
        destination_pod_uid: Arc::clone(&workload.enrolment.pod_uid),
        identity: expected.clone(),
        gateway,
        generation: credential.generation,
    };
    let connect = async || {
        let socket = plain_socket(pod, gateway).await?;
        let tls = tokio_rustls::TlsConnector::from(Arc::clone(&credential.client));
        let handshake = tls.connect(gateway.ip().into(), for_tunnel(socket));
        let mut stream = tokio::time::timeout(TLS_DEADLINE, handshake)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| OutboundError::Tls { gateway, source })?;
        let found = crate::identity::peer_identity(
            stream.get_ref().1.peer_certificates(),
            &context.node.trust_domain,
        )
        .map_err(|source| OutboundError::Peer { gateway, source })?;
        if found != *expected {
            return Err(OutboundError::WrongPeer { gateway, found, expected: expected.clone() });
        }
        widen(stream.get_mut().1);
        Ok(stream)
    };
    let request = connect_request(address, dialled.client, source);
    context.tunnels.open_stream(&key, request, connect).await.map(Upstream::Tunnel).map_err(|error| {
        match error {
            PoolError::Open(error) => error,
            PoolError::Refused { status, .. } => {
                OutboundError::Tunnel { gateway, status: Some(status), reason: error.to_string() }
            }
            error => OutboundError::Tunnel { gateway, status: None, reason: error.to_string() },
        }
    })
}

/// Whoever has a revoked identity judges nothing: the client's node does not go there in the first place.
fn revoked(context: &Context, ends: [&Identity; 2]) -> Option<Identity> {
    let mesh = context.node.store.guard();
    ends.into_iter().find(|identity| mesh.policies().revoked().contains(*identity)).cloned()
}

/// A socket of the pod to an address outside the agent.
async fn plain_socket(pod: &Pod, to: SocketAddr) -> Result<TcpStream, OutboundError> {
    let failed = |source| OutboundError::Connect { to, source };
    let socket = pod.sockets.tcp(to.ip().into()).await.map_err(failed)?;
    connect(socket, to, CONNECT_DEADLINE).await.map_err(failed)
}

/// The pod's workload as the mesh knows it now: labels may have changed since it was enrolled.
fn current(context: &Context, pod: &Pod) -> Arc<Workload> {
    let mesh = context.node.store.guard();
    mesh.workload(&pod.workload.uid).map_or_else(|| Arc::clone(&pod.workload), Arc::clone)
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

fn is_tunnel(to: SocketAddr) -> bool {
    to.port() == warren_common::ports::HBONE
}

fn hint(to: SocketAddr, error: &io::Error) -> &'static str {
    let tunnel = is_tunnel(to);
    match error.kind() {
        io::ErrorKind::TimedOut if tunnel => " (does a NetworkPolicy or a firewall block port 15008?)",
        io::ErrorKind::ConnectionRefused if tunnel => " (is the warren agent of that node running?)",
        _ => "",
    }
}

impl OutboundError {
    fn flag(&self) -> FlowFlag {
        match self {
            Self::Tls { .. } => FlowFlag::TlsFailure,
            Self::Peer { .. } | Self::WrongPeer { .. } | Self::Credential(_) => FlowFlag::IdentityError,
            Self::Tunnel { status: Some(StatusCode::UNAUTHORIZED), .. } => FlowFlag::Deny,
            Self::Route(RouteError::ReservedPort(_)) | Self::Local(Refusal::Denied(_)) => FlowFlag::Deny,
            Self::Revoked(_) => FlowFlag::Deny,
            Self::Tunnel { status: None, .. } => FlowFlag::H2HandshakeFailure,
            Self::Route(RouteError::NoHealthyEndpoint { .. } | RouteError::NoLocalEndpoint { .. }) => {
                FlowFlag::NoHealthyUpstream
            }
            Self::Connect { to, source } if is_tunnel(*to) && source.kind() == io::ErrorKind::TimedOut => {
                FlowFlag::NetworkPolicy
            }
            Self::Ended(ended) => ended.flag(),
            Self::Local(Refusal::Limit(_)) => FlowFlag::Overload,
            _ => FlowFlag::Connect,
        }
    }

    /// The target should be in the mesh and is not there: its node, or ours, may not know yet.
    fn may_settle(&self) -> bool {
        match self {
            Self::Connect { to, source } => {
                is_tunnel(*to) && source.kind() == io::ErrorKind::ConnectionRefused
            }
            // The listener was closed or its certificate is not there yet, mid-handshake.
            Self::Tls { source, .. } => {
                matches!(source.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
            }
            Self::Tunnel { status, .. } => status.is_none_or(|status| status == StatusCode::BAD_REQUEST),
            Self::Local(refusal) => matches!(refusal, Refusal::NotEnrolled(_)),
            _ => false,
        }
    }

    /// Another endpoint may be tried: the application has seen nothing of this connection.
    fn is_unprocessed(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Tls { .. } | Self::Lookup { .. } => true,
            Self::Tunnel { status, .. } => *status != Some(StatusCode::UNAUTHORIZED),
            Self::Local(refusal) => {
                matches!(refusal, Refusal::Application { .. } | Refusal::NotEnrolled(_) | Refusal::Limit(_))
            }
            _ => false,
        }
    }
}
