//! Byte streams that requests travel on, whatever they are underneath.

use super::limits::{LINGER, MAX_HEAD, MAX_UNWANTED};
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
pub(crate) async fn close<S: AsyncRead + AsyncWrite + Unpin>(stream: S) {
    close_after(stream, MAX_HEAD).await;
}

/// The same, for a client that may be in the middle of a body that nobody wants any more: the answer has to reach it.
pub(super) async fn close_on_client<S: AsyncRead + AsyncWrite + Unpin>(stream: S) {
    close_after(stream, MAX_UNWANTED).await;
}

async fn close_after<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, most: usize) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let rest = async {
        let mut buffer = [0; 4096];
        let mut heard = 0;
        while heard < most {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(n) => heard += n,
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// A stream to an endpoint that may have answered and gone before the request was over: what can no longer be written is left
/// out, so that the answer is read all the same. Reading tells how the stream ended.
#[derive(Debug)]
pub(super) struct Heard<S> {
    io: S,
    deaf: bool,
}

impl<S> Heard<S> {
    pub(super) fn new(io: S) -> Self {
        Self { io, deaf: false }
    }

    /// What is told of a write.
    fn told<T>(&mut self, written: Poll<io::Result<T>>, all: T) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Err(_)) => {
                self.deaf = true;
                Poll::Ready(Ok(all))
            }
            written => written,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, out)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.deaf {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.told(written, bytes.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let all = bytes.iter().map(|slice| slice.len()).sum();
        if this.deaf {
            return Poll::Ready(Ok(all));
        }
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, bytes);
        this.told(written, all)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.deaf {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut this.io).poll_flush(cx);
        this.told(flushed, ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    #[tokio::test]
    async fn an_answer_is_heard_after_its_end_has_stopped_listening() {
        let (near, mut far) = duplex(64);
        let mut near = Heard::new(near);
        far.write_all(b"413").await.unwrap();
        drop(far);
        near.write_all(&[0; 1000]).await.unwrap();
        near.flush().await.unwrap();
        let slices = [io::IoSlice::new(b"a"), io::IoSlice::new(b"bc")];
        assert_eq!(near.write_vectored(&slices).await.unwrap(), 3);
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"413");
    }

    #[tokio::test]
    async fn who_is_in_the_middle_of_a_body_gets_the_answer() {
        let (mut client, server) = duplex(4096);
        let closing = tokio::spawn(close_on_client(server));
        // More than a mere head.
        client.write_all(&[0; 10 * MAX_HEAD]).await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        drop(client);
        closing.await.unwrap();
    }
}
