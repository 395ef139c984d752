//! A stream that belongs to a task of somebody else's: from outside it can be ended in the middle of whatever goes through it, and
//! seen to be read on.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// A stream that can be cut off from elsewhere, in the middle of whatever goes through it.
pub(super) struct Severable<S> {
    io: S,
    /// Its sender is dropped to cut it off, and hears when this stream is dropped.
    cut: oneshot::Receiver<Infallible>,
    is_cut: bool,
    reads: Rc<Reads>,
}

/// Who waits until a stream is read on, or is over: what came before has been looked at then.
#[derive(Default)]
pub(super) struct Reads(Cell<Option<Waker>>);

impl Reads {
    /// The last one that waits is woken.
    pub(super) fn wait(&self, cx: &Context<'_>) {
        self.0.set(Some(cx.waker().clone()));
    }

    fn wake(&self) {
        if let Some(waiting) = self.0.take() {
            waiting.wake();
        }
    }
}

impl<S> Drop for Severable<S> {
    fn drop(&mut self) {
        self.reads.wake();
    }
}

impl<S> Severable<S> {
    /// A stream that lasts no longer than `until`, and `until` no longer than it.
    pub(super) fn until(until: impl Future<Output = ()> + 'static, io: S) -> Self {
        let (mut stays, cut) = oneshot::channel();
        tokio::task::spawn_local(async move {
            tokio::select! {
                biased;
                () = until => {}
                () = stays.closed() => {}
            }
        });
        Self { io, cut, is_cut: false, reads: Rc::default() }
    }

    /// Where to wait until it is read on.
    pub(super) fn reads(&self) -> Rc<Reads> {
        Rc::clone(&self.reads)
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.is_cut = self.is_cut || Pin::new(&mut self.cut).poll(cx).is_ready();
        if self.is_cut { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Severable<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.reads.wake();
        // Whoever reads is woken by the cut, too.
        this.poll_cut(cx)?;
        Pin::new(&mut this.io).poll_read(cx, out)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Severable<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.poll_cut(cx)?;
        Pin::new(&mut this.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.poll_cut(cx)?;
        Pin::new(&mut this.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
