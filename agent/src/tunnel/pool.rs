//! Tunnels of one worker, shared by the connections that may share them.
//!
//! A tunnel belongs to a pair of pods: its socket has the source pod's address, its certificate the source's
//! identity, and its far end was proven to be the destination pod. So a pool key names both, by UID: a reused
//! IP never finds another pod's tunnel.
//!
//! ```text
//!   absent --open (one at a time per key)--> ready --GOAWAY, error, renewed certificate--> retiring --last stream--> gone
//!                   |                          \--no stream for IDLE--------------------------------------------> gone
//!                   '--one of its pods is gone--> retiring (at once gone, if it has no stream)
//! ```

use super::{
    CONNECTION_WINDOW, HANDSHAKE_DEADLINE, MAX_FRAME, MAX_HEADER_LIST, MAX_STREAMS, STREAM_WINDOW,
    TunnelStream,
};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, StatusCode};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::Instant;
use warren_common::model::{Identity, WorkloadUid};

/// A tunnel without streams is closed after so long.
const IDLE: Duration = Duration::from_secs(60);
/// How often a tunnel is pinged, and how long the answer may take: a dead peer is found out in between.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_DEADLINE: Duration = Duration::from_secs(10);

/// Who may share a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TunnelKey {
    /// The pod that connects.
    pub source: WorkloadUid,
    /// Its `metadata.uid`: the tunnel's socket is in that pod's network namespace.
    pub source_pod_uid: Arc<str>,
    /// The pod that is connected to.
    pub destination: WorkloadUid,
    /// Its `metadata.uid`: a StatefulSet's pod keeps its name when it is made anew.
    pub destination_pod_uid: Arc<str>,
    /// Who must answer.
    pub identity: Identity,
    /// Where.
    pub gateway: SocketAddr,
    /// Generation of the source's certificate: a renewed one gets tunnels of its own.
    pub generation: u64,
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum PoolError<E> {
    /// The tunnel could not be opened.
    #[error(transparent)]
    Open(E),
    /// The HTTP/2 connection failed.
    #[error("HTTP/2 failed: {0}")]
    Http2(#[from] h2::Error),
    /// The peer did not answer.
    #[error("no answer to {0} within {1} s")]
    Silent(&'static str, u64),
    /// The peer refused the stream.
    #[error("the peer refused with {status}{}", .reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default())]
    Refused {
        /// 400 not for this pod, 401 policy, 503 upstream.
        status: StatusCode,
        /// What the peer says.
        reason: Option<String>,
        /// The pod is about to go, and others should be asked first.
        leaving: bool,
    },
}

/// The tunnels of one worker.
#[derive(Debug)]
pub struct Pool {
    entries: RefCell<HashMap<TunnelKey, Rc<Entry>>>,
    open: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Entry {
    /// The peer knows no other form than this one.
    only: Cell<bool>,
    /// Held while a tunnel is opened, so that a burst of connections opens one and not one each.
    opening: tokio::sync::Mutex<()>,
    tunnels: RefCell<Vec<Rc<Tunnel>>>,
}

#[derive(Debug)]
struct Tunnel {
    send: SendRequest<Bytes>,
    streams: Cell<usize>,
    closed: Cell<bool>,
    /// It may be dead: wakes who pings it.
    doubted: Notify,
    /// It may have nothing left to carry: wakes who closes it.
    emptied: Notify,
}

/// One stream's place in its tunnel.
#[derive(Debug)]
pub(super) struct StreamSlot(Rc<Tunnel>);

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        if self.0.closed.get() && self.0.streams.get() == 0 {
            self.0.emptied.notify_one();
        }
    }
}

/// How it stands with the tunnel of a stream, for whoever keeps that for more than one purpose.
#[derive(Debug)]
pub struct Outlook(Rc<Tunnel>);

impl StreamSlot {
    pub(super) fn outlook(&self) -> Outlook {
        Outlook(Rc::clone(&self.0))
    }
}

impl Outlook {
    /// Whether it takes no more streams (GOAWAY, an error, a pod that is gone): those that it has will be cut one day.
    pub fn is_ending(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.0.closed.get() || matches!(self.0.send.clone().poll_ready(&mut cx), Poll::Ready(Err(_)))
    }
}

impl Pool {
    /// An empty pool that counts its open tunnels in `open`.
    pub fn new(open: Arc<AtomicU64>) -> Self {
        Self { entries: RefCell::default(), open }
    }

    /// Opens a stream with `request`, over a tunnel that stands or over a new one from `connect`. The far side has
    /// `patience` to answer, connecting to its application included; a tunnel that is slow to answer is pinged.
    ///
    /// # Errors
    /// [`PoolError`]. A tunnel that is closing before the request was processed is replaced, without an error.
    pub async fn open_stream<S, E>(
        self: &Rc<Self>,
        key: &TunnelKey,
        request: Request<()>,
        patience: Duration,
        connect: impl AsyncFn() -> Result<S, E>,
    ) -> Result<TunnelStream, PoolError<E>>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        loop {
            let (slot, fresh) = match self.ready_slot(key) {
                Some(slot) => (slot, false),
                None => self.new_slot(key, &connect).await?,
            };
            let tunnel = Rc::clone(&slot.0);
            match open(slot, request.clone(), patience).await {
                // The tunnel was closing when we picked it; the request has not been processed. Its open streams go on
                // to their ends, and nobody picks it again: each round takes one tunnel away, so this ends.
                Err(PoolError::Http2(error)) if !fresh && not_processed(&error) => tunnel.closed.set(true),
                result => return result,
            }
        }
    }

    /// Whether the peer, as long as there is a tunnel to it, is known to speak this form only.
    pub fn is_only(&self, key: &TunnelKey) -> bool {
        self.entries.borrow().get(key).is_some_and(|entry| entry.only.get())
    }

    /// The peer picked this form where it was offered the other first.
    pub fn set_only(&self, key: &TunnelKey) {
        if let Some(entry) = self.entries.borrow().get(key) {
            entry.only.set(true);
        }
    }

    /// Closes the tunnels that `is_over` says: those without streams at once, others with their last one.
    pub fn close(&self, is_over: impl Fn(&TunnelKey) -> bool) {
        for (key, entry) in self.entries.borrow().iter() {
            if entry.tunnels.borrow().is_empty() || !is_over(key) {
                continue;
            }
            for tunnel in entry.tunnels.borrow().iter() {
                tunnel.closed.set(true);
                tunnel.emptied.notify_one();
            }
        }
    }

    fn ready_slot(&self, key: &TunnelKey) -> Option<StreamSlot> {
        let entries = self.entries.borrow();
        let tunnels = entries.get(key)?.tunnels.borrow();
        let free = |t: &&Rc<Tunnel>| !t.closed.get() && t.streams.get() < MAX_STREAMS;
        tunnels.iter().filter(free).min_by_key(|t| t.streams.get()).map(Tunnel::slot)
    }

    async fn new_slot<S, E>(
        self: &Rc<Self>,
        key: &TunnelKey,
        connect: &impl AsyncFn() -> Result<S, E>,
    ) -> Result<(StreamSlot, bool), PoolError<E>>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let entry = Rc::clone(self.entries.borrow_mut().entry(key.clone()).or_default());
        let opening = entry.opening.lock().await;
        // Another connection may have opened a tunnel while this one waited.
        if let Some(slot) = self.ready_slot(key) {
            return Ok((slot, false));
        }
        let opened = self.open_tunnel(key, &entry, connect).await;
        drop(opening);
        if opened.is_err() {
            self.forget(key, &entry);
        }
        opened.map(|tunnel| (Tunnel::slot(&tunnel), true))
    }

    async fn open_tunnel<S, E>(
        self: &Rc<Self>,
        key: &TunnelKey,
        entry: &Rc<Entry>,
        connect: &impl AsyncFn() -> Result<S, E>,
    ) -> Result<Rc<Tunnel>, PoolError<E>>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let stream = connect().await.map_err(PoolError::Open)?;
        let handshake = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_header_list_size(MAX_HEADER_LIST as u32)
            .enable_push(false)
            .handshake::<_, Bytes>(stream);
        let (send, connection) = tokio::time::timeout(HANDSHAKE_DEADLINE, handshake)
            .await
            .map_err(|_| PoolError::Silent("the HTTP/2 preface", HANDSHAKE_DEADLINE.as_secs()))??;
        let tunnel = Rc::new(Tunnel {
            send,
            streams: Cell::new(0),
            closed: Cell::new(false),
            doubted: Notify::new(),
            emptied: Notify::new(),
        });
        entry.tunnels.borrow_mut().push(Rc::clone(&tunnel));
        self.open.fetch_add(1, Ordering::Relaxed);
        tokio::task::spawn_local(drive(
            Rc::clone(self),
            key.clone(),
            Rc::clone(entry),
            tunnel.clone(),
            connection,
        ));
        Ok(tunnel)
    }

    fn retire(&self, key: &TunnelKey, entry: &Rc<Entry>, tunnel: &Rc<Tunnel>) {
        tunnel.closed.set(true);
        entry.tunnels.borrow_mut().retain(|other| !Rc::ptr_eq(other, tunnel));
        self.forget(key, entry);
    }

    /// Drops an entry without tunnels that nobody is waiting at.
    fn forget(&self, key: &TunnelKey, entry: &Rc<Entry>) {
        if entry.tunnels.borrow().is_empty() && entry.opening.try_lock().is_ok() {
            let mut entries = self.entries.borrow_mut();
            if entries.get(key).is_some_and(|current| Rc::ptr_eq(current, entry)) {
                entries.remove(key);
            }
        }
    }
}

impl Tunnel {
    fn slot(self: &Rc<Self>) -> StreamSlot {
        self.streams.set(self.streams.get() + 1);
        StreamSlot(Rc::clone(self))
    }
}

async fn open<E>(
    slot: StreamSlot,
    request: Request<()>,
    patience: Duration,
) -> Result<TunnelStream, PoolError<E>> {
    let send = slot.0.send.clone();
    let answer = async {
        let mut send = send.ready().await?;
        let (response, stream) = send.send_request(request, false)?;
        Ok::<_, h2::Error>((response.await?, stream))
    };
    let (response, send) = match tokio::time::timeout(patience, answer).await {
        Ok(answered) => answered?,
        Err(_) => {
            slot.0.doubted.notify_one();
            return Err(PoolError::Silent("CONNECT", patience.as_secs()));
        }
    };
    if response.status() != StatusCode::OK {
        let reason = response.headers().get(super::server::REASON_HEADER);
        let reason = reason.and_then(|reason| reason.to_str().ok()).map(|r| r.chars().take(300).collect());
        let leaving = response.headers().contains_key(super::server::LEAVING_HEADER);
        return Err(PoolError::Refused { status: response.status(), reason, leaving });
    }
    Ok(TunnelStream { send, receive: response.into_body(), ahead: Vec::new(), slot: Some(slot) })
}

/// Whether the peer is certain not to have acted on the request (RFC 9113, 8.7).
fn not_processed(error: &h2::Error) -> bool {
    error.is_go_away() || error.is_io() || error.reason() == Some(h2::Reason::REFUSED_STREAM)
}

/// Moves a tunnel's frames until it ends; pings it, and closes it when it has been idle.
async fn drive<S>(
    pool: Rc<Pool>,
    key: TunnelKey,
    entry: Rc<Entry>,
    tunnel: Rc<Tunnel>,
    mut connection: h2::client::Connection<S, Bytes>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut pings = connection.ping_pong();
    let watch = async {
        let mut idle = Duration::ZERO;
        loop {
            let began = Instant::now();
            tokio::select! {
                () = tokio::time::sleep(PING_EVERY) => {}
                () = tunnel.doubted.notified() => {}
            }
            idle = if tunnel.streams.get() == 0 { idle + began.elapsed() } else { Duration::ZERO };
            if idle >= IDLE {
                return "idle";
            }
            if let Some(pings) = pings.as_mut() {
                match tokio::time::timeout(PING_DEADLINE, pings.ping(h2::Ping::opaque())).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) | Err(_) => return "no answer to a ping",
                }
            }
        }
    };
    let emptied = async {
        loop {
            tunnel.emptied.notified().await;
            if tunnel.closed.get() && tunnel.streams.get() == 0 {
                return "nothing will go through it any more";
            }
        }
    };
    tokio::select! {
        why = emptied => tracing::debug!(gateway = %key.gateway, why, "tunnel closed"),
        ended = &mut connection => {
            if let Err(error) = ended {
                tracing::debug!(gateway = %key.gateway, %error, "tunnel ended");
            }
        }
        why = watch => tracing::debug!(gateway = %key.gateway, why, "tunnel closed"),
    }
    pool.retire(&key, &entry, &tunnel);
    pool.open.fetch_sub(1, Ordering::Relaxed);
}
