//! Connections that stand, on their way from an agent to its successor.
//!
//! ```text
//!   predecessor                                       successor
//!     workload (each once), flow, its two sockets ------->
//!     the flow's bytes, in packets ---------------------->
//!     (the flow is frozen)                               (one more flow)
//!     <-------------------------------------------- moved
//!     forgets it, without closing                         judges and copies on
//! ```
//!
//! The predecessor never copies on after the sockets have left: until it hears `moved` the flow has no owner, and if it
//! never does, it resets the flow, whoever else may still hold the sockets. So a flow has one owner or is reset.

use crate::identity::MovedProof;
use crate::observe::MovedFlow;
use crate::tunnel::{ChannelState, RelayState, Secret, Side, Way};
use bytes::Bytes;
use rustix::fd::OwnedFd;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use warren_common::model::{Identity, Workload, WorkloadUid};
use zeroize::Zeroizing;

/// Flows that wait to be sent; more wait in their own tasks.
const QUEUE: usize = 64;
/// Bytes of one flow: what both directions have read and not written, records that are not whole, certificates.
pub(super) const MAX_TAIL: usize = 1 << 20;

/// What is said of a flow. What is long or secret follows as bytes, in the order in which it is named here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowMessage {
    /// Its record.
    pub flow: MovedFlow,
    /// The pod whose connection it is.
    pub pod: WorkloadUid,
    /// Its `metadata.uid`: another pod may have its name by now. Empty, if an agent of before does not say it: not checked.
    #[serde(default)]
    pub pod_uid: Arc<str>,
    /// Who is inside a pod of this node, if somebody is.
    pub guest: Option<GuestMessage>,
    up: WayMessage,
    down: WayMessage,
    tunnel: Option<TunnelMessage>,
    /// What the peer proved itself with: when, in seconds since 1970, and the lengths of its certificates.
    proof: Option<(u64, Vec<usize>)>,
    /// How long it may still stand.
    #[serde(default)]
    pub span: SpanLeft,
}

/// How long a connection may stand; none: there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpanLeft {
    /// Without a byte.
    pub idle_ms: Option<u64>,
    /// From now.
    pub left_ms: Option<u64>,
}

/// Who is inside a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestMessage {
    /// The pod.
    pub pod: WorkloadUid,
    /// Its `metadata.uid`, as in [`FlowMessage`].
    #[serde(default)]
    pub pod_uid: Arc<str>,
    /// As in [`Visitor`](crate::gate::Visitor).
    pub source: Option<Identity>,
    /// The same.
    pub peer: IpAddr,
    /// The same.
    pub client: IpAddr,
    /// The same.
    pub destination: SocketAddr,
    /// The same.
    #[serde(default)]
    pub server_name: Option<Arc<str>>,
    /// The second record, where both pods are of this node.
    pub local: Option<MovedFlow>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WayMessage {
    ended: bool,
    passed_on: bool,
    rest: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TunnelMessage {
    client_is_socket: bool,
    suite: u16,
    seal: u64,
    open: u64,
    owed: bool,
    /// Of each secret.
    secret: usize,
    partial: usize,
    message: usize,
}

/// Puts a flow into words. `pod`: its name and its `metadata.uid`.
pub fn describe(
    flow: MovedFlow,
    (pod, pod_uid): (WorkloadUid, Arc<str>),
    guest: Option<GuestMessage>,
    relay: &RelayState,
    proof: Option<MovedProof>,
    span: SpanLeft,
) -> (FlowMessage, Zeroizing<Vec<u8>>) {
    let mut tail = Vec::new();
    let mut way = |way: &Way| {
        tail.extend_from_slice(&way.rest);
        WayMessage { ended: way.ended, passed_on: way.passed_on, rest: way.rest.len() }
    };
    let (up, down) = (way(&relay.up), way(&relay.down));
    // Secrets must not be left behind in memory that the tail has outgrown.
    let mut tail = {
        let mut roomy = Vec::with_capacity(tail.len() + 256 + (64 << 10));
        roomy.append(&mut tail);
        Zeroizing::new(roomy)
    };
    let mut proof_bytes = Vec::new();
    let tunnel = relay.tunnel.as_ref().map(|(side, channel)| {
        tail.reserve(256 + channel.partial.len() + channel.message.len());
        for secret in [&channel.seal.0, &channel.open.0] {
            tail.extend_from_slice(secret.expose());
        }
        tail.extend_from_slice(&channel.partial);
        tail.extend_from_slice(&channel.message);
        TunnelMessage {
            client_is_socket: *side == Side::Client,
            suite: channel.suite,
            seal: channel.seal.1,
            open: channel.open.1,
            owed: channel.owed,
            secret: channel.seal.0.expose().len(),
            partial: channel.partial.len(),
            message: channel.message.len(),
        }
    });
    let proof = proof.map(|proof| {
        let lengths = proof.chain.iter().map(Bytes::len).collect();
        proof.chain.iter().for_each(|one| proof_bytes.extend_from_slice(one));
        (proof.at, lengths)
    });
    if tail.capacity() - tail.len() < proof_bytes.len() {
        let mut roomy = Zeroizing::new(Vec::with_capacity(tail.len() + proof_bytes.len()));
        roomy.extend_from_slice(&tail);
        tail = roomy;
    }
    tail.extend_from_slice(&proof_bytes);
    (FlowMessage { flow, pod, pod_uid, guest, up, down, tunnel, proof, span }, tail)
}

impl FlowMessage {
    /// What copying knows, and the peer's proof. None: the bytes are not what the message says.
    pub fn parts(&self, tail: &[u8]) -> Option<(RelayState, Option<MovedProof>)> {
        let mut left = tail;
        let mut take = |length: usize| {
            let (taken, rest) = left.split_at_checked(length)?;
            left = rest;
            Some(taken)
        };
        let mut way = |way: WayMessage| {
            let rest = Bytes::copy_from_slice(take(way.rest)?);
            Some(Way { rest, ended: way.ended, passed_on: way.passed_on })
        };
        let (up, down) = (way(self.up)?, way(self.down)?);
        let tunnel = match self.tunnel {
            None => None,
            Some(tunnel) => {
                let seal = (Secret::new(take(tunnel.secret)?)?, tunnel.seal);
                let open = (Secret::new(take(tunnel.secret)?)?, tunnel.open);
                let partial = Bytes::copy_from_slice(take(tunnel.partial)?);
                let message = Bytes::copy_from_slice(take(tunnel.message)?);
                let side = if tunnel.client_is_socket { Side::Client } else { Side::Server };
                let channel =
                    ChannelState { suite: tunnel.suite, seal, open, partial, message, owed: tunnel.owed };
                Some((side, channel))
            }
        };
        let proof = match &self.proof {
            None => None,
            Some((at, lengths)) => {
                let chain = lengths.iter().map(|length| take(*length).map(Bytes::copy_from_slice));
                Some(MovedProof { at: *at, chain: chain.collect::<Option<_>>()? })
            }
        };
        left.is_empty().then_some((RelayState { up, down, tunnel }, proof))
    }
}

/// What became of a flow that was to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The successor has it.
    Moved,
    /// It has not left: it goes on here.
    Stays,
    /// Its sockets have left and nobody has said that they arrived: to be reset.
    Lost,
}

/// A frozen flow. Whoever drops it tells the flow its fate as far as it is known then.
pub struct Departure {
    /// Its description.
    pub message: FlowMessage,
    /// Secrets and bytes.
    pub tail: Zeroizing<Vec<u8>>,
    /// The client's and the server's.
    pub sockets: [OwnedFd; 2],
    /// The workloads that it names.
    pub workloads: Vec<Arc<Workload>>,
    fate: Fate,
    told: Option<oneshot::Sender<Fate>>,
}

impl Departure {
    /// A flow that has not left, and where it hears what becomes of it.
    pub fn new(
        (message, tail): (FlowMessage, Zeroizing<Vec<u8>>),
        sockets: [OwnedFd; 2],
        workloads: Vec<Arc<Workload>>,
    ) -> (Self, oneshot::Receiver<Fate>) {
        let (told, fate) = oneshot::channel();
        (Self { message, tail, sockets, workloads, fate: Fate::Stays, told: Some(told) }, fate)
    }

    pub(super) fn is(&mut self, fate: Fate) {
        self.fate = fate;
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        if let Some(told) = self.told.take() {
            // A flow that does not listen has ended meanwhile.
            let _ = told.send(self.fate);
        }
    }
}

impl fmt::Debug for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Departure").field("message", &self.message).finish_non_exhaustive()
    }
}

/// A flow that has come from the predecessor.
pub struct ArrivedFlow {
    /// Its description.
    pub message: FlowMessage,
    /// Secrets and bytes.
    pub tail: Zeroizing<Vec<u8>>,
    /// The client's and the server's.
    pub sockets: [OwnedFd; 2],
    /// The workloads that were named until now.
    pub workloads: Arc<HashMap<WorkloadUid, Arc<Workload>>>,
}

impl fmt::Debug for ArrivedFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArrivedFlow").field("message", &self.message).finish_non_exhaustive()
    }
}

/// The way out for flows: closed until a successor takes them.
#[derive(Clone, Debug)]
pub struct Exits(watch::Sender<Option<mpsc::Sender<Departure>>>);

/// One flow's view of [`Exits`].
#[derive(Clone, Debug)]
pub struct Exit {
    way: watch::Receiver<Option<mpsc::Sender<Departure>>>,
    not_before: Option<Instant>,
}

/// How long a flow that could not leave goes on before it tries again.
const REST: Duration = Duration::from_secs(1);

impl Default for Exits {
    fn default() -> Self {
        Self(watch::channel(None).0)
    }
}

impl Exits {
    /// For one more flow.
    pub fn exit(&self) -> Exit {
        Exit { way: self.0.subscribe(), not_before: None }
    }

    /// Whether no flow stands.
    pub(super) fn is_unused(&self) -> bool {
        self.0.receiver_count() == 0
    }

    /// Tells all flows, and those that stand later, to come.
    pub(super) fn open(&self) -> mpsc::Receiver<Departure> {
        let (way, departures) = mpsc::channel(QUEUE);
        self.0.send_replace(Some(way));
        departures
    }

    /// No more: who has not left stays.
    pub(super) fn close(&self) {
        self.0.send_replace(None);
    }
}

impl Exit {
    /// The flow could not leave: it waits a second before it wants to again.
    pub fn rest(&mut self) {
        self.not_before = Some(Instant::now() + REST);
    }

    /// Waits until flows are to go, and then until there is room for one more. May be dropped and called again.
    pub async fn wait(&mut self) -> mpsc::OwnedPermit<Departure> {
        if let Some(not_before) = self.not_before {
            tokio::time::sleep_until(not_before).await;
            self.not_before = None;
        }
        loop {
            let way = match self.way.wait_for(|way| way.as_ref().is_some_and(|way| !way.is_closed())).await {
                Ok(way) => way.clone(),
                // The agent ends.
                Err(_) => std::future::pending().await,
            };
            if let Some(way) = way
                && let Ok(room) = way.reserve_owned().await
            {
                return room;
            }
            tokio::task::yield_now().await;
        }
    }
}
