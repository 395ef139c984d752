//! How a TCP connection ends.
//!
//! Sockets on the way of an application's bytes reset when they are dropped (SO_LINGER with 0 s), from the moment
//! they exist: an agent that is killed or cut off must not look like an application that has said all it had to
//! say. Only [`end`] takes that back. Tunnels need no such care: TLS tells a cut from an end.

use bytes::Bytes;
use rustix::fd::BorrowedFd;
use socket2::{SockRef, Socket, TcpKeepalive};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;

/// Bytes read ahead from a tunnel's socket. TLS asks for one record (16 KiB) at a time; without it every record
/// would cost a system call.
const READ_AHEAD: usize = 128 << 10;

/// The other end of a tunnel may vanish with its node and never say so: an idle tunnel is asked so often, and is over after
/// so many questions without an answer; what was sent is waited for as long.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_QUESTIONS: u32 = 3;
/// No more is taken by Linux (MAX_TCP_KEEPIDLE in seconds, MAX_TCP_KEEPCNT).
const MAX_KEEPALIVE: u32 = 32_767;
const MAX_PROBES: u32 = 127;
const UNANSWERED: Duration = Duration::from_secs(35);

/// A socket as the TLS of a tunnel wants it: it reads ahead, and hands out no more than the rest of one record at a time
/// until [`Self::release`], so that a session can be taken apart between two records.
#[derive(Debug)]
pub struct TunnelSocket {
    socket: BufReader<TcpStream>,
    record: Option<Record>,
}

/// How much of a record has been handed out.
#[derive(Clone, Copy, Debug)]
enum Record {
    Header { bytes: [u8; 5], have: usize },
    Body { left: usize },
}

impl Record {
    const BEGIN: Self = Self::Header { bytes: [0; 5], have: 0 };

    /// How many bytes may be handed out now.
    fn room(self) -> usize {
        match self {
            Self::Header { have, .. } => 5 - have,
            Self::Body { left } => left,
        }
    }

    /// After these bytes, no more than there was room for.
    fn after(self, given: &[u8]) -> Self {
        match self {
            Self::Header { mut bytes, have } => {
                let end = have + given.len();
                if let Some(place) = bytes.get_mut(have..end) {
                    place.copy_from_slice(given);
                }
                match usize::from(u16::from_be_bytes([bytes[3], bytes[4]])) {
                    _ if end < 5 => Self::Header { bytes, have: end },
                    0 => Self::BEGIN,
                    left => Self::Body { left },
                }
            }
            Self::Body { left } if left > given.len() => Self::Body { left: left - given.len() },
            Self::Body { .. } => Self::BEGIN,
        }
    }
}

impl TunnelSocket {
    /// From now on as much as there is.
    pub fn release(&mut self) {
        self.record = None;
    }

    /// The socket, which resets when it is dropped, and what was read ahead. None in the middle of a record: what has been
    /// handed out of it would be lost.
    pub fn into_parts(self) -> Option<(TcpStream, Bytes)> {
        if !matches!(self.record, Some(Record::Header { have: 0, .. })) {
            return None;
        }
        let ahead = Bytes::copy_from_slice(self.socket.buffer());
        let socket = self.socket.into_inner();
        // An error means that the connection is gone already.
        let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        Some((socket, ahead))
    }
}

impl AsyncRead for TunnelSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(record) = self.record else { return Pin::new(&mut self.socket).poll_read(cx, buffer) };
        let ahead = ready!(Pin::new(&mut self.socket).poll_fill_buf(cx))?;
        let given = ahead.get(..record.room().min(buffer.remaining()).min(ahead.len())).unwrap_or_default();
        buffer.put_slice(given);
        let (next, length) = (record.after(given), given.len());
        self.record = Some(next);
        Pin::new(&mut self.socket).consume(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Prepares a socket for a tunnel: it reads ahead, closing it is orderly, and it does not outlive the other end.
pub fn for_tunnel(socket: TcpStream) -> TunnelSocket {
    deliver_on_close(&socket);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_QUESTIONS);
    // An error means that the connection is gone already.
    let _ = SockRef::from(&socket).set_tcp_keepalive(&keepalive);
    let _ = SockRef::from(&socket).set_tcp_user_timeout(Some(UNANSWERED));
    TunnelSocket { socket: BufReader::with_capacity(READ_AHEAD, socket), record: Some(Record::BEGIN) }
}

/// The other end is asked whether it is still there: after so many seconds of silence, again after so many, and it is over after
/// so many questions without an answer. In the order of a DestinationRule: probes, time, interval.
pub fn keep_alive(socket: &TcpStream, (probes, time, interval): (u32, u32, u32)) {
    let seconds = |seconds: u32| Duration::from_secs(seconds.clamp(1, MAX_KEEPALIVE).into());
    let keepalive = TcpKeepalive::new()
        .with_time(seconds(time))
        .with_interval(seconds(interval))
        .with_retries(probes.clamp(1, MAX_PROBES));
    // An error means that the connection is gone already.
    let _ = SockRef::from(socket).set_tcp_keepalive(&keepalive);
}

/// Ends the connection with RST, so that the other side sees a failure and not an orderly end.
pub fn reset(stream: TcpStream) {
    // An error means that the connection is gone already.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

/// Ends the connection in order: what is still in the kernel's buffers is delivered.
pub fn end(stream: TcpStream) {
    deliver_on_close(&stream);
    drop(stream);
}

/// Ends the connection with RST, whoever else holds the socket: an end that must not be mistaken for an orderly one, and
/// that nobody can go on after.
pub fn abort(socket: BorrowedFd<'_>) {
    // Disconnecting resets (tcp_disconnect() in Linux); an error means that the connection is gone already.
    let _ = rustix::net::connect_unspec(socket);
}

/// From now on closing the socket is orderly, whoever closes it.
pub fn deliver_on_close(stream: &TcpStream) {
    // An error means that the connection is gone already.
    let _ = SockRef::from(stream).set_linger(None);
}

/// From now on closing the socket resets the connection, until [`end`].
pub(super) fn reset_on_close(socket: &Socket) -> io::Result<()> {
    socket.set_linger(Some(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keep_alive_is_as_it_is_said_or_as_far_as_linux_goes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let found = || {
            let socket = SockRef::from(&socket);
            let seconds = |time: io::Result<Duration>| time.unwrap().as_secs();
            let (time, interval) = (socket.tcp_keepalive_time(), socket.tcp_keepalive_interval());
            (
                socket.keepalive().unwrap(),
                socket.tcp_keepalive_retries().unwrap(),
                seconds(time),
                seconds(interval),
            )
        };
        assert!(!found().0);
        for (asked, expected) in
            [((3, 60, 5), (true, 3, 60, 5)), ((u32::MAX, u32::MAX, 0), (true, 127, 32_767, 1))]
        {
            keep_alive(&socket, asked);
            assert_eq!(found(), expected);
        }
    }
}
