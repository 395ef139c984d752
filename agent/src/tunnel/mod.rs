//! HBONE: HTTP CONNECT over mutual TLS 1.3, with HTTP/2 as the form that every ambient peer speaks ([`Pool`], [`serve`]),
//! and HTTP/1.1 on a TLS connection per application's connection as the form that outlives the process ([`Relay`]).
//!
//! The room knows streams and bytes, not sockets' namespaces, certificates or configuration: the stories hand
//! it an authenticated byte stream and take a [`TunnelStream`] back.

mod connect;
mod copy;
mod dedicated;
mod hbone;
mod io;
mod pool;
mod record;
mod relay;
mod server;
mod tap;

pub use connect::{HeadError, parse_request, parse_response};
pub use copy::{CopyError, Meter, copy_tunnel};
pub use dedicated::{
    ALPN as DEDICATED_ALPN, DedicatedError, DedicatedIncoming, TrafficSecrets, open_dedicated,
};
pub use hbone::{HboneError, Wish, connect_request, parse_authority, parse_forwarded};
pub use io::TunnelIo;
pub use pool::{Outlook, Pool, PoolError, TunnelKey};
pub use record::{Channel, ChannelState, RecordError, Secret, Suite};
pub use relay::{Relay, RelayState, SealedSocket, Side, Way};
pub use server::{Incoming, ServeConfig, ServeError, serve};

use bytes::Bytes;
use std::time::Duration;

/// Flow-control window of one stream, bytes: 1 GB/s at a round trip of 1 ms.
const STREAM_WINDOW: u32 = 1 << 20;
/// Flow-control window of one tunnel, bytes: so much may a peer make us keep. Sixteen streams that nobody reads fill it, and hold up
/// the others (as four do with ztunnel's windows, 4 and 16 MiB).
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Largest DATA frame, bytes: fewer frames, and one TLS record is never split over two.
const MAX_FRAME: u32 = 64 << 10;
/// Largest header list of a peer, bytes, as HTTP/2 counts them (RFC 9113, section 6.5.2).
const MAX_HEADER_LIST: usize = 8 << 10;
/// What is more than that, but no more than this, is read so that it can be refused by name.
const MAX_HEADER_LIST_READ: usize = 32 << 10;
/// Streams per tunnel before another tunnel is opened.
const MAX_STREAMS: usize = 256;
/// How long a peer may take for the HTTP/2 preface and settings.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// An open stream of a tunnel: bytes in both directions, each with its own end.
#[derive(Debug)]
pub struct TunnelStream {
    send: h2::SendStream<Bytes>,
    receive: h2::RecvStream,
    /// What was received ahead of the copy, and is its beginning.
    ahead: Vec<Bytes>,
    /// Keeps the tunnel's count of streams.
    slot: Option<pool::StreamSlot>,
}

#[cfg(test)]
mod tests;
