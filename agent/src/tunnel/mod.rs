//! HBONE: HTTP CONNECT over mutual TLS 1.3, with HTTP/2 as the form that every ambient peer speaks.
//!
//! The room knows streams and bytes, not sockets' namespaces, certificates or configuration: the stories hand
//! it an authenticated byte stream and take a [`TunnelStream`] back.

mod copy;
mod hbone;
mod pool;
mod server;

pub use copy::{CopyError, Meter, copy_sockets, copy_tunnel};
pub use hbone::{HboneError, connect_request, parse_authority, parse_forwarded};
pub use pool::{Pool, PoolError, TunnelKey};
pub use server::{Incoming, ServeError, serve};

use bytes::Bytes;
use std::time::Duration;

/// Flow-control window of one stream, bytes (as ztunnel's).
const STREAM_WINDOW: u32 = 4 << 20;
/// Flow-control window of one tunnel, bytes (as ztunnel's).
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Largest DATA frame, bytes: fewer frames, and one TLS record is never split over two.
const MAX_FRAME: u32 = 64 << 10;
/// Largest header list of a peer, bytes.
const MAX_HEADER_LIST: u32 = 8 << 10;
/// Streams per tunnel before another tunnel is opened.
const MAX_STREAMS: usize = 256;
/// How long a peer may take for the HTTP/2 preface and settings.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// An open stream of a tunnel: bytes in both directions, each with its own end.
#[derive(Debug)]
pub struct TunnelStream {
    send: h2::SendStream<Bytes>,
    receive: h2::RecvStream,
    /// Keeps the tunnel's count of streams.
    _slot: Option<pool::StreamSlot>,
}

#[cfg(test)]
mod tests;
