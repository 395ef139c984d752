//! The story of a connection entering a pod. There are three doors:
//!
//! * **HBONE** on 15008: TLS 1.3, both sides proven; each stream of the tunnel is a connection
//! * **plaintext** on 15006: steered here by the kernel; nobody is proven
//! * **the same node**: another pod's outbound story, in this process
//!
//! Behind each door it is the same: [`Arrival`] -> [`Permit`] -> the application's socket -> copy. The
//! application's socket can only be opened with a permit, and who loses it while inside ([`Admitted`]) is reset.
//!
//! Where a policy makes the verdict hinge on the server name in the client's own TLS, the connection has to begin with
//! its ClientHello: it is looked at, and goes on to the application as it is. Nobody else is waited for.

use crate::accept::{Accepted, TunnelSocket, connect, end, for_tunnel, peek, reset};
use crate::context::Context;
use crate::flow::Arrival;
use crate::gate::{Admitted, Judged, TunnelId, Visitor};
use crate::identity::{CredentialError, PeerError, Proof, peer_identity, widen};
use crate::limits::{Exceeded, Excess, Ticket, idle};
use crate::observe::{FlowFlag, FlowHandle};
use crate::pods::Pod;
use crate::policy::{ClientHello, Denial, Permit, ServerName};
use crate::tunnel::{self, CopyError, Incoming, Meter, ServeConfig, ServeError, copy_sockets, copy_tunnel};
use http::StatusCode;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use warren_common::model::admin::{Direction, Transport, Verdict};
use warren_common::model::{Health, Identity, Workload};

/// How long a peer may take for the TLS handshake.
const TLS_DEADLINE: Duration = Duration::from_secs(10);
/// How long a handshake waits for the pod's first certificate.
const CREDENTIAL_DEADLINE: Duration = Duration::from_secs(5);
/// How long the application may take to accept: it is in the same namespace.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long a client may take for its ClientHello, where the verdict hinges on that. Then it counts as unreadable.
const HELLO_DEADLINE: Duration = Duration::from_secs(3);

/// Why a connection may not enter, or could not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// A rule says no.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// The application does not answer.
    #[error("the application at {address} cannot be reached: {source}")]
    Application {
        /// The pod's address and port.
        address: SocketAddr,
        /// What connect(2) said.
        source: io::Error,
    },
    /// The pod is known to be of this node, and is not enrolled (yet, or any more).
    #[error("the pod {0} of this node is not enrolled yet; see `warren status`")]
    NotEnrolled(Arc<str>),
    /// There are enough.
    #[error(transparent)]
    Limit(#[from] Exceeded),
    /// The stream asks for what is not this pod's.
    #[error("{0}")]
    NotForUs(String),
    /// The pod goes, and the client can go to others.
    #[error("the pod {0} is about to go; there are others")]
    Leaving(Arc<str>),
    /// The address was another pod's, or will be.
    #[error("the connection is meant for another pod than {0}, which has its address now")]
    Misdirected(Arc<str>),
}

/// Why a tunnel was not let in.
#[derive(Debug, thiserror::Error)]
enum TunnelError {
    #[error("the pod's certificate is not to be had: {0}")]
    Credential(#[from] CredentialError),
    #[error("TLS with {0} failed: {1}")]
    Tls(SocketAddr, #[source] io::Error),
    #[error("{0} is no peer: {1}")]
    Peer(SocketAddr, #[source] PeerError),
    #[error("{0} proved to be {1}: {2}")]
    Limit(SocketAddr, Identity, #[source] Exceeded),
    #[error("{0} proved to be {1}, and then: {2}")]
    Http2(SocketAddr, Rc<Identity>, #[source] ServeError),
}

/// Another pod of this node at the door.
#[derive(Debug)]
pub(crate) struct LocalArrival<'a> {
    /// The pod that connects.
    pub source: Arc<Workload>,
    /// Its application's address.
    pub client: SocketAddr,
    /// The pod's address and port.
    pub destination: SocketAddr,
    /// The pod to enter.
    pub workload: Arc<Workload>,
    /// The client's side of the connection, of which nothing has been read; none: it begins with a request.
    pub socket: Option<&'a TcpStream>,
    /// How long its application may take to accept.
    pub patience: Duration,
}

/// A connection of this node inside a pod of this node.
#[derive(Debug)]
pub(crate) struct LocalVisit {
    /// The application's socket.
    pub application: TcpStream,
    /// What ends with it.
    pub guest: LocalGuest,
}

/// What lasts as long as the connection of a [`LocalVisit`].
#[derive(Debug)]
pub(crate) struct LocalGuest {
    /// The inbound flow.
    pub flow: FlowHandle,
    pod: Arc<Pod>,
    admitted: Admitted,
    _ticket: Ticket,
}

impl LocalGuest {
    /// Copies until it is done, or until the permit is lost.
    ///
    /// # Errors
    /// [`Ended`]; the inbound flow is recorded with it.
    pub(crate) async fn hold(
        &mut self,
        copying: impl Future<Output = Result<(), Ended>>,
    ) -> Result<(), Ended> {
        let ended = hold(&self.pod, &mut self.admitted, copying, &self.flow).await;
        if let Err(error @ (Ended::Copy(_) | Ended::Idle(_) | Ended::Gone(_))) = &ended {
            self.flow.fail(error.flag(), error);
        }
        ended
    }
}

impl LocalGuest {
    /// Waits until the permit is lost; the inbound flow is recorded with it.
    pub(crate) async fn evicted(mut self) {
        // Nothing but the loss of the permit ends it.
        let _ = self.hold(std::future::pending()).await;
    }
}

/// Why a connection that stood ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// One side failed.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// It may stay no longer.
    #[error("closed, for the rules have changed: {0}")]
    Evicted(Denial),
    /// It carried nothing for too long.
    #[error(transparent)]
    Idle(Exceeded),
    /// The pod that it had entered is no more.
    #[error("the pod {0} has gone, and with it what was left of its connections")]
    Gone(Arc<str>),
}

impl Ended {
    /// In the short form.
    pub(crate) fn flag(&self) -> FlowFlag {
        match self {
            Self::Copy(_) | Self::Gone(_) => FlowFlag::Other,
            Self::Evicted(_) => FlowFlag::Deny,
            Self::Idle(_) => FlowFlag::Idle,
        }
    }
}

/// Copies until it is done, or until nothing has been carried for too long. The copy stays where it is pinned: it may last for
/// days, and must not be held twice.
pub(crate) async fn unless_idle(
    context: &Context,
    pod: &Pod,
    flow: &FlowHandle,
    copying: Pin<&mut impl Future<Output = Result<(), CopyError>>>,
) -> Result<(), Ended> {
    let limits = &context.node.limits;
    let limit = limits.config().idle_connection;
    if limit.is_zero() {
        return Ok(copying.await?);
    }
    let bytes = Arc::clone(flow.bytes());
    let idle = Box::pin(async move { idle(&bytes, limit).await });
    tokio::select! {
        copied = copying => Ok(copied?),
        () = idle => Err(Ended::Idle(limits.exceeded(&pod.workload.uid, Excess::Idle))),
    }
}

/// Copies for as long as the permit holds and the pod is there.
async fn hold(
    pod: &Pod,
    admitted: &mut Admitted,
    copying: impl Future<Output = Result<(), Ended>>,
    flow: &FlowHandle,
) -> Result<(), Ended> {
    let staying = async {
        tokio::select! {
            copied = copying => copied,
            () = pod.lifetime.cut() => Err(Ended::Gone(Arc::clone(&pod.workload.name))),
        }
    };
    match admitted.hold(staying).await {
        Ok(stayed) => stayed,
        Err(denial) => {
            flow.evicted(&denial.rule(), &denial.policy());
            let ended = Ended::Evicted(denial);
            flow.fail(ended.flag(), &ended);
            Err(ended)
        }
    }
}

/// The HBONE door: one tunnel with all its streams.
pub(crate) async fn serve_hbone(
    context: Rc<Context>,
    pod: Arc<Pod>,
    accepted: Accepted,
    mut open: watch::Receiver<()>,
    handshake: Ticket,
) {
    let remote = accepted.peer;
    let authenticated = Box::pin(authenticate(&context, &pod, accepted, handshake)).await;
    let Authenticated { stream, peer, proof, _ticket } = match authenticated {
        Ok(authenticated) => authenticated,
        Err(error) => return record(&context, &pod, remote, None, &error),
    };
    let tunnel = context.gate.tunnel();
    // The pod's release drops the sender: open streams may finish, new ones go elsewhere.
    let released = async move { while open.changed().await.is_ok() {} };
    let peer = Rc::new(peer);
    let streams = |incoming: Incoming| {
        let (context, pod, peer) = (Rc::clone(&context), Arc::clone(&pod), Rc::clone(&peer));
        let from = TunnelEnd { peer, remote: remote.ip().to_canonical(), tunnel };
        tokio::task::spawn_local(serve_stream(context, pod, from, incoming));
    };
    let excess = |excess| {
        let exceeded = context.node.limits.exceeded(&pod.workload.uid, excess);
        if exceeded.tell {
            let error = TunnelError::Limit(remote, Identity::clone(&peer), exceeded);
            record(&context, &pod, remote, Some(&peer), &error);
        }
    };
    let limits = context.node.limits.config();
    let config = ServeConfig { max_streams: limits.streams_per_tunnel, idle: limits.idle_tunnel };
    let served = tokio::select! {
        () = pod.lifetime.cut() => {
            tracing::debug!(%remote, %peer, "tunnel closed: its pod has gone");
            return;
        }
        served = tunnel::serve(stream, config, released, streams, excess) => served,
        distrusted = context.node.identities.distrust(&proof) => {
            let client = Identity::clone(&peer);
            let denial = Denial::Distrusted { client, why: distrusted.to_string().into() };
            let evicted = context.gate.evict(&pod.workload.enrolment.pod_uid, tunnel, &denial);
            tracing::warn!(%remote, %peer, evicted, %distrusted, "tunnel closed");
            return;
        }
    };
    match served {
        Ok(()) => {}
        // Its streams have said so, each for itself; a tunnel without any has harmed nobody.
        Err(error @ ServeError::Gone(_)) => tracing::debug!(%remote, %peer, %error, "tunnel ended"),
        Err(error) => {
            let error = TunnelError::Http2(remote, Rc::clone(&peer), error);
            record(&context, &pod, remote, Some(&peer), &error);
        }
    }
}

/// A tunnel that is refused before it has a stream is a flow too: somebody knocked.
fn record(context: &Context, pod: &Pod, remote: SocketAddr, peer: Option<&Identity>, error: &TunnelError) {
    let flow = context.node.observer.begin(Direction::Inbound, Some(remote), None);
    flow.destination_workload(&pod.workload);
    flow.transport(Transport::Hbone);
    if let Some(peer) = peer {
        flow.source_identity(peer);
    }
    flow.fail(error.flag(), error);
}

/// A tunnel whose peer has proven who it is.
struct Authenticated {
    stream: tokio_rustls::server::TlsStream<TunnelSocket>,
    peer: Identity,
    proof: Proof,
    _ticket: Ticket,
}

async fn authenticate(
    context: &Context,
    pod: &Pod,
    accepted: Accepted,
    handshake: Ticket,
) -> Result<Authenticated, TunnelError> {
    let remote = accepted.peer;
    let credential = context.node.identities.credential(&pod.workload.identity, CREDENTIAL_DEADLINE).await?;
    let shaking = async {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&credential.server));
        acceptor.accept(for_tunnel(accepted.into_stream()?)).await
    };
    let mut stream = tokio::time::timeout(TLS_DEADLINE, shaking)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| TunnelError::Tls(remote, error))?;
    let peer = peer_identity(stream.get_ref().1.peer_certificates(), &context.node.trust_domain)
        .map_err(|error| TunnelError::Peer(remote, error))?;
    let ticket = context
        .node
        .limits
        .tunnel(&pod.workload.uid, remote.ip())
        .map_err(|exceeded| TunnelError::Limit(remote, peer.clone(), exceeded))?;
    drop(handshake);
    let proof = context.node.identities.proof(stream.get_ref().1.peer_certificates());
    widen(stream.get_mut().1);
    Ok(Authenticated { stream, peer, proof, _ticket: ticket })
}

/// Where streams of one tunnel come from.
struct TunnelEnd {
    peer: Rc<Identity>,
    remote: IpAddr,
    tunnel: TunnelId,
}

/// One stream of a tunnel.
async fn serve_stream(context: Rc<Context>, pod: Arc<Pod>, from: TunnelEnd, mut incoming: Incoming) {
    let TunnelEnd { peer, remote, tunnel } = from;
    let client = believed_client(&context, &peer, remote, incoming.forwarded());
    let destination = incoming.destination();
    let flow =
        context.node.observer.begin(Direction::Inbound, Some(client), destination.as_ref().ok().copied());
    flow.transport(Transport::Hbone);
    flow.source_identity(&peer);
    // Whatever it asks for, this is whose door it knocked at.
    flow.destination_workload(&pod.workload);
    let destination = match destination {
        Ok(destination) if pod.owns(destination.ip()) => destination,
        Ok(other) => {
            let why = Refusal::NotForUs(format!("{other} is not an address of pod {}", pod.workload.name));
            return refuse(&flow, incoming, why);
        }
        Err(error) => return refuse(&flow, incoming, Refusal::NotForUs(error.to_string())),
    };
    if incoming.is_meant_for_another(&pod.workload.enrolment.pod_uid) {
        return refuse(&flow, incoming, Refusal::Misdirected(Arc::clone(&pod.workload.name)));
    }
    if incoming.has_alternatives() && is_leaving(&context, &pod) {
        return refuse(&flow, incoming, Refusal::Leaving(Arc::clone(&pod.workload.name)));
    }
    let _ticket = match context.node.limits.connection(&pod.workload.uid) {
        Ok(ticket) => ticket,
        Err(exceeded) => return refuse(&flow, incoming, exceeded.into()),
    };
    let source = Some(Identity::clone(&peer));
    let arrival = Arrival { pod, source, peer: remote, client, destination, tunnel: Some(tunnel) };
    let hello = async || {
        let mut hello = ClientHello::default();
        let found = incoming.look(|bytes| hello.read(bytes)).await.ok();
        found.map(|found| found.unwrap_or_else(|| hello.end()))
    };
    let entering = enter(&context, &arrival, CONNECT_DEADLINE, &flow, hello);
    let (application, mut admitted) = match Box::pin(entering).await {
        Ok(entered) => entered,
        Err(refusal) => return refuse(&flow, incoming, refusal),
    };
    let meter = Meter::new([Arc::clone(flow.bytes())]);
    let result = match incoming.accept() {
        // A stream that is dropped before its end is reset.
        Ok(stream) => {
            let copying = pin!(copy_tunnel(&application, stream, false, &meter));
            let copying = unless_idle(&context, &arrival.pod, &flow, copying);
            hold(&arrival.pod, &mut admitted, copying, &flow).await
        }
        Err(error) => Err(CopyError::Tunnel(error).into()),
    };
    match result {
        Ok(()) => end(application),
        Err(error) => {
            flow.fail(error.flag(), error);
            reset(application);
        }
    }
}

/// The plaintext door: whoever is not in the mesh.
pub(crate) async fn serve_plaintext(context: Rc<Context>, pod: Arc<Pod>, accepted: Accepted) {
    let client = SocketAddr::new(accepted.peer.ip().to_canonical(), accepted.peer.port());
    let flow = context.node.observer.begin(Direction::Inbound, Some(client), None);
    flow.transport(Transport::Plaintext);
    let socket = match accepted.into_stream() {
        Ok(socket) => socket,
        Err(error) => return flow.fail(FlowFlag::Connect, error),
    };
    match carry_plaintext(&context, pod, client, &socket, &flow).await {
        Ok(()) => end(socket),
        Err((flag, error)) => {
            flow.fail(flag, error);
            reset(socket);
        }
    }
}

async fn carry_plaintext(
    context: &Context,
    pod: Arc<Pod>,
    client: SocketAddr,
    socket: &TcpStream,
    flow: &FlowHandle,
) -> Result<(), (FlowFlag, String)> {
    // The kernel steered the connection here without touching it: its local address is what was dialled.
    let dialled = socket.local_addr().map_err(|error| (FlowFlag::Connect, error.to_string()))?;
    let destination = SocketAddr::new(dialled.ip().to_canonical(), dialled.port());
    flow.destination_address(destination);
    if !pod.owns(destination.ip()) {
        return Err((FlowFlag::Deny, "somebody in the pod dialled the agent's own port".to_owned()));
    }
    let arrival = Arrival { pod, source: None, peer: client.ip(), client, destination, tunnel: None };
    let (application, mut admitted) =
        Box::pin(enter(context, &arrival, CONNECT_DEADLINE, flow, async || hello_of(socket).await))
            .await
            .map_err(|refusal| (refusal.flag(), refusal.to_string()))?;
    let meter = Meter::new([Arc::clone(flow.bytes())]);
    let held = {
        let copying = pin!(copy_sockets(socket, &application, &meter));
        let copying = unless_idle(context, &arrival.pod, flow, copying);
        hold(&arrival.pod, &mut admitted, copying, flow).await
    };
    match held {
        Ok(()) => {
            end(application);
            Ok(())
        }
        Err(error) => {
            reset(application);
            Err((error.flag(), error.to_string()))
        }
    }
}

/// The door between two pods of this node: authorised with both identities, as any other.
///
/// # Errors
/// [`Refusal`]; the inbound flow is recorded with it.
pub(crate) async fn deliver_local(
    context: &Context,
    arrival: LocalArrival<'_>,
) -> Result<LocalVisit, Refusal> {
    let LocalArrival { source, client, destination, workload, socket, patience } = arrival;
    let pod =
        context.node.pods.get(&workload).ok_or_else(|| Refusal::NotEnrolled(Arc::clone(&workload.name)))?;
    let flow = context.node.observer.begin(Direction::Inbound, Some(client), Some(destination));
    flow.transport(Transport::SameNode);
    flow.source_workload(&source);
    flow.source_identity(&source.identity);
    let ticket = context
        .node
        .limits
        .connection(&pod.workload.uid)
        .inspect_err(|exceeded| flow.fail(FlowFlag::Overload, *exceeded))?;
    let source = Some(source.identity.clone());
    let arrival = Arrival { pod, source, peer: client.ip(), client, destination, tunnel: None };
    let hello = async || match socket {
        Some(socket) => hello_of(socket).await,
        None => Some(ClientHello::default().end()),
    };
    match enter(context, &arrival, patience, &flow, hello).await {
        Ok((application, admitted)) => Ok(LocalVisit {
            application,
            guest: LocalGuest { flow, pod: arrival.pod, admitted, _ticket: ticket },
        }),
        Err(refusal) => {
            flow.fail(refusal.flag(), &refusal);
            Err(refusal)
        }
    }
}

/// The server name at the beginning of what a socket has received; None if the connection has failed.
async fn hello_of(socket: &TcpStream) -> Option<ServerName> {
    let mut hello = ClientHello::default();
    let found = peek(socket, ClientHello::LIMIT, |bytes| hello.read(bytes)).await.ok()?;
    Some(found.unwrap_or_else(|| hello.end()))
}

/// Judges the arrival and opens the application's socket. `hello` finds the client's server name, if it has to be known.
async fn enter(
    context: &Context,
    arrival: &Arrival,
    patience: Duration,
    flow: &FlowHandle,
    hello: impl AsyncFnOnce() -> Option<ServerName>,
) -> Result<(TcpStream, Admitted), Refusal> {
    {
        let mesh = context.node.store.guard();
        match mesh.workload_by_ip(arrival.client.ip()) {
            Some(source) => flow.source_workload(source),
            // It has proven who it is; its next connection is recorded with its workload.
            None if arrival.source.is_some() => context.node.interest.used(arrival.client.ip()),
            None => {}
        }
        let workload = mesh.pod(&arrival.pod.workload).unwrap_or(&arrival.pod.workload);
        flow.destination_workload(workload);
    }
    let Arrival { pod, source, peer, client, destination, tunnel } = arrival;
    let mut visitor = Visitor {
        source: source.clone(),
        peer: *peer,
        client: client.ip(),
        destination: *destination,
        tunnel: *tunnel,
        server_name: None,
    };
    let mut judged = context.gate.admit(&pod.workload, visitor.clone()).await;
    if judged.wants_server_name {
        visitor.server_name = match tokio::time::timeout(HELLO_DEADLINE, hello()).await {
            Ok(Some(ServerName::Named(name))) => Some(name),
            // A client that was waited for in vain may yet say any name.
            Ok(Some(ServerName::Unreadable) | None) | Err(_) => None,
        };
        judged = context.gate.admit(&pod.workload, visitor).await;
    }
    let Judged { verdict, dry_run, wants_server_name: _ } = judged;
    if let Some(rule) = &dry_run {
        flow.dry_run(rule);
    }
    let (permit, admitted) = verdict.inspect_err(|denial| flow.denied(&denial.rule(), &denial.policy()))?;
    flow.verdict(Verdict::Allowed, permit.rule());
    if arrival.source.is_some() {
        flow.destination_identity(&arrival.pod.workload.identity);
    }
    let application = open_application(context, arrival, patience, &permit).await?;
    flow.established();
    Ok((application, admitted))
}

/// Connects to the application from inside its own namespace, showing it the client's true address.
async fn open_application(
    context: &Context,
    arrival: &Arrival,
    patience: Duration,
    _permit: &Permit,
) -> Result<TcpStream, Refusal> {
    let address = arrival.destination;
    let failed = |source| Refusal::Application { address, source };
    let socket = arrival.pod.sockets.tcp(address.ip().into()).await.map_err(failed)?;
    context
        .node
        .kernel
        .present_client(socket.as_fd(), arrival.client)
        .map_err(|error| failed(io::Error::other(error)))?;
    connect(socket, address, patience).await.map_err(failed)
}

/// Whether the pod is about to go, as far as its own node knows: it is told of a deletion first of all.
fn is_leaving(context: &Context, pod: &Pod) -> bool {
    let terminates = |pod: &Arc<Workload>| pod.health == Health::Terminating;
    pod.lifetime.is_leaving() || context.node.store.guard().pod(&pod.workload).is_none_or(terminates)
}

/// The client's address: the peer's own on the wire, with the port it names. Another IP than its own (a
/// translated address) is believed only if that IP belongs to a workload with the peer's proven identity.
fn believed_client(
    context: &Context,
    peer: &Identity,
    remote: IpAddr,
    named: Option<(IpAddr, Option<u16>)>,
) -> SocketAddr {
    let Some((ip, port)) = named else { return SocketAddr::new(remote, 0) };
    let believed = ip == remote
        || context.node.store.guard().workload_by_ip(ip).is_some_and(|workload| workload.identity == *peer);
    SocketAddr::new(if believed { ip } else { remote }, port.unwrap_or(0))
}

fn refuse(flow: &FlowHandle, incoming: Incoming, refusal: Refusal) {
    let status = match &refusal {
        Refusal::Denied(_) => StatusCode::UNAUTHORIZED,
        Refusal::Application { .. } | Refusal::NotEnrolled(_) | Refusal::Limit(_) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Refusal::NotForUs(_) => StatusCode::BAD_REQUEST,
        Refusal::Misdirected(_) => StatusCode::MISDIRECTED_REQUEST,
        Refusal::Leaving(_) => {
            incoming.send_elsewhere(&refusal.to_string());
            return flow.fail(refusal.flag(), refusal);
        }
    };
    incoming.refuse(status, &refusal.to_string());
    flow.fail(refusal.flag(), refusal);
}

impl Refusal {
    fn flag(&self) -> FlowFlag {
        match self {
            Self::Denied(_) | Self::NotForUs(_) => FlowFlag::Deny,
            Self::Application { .. } | Self::NotEnrolled(_) | Self::Leaving(_) => FlowFlag::Connect,
            Self::Limit(_) => FlowFlag::Overload,
            Self::Misdirected(_) => FlowFlag::IdentityError,
        }
    }
}

impl TunnelError {
    fn flag(&self) -> FlowFlag {
        match self {
            Self::Credential(_) | Self::Peer(..) => FlowFlag::IdentityError,
            Self::Tls(..) => FlowFlag::TlsFailure,
            Self::Limit(..) => FlowFlag::Overload,
            Self::Http2(..) => FlowFlag::H2HandshakeFailure,
        }
    }
}
