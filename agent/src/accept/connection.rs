//! How a TCP connection ends.

use socket2::SockRef;
use tokio::net::TcpStream;

/// Ends the connection with RST, so that the other side sees a failure and not an orderly end.
pub fn reset(stream: TcpStream) {
    // An error means that the connection is gone already.
    let _ = SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
    drop(stream);
}
