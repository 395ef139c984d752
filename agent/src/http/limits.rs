//! Bounds of everything that a peer decides the size of.

use std::time::Duration;

/// Headers of one message.
pub(crate) const MAX_HEADERS: usize = 100;
/// Bytes of a message's head; also what is read at once.
pub(crate) const MAX_HEAD: usize = 64 << 10;
/// Bytes of a request's target (path and query).
pub(crate) const MAX_TARGET: usize = 16 << 10;
/// Requests at a time on one HTTP/2 connection of a client (Envoy's default in meshes is 100).
pub(crate) const MAX_STREAMS: u32 = 100;
/// Bytes of a request's body that are kept so that it can be sent again, or copied.
pub(crate) const MAX_REPLAY: usize = 64 << 10;
/// Copies of requests at a time, of one worker.
pub(crate) const MAX_MIRRORS: usize = 256;
/// How long the copy of a request may take.
pub(crate) const MIRROR_DEADLINE: Duration = Duration::from_secs(15);
/// HTTP/2 flow-control window of one request, bytes, in both directions.
pub(crate) const STREAM_WINDOW: u32 = 256 << 10;
/// HTTP/2 flow-control window of one connection, bytes: so much may a peer make us keep. All of its requests fill it.
pub(crate) const FULL_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;
/// The same of a connection whose pod may leave no more unread: sixteen bodies fill it, and hold up the others.
pub(crate) const CONNECTION_WINDOW: u32 = 4 << 20;
/// Connections to one endpoint that are kept for later requests.
pub(crate) const MAX_IDLE: usize = 64;
/// Requests at a time on one HTTP/2 connection to an endpoint before another is opened.
pub(crate) const MAX_SHARED: usize = 100;
/// A connection without requests is closed after so long, a client's and an endpoint's (Envoy's default).
pub(crate) const IDLE: Duration = Duration::from_secs(3600);
/// How long an endpoint may take to read the end of a request that it has answered already.
pub(crate) const SETTLE: Duration = Duration::from_secs(60);
/// How long a new connection's endpoint may take until it has begun HTTP/2.
pub(crate) const BEGIN: Duration = Duration::from_secs(10);
/// How often connections that are kept are looked at.
pub(crate) const SWEEP: Duration = Duration::from_secs(5);
/// How long a client's HTTP/1 connection that is to end waits for a request, to tell its client with the response.
pub(crate) const LAST_CALL: Duration = Duration::from_secs(3);
/// How long an HTTP/2 client that was told of the end of its connection, and has no request, may take to close it.
pub(crate) const LEAVE: Duration = Duration::from_secs(60);
/// How long a client may take from its first byte until it is clear what it speaks.
pub(crate) const FIRST_LINE_DEADLINE: Duration = Duration::from_secs(60);
/// How long a client's connection that was refused is read, so that the answer reaches it.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
/// Bytes of a body that nobody wants any more, read so that the answer reaches its client.
pub(crate) const MAX_UNWANTED: usize = 16 << 20;
/// Bytes of a client's first line until it is clear what the client speaks.
pub(crate) const MAX_FIRST_LINE: usize = 16 << 10;
/// A client's HTTP/1 connection without a request gives its buffers (16 KB) back after so long. Soon, for allocators do not: memory
/// that many connections had at a time stays the process's.
pub(crate) const REST: Duration = Duration::from_millis(200);
