//! Listeners inside a pod's network namespace.

use super::connection::reset_on_close;
use super::netns::{Netns, NetnsThread, netns_cookie};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::sockopt::{socket_acceptconn, socket_type};
use rustix::net::{SocketFlags, SocketType, acceptfrom_with};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

/// Connections that wait to be accepted, per listener.
const BACKLOG: i32 = 4096;

/// How long accepting pauses when the process has no file descriptors left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// A listening socket that is not yet bound to a runtime.
#[derive(Debug)]
pub struct Listener {
    fd: Arc<OwnedFd>,
}

/// A connection as it was accepted, before any runtime knows it.
#[derive(Debug)]
pub struct Accepted {
    fd: OwnedFd,
    /// The remote address as the network shows it.
    pub peer: SocketAddr,
}

impl Listener {
    /// Opens a listener inside `netns`.
    ///
    /// # Errors
    /// When the address is taken (an application uses one of warren's ports) or not to be had.
    pub async fn open(thread: &NetnsThread, netns: &Arc<Netns>, address: SocketAddr) -> io::Result<Self> {
        thread.run(netns, move || listen(address)).await
    }

    /// A listener that an earlier agent opened inside the namespace with this cookie.
    ///
    /// # Errors
    /// When it is anything else than the listener that [`Self::open`] would have opened at `address`.
    pub fn adopt(fd: Arc<OwnedFd>, cookie: u64, address: SocketAddr) -> io::Result<Self> {
        let other = |what: &str| Err(io::Error::other(format!("the inherited socket {what}")));
        if socket_type(&fd)? != SocketType::STREAM || !socket_acceptconn(&fd)? {
            return other("does not listen");
        }
        match SockRef::from(&*fd).local_addr()?.as_socket() {
            Some(found) if found == address => {}
            found => return other(&format!("listens on {found:?}, not on {address}")),
        }
        if netns_cookie(fd.as_fd())? != cookie {
            return other("is in another network namespace");
        }
        rustix::io::ioctl_fionbio(&*fd, true)?;
        Ok(Self { fd })
    }

    /// Another listener on the same socket.
    pub fn share_of(fd: &Arc<OwnedFd>) -> Self {
        Self { fd: Arc::clone(fd) }
    }

    /// The socket, to be shared.
    pub fn share(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }

    /// Accepts until `closing` completes; who has connected by then is still accepted.
    ///
    /// # Errors
    /// When the socket fails for good; a lack of file descriptors is waited out.
    pub async fn accept_loop(
        self,
        closing: impl Future<Output = ()>,
        mut on_accept: impl FnMut(Accepted),
    ) -> io::Result<()> {
        // SAFETY: the AsyncFd has a share of the descriptor, which an OwnedFd keeps open and the same until it is dropped.
        #[allow(unsafe_code, reason = "tokio asks for the promise that the descriptor stays the same")]
        let listener = unsafe { AsyncFd::register(self.fd)? };
        let mut closing = std::pin::pin!(closing);
        loop {
            let mut ready = tokio::select! {
                ready = listener.readable() => ready?,
                () = &mut closing => {
                    while let Ok(accepted) = accept(listener.get_ref()) {
                        on_accept(accepted);
                    }
                    return Ok(());
                }
            };
            match ready.try_io(|fd| accept(fd.get_ref())) {
                Ok(Ok(accepted)) => {
                    on_accept(accepted);
                    // One at a time: a pod that connects without end must not keep the others' listeners waiting.
                    tokio::task::yield_now().await;
                }
                Err(_) => {}
                Ok(Err(error)) => match error.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        tracing::error!(%error, "cannot accept a connection; raise the limit of open files");
                        tokio::time::sleep(EXHAUSTED_PAUSE).await;
                    }
                    // The connection went away before it was accepted (accept(2), "Error handling").
                    Some(libc::ECONNABORTED | libc::EINTR | libc::EPERM | libc::EPROTO) => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

fn accept(listener: &OwnedFd) -> io::Result<Accepted> {
    let (fd, peer) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    // TCP has no nameless peers: one without a name has gone already.
    let peer = peer.ok_or_else(|| io::Error::from_raw_os_error(libc::ECONNABORTED))?;
    Ok(Accepted { fd, peer })
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Accepted {
    /// Hands the connection to the current runtime.
    ///
    /// # Errors
    /// When the runtime's selector refuses it.
    pub fn into_stream(self) -> io::Result<TcpStream> {
        let stream = TcpStream::from_std(std::net::TcpStream::from(self.fd))?;
        // Small writes must not wait for an acknowledgement: the applications decide about batching.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Whether a socket listens on `port` in this process's own network namespace.
pub fn is_own_listener(fd: BorrowedFd<'_>, port: u16) -> bool {
    let is = || -> io::Result<bool> {
        let own = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = SockRef::from(&fd).local_addr()?.as_socket();
        Ok(socket_acceptconn(fd)?
            && address.is_some_and(|address| address.port() == port)
            && netns_cookie(fd)? == netns_cookie(own.as_fd())?)
    };
    is().unwrap_or(false)
}

fn listen(address: SocketAddr) -> io::Result<Listener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    // A restarted agent must get its ports back while old connections are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
    }
    // What is accepted inherits it.
    reset_on_close(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(Listener { fd: Arc::new(socket.into()) })
}
