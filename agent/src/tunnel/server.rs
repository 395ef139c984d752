//! The far end of tunnels: accepts streams and hands each to the inbound story.

use super::hbone::{HboneError, has_alternatives, is_meant_for_another, parse_authority, parse_forwarded};
use super::tap::{Reset, Tap};
use super::{
    CONNECTION_WINDOW, HANDSHAKE_DEADLINE, MAX_FRAME, MAX_HEADER_LIST, MAX_HEADER_LIST_READ, STREAM_WINDOW,
    TunnelStream,
};
use crate::limits::Excess;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Tells the client's agent, and through it the person who reads its flows, why a stream was refused.
pub(super) const REASON_HEADER: &str = "x-warren-reason";

/// Comes with 503 from a pod that is about to go, to whoever can connect to others: it was not processed.
pub(super) const LEAVING_HEADER: &str = "x-warren-leaving";

/// Why a connection of tunnels ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// What the peer says is no HTTP/2.
    #[error("the peer does not speak HBONE: {0}")]
    Protocol(#[source] h2::Error),
    /// The peer says nothing.
    #[error("the peer did not begin HTTP/2 within {0} s")]
    Silent(u64),
    /// The peer, or the network between, has gone.
    #[error("the connection ended: {0}")]
    Gone(#[source] h2::Error),
}

impl From<h2::Error> for ServeError {
    fn from(error: h2::Error) -> Self {
        // What was found here, not what the peer or the kernel told.
        if error.is_library() { Self::Protocol(error) } else { Self::Gone(error) }
    }
}

/// A stream that a peer asks for.
#[derive(Debug)]
pub struct Incoming {
    request: Request<h2::RecvStream>,
    respond: h2::server::SendResponse<Bytes>,
    /// It has been opened already.
    send: Option<h2::SendStream<Bytes>>,
    ahead: Vec<Bytes>,
}

impl Incoming {
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

    /// Shows the stream's first bytes to `look`, piece by piece, until that has an answer; None: they have ended before.
    /// Nobody sends bytes into a stream that is not open, so it is opened for that; what was looked at stays the beginning
    /// of what [`Self::accept`] gives.
    ///
    /// # Errors
    /// When the peer has gone meanwhile.
    pub async fn look<T>(
        &mut self,
        mut look: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, h2::Error> {
        if self.send.is_none() {
            self.send = Some(self.respond.send_response(Response::new(()), false)?);
        }
        while let Some(chunk) = self.request.body_mut().data().await {
            let chunk = chunk?;
            let found = look(&chunk);
            if !chunk.is_empty() {
                self.ahead.push(chunk);
            }
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Opens the stream: 200.
    ///
    /// # Errors
    /// When the peer has gone meanwhile.
    pub fn accept(mut self) -> Result<TunnelStream, h2::Error> {
        let send = match self.send {
            Some(send) => send,
            None => self.respond.send_response(Response::new(()), false)?,
        };
        Ok(TunnelStream { send, receive: self.request.into_body(), ahead: self.ahead, slot: None })
    }

    /// Asks the peer to connect to another: 503, and that nothing was processed.
    pub fn send_elsewhere(self, reason: &str) {
        let mut response = Response::new(());
        response.headers_mut().insert(LEAVING_HEADER, HeaderValue::from_static("yes"));
        self.respond_with(response, StatusCode::SERVICE_UNAVAILABLE, reason);
    }

    /// Refuses the stream with a status and a reason for people. One that was opened to be looked at can only be reset.
    pub fn refuse(self, status: StatusCode, reason: &str) {
        self.respond_with(Response::new(()), status, reason);
    }

    fn respond_with(mut self, mut response: Response<()>, status: StatusCode, reason: &str) {
        if let Some(mut send) = self.send {
            return send.send_reset(h2::Reason::CANCEL);
        }
        *response.status_mut() = status;
        if let Some(value) = printable_reason(reason) {
            response.headers_mut().insert(REASON_HEADER, value);
        }
        // An error means that the peer has gone; it needs no answer then.
        let _ = self.respond.send_response(response, true);
    }
}

/// A reason as it can stand in a header.
pub(super) fn printable_reason(reason: &str) -> Option<HeaderValue> {
    let printable: String =
        reason.chars().filter(|c| c.is_ascii() && !c.is_ascii_control()).take(300).collect();
    HeaderValue::try_from(printable).ok()
}

/// What one connection of tunnels may have.
#[derive(Clone, Copy, Debug)]
pub struct ServeConfig {
    /// Streams open at a time.
    pub max_streams: usize,
    /// Without a stream for so long it is closed in order; 0: never.
    pub idle: Duration,
}

/// So often within the time of [`ServeConfig::idle`] it is looked whether there is a stream.
const LOOKS: u32 = 4;

/// Bytes of a header list as RFC 9113 counts them, pseudo-headers included.
fn header_bytes(request: &Request<h2::RecvStream>) -> usize {
    const EACH: usize = 32;
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + EACH).sum::<usize>();
    let authority = request.uri().authority().map_or(0, |authority| authority.as_str().len());
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    fields + authority + path + request.method().as_str().len() + 2 * EACH
}

/// Serves one authenticated connection: every stream goes to `on_stream`, which must not block; what is refused before it
/// is one, to `on_excess`. When `closing` completes the peer is told to open no more (GOAWAY), and open streams go on to
/// their end.
///
/// # Errors
/// [`ServeError`]: when the peer breaks the protocol or the connection.
pub async fn serve<S>(
    stream: S,
    config: ServeConfig,
    closing: impl Future<Output = ()>,
    mut on_stream: impl FnMut(Incoming),
    on_excess: impl FnMut(Excess),
) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let on_excess = RefCell::new(on_excess);
    let tapped = Tap::new(stream, |reset| {
        let excess = match reset {
            Reset::Refused => Excess::Streams,
            Reset::Protocol => Excess::Malformed(MAX_HEADER_LIST_READ),
        };
        on_excess.borrow_mut()(excess);
    });
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEADER_LIST_READ as u32)
        .max_concurrent_streams(u32::try_from(config.max_streams).unwrap_or(u32::MAX))
        .handshake::<_, Bytes>(tapped);
    let mut connection = tokio::time::timeout(HANDSHAKE_DEADLINE, handshake)
        .await
        .map_err(|_| ServeError::Silent(HANDSHAKE_DEADLINE.as_secs()))??;
    let mut closing = std::pin::pin!(closing);
    let mut told = false;
    let mut quiet = 0;
    let pause = tokio::time::sleep(config.idle / LOOKS);
    let mut pause = std::pin::pin!(pause);
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = &mut closing, if !told => {
                told = true;
                connection.graceful_shutdown();
                continue;
            }
            () = &mut pause, if !config.idle.is_zero() => {
                pause.as_mut().reset(tokio::time::Instant::now() + config.idle / LOOKS);
                quiet = if connection.has_streams() { 0 } else { quiet + 1 };
                if quiet == LOOKS {
                    told = true;
                    connection.graceful_shutdown();
                } else if quiet == 2 * LOOKS {
                    // It was told to go, and does not.
                    return Ok(());
                }
                continue;
            }
        };
        quiet = 0;
        match accepted {
            Some(Ok((request, mut respond))) if header_bytes(&request) > MAX_HEADER_LIST => {
                let mut response = Response::new(());
                *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                // An error means that the peer has gone; it needs no answer then.
                let _ = respond.send_response(response, true);
                on_excess.borrow_mut()(Excess::Headers(MAX_HEADER_LIST));
            }
            Some(Ok((request, respond))) => {
                on_stream(Incoming { request, respond, send: None, ahead: Vec::new() })
            }
            Some(Err(error)) => return Err(error.into()),
            None => return Ok(()),
        }
    }
}
