//! Opening a connection the way different programs do.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::sys::{self, EdgePoll};

/// How a program connects and waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Style {
    /// connect() blocks, as in C and curl's simplest form
    #[default]
    Blocking,
    /// connect() returns EINPROGRESS, then poll(), then connect() again to learn the result
    Nonblocking,
    /// Edge-triggered epoll, SO_ERROR, as tokio and nginx do
    Epoll,
    /// As Go's net package: epoll, SO_ERROR, and getpeername() as the proof that it is connected
    Go,
}

/// Options of every client.
#[derive(Args, Clone, Debug)]
pub(crate) struct Target {
    /// Address or name, and port
    #[arg(long)]
    pub(crate) to: String,
    /// How to connect and wait
    #[arg(long, value_enum, default_value_t)]
    pub(crate) style: Style,
    /// Bind to this address (and port) first
    #[arg(long)]
    bind: Option<String>,
    /// SO_BINDTODEVICE
    #[arg(long)]
    bind_device: Option<String>,
    /// Ask for multipath TCP
    #[arg(long)]
    mptcp: bool,
    /// Connect there first, dissolve that connection (AF_UNSPEC), and use the same socket again
    #[arg(long)]
    first: Option<SocketAddr>,
    /// Reach an IPv4 address through an IPv6 socket (::ffff:a.b.c.d)
    #[arg(long)]
    v4_mapped: bool,
    /// How long connecting and each step after it may take
    #[arg(long, default_value_t = 10_000)]
    timeout_ms: u64,
}

impl Target {
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// The same kind of connection to somewhere else.
    pub(crate) fn with_other(&self, to: &str) -> Self {
        Self { to: to.to_owned(), ..self.clone() }
    }

    /// The first address of the name.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        let mut all = self.to.to_socket_addrs().with_context(|| format!("cannot resolve {}", self.to))?;
        let found = all.next().with_context(|| format!("{} has no address", self.to))?;
        Ok(if self.v4_mapped { mapped(found) } else { found })
    }

    /// Opens a connection to `address`.
    pub(crate) fn dial(&self, address: SocketAddr) -> io::Result<Conn> {
        let protocol = if self.mptcp { Protocol::MPTCP } else { Protocol::TCP };
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(protocol))?;
        if let Some(device) = &self.bind_device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        if let Some(bind) = &self.bind {
            socket.bind(&SockAddr::from(parse_bind(bind)?))?;
        }
        if let Some(first) = self.first {
            let first = if self.v4_mapped { mapped(first) } else { first };
            socket.connect(&first.into())?;
            sys::dissolve(socket.as_fd())?;
        }
        let target = SockAddr::from(address);
        let end = Instant::now() + self.timeout();
        let edges = match self.style {
            Style::Blocking => {
                // SO_SNDTIMEO bounds a blocking connect() too.
                socket.set_read_timeout(Some(self.timeout()))?;
                socket.set_write_timeout(Some(self.timeout()))?;
                socket.connect(&target)?;
                None
            }
            Style::Nonblocking => {
                start(&socket, &target)?;
                if !sys::poll(socket.as_fd(), libc::POLLOUT, self.timeout())? {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                match socket.connect(&target) {
                    Err(error) if error.raw_os_error() == Some(libc::EISCONN) => {}
                    other => other?,
                }
                None
            }
            Style::Epoll | Style::Go => {
                start(&socket, &target)?;
                let edges = EdgePoll::watch(socket.as_fd())?;
                self.await_connected(&socket, &edges, end)?;
                Some(edges)
            }
        };
        Ok(Conn {
            stream: socket.into(),
            edges,
            limit: self.timeout(),
            blocking: self.style == Style::Blocking,
        })
    }

    fn await_connected(&self, socket: &Socket, edges: &EdgePoll, end: Instant) -> io::Result<()> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let events = edges.wait(left)?.ok_or(io::ErrorKind::TimedOut)?;
            if events & (libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP) as u32 == 0 {
                continue;
            }
            if let Some(error) = socket.take_error()? {
                return Err(error);
            }
            // Go: SO_ERROR may be 0 before the connection stands; only a peer's name proves it.
            if self.style == Style::Epoll || socket.peer_addr().is_ok() {
                return Ok(());
            }
        }
    }
}

fn start(socket: &Socket, target: &SockAddr) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    match socket.connect(target) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        other => other,
    }
}

fn parse_bind(text: &str) -> io::Result<SocketAddr> {
    let alone = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0));
    text.parse().or_else(|_| alone()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// A connection that waits in its style.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) stream: TcpStream,
    edges: Option<EdgePoll>,
    limit: Duration,
    blocking: bool,
}

impl Conn {
    fn retry<T>(&self, events: libc::c_short, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match attempt() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.blocking => {}
                // A blocking socket says EAGAIN when its timeout is over.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                other => return other,
            }
            let ready = match &self.edges {
                Some(edges) => edges.wait(self.limit)?.is_some(),
                None => sys::poll(self.stream.as_fd(), events, self.limit)?,
            };
            if !ready {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

impl Read for Conn {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.retry(libc::POLLIN, || (&self.stream).read(buffer))
    }
}

impl Write for Conn {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.retry(libc::POLLOUT, || (&self.stream).write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
