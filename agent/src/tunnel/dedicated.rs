//! The second form of the tunnel: one connection of an application in a TLS connection of its own, HTTP/1.1 CONNECT.
//!
//! Chosen by ALPN. It has no framing, and after the exchange its state is two sockets, two secrets and two counters: so
//! it can be handed to another process ([`Relay`](super::Relay)), which a stream of an HTTP/2 tunnel can't. It costs a
//! handshake per connection.
//!
//! ```text
//!   client                                                  server
//!     TLS 1.3 handshake, ALPN http/1.1 <---------------------->
//!     CONNECT 10.1.2.3:80 HTTP/1.1, forwarded, baggage -------->  the same checks as for a stream
//!     <------------------------------------- 200, or 400, 401, 503
//!     bytes, each direction ended by close_notify <----------->
//! ```
//!
//! rustls makes the handshake and carries the exchange; then its secrets are taken out. The transport must hand rustls
//! one record at a time, so that rustls holds nothing of the next.

use super::connect::{HeadError, parse_request, parse_response, write_request, write_response};
use super::hbone::{HboneError, has_alternatives, is_meant_for_another, parse_authority, parse_forwarded};
use super::record::{Channel, ChannelState, RecordError, Secret, Suite};
use super::relay::SealedSocket;
use super::server::{LEAVING_HEADER, REASON_HEADER, printable_reason};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use http::{Request, StatusCode};
use parking_lot::Mutex;
use rustls::{ConnectionTrafficSecrets, KeyLog};
use std::fmt;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// The ALPN protocol that says that a connection is of this form.
pub const ALPN: &[u8] = b"http/1.1";
/// How long a client may take to ask, after its handshake.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// Why a tunnel of this form does not stand.
#[derive(Debug, thiserror::Error)]
pub enum DedicatedError {
    /// The connection.
    #[error("the connection failed: {0}")]
    Connection(#[from] io::Error),
    /// What the peer says is no HTTP.
    #[error("the peer does not speak HBONE: {0}")]
    Head(#[from] HeadError),
    /// It says nothing.
    #[error("the peer did not say {0} within {1} s")]
    Silent(&'static str, u64),
    /// It refuses.
    #[error("the peer refused with {status}{}", .reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default())]
    Refused {
        /// 400 not for this pod, 401 policy, 503 upstream.
        status: StatusCode,
        /// What the peer says.
        reason: Option<String>,
        /// The pod goes, and asks to connect to another.
        leaving: bool,
    },
    /// The session does not give its secrets.
    #[error("the TLS session cannot be taken apart: {0}")]
    Secrets(&'static str),
    /// The library refuses.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Hears one connection's traffic secrets from rustls. Wiped when dropped.
#[derive(Default)]
pub struct TrafficSecrets(Mutex<[Option<Secret>; 2]>);

impl fmt::Debug for TrafficSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrafficSecrets")
    }
}

const LABELS: [&str; 2] = ["CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"];

impl KeyLog for TrafficSecrets {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if let Some(index) = LABELS.iter().position(|one| *one == label)
            && let Some(place) = self.0.lock().get_mut(index)
        {
            *place = Secret::new(secret);
        }
    }

    fn will_log(&self, label: &str) -> bool {
        LABELS.contains(&label)
    }
}

/// The number of a direction's next record, and its keys.
type Protection = (u64, ConnectionTrafficSecrets);

/// A session of rustls, of either side, over a transport of `S`.
trait Session: AsyncRead + AsyncWrite + Unpin {
    type Transport;
    /// What is decrypted and not read, and whether that was all that ever comes.
    fn early(&mut self) -> io::Result<(Vec<u8>, bool)>;
    /// The suite, what protects the next records (ours, theirs), and the transport.
    fn dissolve(self) -> Result<(u16, [Protection; 2], Self::Transport), DedicatedError>;
}

macro_rules! session {
    ($side:ident) => {
        impl<S: AsyncRead + AsyncWrite + Unpin> Session for tokio_rustls::$side::TlsStream<S> {
            type Transport = S;

            fn early(&mut self) -> io::Result<(Vec<u8>, bool)> {
                let mut early = Vec::new();
                match self.get_mut().1.reader().read_to_end(&mut early) {
                    // Nothing more is there now.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((early, false)),
                    Err(error) => Err(error),
                    Ok(_) => Ok((early, true)),
                }
            }

            fn dissolve(self) -> Result<(u16, [Protection; 2], S), DedicatedError> {
                let (transport, session) = self.into_inner();
                let suite = session.negotiated_cipher_suite().ok_or(DedicatedError::Secrets("no suite"))?;
                if session.wants_write() {
                    return Err(DedicatedError::Secrets("it has something left to say"));
                }
                let extracted = session.dangerous_extract_secrets();
                let extracted = extracted.map_err(|_| DedicatedError::Secrets("it keeps its secrets"))?;
                Ok((suite.suite().into(), [extracted.tx, extracted.rx], transport))
            }
        }
    };
}
session!(client);
session!(server);

/// From a session after the exchange to a tunnel. `parts`: the socket of a transport, and what it has read ahead.
fn take_over<T: Session>(
    mut session: T,
    secrets: &TrafficSecrets,
    is_client: bool,
    mut early: Vec<u8>,
    parts: impl FnOnce(T::Transport) -> Option<(TcpStream, Bytes)>,
) -> Result<SealedSocket, DedicatedError> {
    let (more, ended) = session.early()?;
    early.extend(more);
    let (suite, [(next, keys), (their_next, their_keys)], transport) = session.dissolve()?;
    let [client, server] = std::mem::take(&mut *secrets.0.lock());
    let (Some(client), Some(server)) = (client, server) else {
        return Err(DedicatedError::Secrets("it did not tell its traffic secrets"));
    };
    let (ours, theirs) = if is_client { (client, server) } else { (server, client) };
    // A peer may update its keys, or ours, during the exchange; the numbers begin again then, and the secrets that were logged
    // are not those of now: with them a number would protect a second record.
    if !(are_keys_of(suite, &ours, &keys)? && are_keys_of(suite, &theirs, &their_keys)?) {
        return Err(DedicatedError::Secrets("its keys were updated before the tunnel stood"));
    }
    let within = DedicatedError::Secrets("it is in the middle of a record");
    let (socket, partial) = parts(transport).ok_or(within)?;
    let state = ChannelState {
        suite,
        seal: (ours, next),
        open: (theirs, their_next),
        partial,
        message: Bytes::new(),
        owed: false,
    };
    Ok(SealedSocket::new(socket, Channel::restore(state)?, early.into(), ended))
}

/// Whether what protects the next record is made of `secret`.
fn are_keys_of(suite: u16, secret: &Secret, keys: &ConnectionTrafficSecrets) -> Result<bool, DedicatedError> {
    let (of, key, iv) = match keys {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Suite::Aes128, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Suite::Aes256, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Suite::Chacha20, key, iv),
        _ => return Err(DedicatedError::Secrets("an unknown cipher suite")),
    };
    Ok(of.number() == suite && of.has_keys(secret, key.as_ref(), iv.as_ref())?)
}

/// Opens a tunnel over a finished handshake. `deadline`: for the answer, the far agent's connection to its application
/// included.
///
/// # Errors
/// [`DedicatedError`]
pub async fn open_dedicated<S: AsyncRead + AsyncWrite + Unpin>(
    mut session: tokio_rustls::client::TlsStream<S>,
    secrets: &TrafficSecrets,
    request: &Request<()>,
    deadline: Duration,
    parts: impl FnOnce(S) -> Option<(TcpStream, Bytes)>,
) -> Result<SealedSocket, DedicatedError> {
    let exchange = async {
        session.write_all(&write_request(request)).await?;
        session.flush().await?;
        read_head(&mut session, |bytes| {
            Ok(parse_response(bytes)?.map(|(status, headers, end)| ((status, headers), end)))
        })
        .await
    };
    let ((status, headers), early) = tokio::time::timeout(deadline, exchange)
        .await
        .map_err(|_| DedicatedError::Silent("what became of CONNECT", deadline.as_secs()))??;
    if status != StatusCode::OK {
        let reason = headers.get(REASON_HEADER).and_then(|reason| reason.to_str().ok());
        let reason = reason.map(|reason| reason.chars().take(300).collect());
        let leaving = headers.contains_key(LEAVING_HEADER);
        return Err(DedicatedError::Refused { status, reason, leaving });
    }
    take_over(session, secrets, true, early, parts)
}

/// Reads until `parse` has a whole head, and no record more; what follows it.
async fn read_head<S: AsyncBufRead + Unpin, T>(
    session: &mut S,
    parse: impl Fn(&[u8]) -> Result<Option<(T, usize)>, HeadError>,
) -> Result<(T, Vec<u8>), DedicatedError> {
    let mut bytes = Vec::with_capacity(512);
    // Nonsense is seen before it ends a line, too.
    let mut look_at = 0;
    loop {
        // Reading into a buffer would go on with the next records, and maybe stop in the middle of one.
        let chunk = session.fill_buf().await?;
        let length = chunk.len();
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        // What ends no line ends no head: of a peer that sends byte by byte it is not all read again for each.
        let is_worth_it = chunk.contains(&b'\n') || bytes.len() + length >= look_at;
        bytes.extend_from_slice(chunk);
        session.consume(length);
        if !is_worth_it {
            continue;
        }
        look_at = bytes.len() * 2;
        if let Some((head, end)) = parse(&bytes)? {
            return Ok((head, bytes.split_off(end)));
        }
    }
}

/// A client that has asked for a tunnel of this form.
#[derive(Debug)]
pub struct DedicatedIncoming<S> {
    session: tokio_rustls::server::TlsStream<S>,
    request: Request<()>,
    early: Vec<u8>,
    /// It has been opened already.
    is_open: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> DedicatedIncoming<S> {
    /// Hears what the client wants, after the handshake.
    ///
    /// # Errors
    /// [`DedicatedError`]
    pub async fn receive(mut session: tokio_rustls::server::TlsStream<S>) -> Result<Self, DedicatedError> {
        let reading = tokio::time::timeout(REQUEST_DEADLINE, read_head(&mut session, parse_request)).await;
        match reading.map_err(|_| DedicatedError::Silent("what it wants", REQUEST_DEADLINE.as_secs()))? {
            Ok((request, early)) => Ok(Self { session, request, early, is_open: false }),
            Err(DedicatedError::Head(error)) => {
                // It is told; whether it hears that is its own business.
                let _ = answer(&mut session, StatusCode::BAD_REQUEST, &error.to_string(), false).await;
                Err(error.into())
            }
            Err(error) => Err(error),
        }
    }

    /// Where the peer wants to go.
    ///
    /// # Errors
    /// [`HboneError`]: the request is none that a tunnel can serve.
    pub fn destination(&self) -> Result<SocketAddr, HboneError> {
        parse_authority(self.request.method(), self.request.uri())
    }

    /// The client as the peer names it; what of it to believe is the caller's business.
    pub fn forwarded(&self) -> Option<(IpAddr, Option<u16>)> {
        self.request.headers().get(http::header::FORWARDED)?.to_str().ok().and_then(parse_forwarded)
    }

    /// Whether the peer means another pod than `pod_uid`.
    pub fn is_meant_for_another(&self, pod_uid: &str) -> bool {
        is_meant_for_another(self.request.headers(), pod_uid)
    }

    /// Whether the peer could connect to others instead.
    pub fn has_alternatives(&self) -> bool {
        has_alternatives(self.request.headers())
    }

    /// Shows the connection's first bytes to `look`, piece by piece, until that has an answer; None: they have ended before.
    /// Nobody sends bytes into a tunnel that is not open, so it is opened for that; what was looked at stays the beginning.
    ///
    /// # Errors
    /// When the peer has gone meanwhile.
    pub async fn look<T>(&mut self, mut look: impl FnMut(&[u8]) -> Option<T>) -> io::Result<Option<T>> {
        self.open().await?;
        let found = if self.early.is_empty() { None } else { look(&self.early) };
        if found.is_some() {
            return Ok(found);
        }
        loop {
            let chunk = self.session.fill_buf().await?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let (found, length) = (look(chunk), chunk.len());
            self.early.extend_from_slice(chunk);
            self.session.consume(length);
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    async fn open(&mut self) -> io::Result<()> {
        if !self.is_open {
            // Before the first await: what has begun to be said is not said again.
            self.is_open = true;
            self.session.write_all(&write_response(StatusCode::OK, &HeaderMap::new())).await?;
            self.session.flush().await?;
        }
        Ok(())
    }

    /// Opens the tunnel: 200.
    ///
    /// # Errors
    /// [`DedicatedError`], when the peer has gone meanwhile.
    pub async fn accept(
        mut self,
        secrets: &Arc<TrafficSecrets>,
        parts: impl FnOnce(S) -> Option<(TcpStream, Bytes)>,
    ) -> Result<SealedSocket, DedicatedError> {
        tokio::time::timeout(REQUEST_DEADLINE, self.open())
            .await
            .map_err(|_| DedicatedError::Silent("anything", REQUEST_DEADLINE.as_secs()))??;
        take_over(self.session, secrets, false, self.early, parts)
    }

    /// Refuses with a status and a reason for people; `leaving` asks to connect to another. One that was opened to be looked
    /// at is cut off instead.
    pub async fn refuse(mut self, status: StatusCode, reason: &str, leaving: bool) {
        if !self.is_open {
            // An error means that the peer has gone; it needs no answer then.
            let _ = answer(&mut self.session, status, reason, leaving).await;
        }
    }
}

async fn answer<S: AsyncWrite + Unpin>(
    session: &mut S,
    status: StatusCode,
    reason: &str,
    leaving: bool,
) -> io::Result<()> {
    let mut headers = HeaderMap::new();
    if leaving {
        headers.insert(LEAVING_HEADER, HeaderValue::from_static("yes"));
    }
    if let Some(value) = printable_reason(reason) {
        headers.insert(REASON_HEADER, value);
    }
    let saying = async {
        session.write_all(&write_response(status, &headers)).await?;
        session.shutdown().await
    };
    tokio::time::timeout(REQUEST_DEADLINE, saying)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
#[path = "dedicated_tests.rs"]
mod tests;
