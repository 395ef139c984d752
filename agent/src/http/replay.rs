//! The body of a request on its way out: it passes through, and as much of it as is allowed is kept, so that it can be
//! sent once more.

use super::BoxError;
use super::grpc::Messages;
use super::limits::SETTLE;
use crate::limits::{OfPod, Ticket};
use crate::observe::ByteCounters;
use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::time::Instant;

/// The body of one request, of which several copies may be sent, one after the other. What no copy has read when this and all of
/// them are gone is read by nobody.
#[derive(Debug)]
pub(crate) struct Replay(Rc<RefCell<Shared>>);

/// Sees how a body fares, and keeps it from nothing.
#[derive(Clone, Debug)]
pub(crate) struct Upload(Rc<RefCell<Shared>>);

#[derive(Debug)]
struct Shared {
    source: Option<Incoming>,
    chunks: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    /// Bytes of `chunks`.
    kept: usize,
    /// Bytes that may be kept.
    limit: usize,
    /// The room for them.
    ticket: Option<Ticket>,
    /// Bytes that came, kept or not.
    received: Rc<Cell<u64>>,
    /// gRPC messages that came, and where they are counted.
    messages: Option<(Messages, Arc<ByteCounters>)>,
    /// More came than may be kept: what has been sent cannot be sent again.
    overflowed: bool,
    /// The client's connection failed before the end, or nobody is left who would read it.
    broken: bool,
    /// Since when it is read, while it is.
    begun: Option<Instant>,
    /// How long it was read before.
    took: Duration,
    /// Those who may read it, or make others who do.
    readers: usize,
    /// Who waits for its end.
    waiting: Vec<Waker>,
    /// The copy that waits for more of it.
    reading: Option<Waker>,
    /// The copy that may read on; those before it are on connections that are being given up.
    newest: u64,
}

/// One copy on its way.
#[derive(Debug)]
pub(crate) struct Outgoing {
    of: Rc<RefCell<Shared>>,
    number: u64,
    next: usize,
    sent_trailers: bool,
}

impl Replay {
    /// Keeps at most `limit` bytes of `source`, and none where its pod has too much already.
    pub(crate) fn new(source: Incoming, limit: usize, limits: OfPod<'_>) -> Self {
        let exact = source.size_hint().exact().and_then(|exact| usize::try_from(exact).ok());
        match exact.unwrap_or(limit).min(limit) {
            0 => Self::with(source, limit, None),
            room => match limits.keep(room) {
                Ok(ticket) => Self::with(source, limit, Some(ticket)),
                Err(exceeded) => {
                    tracing::debug!(%exceeded, "a request can only be sent once");
                    Self::once(source)
                }
            },
        }
    }

    /// Keeps nothing: it can be sent once, unless it is empty.
    pub(crate) fn once(source: Incoming) -> Self {
        Self::with(source, 0, None)
    }

    fn with(source: Incoming, limit: usize, ticket: Option<Ticket>) -> Self {
        let source = (!source.is_end_stream()).then_some(source);
        Self(Rc::new(RefCell::new(Shared {
            source,
            ticket,
            chunks: Vec::new(),
            trailers: None,
            kept: 0,
            limit,
            received: Rc::default(),
            messages: None,
            overflowed: false,
            broken: false,
            begun: None,
            took: Duration::ZERO,
            readers: 1,
            waiting: Vec::new(),
            reading: None,
            newest: 0,
        })))
    }

    /// A copy from the beginning; none once anything was lost.
    pub(crate) fn copy(&self) -> Option<Outgoing> {
        Outgoing::of(&self.0)
    }

    /// Sees how it fares.
    pub(crate) fn upload(&self) -> Upload {
        Upload(Rc::clone(&self.0))
    }

    /// It will be sent once more: the copy that is on its way reads no further, and fails unless it has all already. What it read
    /// would be lost to the next one as soon as it is too much to be kept.
    pub(crate) fn hold(&self) {
        self.0.borrow_mut().hold();
    }

    /// Whether a copy can be made of all of it.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.borrow().is_whole()
    }

    /// Whether there is nothing of it, and never was.
    pub(crate) fn is_empty(&self) -> bool {
        let shared = self.0.borrow();
        shared.source.is_none() && shared.received.get() == 0
    }

    /// Whether the client's connection failed before the end of the body.
    pub(crate) fn is_broken(&self) -> bool {
        self.0.borrow().broken
    }

    /// No further copy will be asked for: nothing more is kept. What is there takes its room until the last copy has gone, which
    /// may not have read it yet.
    pub(crate) fn stop_keeping(&self) {
        self.0.borrow_mut().limit = 0;
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.0.borrow_mut().leave();
    }
}

impl Upload {
    /// Bytes of it that came: counted there as long as they come.
    pub(crate) fn received(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.0.borrow().received)
    }

    /// Its gRPC messages are counted there as they come.
    pub(crate) fn count_messages(&self, there: Arc<ByteCounters>) {
        self.0.borrow_mut().messages = Some((Messages::default(), there));
    }

    /// Whether no more of it will come.
    pub(crate) fn is_over(&self) -> bool {
        self.0.borrow().source.is_none()
    }

    /// Waits for that.
    pub(crate) async fn over(&self) {
        self.until(|shared| shared.source.is_none()).await;
    }

    /// How long it was read: none while it is.
    pub(crate) fn took(&self) -> Option<Duration> {
        let shared = self.0.borrow();
        shared.begun.is_none().then_some(shared.took)
    }

    /// Its response is out already, and its client still sends it: `held` is held until it is over, which it must be soon.
    pub(crate) fn outlives(self, held: impl Any) {
        tokio::task::spawn_local(async move {
            let _held = held;
            if tokio::time::timeout(SETTLE, self.over()).await.is_err() {
                self.0.borrow_mut().stop();
            }
        });
    }

    /// Waits until all of it came: a copy of all of it, if it is whole.
    pub(crate) async fn complete(&self) -> Option<Outgoing> {
        self.until(|shared| shared.source.is_none() || shared.overflowed).await;
        Outgoing::of(&self.0)
    }

    async fn until(&self, is_so: impl Fn(&Shared) -> bool) {
        std::future::poll_fn(|cx| {
            let mut shared = self.0.borrow_mut();
            if is_so(&shared) {
                return Poll::Ready(());
            }
            if !shared.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                shared.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

impl Shared {
    /// A later copy has read what this one was yet to read, and it was not kept.
    fn is_lost_to(&self, number: u64) -> bool {
        self.overflowed && number != self.newest
    }

    fn is_whole(&self) -> bool {
        !self.overflowed && !self.broken
    }

    /// The copy that may read on may no longer.
    fn hold(&mut self) {
        self.newest += 1;
        self.pause();
        if let Some(waker) = self.reading.take() {
            waker.wake();
        }
    }

    /// The copy on its way fails.
    fn stop(&mut self) {
        self.hold();
        if self.source.is_some() {
            self.broken = true;
            self.end();
        }
    }

    /// No more of it will come.
    fn end(&mut self) {
        self.source = None;
        self.pause();
        self.settle();
    }

    /// It is not read any more, for now.
    fn pause(&mut self) {
        self.took += self.begun.take().map(|begun| begun.elapsed()).unwrap_or_default();
    }

    /// Who waits looks again.
    fn settle(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }

    /// One reader less. The client of a body that nobody reads must not be kept waiting for that.
    fn leave(&mut self) {
        self.readers -= 1;
        if self.readers == 0 && self.source.is_some() {
            self.broken = true;
            self.end();
        }
    }

    fn poll_source(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Outgoing,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(source) = &mut self.source else { return Poll::Ready(None) };
        self.begun.get_or_insert_with(Instant::now);
        match ready!(Pin::new(&mut *source).poll_frame(cx)) {
            Some(Ok(frame)) => {
                let ended = frame.is_trailers() || source.is_end_stream();
                let frame = match frame.into_data() {
                    Ok(data) => {
                        self.received.set(self.received.get() + data.len() as u64);
                        if let Some((messages, there)) = &mut self.messages {
                            there.sent.fetch_add(messages.count(&data), Relaxed);
                        }
                        if !self.overflowed && self.kept + data.len() <= self.limit {
                            self.kept += data.len();
                            self.chunks.push(data.clone());
                            out.next += 1;
                        } else if !data.is_empty() {
                            self.overflowed = true;
                            self.chunks = Vec::new();
                            self.ticket = None;
                            // Who waits for all of it waits in vain.
                            self.settle();
                        }
                        Frame::data(data)
                    }
                    Err(frame) => {
                        self.trailers = frame.trailers_ref().cloned();
                        out.sent_trailers = true;
                        frame
                    }
                };
                if ended {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.broken = true;
                self.end();
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                self.end();
                Poll::Ready(None)
            }
        }
    }
}

impl Outgoing {
    fn of(body: &Rc<RefCell<Shared>>) -> Option<Self> {
        let mut shared = body.borrow_mut();
        if !shared.is_whole() {
            return None;
        }
        shared.newest += 1;
        shared.readers += 1;
        Some(Self { of: Rc::clone(body), number: shared.newest, next: 0, sent_trailers: false })
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.of.borrow_mut().leave();
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let of = Rc::clone(&this.of);
        let mut shared = of.borrow_mut();
        if shared.broken {
            return Poll::Ready(Some(Err("the client's connection ended within the request".into())));
        }
        if shared.is_lost_to(this.number) {
            return Poll::Ready(Some(Err("the request is sent once more elsewhere".into())));
        }
        if let Some(chunk) = shared.chunks.get(this.next) {
            this.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        if shared.source.is_none() {
            let trailers = shared.trailers.clone().filter(|_| !this.sent_trailers);
            this.sent_trailers = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        if this.number != shared.newest {
            return Poll::Ready(Some(Err("the request is sent once more elsewhere".into())));
        }
        let polled = shared.poll_source(cx, this);
        if polled.is_pending()
            && !shared.reading.as_ref().is_some_and(|reading| reading.will_wake(cx.waker()))
        {
            shared.reading = Some(cx.waker().clone());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.of.borrow();
        shared.source.is_none()
            && !shared.broken
            && !shared.is_lost_to(self.number)
            && self.next >= shared.chunks.len()
            && (self.sent_trailers || shared.trailers.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.of.borrow();
        let kept: u64 = shared.chunks.iter().skip(self.next).map(|chunk| chunk.len() as u64).sum();
        let Some(source) = &shared.source else {
            return if shared.trailers.is_some() { SizeHint::default() } else { SizeHint::with_exact(kept) };
        };
        match source.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(kept + rest),
            None => SizeHint::default(),
        }
    }
}
