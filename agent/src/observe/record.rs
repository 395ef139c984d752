//! One connection while it is observed: cheap to write, turned into words only when it is read.

use super::labels::ServiceLabels;
use super::metrics::Series;
use super::request::RequestDetails;
use parking_lot::Mutex;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};
use time::OffsetDateTime;
use time::macros::format_description;
use warren_common::model::admin::{Direction, Flow, FlowPeer, FlowRoute, FlowState, Transport, Verdict};
use warren_common::model::{Identity, Workload};

/// Why a connection failed, in the short form of metrics and flow records (ztunnel's `response_flags`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowFlag {
    /// A policy refused it.
    Deny,
    /// The destination could not be reached.
    Connect,
    /// The TLS handshake with the peer failed.
    TlsFailure,
    /// TLS stood, the HTTP/2 handshake of the tunnel failed.
    H2HandshakeFailure,
    /// It timed out the way it does when a NetworkPolicy drops the tunnel's port.
    NetworkPolicy,
    /// There is no usable certificate, or the peer's identity is not the expected one.
    IdentityError,
    /// The service has no healthy endpoint.
    NoHealthyUpstream,
    /// Refused early because a limit was reached.
    Overload,
    /// It carried nothing for too long.
    Idle,
    /// It stood for as long as it may.
    Expired,
    /// No rule holds it.
    NoRoute,
    /// Its rule leads to what does not exist.
    NoCluster,
    /// No TLS with a server outside of the mesh, where its DestinationRule asks for it.
    Outside,
    /// Anything else: a reset in the middle, an I/O error.
    Other,
}

impl FlowFlag {
    /// What metrics and records print. What ztunnel has no flag for uses Envoy's.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "DENY",
            Self::Connect => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::H2HandshakeFailure => "H2_HANDSHAKE_FAILURE",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::IdentityError => "IDENTITY_ERROR",
            Self::NoHealthyUpstream => "UH",
            Self::Overload => "UO",
            Self::Idle => "SI",
            Self::Expired => "DT",
            Self::NoRoute => "NR",
            Self::NoCluster => "NC",
            Self::Outside => "UF",
            Self::Other => "-",
        }
    }
}

/// Bytes of one connection so far, or messages of a request. The copy loop adds, everybody else reads.
#[derive(Debug, Default)]
pub struct ByteCounters {
    /// From client to server.
    pub sent: AtomicU64,
    /// From server to client.
    pub received: AtomicU64,
}

impl ByteCounters {
    /// Bytes (sent, received) so far.
    pub fn totals(&self) -> (u64, u64) {
        (self.sent.load(Relaxed), self.received.load(Relaxed))
    }

    /// What is not among `counted` yet, and is from now on.
    fn beyond(&self, counted: &Self) -> (u64, u64) {
        let (sent, received) = self.totals();
        let sent = sent.saturating_sub(counted.sent.fetch_max(sent, Relaxed));
        (sent, received.saturating_sub(counted.received.fetch_max(received, Relaxed)))
    }
}

/// One end, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    pub(super) address: Option<SocketAddr>,
    pub(super) workload: Option<Arc<Workload>>,
    pub(super) identity: Option<Identity>,
}

/// What the stages have said so far.
#[derive(Clone, Debug)]
pub(super) struct Details {
    pub(super) source: Peer,
    pub(super) destination: Peer,
    pub(super) service: Option<ServiceLabels>,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) transport: Transport,
    pub(super) verdict: Verdict,
    pub(super) policy: Option<Arc<str>>,
    pub(super) dry_run: Option<Arc<str>>,
    pub(super) failure: Option<(FlowFlag, Box<str>)>,
    /// Which rule decided where a connection goes.
    pub(super) route: Option<Box<FlowRoute>>,
    /// Of a request; None for a connection.
    pub(super) request: Option<Box<RequestDetails>>,
    /// Set once, at the end.
    pub(super) duration: Option<Duration>,
}

impl Details {
    /// The flag, also of a connection that was denied without a word about it.
    pub(super) fn flag(&self) -> Option<FlowFlag> {
        match &self.failure {
            Some((flag, _)) => Some(*flag),
            None if self.verdict == Verdict::Denied => Some(FlowFlag::Deny),
            None => None,
        }
    }
}

/// A connection that is observed. Shared by its handle, the table of open flows, the ring and followers.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: u64,
    pub(super) direction: Direction,
    pub(super) start: SystemTime,
    pub(super) started: Instant,
    pub(super) bytes: Arc<ByteCounters>,
    /// What of `bytes` the metrics already have.
    counted: ByteCounters,
    /// gRPC messages of a request.
    pub(super) messages: Arc<ByteCounters>,
    /// What of `messages` the metrics already have.
    counted_messages: ByteCounters,
    /// Set when the connection is established.
    pub(super) series: OnceLock<Arc<Series>>,
    /// Leaves no trace.
    pub(super) discarded: AtomicBool,
    /// Whether it has a socket of its own.
    pub(super) is_connection: bool,
    /// Written by the connection's task, read by people: practically never contended.
    pub(super) details: Mutex<Details>,
}

impl Record {
    pub(super) fn new(
        id: u64,
        direction: Direction,
        source: Option<SocketAddr>,
        destination: Option<SocketAddr>,
    ) -> Self {
        Self {
            id,
            direction,
            start: SystemTime::now(),
            started: Instant::now(),
            bytes: Arc::default(),
            counted: ByteCounters::default(),
            messages: Arc::default(),
            counted_messages: ByteCounters::default(),
            series: OnceLock::new(),
            discarded: AtomicBool::new(false),
            is_connection: true,
            details: Mutex::new(Details {
                source: Peer { address: source, ..Peer::default() },
                destination: Peer { address: destination, ..Peer::default() },
                service: None,
                endpoint: None,
                transport: Transport::None,
                verdict: Verdict::None,
                policy: None,
                dry_run: None,
                failure: None,
                route: None,
                request: None,
                duration: None,
            }),
        }
    }

    /// A request's, on a connection that has a record of its own.
    pub(super) fn of_request(
        id: u64,
        direction: Direction,
        source: Option<SocketAddr>,
        destination: Option<SocketAddr>,
    ) -> Self {
        let mut record = Self::new(id, direction, source, destination);
        record.is_connection = false;
        record.details.get_mut().request = Some(Box::default());
        record
    }

    /// One that another process began: its bytes until now were counted there.
    pub(super) fn resumed(
        id: u64,
        direction: Direction,
        start: SystemTime,
        (sent, received): (u64, u64),
        details: Details,
    ) -> Self {
        let age = SystemTime::now().duration_since(start).unwrap_or_default();
        let now = Instant::now();
        let bytes = || ByteCounters { sent: AtomicU64::new(sent), received: AtomicU64::new(received) };
        Self {
            id,
            direction,
            start,
            started: now.checked_sub(age).unwrap_or(now),
            bytes: Arc::new(bytes()),
            counted: bytes(),
            messages: Arc::default(),
            counted_messages: ByteCounters::default(),
            series: OnceLock::new(),
            discarded: AtomicBool::new(false),
            is_connection: true,
            details: Mutex::new(details),
        }
    }

    /// Gives the metrics the bytes they have not seen yet. Reporter and close may run it at once:
    /// `fetch_max` hands every byte to exactly one of them.
    pub(super) fn count_bytes(&self) {
        let Some(series) = self.series.get() else { return };
        let (sent, received) = self.bytes.beyond(&self.counted);
        series.add_bytes(sent, received);
    }

    /// gRPC messages (of request and response) that the metrics have not seen yet; the same holds for them.
    pub(super) fn new_messages(&self) -> (u64, u64) {
        self.messages.beyond(&self.counted_messages)
    }

    /// The record in words, as it stands. `state` is the reader's: an event "opened" stays one, also when it
    /// is read after the end.
    pub(super) fn to_flow(&self, node: &Arc<str>, state: FlowState) -> Flow {
        let details = self.details.lock().clone();
        let (bytes_sent, bytes_received) = self.bytes.totals();
        let duration = details.duration.unwrap_or_else(|| self.started.elapsed());
        let failed = state == FlowState::Closed;
        let flag = details.flag().filter(|_| failed);
        let flags = match &details.request {
            Some(request) => request.flags_text().into_owned(),
            None => flag.map_or("-", FlowFlag::as_str).to_owned(),
        };
        Flow {
            id: self.id,
            node: node.clone(),
            direction: self.direction,
            state,
            start: rfc3339(self.start),
            duration_ms: duration.as_micros() as f64 / 1000.0,
            source: peer(&details.source),
            destination: FlowPeer {
                service: details.service.as_ref().map(|service| service.hostname.clone()),
                endpoint: details.endpoint,
                ..peer(&details.destination)
            },
            transport: details.transport,
            verdict: details.verdict,
            policy: details.policy,
            dry_run: details.dry_run,
            bytes_sent,
            bytes_received,
            flags,
            error: details.failure.filter(|_| failed).map(|(_, error)| error.into()),
            route: details.route,
            request: details.request.map(|request| Box::new(request.seen)),
        }
    }
}

fn peer(peer: &Peer) -> FlowPeer {
    let workload = peer.workload.as_ref();
    let proven = || peer.identity.as_ref().map(|identity| identity.namespace().into());
    FlowPeer {
        address: peer.address,
        workload: workload.map(|w| w.owner.clone()),
        pod: workload.map(|w| w.name.clone()),
        namespace: workload.map(|w| w.namespace.clone()).or_else(proven),
        identity: peer.identity.clone(),
        service: None,
        endpoint: None,
    }
}

/// The same in milliseconds, as Envoy writes it.
pub(super) fn rfc3339_ms(at: SystemTime) -> String {
    thread_local! {
        /// A second since the epoch, and how it is written.
        static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() {
            *second = since.as_secs();
            *text = OffsetDateTime::from(at).format(format).unwrap_or_default();
        }
        format!("{text}.{:03}Z", since.subsec_millis())
    })
}

/// RFC 3339, UTC, microseconds.
fn rfc3339(at: SystemTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    OffsetDateTime::from(at).format(format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_reads_as_rfc_3339() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_042);
        assert_eq!(rfc3339(at), "2023-11-14T22:13:20.000042Z");
        assert_eq!(rfc3339_ms(at), "2023-11-14T22:13:20.000Z");
    }

    #[test]
    fn a_denial_needs_no_second_word() {
        let record = Record::new(1, Direction::Inbound, None, None);
        record.details.lock().verdict = Verdict::Denied;
        assert_eq!(record.to_flow(&"n".into(), FlowState::Closed).flags, "DENY");
        assert_eq!(record.to_flow(&"n".into(), FlowState::Open).flags, "-");
    }
}
