//! Our direction: from plaintext to records.

use super::keys::{RecordKey, Secret, Suite};
use super::{ALERT, APPLICATION_DATA, HANDSHAKE, HEADER, MAX_PLAIN, RecordError, TAG};
use aws_lc_rs::aead::Aad;
use std::fmt;

/// `close_notify`, level warning (RFC 8446, 6.1).
const CLOSE_NOTIFY: &[u8] = &[1, 0];
/// A KeyUpdate message that asks for none in return (RFC 8446, 4.6.3).
const KEY_UPDATE: &[u8] = &[24, 0, 0, 1, 0];

/// Protects what is sent.
pub struct Sealer {
    suite: Suite,
    secret: Secret,
    key: RecordKey,
    next: u64,
    limit: u64,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("suite", &self.suite).field("next", &self.next).finish_non_exhaustive()
    }
}

impl Sealer {
    /// Goes on with record number `next` under `secret`.
    ///
    /// # Errors
    /// [`RecordError::Library`].
    pub fn new(suite: Suite, secret: Secret, next: u64) -> Result<Self, RecordError> {
        let key = RecordKey::new(suite, &secret)?;
        Ok(Self { suite, secret, key, next, limit: suite.record_limit() })
    }

    pub(super) fn suite(&self) -> Suite {
        self.suite
    }

    pub(super) fn position(&self) -> (Secret, u64) {
        (self.secret.clone(), self.next)
    }

    #[cfg(test)]
    pub(super) fn limit(&mut self, records: u64) {
        self.limit = records;
    }

    /// Appends `data` to `out`, in as many records as it takes; new keys first where the old have done their work.
    ///
    /// # Errors
    /// [`RecordError::Library`].
    pub fn seal(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), RecordError> {
        out.reserve(data.len() + data.len().div_ceil(MAX_PLAIN) * (HEADER + 1 + TAG));
        for part in data.chunks(MAX_PLAIN) {
            // One is left for the update itself.
            if self.next >= self.limit.saturating_sub(1) {
                self.update(out)?;
            }
            self.record(APPLICATION_DATA, part, out)?;
        }
        Ok(())
    }

    /// Appends the orderly end.
    ///
    /// # Errors
    /// [`RecordError::Library`].
    pub fn close(&mut self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        self.record(ALERT, CLOSE_NOTIFY, out)
    }

    /// Appends a change to new keys; what is sealed from here on is under these.
    ///
    /// # Errors
    /// [`RecordError::Library`].
    pub fn update(&mut self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        self.record(HANDSHAKE, KEY_UPDATE, out)?;
        self.secret = self.suite.next(&self.secret)?;
        self.key = RecordKey::new(self.suite, &self.secret)?;
        self.next = 0;
        Ok(())
    }

    pub(super) fn record(&mut self, content: u8, data: &[u8], out: &mut Vec<u8>) -> Result<(), RecordError> {
        let length = (data.len() + 1 + TAG) as u16;
        let [high, low] = length.to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, high, low];
        out.extend_from_slice(&header);
        let start = out.len();
        out.extend_from_slice(data);
        out.push(content);
        let nonce = self.key.nonce(self.next);
        let inner = out.get_mut(start..).unwrap_or_default();
        let tag = self.key.key.seal_in_place_separate_tag(nonce, Aad::from(header), inner);
        out.extend_from_slice(tag.map_err(|_| RecordError::Library("sealing"))?.as_ref());
        self.next = self.next.checked_add(1).ok_or(RecordError::Library("too many records"))?;
        Ok(())
    }
}
