//! Byte streams that requests travel on, whatever they are underneath.

use super::limits::{LINGER, MAX_HEAD};
use bytes::{Buf, Bytes};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// A byte stream.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// Any byte stream.
pub(crate) type BoxIo = Box<dyn Io>;

/// Runs hyper's tasks on the worker that they belong to.
#[derive(Clone, Copy, Debug)]
pub(super) struct OnWorker;

impl<F: Future + 'static> hyper::rt::Executor<F> for OnWorker {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            let _done = task.await;
        });
    }
}

/// Ends a stream in order: says that it ends, and hears the other side out for a moment, for who is cut off in the middle of
/// its own end takes that for a failure. Who has much to say is cut off all the same.
pub(crate) async fn close<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let rest = async {
        let mut buffer = [0; 4096];
        let mut heard = 0;
        while heard < MAX_HEAD {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(n) => heard += n,
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// A stream of which some bytes were read already: they come first.
#[derive(Debug)]
pub(crate) struct Rewound<S> {
    first: Bytes,
    io: S,
}

impl<S> Rewound<S> {
    /// `first`, then what `io` holds.
    pub(crate) fn new(first: Bytes, io: S) -> Self {
        Self { first, io }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.first.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, out);
        }
        let n = this.first.len().min(out.remaining());
        out.put_slice(&this.first[..n]);
        this.first.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
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
