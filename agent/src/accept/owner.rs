//! Whether a program still has the other end of a connection within its pod.
//!
//! Who has closed its socket and who has only ended its own direction look the same on the wire: both have sent FIN. But the
//! other end is a socket of this kernel, and `sock_diag(7)` tells one that a program holds from one that only lingers.

use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};

/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// Where `struct inet_diag_msg` has `idiag_inode`.
const INODE: usize = HEADER + 68;

/// Whether a program holds the TCP socket with these addresses in the network namespace of the calling thread.
///
/// # Errors
/// When the kernel does not say (it lacks `tcp_diag`).
pub(super) fn has_owner(local: SocketAddr, peer: SocketAddr) -> io::Result<bool> {
    let (domain, protocol) = (Domain::from(libc::AF_NETLINK), Protocol::from(libc::NETLINK_SOCK_DIAG));
    // The kernel answers before send(2) returns: nothing is waited for.
    let mut socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(protocol))?;
    socket.send(&question(local, peer))?;
    let mut reply = [0; 1024];
    let length = socket.read(&mut reply)?;
    answer(reply.get(..length).unwrap_or_default())
}

fn question(local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + REQUEST);
    bytes.extend(((HEADER + REQUEST) as u32).to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    // Number and sender of the message: there is only one.
    bytes.extend([0; 8]);
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    bytes.extend([family as u8, libc::IPPROTO_TCP as u8, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(peer.port().to_be_bytes());
    for ip in [local.ip(), peer.ip()] {
        let mut place = [0; 16];
        match ip {
            IpAddr::V4(ip) => place[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => place = ip.octets(),
        }
        bytes.extend(place);
    }
    // Any interface, any cookie.
    bytes.extend([0; 4]);
    bytes.extend([0xff; 8]);
    bytes
}

fn answer(reply: &[u8]) -> io::Result<bool> {
    let number = |at: usize| reply.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "sock_diag said something else");
    let kind = reply.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    match kind.ok_or_else(odd)? {
        BY_FAMILY => Ok(number(INODE).map(u32::from_ne_bytes).ok_or_else(odd)? != 0),
        kind if i32::from(kind) == libc::NLMSG_ERROR => {
            let error = number(HEADER).map(i32::from_ne_bytes).ok_or_else(odd)?;
            match error.saturating_neg() {
                // There is no such socket any more.
                libc::ENOENT => Ok(false),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        }
        _ => Err(odd()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Shutdown, TcpListener, TcpStream};

    fn pair(address: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(address).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn an_end_of_one_direction_is_told_from_an_end_of_all() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (client, server) = pair(address);
            let asked = || has_owner(server.peer_addr().unwrap(), server.local_addr().unwrap()).unwrap();
            let ends = (server.peer_addr().unwrap(), server.local_addr().unwrap());
            assert!(asked(), "{address}");
            client.shutdown(Shutdown::Write).unwrap();
            assert!(asked(), "{address}: it still reads");
            drop(client);
            assert!(!has_owner(ends.0, ends.1).unwrap(), "{address}: it has gone");
            drop(server);
            assert!(!has_owner(ends.0, ends.1).unwrap());
        }
    }

    #[test]
    fn odd_replies_are_errors() {
        for reply in [&[][..], &[0; 20], &[0; 4], &[2; 16]] {
            assert!(answer(reply).is_err(), "{reply:?}");
        }
        let mut short = question("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
        assert_eq!(short.len(), HEADER + REQUEST);
        short.truncate(INODE);
        assert!(answer(&short).is_err());
    }
}
