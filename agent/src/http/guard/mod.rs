//! Only HTTP/1 that cannot be misunderstood gets past here: a reader between a client's connection and hyper, which
//! repairs more than two readers would agree upon (a bare LF, `Content-Length` beside `Transfer-Encoding`).
//!
//! A head passes when it is complete and good. What is bad is replaced by what hyper answers with 400 (431 if it is too
//! large, 414 if its target is too long) before it closes the connection; within a body it is a failed read, so that nothing can be taken for a part of the
//! body. [`Watch::malformed`] says what it was.

mod framing;
mod head;

pub use framing::Framing;
pub use head::Malformed;

use bytes::{Buf, BytesMut};
use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long a head may take from its first byte to its last.
const HEAD_DEADLINE: Duration = Duration::from_secs(60);
/// Bytes of an incomplete head that are read at once.
const CHUNK: usize = 4 << 10;
/// hyper's answer to it is 400.
const BAD: &[u8] = b"\0\r\n\r\n";

/// Reads a client's HTTP/1 connection.
#[derive(Debug)]
pub struct Guarded<S> {
    io: S,
    framing: Framing,
    /// Read, and not handed on yet.
    held: BytesMut,
    /// So many bytes of `held` may be handed on.
    ready: usize,
    deadline: Option<Pin<Box<Sleep>>>,
    watch: Watch,
}

/// The other end of a [`Guarded`]: tells it about answers, and what it found.
#[derive(Clone, Debug, Default)]
pub struct Watch(Rc<Watched>);

#[derive(Debug, Default)]
struct Watched {
    decided: Cell<Option<bool>>,
    malformed: Cell<Option<Malformed>>,
    /// Nothing of a message was read, and nothing is to be read.
    resting: Cell<bool>,
    /// Something was written, and not flushed.
    unflushed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Watch {
    /// The request for another protocol was answered: with that protocol (`opaque`), or with HTTP.
    pub fn decide(&self, opaque: bool) {
        self.0.decided.set(Some(opaque));
        let waker = self.0.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether nothing is on its way in either direction, as far as the connection itself can tell: what was read ended with a
    /// message, the client says nothing, and all that was written is out.
    pub fn is_resting(&self) -> bool {
        self.0.resting.get() && !self.0.unflushed.get()
    }

    /// What was wrong with the client's last request.
    pub fn malformed(&self) -> Option<Malformed> {
        self.0.malformed.get()
    }
}

impl<S> Guarded<S> {
    /// Guards `io`.
    pub fn new(io: S) -> (Self, Watch) {
        let watch = Watch::default();
        (Self::resume(io, BytesMut::new(), watch.clone()), watch)
    }

    /// Guards `io` again that was taken apart between two messages: `held` was read of the next one.
    pub fn resume(io: S, held: BytesMut, watch: Watch) -> Self {
        Self { io, framing: Framing::default(), held, ready: 0, deadline: None, watch }
    }

    /// The connection, and what of it was read and not handed on.
    pub fn into_parts(self) -> (S, BytesMut) {
        (self.io, self.held)
    }

    fn refuse(&mut self, malformed: Malformed) -> io::Result<()> {
        self.watch.0.malformed.set(Some(malformed));
        self.held.clear();
        if self.framing.is_bad_in_body() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        match malformed {
            // More headers than hyper takes: 431.
            Malformed::TooLarge | Malformed::TooMany => {
                self.held.extend_from_slice(b"GET / HTTP/1.1\r\n");
                self.held.extend(b"a:\r\n".repeat(super::limits::MAX_HEADERS + 1));
                self.held.extend_from_slice(b"\r\n");
            }
            // A longer target than hyper takes: 414.
            Malformed::TooLong => {
                self.held.extend_from_slice(b"GET /");
                self.held.extend(b"a".repeat(usize::from(u16::MAX)));
                self.held.extend_from_slice(b" HTTP/1.1\r\n\r\n");
            }
            _ => self.held.extend_from_slice(BAD),
        }
        self.ready = self.held.len();
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.watch.0.resting.set(false);
        loop {
            if this.ready > 0 {
                let n = this.ready.min(out.remaining());
                out.put_slice(&this.held[..n]);
                this.held.advance(n);
                this.ready -= n;
                if this.held.is_empty() {
                    // An idle connection holds no buffer.
                    this.held = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            if this.watch.malformed().is_some() {
                return Poll::Ready(Ok(()));
            }
            if this.framing.is_undecided() {
                match this.watch.0.decided.take() {
                    Some(opaque) => this.framing.decide(opaque),
                    None => {
                        this.watch.0.waker.replace(Some(cx.waker().clone()));
                        return Poll::Pending;
                    }
                }
            }
            // What is held is looked at again only with more after it, or after a decision.
            if !this.held.is_empty() {
                match this.framing.pass(&this.held) {
                    Ok(ready) => this.ready = ready,
                    Err(malformed) => this.refuse(malformed)?,
                }
                if this.ready > 0 {
                    this.deadline = None;
                    continue;
                }
                if this.framing.is_undecided() {
                    continue;
                }
                let deadline =
                    this.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(HEAD_DEADLINE)));
                if deadline.as_mut().poll(cx).is_ready() {
                    this.watch.0.malformed.set(Some(Malformed::TooSlow));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                let mut chunk = [0; CHUNK];
                let mut more = ReadBuf::new(&mut chunk);
                ready!(Pin::new(&mut this.io).poll_read(cx, &mut more))?;
                if more.filled().is_empty() {
                    return Poll::Ready(Ok(()));
                }
                this.held.extend_from_slice(more.filled());
                continue;
            }
            let before = out.filled().len();
            let read = Pin::new(&mut this.io).poll_read(cx, out);
            this.watch.0.resting.set(read.is_pending() && this.framing.is_between());
            ready!(read)?;
            let fresh = &out.filled()[before..];
            if fresh.is_empty() {
                return Poll::Ready(Ok(()));
            }
            match this.framing.pass(fresh) {
                Ok(passed) => {
                    this.held.extend_from_slice(&fresh[passed..]);
                    out.set_filled(before + passed);
                    if passed > 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                Err(malformed) => {
                    out.set_filled(before);
                    this.refuse(malformed)?;
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.watch.0.unflushed.set(true);
        Pin::new(&mut this.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.watch.0.unflushed.set(true);
        Pin::new(&mut this.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.io).poll_flush(cx))?;
        this.watch.0.unflushed.set(false);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
