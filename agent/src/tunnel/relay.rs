//! Copying bytes between two sockets, one of which may be a tunnel's own TLS connection, until both directions have
//! ended.
//!
//! All that copying knows lies in the [`Relay`], nothing in its future: whoever drops the future has frozen the
//! connection between two steps, can take its state out ([`Relay::state`]), and copy on, here or in another process.
//! Idle connections hold no buffer: a direction waits for readiness first and then borrows the worker's.
//!
//! An orderly end (FIN; in a tunnel `close_notify`) of one direction is passed on and leaves the other open; a failure
//! of either ends both, and the caller resets, so that nobody mistakes it for an orderly end.

use super::copy::{CHUNK, CopyError, Meter, finish};
use super::record::{Channel, ChannelState, OPEN_BUFFER, Opened, Opener, RecordError, Sealer};
use bytes::{Buf, Bytes};
use rustix::fd::{AsFd, BorrowedFd};
use std::cell::{Cell, RefCell};

use std::io::{self, IoSlice};
use tokio::net::TcpStream;

thread_local! {
    /// The worker's buffer for what is read.
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; OPEN_BUFFER]);
    /// The worker's buffer for what is sealed.
    static SEALED: RefCell<Vec<u8>> = RefCell::default();
}

/// What one direction has not finished.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Read from one side and not yet written to the other, in the form in which it is to be written.
    pub rest: Bytes,
    /// One side has said that no more comes.
    pub ended: bool,
    /// And the other has been told.
    pub passed_on: bool,
}

/// A connection being copied.
#[derive(Debug)]
pub struct Relay {
    ends: Ends,
    /// From the client to the server.
    up: Way,
    /// From the server to the client.
    down: Way,
}

#[derive(Debug)]
enum Ends {
    Sockets { client: TcpStream, server: TcpStream },
    Tunnel { socket: TcpStream, tunnel: Box<SealedSocket>, side: Side },
}

/// Which side of a tunnel the application's socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The side that connects: this is the client's node.
    Client,
    /// The side that is connected to: this is the server's node.
    Server,
}

/// A tunnel that carries one connection: a TLS connection of its own, after the handshake and the CONNECT exchange.
#[derive(Debug)]
pub struct SealedSocket {
    socket: TcpStream,
    channel: Channel,
    /// Plaintext that came together with the end of the exchange.
    early: Bytes,
    /// And its end.
    ended: bool,
}

/// What copying knows, without the sockets.
#[derive(Debug)]
pub struct RelayState {
    /// From the client to the server.
    pub up: Way,
    /// From the server to the client.
    pub down: Way,
    /// The tunnel's, where one of the sockets is a tunnel's.
    pub tunnel: Option<(Side, ChannelState)>,
}

impl SealedSocket {
    /// `early`: what has been decrypted of the connection's bytes already; `ended`: and no more comes.
    pub fn new(socket: TcpStream, channel: Channel, early: Bytes, ended: bool) -> Self {
        Self { socket, channel, early, ended }
    }
}

impl Side {
    fn failed(self) -> fn(io::Error) -> CopyError {
        match self {
            Self::Client => CopyError::Client,
            Self::Server => CopyError::Upstream,
        }
    }
}

impl Relay {
    /// Between two sockets.
    pub fn sockets(client: TcpStream, server: TcpStream) -> Self {
        Self { ends: Ends::Sockets { client, server }, up: Way::default(), down: Way::default() }
    }

    /// Between the application's socket, which is on `side`, and a tunnel's own connection. What came early is counted.
    pub fn tunnel(socket: TcpStream, mut tunnel: SealedSocket, side: Side, meter: &Meter) -> Self {
        let early = Way { rest: std::mem::take(&mut tunnel.early), ended: tunnel.ended, ..Way::default() };
        match side {
            Side::Client => meter.to_client(early.rest.len()),
            Side::Server => meter.to_server(early.rest.len()),
        }
        let (up, down) = match side {
            Side::Client => (Way::default(), early),
            Side::Server => (early, Way::default()),
        };
        Self { ends: Ends::Tunnel { socket, tunnel: Box::new(tunnel), side }, up, down }
    }

    /// As it was when its state was taken.
    ///
    /// # Errors
    /// [`RecordError`]: the tunnel's state is none.
    pub fn restore(client: TcpStream, server: TcpStream, state: RelayState) -> Result<Self, RecordError> {
        let RelayState { up, down, tunnel } = state;
        let ends = match tunnel {
            None => Ends::Sockets { client, server },
            Some((side, channel)) => {
                let channel = Channel::restore(channel)?;
                let (socket, far) = match side {
                    Side::Client => (client, server),
                    Side::Server => (server, client),
                };
                let tunnel =
                    Box::new(SealedSocket { socket: far, channel, early: Bytes::new(), ended: false });
                Ends::Tunnel { socket, tunnel, side }
            }
        };
        Ok(Self { ends, up, down })
    }

    /// What it knows. Only while nothing copies: whoever holds `&self` can be sure of that.
    pub fn state(&self) -> RelayState {
        let tunnel = match &self.ends {
            Ends::Sockets { .. } => None,
            Ends::Tunnel { tunnel, side, .. } => Some((*side, tunnel.channel.state())),
        };
        RelayState { up: self.up.clone(), down: self.down.clone(), tunnel }
    }

    /// The client's socket and the server's.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        match &self.ends {
            Ends::Sockets { client, server } => [client.as_fd(), server.as_fd()],
            Ends::Tunnel { socket, tunnel, side: Side::Client } => [socket.as_fd(), tunnel.socket.as_fd()],
            Ends::Tunnel { socket, tunnel, side: Side::Server } => [tunnel.socket.as_fd(), socket.as_fd()],
        }
    }

    /// Both sockets, the client's first.
    pub fn into_sockets(self) -> [TcpStream; 2] {
        match self.ends {
            Ends::Sockets { client, server } => [client, server],
            Ends::Tunnel { socket, tunnel, side: Side::Client } => [socket, tunnel.socket],
            Ends::Tunnel { socket, tunnel, side: Side::Server } => [tunnel.socket, socket],
        }
    }

    /// Copies until both directions have ended. May be dropped at any time and called again.
    ///
    /// # Errors
    /// [`CopyError`]; the caller should reset both sockets then.
    pub async fn copy(&mut self, meter: &Meter) -> Result<(), CopyError> {
        let Self { ends, up, down } = self;
        let (to_server, to_client) = (|n| meter.to_server(n), |n| meter.to_client(n));
        match ends {
            Ends::Sockets { client, server } => {
                let up = pump(client, server, up, to_server, [CopyError::Client, CopyError::Upstream]);
                let down = pump(server, client, down, to_client, [CopyError::Upstream, CopyError::Client]);
                tokio::try_join!(up, down).map(|_| ())
            }
            Ends::Tunnel { socket, tunnel, side } => {
                let SealedSocket { socket: far, channel: Channel { sealer, opener, owed }, .. } =
                    &mut **tunnel;
                let near = Near { socket, failed: side.failed() };
                let (out, back, sent, received): (_, _, &dyn Fn(usize), &dyn Fn(usize)) = match side {
                    Side::Client => (up, down, &to_server, &to_client),
                    Side::Server => (down, up, &to_client, &to_server),
                };
                let out = seal(&near, far, sealer, owed, out, sent);
                let back = open(&near, far, opener, owed, back, received);
                tokio::try_join!(out, back).map(|_| ())
            }
        }
    }
}

/// The application's side of a tunnel.
struct Near<'a> {
    socket: &'a TcpStream,
    failed: fn(io::Error) -> CopyError,
}

fn tunnel_failed(error: io::Error) -> CopyError {
    RecordError::Socket(error).into()
}

impl Way {
    /// Writes what is left from before.
    async fn flush(&mut self, to: &TcpStream) -> io::Result<()> {
        while !self.rest.is_empty() {
            match to.try_write(&self.rest) {
                Ok(written) => self.rest.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
                Err(error) => return Err(error),
            }
        }
        // Gives the memory back.
        self.rest = Bytes::new();
        Ok(())
    }

    /// Writes, and keeps what could not be written now.
    fn write(&mut self, to: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        let written = match to.try_write(bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if written < bytes.len() {
            self.rest = Bytes::copy_from_slice(bytes.get(written..).unwrap_or_default());
        }
        Ok(())
    }

    fn pass_on(&mut self, to: &TcpStream, failed: fn(io::Error) -> CopyError) -> Result<(), CopyError> {
        if !self.passed_on {
            finish(to, failed)?;
            self.passed_on = true;
        }
        Ok(())
    }
}

/// Reads; none: there is nothing now.
fn read(from: &TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match from.try_read(buffer) {
        Ok(n) => Ok(Some(n)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

async fn pump(
    from: &TcpStream,
    to: &TcpStream,
    way: &mut Way,
    count: impl Fn(usize),
    [read_failed, write_failed]: [fn(io::Error) -> CopyError; 2],
) -> Result<(), CopyError> {
    loop {
        way.flush(to).await.map_err(write_failed)?;
        if way.ended {
            return way.pass_on(to, write_failed);
        }
        from.readable().await.map_err(read_failed)?;
        READ.with_borrow_mut(|buffer| match read(from, &mut buffer[..CHUNK]).map_err(read_failed)? {
            None => Ok(()),
            Some(0) => {
                way.ended = true;
                Ok(())
            }
            Some(n) => {
                count(n);
                way.write(to, &buffer[..n]).map_err(write_failed)
            }
        })?;
        tokio::task::coop::consume_budget().await;
    }
}

/// From the application into the tunnel.
async fn seal(
    near: &Near<'_>,
    far: &TcpStream,
    sealer: &mut Sealer,
    owed: &Cell<bool>,
    way: &mut Way,
    count: &dyn Fn(usize),
) -> Result<(), CopyError> {
    loop {
        way.flush(far).await.map_err(tunnel_failed)?;
        if way.ended {
            return way.pass_on(far, tunnel_failed);
        }
        near.socket.readable().await.map_err(near.failed)?;
        READ.with_borrow_mut(|buffer| {
            let plain = &mut buffer[..CHUNK];
            let Some(n) = read(near.socket, plain).map_err(near.failed)? else { return Ok(()) };
            count(n);
            SEALED.with_borrow_mut(|sealed| {
                sealed.clear();
                if owed.take() {
                    sealer.update(sealed)?;
                }
                if n == 0 {
                    sealer.close(sealed)?;
                    way.ended = true;
                } else {
                    sealer.seal(&plain[..n], sealed)?;
                }
                way.write(far, sealed).map_err(tunnel_failed)
            })
        })?;
        tokio::task::coop::consume_budget().await;
    }
}

/// Out of the tunnel to the application.
async fn open(
    near: &Near<'_>,
    far: &TcpStream,
    opener: &mut Opener,
    owed: &Cell<bool>,
    way: &mut Way,
    count: &dyn Fn(usize),
) -> Result<(), CopyError> {
    loop {
        way.flush(near.socket).await.map_err(near.failed)?;
        if way.ended {
            return way.pass_on(near.socket, near.failed);
        }
        let whole = opener.has_record();
        if !whole {
            far.readable().await.map_err(tunnel_failed)?;
        }
        READ.with_borrow_mut(|buffer| {
            let mut held = opener.take_partial(buffer);
            if !whole {
                match read(far, &mut buffer[held..]).map_err(tunnel_failed)? {
                    Some(0) => return Err(RecordError::Truncated.into()),
                    more => held += more.unwrap_or(0),
                }
            }
            open_all(&mut buffer[..held], near, opener, owed, way, count)
        })?;
        tokio::task::coop::consume_budget().await;
    }
}

/// Records whose bytes are written with one system call.
const SLICES: usize = 16;

/// Opens what is whole and writes it, until the application takes no more.
fn open_all(
    bytes: &mut [u8],
    near: &Near<'_>,
    opener: &mut Opener,
    owed: &Cell<bool>,
    way: &mut Way,
    count: &dyn Fn(usize),
) -> Result<(), CopyError> {
    let mut at = 0;
    let mut more = true;
    while more && way.rest.is_empty() {
        let mut found = [const { 0..0 }; SLICES];
        let mut used = 0;
        while used < SLICES && more {
            match opener.open(bytes, at, owed)? {
                None => more = false,
                Some((what, end)) => {
                    at = end;
                    match what {
                        Opened::Data(range) => {
                            count(range.len());
                            found[used] = range;
                            used += 1;
                        }
                        Opened::Control => {}
                        Opened::End => {
                            way.ended = true;
                            more = false;
                        }
                    }
                }
            }
        }
        let plain = found.map(|range| IoSlice::new(bytes.get(range).unwrap_or_default()));
        way.write_all(near.socket, &plain[..used]).map_err(near.failed)?;
    }
    // What may follow the end means nothing.
    opener.keep_partial(if way.ended { &[] } else { bytes.get(at..).unwrap_or_default() });
    Ok(())
}

impl Way {
    /// As [`Self::write`], from several places.
    fn write_all(&mut self, to: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if total == 0 {
            return Ok(());
        }
        let mut written = match to.try_write_vectored(slices) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if written < total {
            let mut rest = Vec::with_capacity(total - written);
            for slice in slices {
                let skipped = written.min(slice.len());
                written -= skipped;
                rest.extend_from_slice(slice.get(skipped..).unwrap_or_default());
            }
            self.rest = rest.into();
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
