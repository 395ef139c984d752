//! Connections to endpoints that requests share, of one worker.
//!
//! An HTTP/1.1 connection carries one request at a time and is kept in between; an HTTP/2 connection carries many. A
//! connection belongs to the pod whose address it has and in whose name it was let in: the key says so. One of HTTP/2 carries
//! requests once its endpoint has said what it takes; those that come before wait for it together ([`beginning`]).
//!
//! ```text
//!   open --> leased --response ended--> idle --leased again--> ...
//!              \            \             \--for too long, one too many, endpoint gone, evicted, its place needed--> closed
//!               \            \--too old, enough requests ([`Terms`])--> closed
//!                \--switched to another protocol, failed, response not read to its end--> closed
//! ```

mod beginning;
mod connection;
mod crowd;
mod waiting;

pub(crate) use connection::{NotBegun, Opened, Phase, Switched};

use super::BoxError;
use super::io::{BoxIo, Rewound};
use super::limits::{IDLE, MAX_IDLE, MAX_SHARED, SETTLE, SWEEP};
use super::replay::Outgoing;
use super::window::Window;
use crate::limits::OfPod;
use beginning::{Beginnings, Outcome};
use bytes::Bytes;
use connection::{H1, H2};
use http::header::UPGRADE;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::pending;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use waiting::Waiting;
use warren_common::model::traffic::TlsOrigination;
use warren_common::model::{Identity, WorkloadUid};

/// Who may share a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PoolKey {
    /// The pod that asks.
    pub(crate) source: WorkloadUid,
    /// Its `metadata.uid`: another pod may get its name.
    pub(crate) source_pod_uid: Arc<str>,
    /// In whose name the connection was let in.
    pub(crate) source_identity: Identity,
    /// The workload that answers, if it is known.
    pub(crate) endpoint: Option<WorkloadUid>,
    /// Its `metadata.uid`, where it is a pod.
    pub(crate) pod_uid: Arc<str>,
    /// Who must be there, if it must be proven.
    pub(crate) identity: Option<Identity>,
    /// Where.
    pub(crate) address: SocketAddr,
    /// The name that was looked up for it.
    pub(crate) name: Option<Arc<str>>,
    /// TLS that is spoken to it.
    pub(crate) tls: Option<Arc<Origination>>,
    /// Whether HTTP/2 is spoken.
    pub(crate) h2: bool,
    /// Where a DestinationRule counts: for whom, as Envoy calls it.
    pub(crate) cluster: Option<Arc<str>>,
}

/// What tells nearly all of them apart. A pod chooses the server's name, so the maps keep the standard library's hasher.
impl Hash for PoolKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.address, self.h2, &self.source_pod_uid).hash(state);
        self.tls.as_ref().map(|tls| &tls.name).hash(state);
    }
}

/// What holds for the connections of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Requests that one may carry; none: any number.
    pub(crate) max_uses: Option<u32>,
    /// Requests at a time on one HTTP/2 connection.
    pub(crate) max_streams: usize,
    /// It is closed when it has had no request for so long; none: never.
    pub(crate) idle: Option<Duration>,
    /// It carries no new request, and is closed after its last, when it has been there for so long; none: for ever.
    pub(crate) max_age: Option<Duration>,
}

impl Terms {
    /// Where nothing is said.
    pub(crate) const DEFAULT: Self =
        Self { max_uses: None, max_streams: MAX_SHARED, idle: Some(IDLE), max_age: None };

    fn is_over(&self, idle_since: Instant, now: Instant) -> bool {
        self.idle.is_some_and(|limit| now.duration_since(idle_since) >= limit)
    }
}

/// TLS that is to be spoken to an endpoint, beside the mesh's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origination {
    /// What its DestinationRule says.
    pub(crate) settings: TlsOrigination,
    /// The server's name.
    pub(crate) name: Arc<str>,
}

/// The connections of one worker.
pub(crate) struct Pool {
    entries: RefCell<HashMap<PoolKey, Entry>>,
    beginning: Beginnings,
    waiting: Rc<Waiting>,
    /// Whether both ends are still who they were.
    is_current: Box<dyn Fn(&PoolKey) -> bool>,
    sweeping: Cell<bool>,
}

struct Entry {
    terms: Terms,
    idle: Vec<(H1, Instant)>,
    shared: Vec<Rc<Shared>>,
}

struct Shared {
    h2: H2,
    active: Cell<usize>,
    idle_since: Cell<Instant>,
    key: PoolKey,
    waiting: Rc<Waiting>,
}

impl Shared {
    /// Requests that it may carry at a time.
    fn most(&self, terms: &Terms) -> usize {
        terms.max_streams.min(self.h2.max_streams())
    }
}

impl Entry {
    fn new(terms: Terms) -> Self {
        Self { terms, idle: Vec::new(), shared: Vec::new() }
    }

    /// Lets go of what may carry no more requests and has none.
    fn prune(&mut self, is_current: bool, now: Instant) {
        let terms = self.terms;
        self.idle.retain(|(h1, since)| {
            is_current && !h1.is_closed() && !h1.is_spent(&terms, now) && !terms.is_over(*since, now)
        });
        self.shared.retain(|shared| {
            let is_over = || shared.h2.is_spent(&terms, now) || terms.is_over(shared.idle_since.get(), now);
            let has_requests = shared.active.get() > 0;
            !shared.h2.is_closed() && (has_requests || (is_current && !is_over()))
        });
    }
}

/// A place on a connection for one request. Dropping it before [`Lease::give_back`] closes an HTTP/1.1 connection, and resets
/// an HTTP/2 stream.
pub(crate) struct Lease {
    pool: Weak<Pool>,
    key: PoolKey,
    terms: Terms,
    held: Option<Held>,
    switch: Option<Switch>,
    /// Whether earlier requests went over the connection: it may have been closed by its server a moment ago.
    pub(crate) reused: bool,
}

enum Held {
    H1(H1),
    H2(Stream),
}

/// What becomes another protocol's.
enum Switch {
    /// The connection.
    Connection(oneshot::Receiver<Switched>),
    /// One of its streams.
    Stream(OnUpgrade),
}

struct Stream(Rc<Shared>);

impl Stream {
    fn new(shared: &Rc<Shared>) -> Self {
        shared.active.set(shared.active.get() + 1);
        shared.h2.begin();
        Self(Rc::clone(shared))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
        self.0.idle_since.set(Instant::now());
        self.0.waiting.call(&self.0.key, 1);
        if self.0.active.get() == 0 {
            self.0.h2.rest();
        }
    }
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) struct SendError {
    /// What happened.
    pub(crate) error: hyper::Error,
    /// The request, if nothing of it was sent.
    pub(crate) unsent: Option<Box<Request<Outgoing>>>,
}

impl Pool {
    /// An empty pool. `is_current` says whether both pods of a key still are who they were.
    pub(crate) fn new(is_current: impl Fn(&PoolKey) -> bool + 'static) -> Rc<Self> {
        Rc::new(Self {
            entries: RefCell::default(),
            beginning: Beginnings::default(),
            waiting: Rc::default(),
            is_current: Box::new(is_current),
            sweeping: Cell::new(false),
        })
    }

    /// A connection that is open already.
    pub(crate) fn ready(self: &Rc<Self>, key: &PoolKey, terms: &Terms) -> Option<Lease> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(key)?;
        entry.terms = *terms;
        let now = Instant::now();
        if key.h2 {
            entry.prune(true, now);
            let may = |shared: &&Rc<Shared>| {
                shared.active.get() < shared.most(terms) && !shared.h2.is_spent(terms, now)
            };
            let shared = entry.shared.iter().filter(may).min_by_key(|shared| shared.active.get())?;
            return Some(self.lease(key, terms, Held::H2(Stream::new(shared)), true));
        }
        // The last one first: the others may end of idleness.
        while let Some((h1, since)) = entry.idle.pop() {
            if h1.is_ready() && !h1.is_spent(terms, now) && !terms.is_over(since, now) {
                h1.begin();
                return Some(self.lease(key, terms, Held::H1(h1), true));
            }
        }
        None
    }

    /// The next connection that can be used, once there is one.
    pub(crate) async fn next(self: &Rc<Self>, key: &PoolKey, terms: &Terms) -> Lease {
        let turn = self.waiting.join(key);
        loop {
            let mut called = pin!(turn.calls.notified());
            called.as_mut().enable();
            match self.ready(key, terms) {
                Some(lease) => return lease,
                None => called.await,
            }
        }
    }

    /// Waits for a connection that is open and about to begin, if there is one that may carry one more request. Whether it has
    /// begun: then [`Self::ready`] may have a place.
    pub(crate) async fn joined(&self, key: &PoolKey) -> Option<Outcome> {
        if key.h2 { self.beginning.join(key).await } else { None }
    }

    /// Speaks HTTP on a new connection; `limits` of the pod that asks.
    ///
    /// # Errors
    /// When the endpoint does not speak it.
    pub(crate) async fn begin(
        self: &Rc<Self>,
        key: &PoolKey,
        terms: &Terms,
        opened: Opened,
        limits: OfPod<'_>,
    ) -> Result<Lease, Rc<NotBegun>> {
        if !key.h2 {
            let h1 = H1::handshake(opened).await.map_err(NotBegun::from)?;
            h1.begin();
            return Ok(self.lease(key, terms, Held::H1(h1), false));
        }
        let one = self.beginning.begin(key, terms.max_streams.saturating_sub(1));
        let (tell, told) = oneshot::channel();
        let (pool, window) = (Rc::clone(self), Window::of(limits));
        // A task of its own: who waits for it may go before it has begun, and the next one finds it.
        tokio::task::spawn_local({
            let (key, terms) = (key.clone(), *terms);
            async move {
                let begun = H2::handshake(opened, window).await.map_err(Rc::new);
                let begun = begun.map(|h2| pool.begun(&key, &terms, h2));
                let outcome = begun.as_ref().map(drop).map_err(Rc::clone);
                drop(tell.send(begun));
                pool.beginning.end(&key, &one, outcome);
            }
        });
        let stream = told.await.unwrap_or_else(|_| Err(Rc::new(NotBegun::Ended(None))))?;
        Ok(self.lease(key, terms, Held::H2(stream), false))
    }

    /// An HTTP/2 connection has begun: the place of the request that opened it.
    fn begun(self: &Rc<Self>, key: &PoolKey, terms: &Terms, h2: H2) -> Stream {
        let (active, idle_since) = (Cell::new(0), Cell::new(Instant::now()));
        let waiting = Rc::clone(&self.waiting);
        let shared = Rc::new(Shared { h2, active, idle_since, key: key.clone(), waiting });
        let stream = Stream::new(&shared);
        let most = shared.most(terms);
        if !shared.h2.is_spent(terms, Instant::now()) {
            let mut entries = self.entries.borrow_mut();
            Self::entry(&mut entries, key, terms).shared.push(shared);
            crowd::thin(&mut entries, key, MAX_IDLE);
            drop(entries);
            self.waiting.call(key, most.saturating_sub(1));
            self.sweep_soon();
        }
        stream
    }

    /// Connections without requests.
    #[cfg(test)]
    pub(crate) fn idle(&self) -> usize {
        self.entries.borrow().values().map(|entry| entry.idle.len()).sum()
    }

    fn entry<'e>(entries: &'e mut HashMap<PoolKey, Entry>, key: &PoolKey, terms: &Terms) -> &'e mut Entry {
        let entry = entries.entry(key.clone()).or_insert_with(|| Entry::new(*terms));
        entry.terms = *terms;
        entry
    }

    fn lease(self: &Rc<Self>, key: &PoolKey, terms: &Terms, held: Held, reused: bool) -> Lease {
        let (pool, key, terms) = (Rc::downgrade(self), key.clone(), *terms);
        Lease { pool, key, terms, held: Some(held), switch: None, reused }
    }

    fn keep(self: &Rc<Self>, key: &PoolKey, terms: &Terms, h1: H1) {
        if h1.is_closed() || h1.is_spent(terms, Instant::now()) || !(self.is_current)(key) {
            return;
        }
        let mut entries = self.entries.borrow_mut();
        let idle = &mut Self::entry(&mut entries, key, terms).idle;
        if idle.len() < MAX_IDLE {
            // Who waits for this one hears of it first.
            self.waiting.call(key, 1);
            h1.rest();
            idle.push((h1, Instant::now()));
            crowd::thin(&mut entries, key, MAX_IDLE);
        }
        drop(entries);
        self.sweep_soon();
    }

    /// Looks at what is kept, again and again while there is anything.
    fn sweep_soon(self: &Rc<Self>) {
        if self.sweeping.replace(true) {
            return;
        }
        let pool = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(pool) = pool.upgrade() else { return };
                if pool.sweep() {
                    pool.sweeping.set(false);
                    return;
                }
            }
        });
    }

    /// Closes what has been idle for too long, what is closed, and what leads to an endpoint that is gone; whether nothing is left.
    fn sweep(&self) -> bool {
        let (now, mut entries) = (Instant::now(), self.entries.borrow_mut());
        entries.retain(|key, entry| {
            entry.prune((self.is_current)(key), now);
            !entry.idle.is_empty() || !entry.shared.is_empty()
        });
        entries.is_empty()
    }
}

impl Lease {
    /// Sends a request and waits for the head of its response.
    ///
    /// # Errors
    /// [`SendError`].
    pub(crate) async fn send(&mut self, request: Request<Outgoing>) -> Result<Response<Incoming>, SendError> {
        let may_switch = request.headers().contains_key(UPGRADE) || request.method() == Method::CONNECT;
        let sent = match &mut self.held {
            Some(Held::H1(h1)) => {
                self.switch = may_switch.then(|| Switch::Connection(h1.expect_switch()));
                h1.send(request).await
            }
            Some(Held::H2(stream)) => stream.0.h2.send(request).await,
            // A lease is held until it is given back or switched, and both take it away.
            None => pending().await,
        };
        let mut response = sent.map_err(|mut error| {
            let unsent = error.take_message().map(Box::new);
            SendError { error: error.into_error(), unsent }
        })?;
        if response.version() == Version::HTTP_10 {
            // hyper would speak HTTP/1.0 from here on, in which nothing is chunked.
            self.terms.max_uses = Some(0);
            // How it is carried on is no matter of the endpoint's.
            *response.version_mut() = Version::HTTP_11;
        }
        if may_switch && matches!(self.held, Some(Held::H2(_))) && response.status() == StatusCode::OK {
            self.switch = Some(Switch::Stream(hyper::upgrade::on(&mut response)));
        }
        Ok(response)
    }

    /// Whether its endpoint can be asked for another protocol on a stream (RFC 8441).
    pub(crate) fn takes_protocols(&self) -> bool {
        matches!(&self.held, Some(Held::H2(stream)) if stream.0.h2.takes_protocols())
    }

    /// The connection itself, or the request's stream, once its endpoint has switched to another protocol.
    ///
    /// # Errors
    /// When it has ended instead.
    pub(crate) async fn switched(mut self) -> Result<Switched, BoxError> {
        match self.switch.take() {
            Some(Switch::Connection(switch)) => Ok(switch.await?),
            Some(Switch::Stream(stream)) => {
                let io: BoxIo = Box::new(TokioIo::new(stream.await?));
                // Its connection cuts it off when it has to end. It counts as a request for as long as it is there.
                let held = self.held.take();
                let evicted = Box::pin(async move {
                    let _held = held;
                    pending().await
                });
                Ok(Switched { io: Rewound::new(Bytes::new(), io), evicted })
            }
            None => Err("nobody asked the connection for another protocol".into()),
        }
    }

    /// The response has ended: the connection may carry another request.
    pub(crate) fn give_back(self) {
        let Self { pool, key, terms, held, .. } = self;
        let (Some(Held::H1(mut h1)), Some(pool)) = (held, pool.upgrade()) else { return };
        if h1.is_closed() || h1.is_spent(&terms, Instant::now()) {
            return;
        }
        h1.no_switch();
        if h1.is_ready() {
            return pool.keep(&key, &terms, h1);
        }
        // The request's own end is still on its way.
        tokio::task::spawn_local(async move {
            if tokio::time::timeout(SETTLE, h1.ready()).await.is_ok_and(|ready| ready.is_ok()) {
                pool.keep(&key, &terms, h1);
            }
        });
    }
}
