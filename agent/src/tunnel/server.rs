//! The far end of tunnels: accepts streams and hands each to the inbound story.

use super::hbone::{HboneError, parse_authority, parse_forwarded};
use super::{
    CONNECTION_WINDOW, HANDSHAKE_DEADLINE, MAX_FRAME, MAX_HEADER_LIST, MAX_STREAMS, STREAM_WINDOW,
    TunnelStream,
};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncRead, AsyncWrite};

/// Tells the client's agent, and through it the person who reads its flows, why a stream was refused.
pub(super) const REASON_HEADER: &str = "x-warren-reason";

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

    /// Opens the stream: 200.
    ///
    /// # Errors
    /// When the peer has gone meanwhile.
    pub fn accept(mut self) -> Result<TunnelStream, h2::Error> {
        let send = self.respond.send_response(Response::new(()), false)?;
        Ok(TunnelStream { send, receive: self.request.into_body(), _slot: None })
    }

    /// Refuses the stream with a status and a reason for people.
    pub fn refuse(mut self, status: StatusCode, reason: &str) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        let printable: String =
            reason.chars().filter(|c| c.is_ascii() && !c.is_ascii_control()).take(300).collect();
        if let Ok(value) = HeaderValue::try_from(printable) {
            response.headers_mut().insert(REASON_HEADER, value);
        }
        // An error means that the peer has gone; it needs no answer then.
        let _ = self.respond.send_response(response, true);
    }
}

/// Serves one authenticated connection: every stream goes to `on_stream`, which must not block. When
/// `closing` completes the peer is told to open no more (GOAWAY), and open streams go on to their end.
///
/// # Errors
/// [`ServeError`]: when the peer breaks the protocol or the connection.
pub async fn serve<S>(
    stream: S,
    closing: impl Future<Output = ()>,
    mut on_stream: impl FnMut(Incoming),
) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_concurrent_streams(MAX_STREAMS as u32)
        .handshake::<_, Bytes>(stream);
    let mut connection = tokio::time::timeout(HANDSHAKE_DEADLINE, handshake)
        .await
        .map_err(|_| ServeError::Silent(HANDSHAKE_DEADLINE.as_secs()))??;
    let mut closing = std::pin::pin!(closing);
    let mut told = false;
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = &mut closing, if !told => {
                told = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        match accepted {
            Some(Ok((request, respond))) => on_stream(Incoming { request, respond }),
            Some(Err(error)) => return Err(error.into()),
            None => return Ok(()),
        }
    }
}
