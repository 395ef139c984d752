//! Copying bytes between a socket and a stream of a shared tunnel until both directions have ended.
//!
//! Idle connections hold no buffer: a direction waits for readiness first and then borrows the worker's.
//! An orderly end (FIN, END_STREAM) of one direction is passed on and leaves the other open; a failure of
//! either ends both, and the other side is reset so that it cannot mistake it for an orderly end.

use super::TunnelStream;
use super::record::RecordError;
use crate::observe::ByteCounters;
use bytes::{Bytes, BytesMut};
use h2::Reason;
use socket2::SockRef;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use tokio::net::TcpStream;

/// Bytes read at once.
pub(super) const CHUNK: usize = 64 << 10;

thread_local! {
    /// The worker's buffer towards tunnels; frames take slices of it, so it is replaced when they are many.
    static TUNNEL_BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Why copying ended before both directions did.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The side that connected failed.
    #[error("the client's connection failed: {0}")]
    Client(#[source] io::Error),
    /// The side that was connected to failed.
    #[error("the server's connection failed: {0}")]
    Upstream(#[source] io::Error),
    /// The tunnel's stream failed.
    #[error("the tunnel's stream failed: {0}")]
    Tunnel(#[source] h2::Error),
    /// The tunnel's own TLS connection failed.
    #[error("the tunnel's connection failed: {0}")]
    Record(#[from] RecordError),
}

/// Counts the bytes of a connection, for every record of it (on the same node there are two).
#[derive(Clone, Debug, Default)]
pub struct Meter {
    records: Vec<Arc<ByteCounters>>,
}

impl Meter {
    /// Counts into `records`.
    pub fn new(records: impl IntoIterator<Item = Arc<ByteCounters>>) -> Self {
        Self { records: records.into_iter().collect() }
    }

    pub(super) fn to_server(&self, bytes: usize) {
        for record in &self.records {
            record.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn to_client(&self, bytes: usize) {
        for record in &self.records {
            record.received.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }
}

/// Which side of a tunnel the socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SocketIs {
    Client,
    Server,
}

/// Copies between a socket and a tunnel's stream. `client_is_socket`: whether the socket is the side that
/// connected (the client's node) or the one connected to (the server's node).
///
/// # Errors
/// [`CopyError`]; the stream has been reset then, and the caller should reset the socket.
pub async fn copy_tunnel(
    socket: &TcpStream,
    stream: TunnelStream,
    client_is_socket: bool,
    meter: &Meter,
) -> Result<(), CopyError> {
    let side = if client_is_socket { SocketIs::Client } else { SocketIs::Server };
    let TunnelStream { mut send, mut receive, ahead, slot: _slot } = stream;
    let mut result = tokio::try_join!(
        into_tunnel(socket, &mut send, side, meter),
        out_of_tunnel(ahead, &mut receive, socket, side, meter),
    );
    if let Err(CopyError::Tunnel(error)) = &mut result
        && !(error.is_reset() || error.is_go_away() || error.is_io())
        && let Some(reason) = poll_fn(|cx| Poll::Ready(reset(&mut send, cx))).await
    {
        *error = reason.into();
    }
    if result.is_err() {
        // The peer must not take the end of our frames for the end of the application's bytes.
        send.send_reset(Reason::CANCEL);
    }
    result.map(|_| ())
}

/// Why the peer has reset the stream. Whoever sends on it hears first that it is closed.
fn reset(send: &mut h2::SendStream<Bytes>, cx: &mut Context<'_>) -> Option<Reason> {
    match send.poll_reset(cx) {
        Poll::Ready(Ok(reason)) => Some(reason),
        Poll::Ready(Err(_)) | Poll::Pending => None,
    }
}

async fn into_tunnel(
    socket: &TcpStream,
    send: &mut h2::SendStream<Bytes>,
    side: SocketIs,
    meter: &Meter,
) -> Result<(), CopyError> {
    loop {
        socket.readable().await.map_err(|error| side.failed(error))?;
        // Capacity is asked for only when there is something to send: an idle stream reserves no window.
        send.reserve_capacity(CHUNK);
        let capacity = match send.capacity() {
            // `poll_capacity` tells of growth only: what a small window has left would be waited for in vain.
            0 => match poll_fn(|cx| send.poll_capacity(cx)).await {
                Some(Ok(capacity)) => capacity,
                Some(Err(error)) => return Err(CopyError::Tunnel(error)),
                None => return Err(CopyError::Tunnel(Reason::STREAM_CLOSED.into())),
            },
            left => left,
        };
        match read_chunk(socket, capacity) {
            Ok(chunk) if chunk.is_empty() => {
                return send.send_data(Bytes::new(), true).map_err(CopyError::Tunnel);
            }
            Ok(chunk) => {
                side.sent(meter, chunk.len());
                send.send_data(chunk, false).map_err(CopyError::Tunnel)?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => send.reserve_capacity(0),
            Err(error) => return Err(side.failed(error)),
        }
    }
}

async fn out_of_tunnel(
    ahead: Vec<Bytes>,
    receive: &mut h2::RecvStream,
    socket: &TcpStream,
    side: SocketIs,
    meter: &Meter,
) -> Result<(), CopyError> {
    let mut ahead = ahead.into_iter();
    loop {
        let chunk = match ahead.next() {
            Some(chunk) => chunk,
            None => match receive.data().await {
                Some(chunk) => chunk.map_err(CopyError::Tunnel)?,
                None => break,
            },
        };
        side.received(meter, chunk.len());
        write_all(socket, &chunk).await.map_err(|error| side.failed(error))?;
        receive.flow_control().release_capacity(chunk.len()).map_err(CopyError::Tunnel)?;
    }
    finish(
        socket,
        match side {
            SocketIs::Client => CopyError::Client,
            SocketIs::Server => CopyError::Upstream,
        },
    )
}

impl SocketIs {
    fn failed(self, error: io::Error) -> CopyError {
        match self {
            Self::Client => CopyError::Client(error),
            Self::Server => CopyError::Upstream(error),
        }
    }

    fn sent(self, meter: &Meter, bytes: usize) {
        match self {
            Self::Client => meter.to_server(bytes),
            Self::Server => meter.to_client(bytes),
        }
    }

    fn received(self, meter: &Meter, bytes: usize) {
        match self {
            Self::Client => meter.to_client(bytes),
            Self::Server => meter.to_server(bytes),
        }
    }
}

/// Reads what is there, at most `limit` bytes; empty at the end.
fn read_chunk(socket: &TcpStream, limit: usize) -> io::Result<Bytes> {
    TUNNEL_BUFFER.with_borrow_mut(|buffer| {
        // Takes the memory back if no frame holds it any more, else allocates.
        buffer.reserve(CHUNK);
        let mut window = bytes::BufMut::limit(&mut *buffer, limit.min(CHUNK));
        socket.try_read_buf(&mut window)?;
        Ok(buffer.split().freeze())
    })
}

async fn write_all(socket: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match socket.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(super) fn finish(socket: &TcpStream, failed: fn(io::Error) -> CopyError) -> Result<(), CopyError> {
    match SockRef::from(socket).shutdown(Shutdown::Write) {
        // The peer has closed both directions already.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        result => result.map_err(failed),
    }
}
