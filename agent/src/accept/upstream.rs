//! Upstream sockets: opened inside the pod's network namespace, so that packets leave with the pod's address.
//!
//! Opening one means a visit to the namespace thread, which would cost every connection two wake-ups. A small
//! stock per pod and family hides that: workers take from it and the thread refills it in batches.

use super::connection::reset_on_close;
use super::netns::{Netns, NetnsThread, netns_cookie};
use super::owner::has_owner;
use rustix::fd::{AsFd, OwnedFd};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};

/// Sockets opened at one visit.
const BATCH: usize = 16;
/// Below so many a refill is asked for.
const LOW_WATER: usize = 8;

/// Address family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`.
    V6,
}

impl From<IpAddr> for Family {
    fn from(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// Opens sockets in one pod's network namespace: the narrow capability that a connection's story gets.
#[derive(Debug)]
pub struct PodSockets {
    thread: NetnsThread,
    netns: Arc<Netns>,
    v4: Arc<Stock>,
    v6: Arc<Stock>,
}

#[derive(Debug, Default)]
struct Stock {
    sockets: parking_lot::Mutex<Vec<OwnedFd>>,
    refilling: AtomicBool,
}

impl PodSockets {
    /// A factory for the namespace, with an empty stock.
    pub fn new(thread: NetnsThread, netns: Arc<Netns>) -> Self {
        Self { thread, netns, v4: Arc::default(), v6: Arc::default() }
    }

    /// The namespace.
    pub fn netns(&self) -> &Arc<Netns> {
        &self.netns
    }

    /// An unconnected TCP socket.
    ///
    /// # Errors
    /// When the namespace cannot be entered or no file descriptor is left.
    pub async fn tcp(&self, family: Family) -> io::Result<OwnedFd> {
        let stock = match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        };
        let (taken, left) = {
            let mut sockets = stock.sockets.lock();
            (sockets.pop(), sockets.len())
        };
        if left < LOW_WATER && !stock.refilling.swap(true, Ordering::AcqRel) {
            let stock = Arc::clone(stock);
            self.thread.post(&self.netns, move || stock.refill(family))?;
        }
        match taken {
            Some(socket) => Ok(socket),
            None => self.thread.run(&self.netns, move || open(family)).await,
        }
    }

    /// Whether a program still has the other end of a connection that was captured in the namespace: one that has ended
    /// its own direction may go on reading.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or its kernel does not say.
    pub async fn has_owner(&self, socket: SocketAddr, accepted_at: SocketAddr) -> io::Result<bool> {
        self.thread.run(&self.netns, move || has_owner(socket, accepted_at)).await
    }

    /// Whether every address is local to the namespace, and the namespace's cookie. This is how a pod's
    /// record and its namespace are checked against each other.
    ///
    /// # Errors
    /// When an address is not local (`EADDRNOTAVAIL`), or the namespace cannot be entered.
    pub async fn verify_addresses(&self, addresses: Vec<IpAddr>) -> io::Result<u64> {
        let work = move || {
            let mut cookie = Err(io::Error::other("the pod has no address"));
            for ip in addresses {
                // Binding succeeds only for an address of the namespace; nothing is sent.
                cookie = netns_cookie(UdpSocket::bind((ip, 0))?.as_fd());
            }
            cookie
        };
        self.thread.run(&self.netns, work).await
    }
}

impl Stock {
    fn refill(&self, family: Family) {
        let batch: io::Result<Vec<_>> = (0..BATCH).map(|_| open(family)).collect();
        match batch {
            Ok(batch) => self.sockets.lock().extend(batch),
            Err(error) => tracing::warn!(%error, "cannot open upstream sockets ahead of time"),
        }
        self.refilling.store(false, Ordering::Release);
    }
}

fn open(family: Family) -> io::Result<OwnedFd> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    reset_on_close(&socket)?;
    Ok(socket.into())
}

/// Connects a socket of [`PodSockets::tcp`].
///
/// # Errors
/// What connect(2) says, or `TimedOut` after `deadline`.
pub async fn connect(socket: OwnedFd, to: SocketAddr, deadline: Duration) -> io::Result<TcpStream> {
    let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
    match tokio::time::timeout(deadline, socket.connect(to)).await {
        Ok(connected) => connected,
        Err(_) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", deadline.as_secs())))
        }
    }
}
