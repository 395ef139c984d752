//! How a TCP connection ends.
//!
//! Sockets on the way of an application's bytes reset when they are dropped (SO_LINGER with 0 s), from the moment
//! they exist: an agent that is killed or cut off must not look like an application that has said all it had to
//! say. Only [`end`] takes that back. Tunnels need no such care: TLS tells a cut from an end.

use socket2::{SockRef, Socket, TcpKeepalive};
use std::io;
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::TcpStream;

/// Bytes read ahead from a tunnel's socket. TLS asks for one record (16 KiB) at a time; without it every record
/// would cost a system call.
const READ_AHEAD: usize = 128 << 10;

/// The other end of a tunnel may vanish with its node and never say so: an idle tunnel is asked so often, and is over after
/// so many questions without an answer; what was sent is waited for as long.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_QUESTIONS: u32 = 3;
const UNANSWERED: Duration = Duration::from_secs(35);

/// A socket as the TLS of a tunnel wants it.
pub type TunnelSocket = BufReader<TcpStream>;

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
    BufReader::with_capacity(READ_AHEAD, socket)
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

/// From now on closing the socket is orderly, whoever closes it.
pub fn deliver_on_close(stream: &TcpStream) {
    // An error means that the connection is gone already.
    let _ = SockRef::from(stream).set_linger(None);
}

/// From now on closing the socket resets the connection, until [`end`].
pub(super) fn reset_on_close(socket: &Socket) -> io::Result<()> {
    socket.set_linger(Some(Duration::ZERO))
}
