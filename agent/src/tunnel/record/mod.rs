//! TLS 1.3 record protection by itself (RFC 8446, sections 4.6 and 5), for connections whose handshake rustls has made.
//!
//! ```text
//!   rustls: handshake, CONNECT --secrets, sequence numbers--> Channel { Sealer, Opener } <--ChannelState--> another process
//! ```
//!
//! A [`Channel`] is all that is left of a TLS connection: per direction a traffic secret and a sequence number. That is
//! what can be handed over, where a session of rustls cannot. It does what a record layer must:
//!
//! * `close_notify` is the orderly end of one direction; whatever else ends it is a failure.
//! * Key updates: asked for by the peer, and of our own before a key has protected too many records.
//! * Late session tickets are skipped: what belongs to resumption was done while rustls had the connection.
//!
//! No I/O, no clock. Secrets are wiped when dropped, and have no `Debug`.

mod keys;
mod open;
mod seal;

#[cfg(test)]
mod tests;

pub use keys::{Secret, Suite};
pub(super) use open::{Opened, Opener};
pub(super) use seal::Sealer;

use bytes::Bytes;
use std::cell::Cell;
use std::fmt;
use std::io;

/// Plaintext of one record, bytes (RFC 8446, 5.1).
const MAX_PLAIN: usize = 1 << 14;
/// What protection and padding may add (RFC 8446, 5.2).
const MAX_EXPANSION: usize = 256;
/// Content type, version, length.
const HEADER: usize = 5;
/// AEAD tag of all TLS 1.3 suites here.
const TAG: usize = 16;

/// A buffer to read records into: several, so that one system call brings several.
pub(super) const OPEN_BUFFER: usize = 128 << 10;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// Why a tunnel's connection failed.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The socket.
    #[error(transparent)]
    Socket(io::Error),
    /// FIN without `close_notify`: somebody on the way, or a peer that died, and nothing that counts as an end.
    #[error("it was cut off: no close_notify before the end")]
    Truncated,
    /// Not authentic.
    #[error("a record cannot be decrypted: it was altered on the way, or is not the peer's")]
    Decrypt,
    /// The peer does not keep to TLS 1.3.
    #[error("the peer breaks TLS 1.3: {0}")]
    Protocol(&'static str),
    /// The peer gives up.
    #[error("the peer sent the alert {0}")]
    Alert(u8),
    /// What is to be restored is no state.
    #[error("the state of the tunnel's connection is not one: {0}")]
    State(&'static str),
    /// The library refuses; never with keys of the right length.
    #[error("the cryptographic library refuses: {0}")]
    Library(&'static str),
}

/// Both directions of a connection after its handshake.
#[derive(Debug)]
pub struct Channel {
    /// Ours.
    pub sealer: Sealer,
    /// The peer's.
    pub opener: Opener,
    /// The peer has asked for new keys from us: before the next data.
    pub owed: Cell<bool>,
}

/// A [`Channel`] as data.
pub struct ChannelState {
    /// The suite's number (RFC 8446, B.4).
    pub suite: u16,
    /// Our traffic secret, and the number of the next record.
    pub seal: (Secret, u64),
    /// The peer's.
    pub open: (Secret, u64),
    /// Read and not yet opened.
    pub partial: Bytes,
    /// The beginning of a handshake message.
    pub message: Bytes,
    /// As in [`Channel`].
    pub owed: bool,
}

impl fmt::Debug for ChannelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelState").field("suite", &self.suite).finish_non_exhaustive()
    }
}

impl Channel {
    /// Goes on where `state` was taken.
    ///
    /// # Errors
    /// [`RecordError::State`].
    pub fn restore(state: ChannelState) -> Result<Self, RecordError> {
        let ChannelState { suite, seal, open, partial, message, owed } = state;
        let suite = Suite::of(suite).ok_or(RecordError::State("an unknown cipher suite"))?;
        if seal.0.len() != suite.secret_len() || open.0.len() != suite.secret_len() {
            return Err(RecordError::State("a secret of another length"));
        }
        let mut opener = Opener::new(suite, open.0, open.1)?;
        opener.keep(&partial, &message);
        Ok(Self { sealer: Sealer::new(suite, seal.0, seal.1)?, opener, owed: Cell::new(owed) })
    }

    /// As data, for [`Self::restore`].
    pub fn state(&self) -> ChannelState {
        let (partial, message) = self.opener.kept();
        ChannelState {
            suite: self.sealer.suite().number(),
            seal: self.sealer.position(),
            open: self.opener.position(),
            partial: Bytes::copy_from_slice(partial),
            message: Bytes::copy_from_slice(message),
            owed: self.owed.get(),
        }
    }
}
