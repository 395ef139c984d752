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
use crate::flow::{Arrival, Hello};
use crate::gate::{Admitted, Judged, TunnelId, Visitor};
use crate::identity::{CredentialError, PeerError, Proof, for_either, peer_identity, widen};
use crate::limits::{Exceeded, Excess, Ticket, idle};
use crate::observe::{FlowFlag, FlowHandle};
use crate::pods::Pod;
use crate::policy::{ClientHello, Denial, Permit, ServerName};
use crate::standing::{Ended, Guest, Span, Standing};
use crate::tunnel::{
    self, CopyError, DEDICATED_ALPN, DedicatedError, DedicatedIncoming, HboneError, Incoming, Meter, Relay,
    ServeConfig, ServeError, Side, TrafficSecrets, copy_tunnel,
};
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
    #[error("{0} proved to be {1}, and then: {2}")]
    Dedicated(SocketAddr, Identity, #[source] DedicatedError),
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
    /// What the TLS that comes to the application begins with.
    pub hello: Hello<'a>,
    /// How long its application may take to accept.
    pub patience: Duration,
}

/// A connection of this node inside a pod of this node.
#[derive(Debug)]
pub(crate) struct LocalVisit {
    /// The application's socket.
    pub application: TcpStream,
    /// What ends with it.
    pub guest: Guest,
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
            Err(Ended::Evicted(denial))
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
    let Authenticated { stream, peer, proof, form } = match authenticated {
        Ok(authenticated) => authenticated,
        Err(error) => return record(&context, &pod, remote, None, &error),
    };
    let _ticket = match form {
        Form::Shared(ticket) => ticket,
        Form::Dedicated(secrets, handshake) => {
            let from = DedicatedEnd { peer, remote, proof, secrets };
            // Boxed, both forms: neither shall have room for the other.
            return Box::pin(serve_dedicated(context, pod, from, stream, handshake)).await;
        }
    };
    let tunnel = context.gate.tunnel();
    // The pod's release drops the sender: open streams may finish, new ones go elsewhere.
    let released = async move { while open.changed().await.is_ok() {} };
    let peer = Rc::new(peer);
    let streams = |incoming: Incoming| {
        let (context, pod, peer) = (Rc::clone(&context), Arc::clone(&pod), Rc::clone(&peer));
        let from = TunnelEnd { peer, remote: remote.ip().to_canonical(), tunnel: Some(tunnel) };
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
        served = Box::pin(tunnel::serve(stream, config, released, streams, excess)) => served,
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
    form: Form,
}

/// Which of the two forms the tunnel has, and what it holds until it ends, or until it has asked for its connection.
enum Form {
    Shared(Ticket),
    Dedicated(Arc<TrafficSecrets>, Ticket),
}

async fn authenticate(
    context: &Context,
    pod: &Pod,
    accepted: Accepted,
    handshake: Ticket,
) -> Result<Authenticated, TunnelError> {
    let remote = accepted.peer;
    let credential = context.node.identities.credential(&pod.workload.identity, CREDENTIAL_DEADLINE).await?;
    let secrets = Arc::new(TrafficSecrets::default());
    let shaking = async {
        let config = for_either(&credential.server, secrets.clone());
        let acceptor = tokio_rustls::TlsAcceptor::from(config);
        acceptor.accept(for_tunnel(accepted.into_stream()?)).await
    };
    let mut stream = tokio::time::timeout(TLS_DEADLINE, shaking)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| TunnelError::Tls(remote, error))?;
    let peer = peer_identity(stream.get_ref().1.peer_certificates(), &context.node.trust_domain)
        .map_err(|error| TunnelError::Peer(remote, error))?;
    let proof = context.node.identities.proof(stream.get_ref().1.peer_certificates());
    if stream.get_ref().1.alpn_protocol() == Some(DEDICATED_ALPN) {
        return Ok(Authenticated { stream, peer, proof, form: Form::Dedicated(secrets, handshake) });
    }
    let ticket = context
        .node
        .limits
        .tunnel(&pod.workload.uid, remote.ip())
        .map_err(|exceeded| TunnelError::Limit(remote, peer.clone(), exceeded))?;
    drop(handshake);
    stream.get_mut().0.release();
    widen(stream.get_mut().1);
    Ok(Authenticated { stream, peer, proof, form: Form::Shared(ticket) })
}

/// Where a tunnel of its own comes from.
struct DedicatedEnd {
    peer: Identity,
    remote: SocketAddr,
    proof: Proof,
    secrets: Arc<TrafficSecrets>,
}

/// A tunnel for one connection. Until it has said which, it counts as a handshake in progress.
async fn serve_dedicated(
    context: Rc<Context>,
    pod: Arc<Pod>,
    from: DedicatedEnd,
    stream: tokio_rustls::server::TlsStream<TunnelSocket>,
    handshake: Ticket,
) {
    let DedicatedEnd { peer, remote, proof, secrets } = from;
    // Boxed, as all of the exchange is: what stands afterwards is small.
    let mut incoming = match Box::pin(DedicatedIncoming::receive(stream)).await {
        Ok(incoming) => incoming,
        Err(error) => {
            let error = TunnelError::Dedicated(remote, peer.clone(), error);
            return record(&context, &pod, remote, Some(&peer), &error);
        }
    };
    let asked = Asked {
        destination: incoming.destination(),
        forwarded: incoming.forwarded(),
        is_meant_for_another: incoming.is_meant_for_another(&pod.workload.enrolment.pod_uid),
        has_alternatives: incoming.has_alternatives(),
    };
    let from = TunnelEnd { peer: Rc::new(peer), remote: remote.ip().to_canonical(), tunnel: None };
    let hello = async || {
        drop(handshake);
        let mut hello = ClientHello::default();
        let found = incoming.look(|bytes| hello.read(bytes)).await.ok();
        found.map(|found| found.unwrap_or_else(|| hello.end()))
    };
    let (flow, arrived) = Box::pin(arrive(&context, Arc::clone(&pod), from, asked, hello)).await;
    let (ticket, application, admitted) = match arrived {
        Ok(arrived) => arrived,
        Err(refusal) => {
            let (status, reason) = (refusal.status(), refusal.to_string());
            let is_leaving = matches!(refusal, Refusal::Leaving(_));
            flow.fail(refusal.flag(), refusal);
            return Box::pin(incoming.refuse(status, &reason, is_leaving)).await;
        }
    };
    match Box::pin(incoming.accept(&secrets, TunnelSocket::into_parts)).await {
        Ok(tunnel) => {
            let meter = Meter::new([Arc::clone(flow.bytes())]);
            let relay = Relay::tunnel(application, tunnel, Side::Server, &meter);
            let proof = Some(Rc::new(proof));
            let guest = Some(Guest { pod: Arc::clone(&pod), admitted, proof, local: None });
            Standing { relay, flow, pod, guest, span: Span::default() }.carry(&context).await;
        }
        Err(error) => {
            flow.fail(FlowFlag::Other, error);
            reset(application);
        }
    }
    drop(ticket);
}

/// Where streams of one tunnel come from.
struct TunnelEnd {
    peer: Rc<Identity>,
    remote: IpAddr,
    /// One with several streams.
    tunnel: Option<TunnelId>,
}

/// What a peer asks for.
struct Asked {
    destination: Result<SocketAddr, HboneError>,
    forwarded: Option<(IpAddr, Option<u16>)>,
    is_meant_for_another: bool,
    has_alternatives: bool,
}

/// One stream of a tunnel.
async fn serve_stream(context: Rc<Context>, pod: Arc<Pod>, from: TunnelEnd, mut incoming: Incoming) {
    let asked = Asked {
        destination: incoming.destination(),
        forwarded: incoming.forwarded(),
        is_meant_for_another: incoming.is_meant_for_another(&pod.workload.enrolment.pod_uid),
        has_alternatives: incoming.has_alternatives(),
    };
    let hello = async || {
        let mut hello = ClientHello::default();
        let found = incoming.look(|bytes| hello.read(bytes)).await.ok();
        found.map(|found| found.unwrap_or_else(|| hello.end()))
    };
    let (flow, arrived) = Box::pin(arrive(&context, Arc::clone(&pod), from, asked, hello)).await;
    let (_ticket, application, mut admitted) = match arrived {
        Ok(arrived) => arrived,
        Err(refusal) => {
            match &refusal {
                Refusal::Leaving(_) => incoming.send_elsewhere(&refusal.to_string()),
                _ => incoming.refuse(refusal.status(), &refusal.to_string()),
            }
            return flow.fail(refusal.flag(), refusal);
        }
    };
    let meter = Meter::new([Arc::clone(flow.bytes())]);
    let result = match incoming.accept() {
        // A stream that is dropped before its end is reset.
        Ok(stream) => {
            let copying = pin!(copy_tunnel(&application, stream, false, &meter));
            let copying = unless_idle(&context, &pod, &flow, copying);
            hold(&pod, &mut admitted, copying, &flow).await
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

/// Whoever comes through a tunnel, in whichever form: all that is checked, and the application's socket. `hello` as for
/// [`enter`].
async fn arrive(
    context: &Context,
    pod: Arc<Pod>,
    from: TunnelEnd,
    asked: Asked,
    hello: impl AsyncFnOnce() -> Option<ServerName>,
) -> (FlowHandle, Result<(Ticket, TcpStream, Admitted), Refusal>) {
    let TunnelEnd { peer, remote, tunnel } = from;
    let client = believed_client(context, &peer, remote, asked.forwarded);
    let destination = asked.destination;
    let flow =
        context.node.observer.begin(Direction::Inbound, Some(client), destination.as_ref().ok().copied());
    flow.transport(Transport::Hbone);
    flow.source_identity(&peer);
    // Whatever it asks for, this is whose door it knocked at.
    flow.destination_workload(&pod.workload);
    let entering = async {
        let destination = match destination {
            Ok(destination) if pod.owns(destination.ip()) => destination,
            Ok(other) => {
                let why = format!("{other} is not an address of pod {}", pod.workload.name);
                return Err(Refusal::NotForUs(why));
            }
            Err(error) => return Err(Refusal::NotForUs(error.to_string())),
        };
        if asked.is_meant_for_another {
            return Err(Refusal::Misdirected(Arc::clone(&pod.workload.name)));
        }
        if asked.has_alternatives && is_leaving(context, &pod) {
            return Err(Refusal::Leaving(Arc::clone(&pod.workload.name)));
        }
        let ticket = context.node.limits.connection(&pod.workload.uid)?;
        let source = Some(Identity::clone(&peer));
        let arrival = Arrival { pod, source, peer: remote, client, destination, tunnel };
        let (application, admitted) = enter(context, &arrival, CONNECT_DEADLINE, &flow, hello).await?;
        Ok((ticket, application, admitted))
    };
    let entered = entering.await;
    (flow, entered)
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
    match enter_plaintext(&context, &pod, client, &socket, &flow).await {
        Ok((application, admitted)) => {
            let relay = Relay::sockets(socket, application);
            let guest = Some(Guest { pod: Arc::clone(&pod), admitted, proof: None, local: None });
            Standing { relay, flow, pod, guest, span: Span::default() }.carry(&context).await;
        }
        Err((flag, error)) => {
            flow.fail(flag, error);
            reset(socket);
        }
    }
}

async fn enter_plaintext(
    context: &Context,
    pod: &Arc<Pod>,
    client: SocketAddr,
    socket: &TcpStream,
    flow: &FlowHandle,
) -> Result<(TcpStream, Admitted), (FlowFlag, String)> {
    // The kernel steered the connection here without touching it: its local address is what was dialled.
    let dialled = socket.local_addr().map_err(|error| (FlowFlag::Connect, error.to_string()))?;
    let destination = SocketAddr::new(dialled.ip().to_canonical(), dialled.port());
    flow.destination_address(destination);
    if !pod.owns(destination.ip()) {
        return Err((FlowFlag::Deny, "somebody in the pod dialled the agent's own port".to_owned()));
    }
    let pod = Arc::clone(pod);
    let arrival = Arrival { pod, source: None, peer: client.ip(), client, destination, tunnel: None };
    // Boxed, as what it needs is gone once entered.
    let entering =
        Box::pin(enter(context, &arrival, CONNECT_DEADLINE, flow, async || hello_of(socket).await));
    entering.await.map_err(|refusal| (refusal.flag(), refusal.to_string()))
}

/// The door between two pods of this node: authorised with both identities, as any other.
///
/// # Errors
/// [`Refusal`]; the inbound flow is recorded with it.
pub(crate) async fn deliver_local(
    context: &Context,
    arrival: LocalArrival<'_>,
) -> Result<LocalVisit, Refusal> {
    let LocalArrival { source, client, destination, workload, hello, patience } = arrival;
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
    let hello = async || match hello {
        Hello::Unread(socket) => hello_of(socket).await,
        Hello::Known(name) => Some(name),
    };
    match enter(context, &arrival, patience, &flow, hello).await {
        Ok((application, admitted)) => Ok(LocalVisit {
            application,
            guest: Guest { pod: arrival.pod, admitted, proof: None, local: Some(Box::new((flow, ticket))) },
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

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Denied(_) => StatusCode::UNAUTHORIZED,
            Self::Application { .. } | Self::NotEnrolled(_) | Self::Limit(_) | Self::Leaving(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::NotForUs(_) => StatusCode::BAD_REQUEST,
            Self::Misdirected(_) => StatusCode::MISDIRECTED_REQUEST,
        }
    }

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
            Self::Http2(..) | Self::Dedicated(..) => FlowFlag::H2HandshakeFailure,
        }
    }
}
