//! One connection to an endpoint, and the task that moves its bytes.

use super::super::io::{BoxIo, Heard, OnWorker, Rewound, close};
use super::super::limits::{CONNECTION_WINDOW, MAX_HEAD, MAX_HEADERS, MAX_SHARED, STREAM_WINDOW};
use super::super::replay::Outgoing;
use super::super::sever::Severable;
use super::Terms;
use super::settle::{Read, Reads};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::TokioIo;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// A connection to an endpoint on which nothing was said yet.
pub(crate) struct Opened {
    /// Its bytes.
    pub(crate) io: BoxIo,
    /// Ends when the connection has to: its client lost the permit to be there. What must last as long as the connection
    /// belongs to it.
    pub(crate) evicted: Pin<Box<dyn Future<Output = ()>>>,
    /// Told what it does: `evicted` may end when it waits for requests, and somebody else needs its place.
    pub(crate) phase: watch::Sender<Phase>,
    /// Whether it is to end: it gets no more requests. It will be cut one day, or somebody else needs its place.
    pub(crate) is_ending: Box<dyn Fn() -> bool>,
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It carries requests, or another protocol.
    Busy,
    /// It waits for requests.
    Idle,
    /// It carries nothing any more: its last bytes may still be on their way.
    Over,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").finish_non_exhaustive()
    }
}

/// A connection that has become another protocol's.
pub(crate) struct Switched {
    /// Its bytes.
    pub(crate) io: Rewound<BoxIo>,
    /// Still ends when the connection has to, and still owns what must last as long: see [`Opened::evicted`].
    pub(crate) evicted: Pin<Box<dyn Future<Output = ()>>>,
}

/// Where the connection is put once it has switched.
type SwitchSlot = Rc<RefCell<Option<oneshot::Sender<Switched>>>>;

/// An HTTP/1.1 connection.
pub(super) struct H1 {
    sender: http1::SendRequest<Outgoing>,
    switch: SwitchSlot,
    life: Life,
}

/// An HTTP/2 connection.
pub(super) struct H2 {
    sender: RefCell<http2::SendRequest<Outgoing>>,
    /// Its task owns it, and ends with it.
    driven: Weak<RefCell<Driven>>,
    reads: Rc<Reads>,
    life: Life,
}

/// What hands requests to an HTTP/2 connection.
type Driven = http2::Connection<TokioIo<Read<Severable<BoxIo>>>, Outgoing, OnWorker>;

/// Requests at a time, before the endpoint has said how many.
const UNKNOWN: usize = 0;

/// How long a connection has been there, what for, and whether it has anything to do.
struct Life {
    born: Instant,
    uses: Cell<u32>,
    phase: watch::Sender<Phase>,
    is_ending: Box<dyn Fn() -> bool>,
}

impl Life {
    fn new(phase: watch::Sender<Phase>, is_ending: Box<dyn Fn() -> bool>) -> Self {
        Self { born: Instant::now(), uses: Cell::new(0), phase, is_ending }
    }

    /// A request begins.
    fn begin(&self) {
        self.uses.set(self.uses.get().saturating_add(1));
        self.phase.send_replace(Phase::Busy);
    }

    /// Whether it may carry another one.
    fn is_spent(&self, terms: &Terms, now: Instant) -> bool {
        terms.max_uses.is_some_and(|max| self.uses.get() >= max)
            || terms.max_age.is_some_and(|max| now.duration_since(self.born) >= max)
            || (self.is_ending)()
    }
}

impl H1 {
    pub(super) async fn handshake(opened: Opened) -> hyper::Result<Self> {
        let io: BoxIo = Box::new(Heard::new(opened.io));
        let (sender, connection) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(io))
            .await?;
        let switch = SwitchSlot::default();
        tokio::task::spawn_local(drive(connection, opened.evicted, opened.phase.clone(), Rc::clone(&switch)));
        Ok(Self { sender, switch, life: Life::new(opened.phase, opened.is_ending) })
    }

    /// A request begins.
    pub(super) fn begin(&self) {
        self.life.begin();
    }

    /// It waits for requests from now on.
    pub(super) fn rest(&self) {
        self.life.phase.send_replace(Phase::Idle);
    }

    /// Whether it may not carry another request.
    pub(super) fn is_spent(&self, terms: &Terms, now: Instant) -> bool {
        self.life.is_spent(terms, now)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) async fn ready(&mut self) -> hyper::Result<()> {
        self.sender.ready().await
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Outgoing>>> {
        self.sender.try_send_request(request).await
    }

    /// The next request asks for another protocol: where the connection will be if it gets that.
    pub(super) fn expect_switch(&self) -> oneshot::Receiver<Switched> {
        let (sender, receiver) = oneshot::channel();
        *self.switch.borrow_mut() = Some(sender);
        receiver
    }

    /// It got none.
    pub(super) fn no_switch(&self) {
        self.switch.borrow_mut().take();
    }
}

/// Moves the bytes of an HTTP/1.1 connection until it ends, is to end, or switches to another protocol.
async fn drive(
    mut connection: http1::Connection<TokioIo<BoxIo>, Outgoing>,
    mut evicted: Pin<Box<dyn Future<Output = ()>>>,
    phase: watch::Sender<Phase>,
    switch: SwitchSlot,
) {
    let ended = tokio::select! {
        biased;
        () = &mut evicted => return,
        ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => ended,
    };
    if ended.is_err() {
        return;
    }
    let parts = connection.into_parts();
    let io = parts.io.into_inner();
    let switched = switch.borrow_mut().take();
    match switched {
        // Whoever waited for it may have gone, or it did not switch after all: then it ends here.
        Some(switched) => drop(switched.send(Switched { io: Rewound::new(parts.read_buf, io), evicted })),
        None => {
            phase.send_replace(Phase::Over);
            tokio::select! {
                biased;
                () = evicted => {}
                () = close(io) => {}
            }
        }
    }
}

impl H2 {
    pub(super) async fn handshake(opened: Opened) -> hyper::Result<Self> {
        let (io, reads) = Read::new(Severable::until(opened.evicted, opened.io));
        let (sender, connection) = http2::Builder::new(OnWorker)
            // It may take fewer at a time than one would guess, so nothing is sent before it has said how many.
            .initial_max_send_streams(UNKNOWN)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
            .handshake(TokioIo::new(io))
            .await?;
        // The socket belongs to a task of hyper's, which lives as long as its last stream.
        let connection = Rc::new(RefCell::new(connection));
        let driven = Rc::downgrade(&connection);
        tokio::task::spawn_local(async move {
            let _ended = poll_fn(|cx| Pin::new(&mut *connection.borrow_mut()).poll(cx)).await;
        });
        Ok(Self {
            sender: RefCell::new(sender),
            driven,
            reads,
            life: Life::new(opened.phase, opened.is_ending),
        })
    }

    /// Requests that its endpoint takes at a time (SETTINGS_MAX_CONCURRENT_STREAMS): hyper keeps more, and sends them when others
    /// have ended, or once it is known how many they may be.
    pub(super) fn max_streams(&self) -> usize {
        let known = self.driven.upgrade().map_or(0, |driven| driven.borrow().current_max_send_streams());
        if known == UNKNOWN { MAX_SHARED } else { known }
    }

    /// Whether its endpoint takes requests for other protocols (RFC 8441), once it has said so or not.
    pub(super) async fn takes_protocols(&self) -> bool {
        let look = || {
            let driven = self.driven.upgrade()?;
            let driven = driven.borrow();
            let is_known = driven.current_max_send_streams() != UNKNOWN;
            is_known.then(|| driven.is_extended_connect_protocol_enabled())
        };
        poll_fn(|cx| self.reads.poll(cx, look)).await.unwrap_or(false)
    }

    /// A request begins.
    pub(super) fn begin(&self) {
        self.life.begin();
    }

    /// The last request has ended.
    pub(super) fn rest(&self) {
        self.life.phase.send_replace(Phase::Idle);
    }

    /// Whether it may not carry another request.
    pub(super) fn is_spent(&self, terms: &Terms, now: Instant) -> bool {
        self.life.is_spent(terms, now)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.borrow().is_closed()
    }

    pub(super) async fn send(
        &self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Outgoing>>> {
        let sending = self.sender.borrow_mut().try_send_request(request);
        sending.await
    }
}
