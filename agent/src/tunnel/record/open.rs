//! The peer's direction: from records to plaintext. Every byte is the peer's choice; nothing here panics or grows.

use super::keys::{RecordKey, Secret, Suite};
use super::{
    ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE, HEADER, MAX_EXPANSION, MAX_PLAIN, RecordError,
    TAG,
};
use aws_lc_rs::aead::Aad;
use std::cell::Cell;
use std::fmt;
use std::ops::Range;

/// Handshake messages of a peer that are put together from several records, bytes: session tickets are the longest.
const MAX_MESSAGE: usize = 64 << 10;
/// Records without data that may follow each other: they cost us work and the peer next to nothing.
const MAX_IDLE_RECORDS: u8 = 64;

const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// Takes apart what is received.
pub struct Opener {
    suite: Suite,
    secret: Secret,
    key: RecordKey,
    next: u64,
    /// Read and not opened: at most what one reading brings.
    partial: Vec<u8>,
    /// The beginning of a handshake message.
    message: Vec<u8>,
    idle: u8,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("suite", &self.suite).field("next", &self.next).finish_non_exhaustive()
    }
}

/// What a record held.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    /// The application's bytes, at this place in the buffer.
    Data(Range<usize>),
    /// No more comes.
    End,
    /// Nothing for the application.
    Control,
}

impl Opener {
    /// Goes on with record number `next` under `secret`.
    ///
    /// # Errors
    /// [`RecordError::Library`].
    pub fn new(suite: Suite, secret: Secret, next: u64) -> Result<Self, RecordError> {
        let key = RecordKey::new(suite, &secret)?;
        Ok(Self { suite, secret, key, next, partial: Vec::new(), message: Vec::new(), idle: 0 })
    }

    pub(super) fn position(&self) -> (Secret, u64) {
        (self.secret.clone(), self.next)
    }

    pub(super) fn kept(&self) -> (&[u8], &[u8]) {
        (&self.partial, &self.message)
    }

    pub(super) fn keep(&mut self, partial: &[u8], message: &[u8]) {
        self.partial = partial.to_vec();
        self.message = message.to_vec();
    }

    /// Keeps what was read and not opened.
    pub fn keep_partial(&mut self, bytes: &[u8]) {
        // Exactly as much as there is, and nothing while there is nothing: an idle connection holds no buffer.
        self.partial = bytes.to_vec();
    }

    /// Moves what was kept to the start of `buffer`; how much that is. What does not fit stays.
    pub fn take_partial(&mut self, buffer: &mut [u8]) -> usize {
        let n = self.partial.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..n), self.partial.get(..n)) {
            to.copy_from_slice(from);
        }
        self.partial = self.partial.split_off(n);
        n
    }

    /// Whether a whole record was kept, so that there is something to do before more is read.
    pub fn has_record(&self) -> bool {
        record_length(&self.partial)
            .is_ok_and(|length| length.is_some_and(|length| length <= self.partial.len()))
    }

    /// Opens the record at `at` of `buffer`, in place: what it held and where it ends; none if it is not whole yet.
    /// `owed` is set when the peer asks for new keys from us.
    ///
    /// # Errors
    /// [`RecordError`]; the connection is of no use any more.
    pub fn open(
        &mut self,
        buffer: &mut [u8],
        at: usize,
        owed: &Cell<bool>,
    ) -> Result<Option<(Opened, usize)>, RecordError> {
        let bytes = buffer.get_mut(at..).unwrap_or_default();
        let Some(length) = record_length(bytes)? else { return Ok(None) };
        let Some(record) = bytes.get_mut(..length) else { return Ok(None) };
        let (header, body) = record.split_at_mut(HEADER);
        let nonce = self.key.nonce(self.next);
        let plain =
            self.key.key.open_in_place(nonce, Aad::from(&*header), body).map_err(|_| RecordError::Decrypt)?;
        self.next = self.next.checked_add(1).ok_or(RecordError::Protocol("too many records"))?;
        // The type is the last byte that is not padding.
        let last = plain.iter().rposition(|byte| *byte != 0);
        let last = last.ok_or(RecordError::Protocol("a record without a type"))?;
        if last > MAX_PLAIN {
            return Err(RecordError::Protocol("a record is longer than any may be"));
        }
        let (content, data) = (plain[last], &plain[..last]);
        if content != HANDSHAKE && !self.message.is_empty() {
            return Err(RecordError::Protocol("something else in the middle of a handshake message"));
        }
        self.idle = if content == APPLICATION_DATA && last > 0 { 0 } else { self.idle + 1 };
        if self.idle > MAX_IDLE_RECORDS {
            return Err(RecordError::Protocol("too many records without data"));
        }
        let opened = match content {
            APPLICATION_DATA => {
                let start = at + HEADER;
                Opened::Data(start..start + last)
            }
            ALERT => alert(data)?,
            HANDSHAKE => {
                self.message.extend_from_slice(data);
                self.messages(owed)?;
                Opened::Control
            }
            _ => return Err(RecordError::Protocol("an unexpected type of record")),
        };
        Ok(Some((opened, at + length)))
    }

    fn messages(&mut self, owed: &Cell<bool>) -> Result<(), RecordError> {
        let mut read = 0;
        while let Some([kind, a, b, c, rest @ ..]) = self.message.get(read..) {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if length > MAX_MESSAGE {
                return Err(RecordError::Protocol("a handshake message is too long"));
            }
            let Some(body) = rest.get(..length) else { break };
            let kind = *kind;
            read += 4 + length;
            match (kind, body) {
                (NEW_SESSION_TICKET, _) => {}
                (KEY_UPDATE, [request @ (0 | 1)]) => {
                    if *request == 1 {
                        owed.set(true);
                    }
                    // RFC 8446, 5.1: no message spans a change of keys.
                    if read != self.message.len() {
                        return Err(RecordError::Protocol("a message across a change of keys"));
                    }
                    self.secret = self.suite.next(&self.secret)?;
                    self.key = RecordKey::new(self.suite, &self.secret)?;
                    self.next = 0;
                }
                (KEY_UPDATE, _) => return Err(RecordError::Protocol("a malformed KeyUpdate")),
                _ => return Err(RecordError::Protocol("an unexpected handshake message")),
            }
        }
        self.message.drain(..read);
        if self.message.is_empty() {
            self.message = Vec::new();
        }
        Ok(())
    }
}

fn alert(data: &[u8]) -> Result<Opened, RecordError> {
    match data {
        [_, CLOSE_NOTIFY] => Ok(Opened::End),
        // It says that close_notify will follow (RFC 8446, 6.1).
        [_, USER_CANCELED] => Ok(Opened::Control),
        [_, description] => Err(RecordError::Alert(*description)),
        _ => Err(RecordError::Protocol("a malformed alert")),
    }
}

/// How long the record is that begins here, with its header; none while that is not known.
fn record_length(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let [content, version, _, high, low, ..] = bytes else { return Ok(None) };
    match *content {
        APPLICATION_DATA => {}
        CHANGE_CIPHER_SPEC => return Err(RecordError::Protocol("change_cipher_spec after the handshake")),
        _ => return Err(RecordError::Protocol("a record that is not protected")),
    }
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if *version != 3 {
        return Err(RecordError::Protocol("no TLS"));
    }
    if !(1 + TAG..=MAX_PLAIN + MAX_EXPANSION).contains(&length) {
        return Err(RecordError::Protocol("a record of a length that none may have"));
    }
    Ok(Some(HEADER + length))
}
