//! A tunnel's stream for whoever reads and writes bytes: L7 speaks HTTP on it.

use super::TunnelStream;
use super::pool::{Outlook, StreamSlot};
use bytes::{Buf, Bytes};
use h2::Reason;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes that one write hands to the tunnel.
const CHUNK: usize = 64 << 10;

/// A [`TunnelStream`] as bytes. Dropping it before both of its ends resets the stream.
#[derive(Debug)]
pub struct TunnelIo {
    stream: TunnelStream,
    /// Received and not read yet.
    left: VecDeque<Bytes>,
    sent_end: bool,
}

impl TunnelStream {
    /// As bytes.
    pub fn into_io(mut self) -> TunnelIo {
        let left = self.ahead.drain(..).collect();
        TunnelIo { stream: self, left, sent_end: false }
    }

    /// How it stands with its tunnel; none on the server's side.
    pub fn outlook(&self) -> Option<Outlook> {
        self.slot.as_ref().map(StreamSlot::outlook)
    }

    /// Waits until the far side has said something, or has ended. Can be given up at any time.
    ///
    /// # Errors
    /// When the stream is reset.
    pub async fn readable(&mut self) -> Result<(), h2::Error> {
        if self.ahead.is_empty()
            && let Some(data) = self.receive.data().await
        {
            self.ahead.push(data?);
        }
        Ok(())
    }
}

impl AsyncRead for TunnelIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { left, stream, .. } = self.get_mut();
        let chunk = loop {
            match left.front_mut() {
                Some(chunk) if !chunk.is_empty() => break chunk,
                Some(_) => drop(left.pop_front()),
                None => match ready!(stream.receive.poll_data(cx)) {
                    Some(Ok(data)) => left.push_back(data),
                    Some(Err(error)) => return Poll::Ready(Err(failed(error))),
                    None => return Poll::Ready(Ok(())),
                },
            }
        };
        let n = chunk.len().min(out.remaining());
        out.put_slice(&chunk[..n]);
        chunk.advance(n);
        stream.receive.flow_control().release_capacity(n).map_err(failed)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let send = &mut self.get_mut().stream.send;
        send.reserve_capacity(bytes.len().min(CHUNK));
        let capacity = match send.capacity() {
            // `poll_capacity` tells of growth only: what a small window has left would be waited for in vain.
            0 => match ready!(send.poll_capacity(cx)) {
                Some(Ok(capacity)) => capacity,
                Some(Err(error)) => return Poll::Ready(Err(failed(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            },
            left => left,
        };
        let n = capacity.min(bytes.len());
        send.send_data(Bytes::copy_from_slice(&bytes[..n]), false).map_err(failed)?;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.sent_end, true) {
            this.stream.send.send_data(Bytes::new(), true).map_err(failed)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for TunnelIo {
    fn drop(&mut self) {
        if !self.sent_end {
            self.stream.send.send_reset(Reason::CANCEL);
        }
    }
}

fn failed(error: h2::Error) -> io::Error {
    match error.reason() {
        Some(Reason::CANCEL | Reason::STREAM_CLOSED) => io::Error::new(io::ErrorKind::ConnectionReset, error),
        _ => io::Error::other(error),
    }
}
