//! The body of a request on its way out: it passes through, and as much of it as is allowed is kept, so that it can be
//! sent once more.

use super::BoxError;
use crate::limits::{OfPod, Ticket};
use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

/// The body of one request, of which several copies may be sent, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Replay(Rc<RefCell<Shared>>);

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
    /// More came than may be kept: what has been sent cannot be sent again.
    overflowed: bool,
    /// The client's connection failed before the end.
    broken: bool,
    waiting: Option<Waker>,
    /// The copy that waits for more of it.
    reading: Option<Waker>,
    /// The copy that may read on; those before it are on connections that are being given up.
    newest: u64,
}

/// One copy on its way.
#[derive(Debug)]
pub(crate) struct Outgoing {
    of: Replay,
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
            overflowed: false,
            broken: false,
            waiting: None,
            reading: None,
            newest: 0,
        })))
    }

    /// A copy from the beginning; none once anything was lost.
    pub(crate) fn copy(&self) -> Option<Outgoing> {
        if !self.is_whole() {
            return None;
        }
        let mut shared = self.0.borrow_mut();
        shared.newest += 1;
        Some(Outgoing { of: self.clone(), number: shared.newest, next: 0, sent_trailers: false })
    }

    /// It will be sent once more: the copy that is on its way reads no further, and fails unless it has all already. What it read
    /// would be lost to the next one as soon as it is too much to be kept.
    pub(crate) fn hold(&self) {
        let mut shared = self.0.borrow_mut();
        shared.newest += 1;
        if let Some(waker) = shared.reading.take() {
            waker.wake();
        }
    }

    /// Whether a copy can be made of all of it.
    pub(crate) fn is_whole(&self) -> bool {
        let shared = self.0.borrow();
        !shared.overflowed && !shared.broken
    }

    /// Whether the client's connection failed before the end of the body.
    pub(crate) fn is_broken(&self) -> bool {
        self.0.borrow().broken
    }

    /// Bytes of it that came: counted there as long as they come.
    pub(crate) fn received(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.0.borrow().received)
    }

    /// No further copy will be asked for: nothing more is kept. What is there takes its room until the last copy has gone, which
    /// may not have read it yet.
    pub(crate) fn stop_keeping(&self) {
        self.0.borrow_mut().limit = 0;
    }

    /// Waits until all of it came: a copy of all of it, if it is whole.
    pub(crate) async fn complete(&self) -> Option<Outgoing> {
        std::future::poll_fn(|cx| {
            let mut shared = self.0.borrow_mut();
            if shared.source.is_none() || shared.overflowed || shared.broken {
                return Poll::Ready(());
            }
            shared.waiting = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        self.copy()
    }
}

impl Shared {
    /// A later copy has read what this one was yet to read, and it was not kept.
    fn is_lost_to(&self, number: u64) -> bool {
        self.overflowed && number != self.newest
    }

    fn settle(&mut self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    fn poll_source(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Outgoing,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(source) = &mut self.source else { return Poll::Ready(None) };
        match ready!(Pin::new(&mut *source).poll_frame(cx)) {
            Some(Ok(frame)) => {
                let ended = frame.is_trailers() || source.is_end_stream();
                let frame = match frame.into_data() {
                    Ok(data) => {
                        self.received.set(self.received.get() + data.len() as u64);
                        if !self.overflowed && self.kept + data.len() <= self.limit {
                            self.kept += data.len();
                            self.chunks.push(data.clone());
                            out.next += 1;
                        } else if !data.is_empty() {
                            self.overflowed = true;
                            self.chunks = Vec::new();
                            self.ticket = None;
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
                    self.source = None;
                    self.settle();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.broken = true;
                self.source = None;
                self.settle();
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                self.source = None;
                self.settle();
                Poll::Ready(None)
            }
        }
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
        let of = this.of.clone();
        let mut shared = of.0.borrow_mut();
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
        // One that is sent only once is never held.
        if polled.is_pending() && shared.limit > 0 {
            shared.reading = Some(cx.waker().clone());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.of.0.borrow();
        shared.source.is_none()
            && !shared.broken
            && !shared.is_lost_to(self.number)
            && self.next >= shared.chunks.len()
            && (self.sent_trailers || shared.trailers.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.of.0.borrow();
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
