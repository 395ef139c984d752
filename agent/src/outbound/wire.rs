//! Connections as byte streams, for HTTP to travel on.

use super::seats::Seat;
use crate::accept::deliver_on_close;
use crate::flow::Upstream;
use crate::http::{BoxIo, Opened, Phase};
use crate::observe::ByteCounters;
use crate::standing::Guest;
use crate::tunnel::Outlook;
use futures_util::FutureExt as _;
use std::cell::RefCell;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// A socket that resets when it is dropped, unless it was shut down before.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Rc<RefCell<TcpStream>>,
    /// The record of the pod of this node that it leads to.
    bytes: Option<Arc<ByteCounters>>,
}

impl Wire {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self { socket: Rc::new(RefCell::new(socket)), bytes: None }
    }

    /// Sees how the socket is; does not keep it.
    pub(super) fn watch(&self) -> WireWatch {
        WireWatch(Rc::downgrade(&self.socket))
    }
}

/// Sees how the socket of a [`Wire`] is.
#[derive(Debug)]
pub(super) struct WireWatch(Weak<RefCell<TcpStream>>);

impl WireWatch {
    /// Where the other end and this one are, if the other end has sent its last byte. No system call before.
    pub(super) fn ended(&self) -> Option<io::Result<(SocketAddr, SocketAddr)>> {
        let socket = self.0.upgrade()?;
        let socket = socket.borrow();
        let ready = socket.ready(Interest::READABLE).now_or_never()?;
        match ready {
            Ok(ready) if !ready.is_read_closed() => None,
            Ok(_) => Some(socket.peer_addr().and_then(|peer| Ok((peer, socket.local_addr()?)))),
            Err(error) => Some(Err(error)),
        }
    }
}

/// An upstream for requests; who lets a guest go ends its connection. `seat` is held as long as the connection.
pub(super) fn opened(upstream: Upstream, guest: Option<Guest>, seat: Option<Seat>) -> Opened {
    let bytes = guest.as_ref().and_then(Guest::bytes);
    let outlook = match &upstream {
        Upstream::Tunnel(stream) => stream.outlook(),
        Upstream::Socket(_) | Upstream::Dedicated(_) | Upstream::Originated(_) => None,
    };
    let io: BoxIo = match upstream {
        // Not asked for either: TLS is what is spoken over what comes from here.
        Upstream::Originated(opened) => opened.io,
        Upstream::Socket(socket) => Box::new(Wire { bytes, ..Wire::new(socket) }),
        Upstream::Tunnel(stream) => Box::new(stream.into_io()),
        // Not asked for: requests share. If it came, it would be as if it had ended at once.
        Upstream::Dedicated(_) => Box::new(tokio::io::join(tokio::io::empty(), tokio::io::sink())),
    };
    let phase = watch::Sender::new(Phase::Busy);
    let told = phase.subscribe();
    let is_needed = seat.as_ref().map(Seat::is_needed);
    let evicted = async move {
        let evicted = async move {
            match guest {
                Some(guest) => guest.evicted().await,
                None => pending().await,
            }
        };
        match seat {
            None => evicted.await,
            Some(mut seat) => tokio::select! { () = evicted => {}, () = seat.gives_way(told) => {} },
        }
    };
    // The far agent is being replaced, for example: its streams go on for a moment, and are cut then.
    let is_ending = Box::new(move || {
        outlook.as_ref().is_some_and(Outlook::is_ending) || is_needed.as_ref().is_some_and(|needed| needed())
    });
    Opened { io, evicted: Box::pin(evicted), phase, is_ending }
}

/// A stream of TLS to a server whose bytes are counted in a record. It also ends where the server closes without ending its TLS.
#[derive(Debug)]
pub(super) struct Counted<S> {
    io: S,
    bytes: Arc<ByteCounters>,
    is_cut: bool,
}

impl<S> Counted<S> {
    pub(super) fn new(io: S, bytes: Arc<ByteCounters>) -> Self {
        Self { io, bytes, is_cut: false }
    }

    /// Whether the server has closed without ending its TLS.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = out.filled().len();
        match ready!(Pin::new(&mut this.io).poll_read(cx, out)) {
            // What rustls says of an end without close_notify.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => this.is_cut = true,
            read => read?,
        }
        this.bytes.received.fetch_add((out.filled().len() - before) as u64, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, bytes))?;
        this.bytes.sent.fetch_add(written as u64, Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = out.filled().len();
        ready!(Pin::new(&mut *this.socket.borrow_mut()).poll_read(cx, out))?;
        if let Some(bytes) = &this.bytes {
            bytes.received.fetch_add((out.filled().len() - before) as u64, Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl Wire {
    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Some(bytes), Poll::Ready(Ok(n))) = (&self.bytes, &written) {
            bytes.sent.fetch_add(*n as u64, Relaxed);
        }
        written
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut *this.socket.borrow_mut()).poll_write(cx, bytes);
        this.count(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut *this.socket.borrow_mut()).poll_write_vectored(cx, bytes);
        this.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().socket.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        deliver_on_close(&this.socket.borrow());
        match ready!(Pin::new(&mut *this.socket.borrow_mut()).poll_shutdown(cx)) {
            // The peer has closed both directions already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}
