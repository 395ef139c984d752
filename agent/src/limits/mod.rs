//! How much may be open at a time: of a pod, of who calls it, of the node. Beyond that is refused at once, before it
//! has cost anything, counted, and told in a flow (ten times per second and pod at most: a flood must not become one of
//! records).
//!
//! A peer's own limits keep one caller, be it hostile, from using up what a pod can take from all. What was let in and then
//! says nothing ends by [`idle`], where that is asked for.

mod idle;
mod ledger;

pub use idle::idle;

use ledger::{Kind, Ledger};
use parking_lot::Mutex;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use warren_common::model::WorkloadUid;

/// The limits. Each may be 0: nothing then; a time of 0 never comes.
#[derive(Clone, Copy, Debug)]
pub struct LimitsConfig {
    /// Applications' connections of one pod, in and out.
    pub connections_per_pod: usize,
    /// The same of all pods of the node.
    pub connections_per_node: usize,
    /// TLS handshakes in progress that one address has begun with one pod.
    pub handshakes_per_peer: usize,
    /// The same of all addresses.
    pub handshakes_per_pod: usize,
    /// The same with all pods of the node.
    pub handshakes_per_node: usize,
    /// Authenticated tunnels from one address into one pod. An agent opens one for 256 connections and worker.
    pub tunnels_per_peer: usize,
    /// The same of all addresses.
    pub tunnels_per_pod: usize,
    /// Open streams of one tunnel into a pod. An agent opens another tunnel at 256.
    pub streams_per_tunnel: usize,
    /// Requests of one pod's applications that are under way (only where rules make us look into them).
    pub requests_per_pod: usize,
    /// The same of all pods of the node.
    pub requests_per_node: usize,
    /// Bytes of one pod's requests that are kept so that they can be sent again, or copied. A request that finds no room is sent
    /// once.
    pub kept_bytes_per_pod: usize,
    /// The same of all pods of the node.
    pub kept_bytes_per_node: usize,
    /// Bytes that the HTTP/2 connections of one pod's applications, and those to its endpoints, may bring before anybody reads
    /// them. A connection that finds no room gets a small window, in which requests wait for each other.
    pub unread_bytes_per_pod: usize,
    /// The same of all pods of the node.
    pub unread_bytes_per_node: usize,
    /// An application's connection that carries no byte for so long is ended. 0: it may be silent for ever, as it may
    /// without a mesh.
    pub idle_connection: Duration,
    /// A tunnel into a pod that has no stream for so long is closed in order. An agent closes its own after 60 s.
    pub idle_tunnel: Duration,
}

impl LimitsConfig {
    /// Far above what well-behaved pods need, and well below what would end the agent.
    pub const DEFAULT: Self = Self {
        connections_per_pod: 32_768,
        connections_per_node: 131_072,
        handshakes_per_peer: 64,
        handshakes_per_pod: 512,
        handshakes_per_node: 4_096,
        tunnels_per_peer: 256,
        tunnels_per_pod: 8_192,
        streams_per_tunnel: 256,
        requests_per_pod: 8_192,
        requests_per_node: 32_768,
        kept_bytes_per_pod: 64 << 20,
        kept_bytes_per_node: 256 << 20,
        unread_bytes_per_pod: 256 << 20,
        unread_bytes_per_node: 1 << 30,
        idle_connection: Duration::ZERO,
        idle_tunnel: Duration::from_secs(300),
    };
}

/// One of [`LimitsConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Limit {
    ConnectionsPerPod,
    ConnectionsPerNode,
    HandshakesPerPeer,
    HandshakesPerPod,
    HandshakesPerNode,
    TunnelsPerPeer,
    TunnelsPerPod,
    StreamsPerTunnel,
    RequestsPerPod,
    RequestsPerNode,
    KeptBytesPerPod,
    KeptBytesPerNode,
    UnreadBytesPerPod,
    UnreadBytesPerNode,
    HeaderSize,
    HeaderCount,
    TargetSize,
    MalformedRequest,
    IdleConnection,
}

impl Limit {
    const ALL: [Self; 19] = [
        Self::ConnectionsPerPod,
        Self::ConnectionsPerNode,
        Self::HandshakesPerPeer,
        Self::HandshakesPerPod,
        Self::HandshakesPerNode,
        Self::TunnelsPerPeer,
        Self::TunnelsPerPod,
        Self::StreamsPerTunnel,
        Self::RequestsPerPod,
        Self::RequestsPerNode,
        Self::KeptBytesPerPod,
        Self::KeptBytesPerNode,
        Self::UnreadBytesPerPod,
        Self::UnreadBytesPerNode,
        Self::HeaderSize,
        Self::HeaderCount,
        Self::TargetSize,
        Self::MalformedRequest,
        Self::IdleConnection,
    ];

    /// Those that hold for one kind: of the peer, of the pod, of the node.
    fn of(kind: Kind) -> [Option<Self>; 3] {
        match kind {
            Kind::Connection => [None, Some(Self::ConnectionsPerPod), Some(Self::ConnectionsPerNode)],
            Kind::Handshake(_) => {
                [Some(Self::HandshakesPerPeer), Some(Self::HandshakesPerPod), Some(Self::HandshakesPerNode)]
            }
            Kind::Tunnel(_) => [Some(Self::TunnelsPerPeer), Some(Self::TunnelsPerPod), None],
            Kind::Request => [None, Some(Self::RequestsPerPod), Some(Self::RequestsPerNode)],
            Kind::Kept => [None, Some(Self::KeptBytesPerPod), Some(Self::KeptBytesPerNode)],
            Kind::Unread => [None, Some(Self::UnreadBytesPerPod), Some(Self::UnreadBytesPerNode)],
        }
    }

    /// Its name in metrics.
    const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionsPerPod => "connections_per_pod",
            Self::ConnectionsPerNode => "connections_per_node",
            Self::HandshakesPerPeer => "handshakes_per_peer",
            Self::HandshakesPerPod => "handshakes_per_pod",
            Self::HandshakesPerNode => "handshakes_per_node",
            Self::TunnelsPerPeer => "tunnels_per_peer",
            Self::TunnelsPerPod => "tunnels_per_pod",
            Self::StreamsPerTunnel => "streams_per_tunnel",
            Self::RequestsPerPod => "requests_per_pod",
            Self::RequestsPerNode => "requests_per_node",
            Self::KeptBytesPerPod => "kept_bytes_per_pod",
            Self::KeptBytesPerNode => "kept_bytes_per_node",
            Self::UnreadBytesPerPod => "unread_bytes_per_pod",
            Self::UnreadBytesPerNode => "unread_bytes_per_node",
            Self::HeaderSize => "header_size",
            Self::HeaderCount => "header_count",
            Self::TargetSize => "target_size",
            Self::MalformedRequest => "malformed_request",
            Self::IdleConnection => "idle_connection",
        }
    }

    /// What there are too many of, and the agent's flag.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::ConnectionsPerPod => ("connections of this pod", "max-connections-per-pod"),
            Self::ConnectionsPerNode => ("connections on this node", "max-connections-per-node"),
            Self::HandshakesPerPeer => {
                ("TLS handshakes of this peer with this pod", "max-handshakes-per-peer")
            }
            Self::HandshakesPerPod => ("TLS handshakes with this pod", "max-handshakes-per-pod"),
            Self::HandshakesPerNode => ("TLS handshakes on this node", "max-handshakes-per-node"),
            Self::TunnelsPerPeer => ("tunnels from this peer into this pod", "max-tunnels-per-peer"),
            Self::TunnelsPerPod => ("tunnels into this pod", "max-tunnels-per-pod"),
            Self::StreamsPerTunnel => ("streams of this tunnel", "max-streams-per-tunnel"),
            Self::RequestsPerPod => ("requests of this pod", "max-requests-per-pod"),
            Self::RequestsPerNode => ("requests on this node", "max-requests-per-node"),
            Self::KeptBytesPerPod => ("bytes of this pod's requests to send again", "max-kept-bytes-per-pod"),
            Self::KeptBytesPerNode => ("bytes of requests to send again", "max-kept-bytes-per-node"),
            Self::UnreadBytesPerPod => ("unread bytes of this pod's requests", "max-unread-bytes-per-pod"),
            Self::UnreadBytesPerNode => ("unread bytes of requests", "max-unread-bytes-per-node"),
            Self::HeaderSize => ("bytes of headers of a request", ""),
            Self::HeaderCount => ("headers of a request", ""),
            Self::TargetSize => ("bytes of a request's target", ""),
            Self::MalformedRequest => ("bytes of headers of a request, or it is malformed", ""),
            Self::IdleConnection => ("seconds without a byte", "idle-timeout"),
        }
    }
}

/// What only shows when it has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// A peer opened more streams in a tunnel than it may.
    Streams,
    /// A peer's request had more bytes of headers than this.
    Headers(usize),
    /// A client's request had more headers than this.
    HeaderCount(usize),
    /// A client's request had a longer target than this, in bytes.
    Target(usize),
    /// As [`Headers`](Self::Headers) with far more bytes, of which only so many are read; or it was malformed.
    Malformed(usize),
    /// A connection carried no byte for too long.
    Idle,
}

impl LimitsConfig {
    fn get(&self, limit: Limit) -> usize {
        match limit {
            Limit::ConnectionsPerPod => self.connections_per_pod,
            Limit::ConnectionsPerNode => self.connections_per_node,
            Limit::HandshakesPerPeer => self.handshakes_per_peer,
            Limit::HandshakesPerPod => self.handshakes_per_pod,
            Limit::HandshakesPerNode => self.handshakes_per_node,
            Limit::TunnelsPerPeer => self.tunnels_per_peer,
            Limit::TunnelsPerPod => self.tunnels_per_pod,
            Limit::StreamsPerTunnel => self.streams_per_tunnel,
            Limit::RequestsPerPod => self.requests_per_pod,
            Limit::RequestsPerNode => self.requests_per_node,
            Limit::KeptBytesPerPod => self.kept_bytes_per_pod,
            Limit::KeptBytesPerNode => self.kept_bytes_per_node,
            Limit::UnreadBytesPerPod => self.unread_bytes_per_pod,
            Limit::UnreadBytesPerNode => self.unread_bytes_per_node,
            Limit::HeaderSize | Limit::HeaderCount | Limit::TargetSize | Limit::MalformedRequest => 0,
            Limit::IdleConnection => self.idle_connection.as_secs() as usize,
        }
    }
}

/// A limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    limit: Limit,
    allowed: usize,
    /// Whether to tell; the others are only counted.
    pub tell: bool,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, allowed, tell: _ } = self;
        let (what, flag) = limit.words();
        match limit {
            Limit::HeaderSize | Limit::HeaderCount | Limit::TargetSize | Limit::MalformedRequest => {
                write!(f, "too many {what}: no more than {allowed} are taken")
            }
            Limit::IdleConnection => write!(f, "ended after {allowed} {what} (the agent's --{flag})"),
            Limit::KeptBytesPerPod
            | Limit::KeptBytesPerNode
            | Limit::UnreadBytesPerPod
            | Limit::UnreadBytesPerNode => {
                write!(f, "too many {what}: no more than {allowed} are kept (the agent's --{flag})")
            }
            _ => write!(f, "too many {what}: {allowed} are open and no more may be (the agent's --{flag})"),
        }
    }
}

impl std::error::Error for Exceeded {}

/// The node's books; clones share them.
#[derive(Clone, Debug)]
pub struct Limits(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: LimitsConfig,
    ledger: Mutex<Ledger>,
    started: Instant,
}

/// One that is open; dropping it gives it back.
#[derive(Debug)]
pub struct Ticket {
    limits: Limits,
    pod: WorkloadUid,
    kind: Kind,
    amount: usize,
}

/// The books as far as one pod goes.
#[derive(Clone, Copy, Debug)]
pub struct OfPod<'a> {
    limits: &'a Limits,
    pod: &'a WorkloadUid,
}

impl OfPod<'_> {
    /// A request of its application.
    ///
    /// # Errors
    /// [`Exceeded`]
    pub fn request(&self) -> Result<Ticket, Exceeded> {
        self.limits.take(self.pod, Kind::Request, 1)
    }

    /// So many bytes of a request, to send them again.
    ///
    /// # Errors
    /// [`Exceeded`]
    pub fn keep(&self, bytes: usize) -> Result<Ticket, Exceeded> {
        self.limits.take(self.pod, Kind::Kept, bytes)
    }

    /// So many bytes that a connection may bring before anybody reads them.
    ///
    /// # Errors
    /// [`Exceeded`]
    pub fn unread(&self, bytes: usize) -> Result<Ticket, Exceeded> {
        self.limits.take(self.pod, Kind::Unread, bytes)
    }

    /// Counts what could not be refused at the door.
    pub fn exceeded(&self, excess: Excess) -> Exceeded {
        self.limits.exceeded(self.pod, excess)
    }
}

impl Limits {
    /// Books in which nothing is open.
    pub fn new(config: LimitsConfig) -> Self {
        let ledger = Mutex::new(Ledger::new(config));
        Self(Arc::new(Shared { config, ledger, started: Instant::now() }))
    }

    /// Those of one pod.
    pub fn of<'a>(&'a self, pod: &'a WorkloadUid) -> OfPod<'a> {
        OfPod { limits: self, pod }
    }

    /// A connection of an application.
    ///
    /// # Errors
    /// [`Exceeded`]
    pub fn connection(&self, pod: &WorkloadUid) -> Result<Ticket, Exceeded> {
        self.take(pod, Kind::Connection, 1)
    }

    /// A handshake that `peer` has begun.
    ///
    /// # Errors
    /// [`Exceeded`]
    pub fn handshake(&self, pod: &WorkloadUid, peer: IpAddr) -> Result<Ticket, Exceeded> {
        self.take(pod, Kind::Handshake(peer.to_canonical()), 1)
    }

    /// A tunnel of `peer`, which has proven who it is.
    ///
    /// # Errors
    /// [`Exceeded`]
    pub fn tunnel(&self, pod: &WorkloadUid, peer: IpAddr) -> Result<Ticket, Exceeded> {
        self.take(pod, Kind::Tunnel(peer.to_canonical()), 1)
    }

    /// Counts what could not be refused at the door.
    pub fn exceeded(&self, pod: &WorkloadUid, excess: Excess) -> Exceeded {
        let limit = match excess {
            Excess::Streams => Limit::StreamsPerTunnel,
            Excess::Headers(_) => Limit::HeaderSize,
            Excess::HeaderCount(_) => Limit::HeaderCount,
            Excess::Target(_) => Limit::TargetSize,
            Excess::Malformed(_) => Limit::MalformedRequest,
            Excess::Idle => Limit::IdleConnection,
        };
        let allowed = match excess {
            Excess::Headers(allowed)
            | Excess::HeaderCount(allowed)
            | Excess::Target(allowed)
            | Excess::Malformed(allowed) => allowed,
            Excess::Streams | Excess::Idle => self.0.config.get(limit),
        };
        let now = self.0.started.elapsed().as_secs();
        Exceeded { limit, allowed, tell: self.0.ledger.lock().exceeded(pod, limit, now) }
    }

    /// The limits themselves.
    pub fn config(&self) -> &LimitsConfig {
        &self.0.config
    }

    /// Refusals so far, by limit.
    pub fn refused(&self) -> Vec<(&'static str, u64)> {
        self.0.ledger.lock().refused()
    }

    fn take(&self, pod: &WorkloadUid, kind: Kind, amount: usize) -> Result<Ticket, Exceeded> {
        let now = self.0.started.elapsed().as_secs();
        self.0.ledger.lock().take(pod, kind, amount, now).map_err(|refused| {
            let allowed = self.0.config.get(refused.limit);
            Exceeded { limit: refused.limit, allowed, tell: refused.tell }
        })?;
        Ok(Ticket { limits: self.clone(), pod: pod.clone(), kind, amount })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.limits.0.ledger.lock().give_back(&self.pod, self.kind, self.amount);
    }
}
