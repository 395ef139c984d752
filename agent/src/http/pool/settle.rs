//! What an HTTP/2 endpoint takes is known once its SETTINGS have come. hyper tells nobody of that moment: it has passed when the
//! connection reads on.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Who waits until a connection reads on, or is over.
#[derive(Default)]
pub(super) struct Reads(Cell<Option<Waker>>);

impl Reads {
    pub(super) fn wait(&self, cx: &Context<'_>) {
        self.0.set(Some(cx.waker().clone()));
    }

    fn wake(&self) {
        if let Some(waiting) = self.0.take() {
            waiting.wake();
        }
    }
}

/// A stream that says when it is read.
pub(super) struct Read<S> {
    io: S,
    reads: Rc<Reads>,
}

impl<S> Read<S> {
    pub(super) fn new(io: S) -> (Self, Rc<Reads>) {
        let reads = Rc::<Reads>::default();
        (Self { io, reads: Rc::clone(&reads) }, reads)
    }
}

impl<S> Drop for Read<S> {
    fn drop(&mut self) {
        self.reads.wake();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Read<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.reads.wake();
        Pin::new(&mut this.io).poll_read(cx, out)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Read<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bytes)
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
