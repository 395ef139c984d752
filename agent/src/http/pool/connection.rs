//! One connection to an endpoint, and the task that moves its bytes.

use super::super::io::{BoxIo, Heard, OnWorker, Rewound, close};
use super::super::limits::{BEGIN, MAX_HEAD, MAX_HEADERS, STREAM_WINDOW};
use super::super::replay::Outgoing;
use super::super::sever::Severable;
use super::super::window::Window;
use super::Terms;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::TokioIo;
use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::Poll;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};

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

/// Why HTTP is not spoken on a new connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotBegun {
    /// Something else came, or an error.
    #[error(transparent)]
    Http(hyper::Error),
    /// It broke off first.
    #[error("it ended the connection instead of beginning HTTP/2{}", because(.0))]
    Ended(Option<io::Error>),
    /// It was cut here: its client is let in no longer.
    #[error("its connection was let in no longer")]
    Cut,
    /// Its SETTINGS did not come.
    #[error("it has not begun HTTP/2 within {} s", BEGIN.as_secs())]
    Silent,
    /// They say so.
    #[error("it takes no requests: its SETTINGS_MAX_CONCURRENT_STREAMS is 0")]
    Full,
}

fn because(error: &Option<io::Error>) -> String {
    error.as_ref().map(|error| format!(": {error}")).unwrap_or_default()
}

impl From<hyper::Error> for NotBegun {
    fn from(error: hyper::Error) -> Self {
        let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        match io.map(|io| (io.kind(), io.to_string())) {
            None => Self::Http(error),
            // As `Severable` says it.
            Some((io::ErrorKind::ConnectionAborted, _)) => Self::Cut,
            Some((kind, text)) => Self::Ended(Some(io::Error::new(kind, text))),
        }
    }
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
    life: Life,
}

/// What hands requests to an HTTP/2 connection.
type Driven = http2::Connection<TokioIo<Severable<BoxIo>>, Outgoing, OnWorker>;

/// Requests at a time that may be sent before the endpoint has said how many it takes. No endpoint says this: the setting has 32
/// bits, and one that does not say it is `usize::MAX`.
const UNKNOWN: usize = usize::MAX - 1;

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
    /// Until it is known what the endpoint takes: a request that hyper has before that can neither be taken back nor go elsewhere.
    pub(super) async fn handshake(opened: Opened, window: Window) -> Result<Self, NotBegun> {
        let (bytes, evicted) = (window.bytes(), opened.evicted);
        let evicted = async move {
            let _window = window;
            evicted.await;
        };
        let io = Severable::until(evicted, opened.io);
        let reads = io.reads();
        let begun = async {
            let (sender, mut connection) = http2::Builder::new(OnWorker)
                .initial_max_send_streams(UNKNOWN)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(bytes)
                .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
                .handshake(TokioIo::new(io))
                .await?;
            // hyper tells nobody when the endpoint's SETTINGS have come: they have been applied when it reads on.
            let told = poll_fn(|cx| {
                if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                    return Poll::Ready(Err(ended.map_or_else(NotBegun::from, |()| NotBegun::Ended(None))));
                }
                match connection.current_max_send_streams() {
                    UNKNOWN => reads.wait(cx),
                    0 => return Poll::Ready(Err(NotBegun::Full)),
                    _ => return Poll::Ready(Ok(())),
                }
                Poll::Pending
            });
            told.await?;
            Ok::<_, NotBegun>((sender, connection))
        };
        let (sender, connection) = timeout(BEGIN, begun).await.unwrap_or(Err(NotBegun::Silent))?;
        // The socket belongs to a task of hyper's, which lives as long as its last stream.
        let connection = Rc::new(RefCell::new(connection));
        let driven = Rc::downgrade(&connection);
        tokio::task::spawn_local(async move {
            let _ended = poll_fn(|cx| Pin::new(&mut *connection.borrow_mut()).poll(cx)).await;
        });
        Ok(Self { sender: RefCell::new(sender), driven, life: Life::new(opened.phase, opened.is_ending) })
    }

    /// Requests that its endpoint takes at a time (SETTINGS_MAX_CONCURRENT_STREAMS): hyper keeps more, and sends them when others
    /// have ended.
    pub(super) fn max_streams(&self) -> usize {
        self.driven.upgrade().map_or(0, |driven| driven.borrow().current_max_send_streams())
    }

    /// Whether its endpoint takes requests for other protocols (RFC 8441).
    pub(super) fn takes_protocols(&self) -> bool {
        self.driven.upgrade().is_some_and(|driven| driven.borrow().is_extended_connect_protocol_enabled())
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
