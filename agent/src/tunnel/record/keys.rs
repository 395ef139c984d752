//! From traffic secrets to keys (RFC 8446, 7.1 to 7.3).

use super::RecordError;
use aws_lc_rs::aead::{self, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hkdf;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The longest secret: that of SHA-384.
const MAX_SECRET: usize = 48;
const IV: usize = aead::NONCE_LEN;

/// A traffic secret. Wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret {
    bytes: [u8; MAX_SECRET],
    len: usize,
}

impl Secret {
    /// A copy of `bytes`; none if no suite has secrets of that length.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut secret = Self { bytes: [0; MAX_SECRET], len: bytes.len() };
        secret.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(secret)
    }

    /// Its bytes.
    pub fn expose(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// A TLS 1.3 cipher suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// `TLS_AES_128_GCM_SHA256`
    Aes128,
    /// `TLS_AES_256_GCM_SHA384`
    Aes256,
    /// `TLS_CHACHA20_POLY1305_SHA256`
    Chacha20,
}

impl Suite {
    /// By its number (RFC 8446, B.4).
    pub fn of(number: u16) -> Option<Self> {
        match number {
            0x1301 => Some(Self::Aes128),
            0x1302 => Some(Self::Aes256),
            0x1303 => Some(Self::Chacha20),
            _ => None,
        }
    }

    /// Its number.
    pub fn number(self) -> u16 {
        match self {
            Self::Aes128 => 0x1301,
            Self::Aes256 => 0x1302,
            Self::Chacha20 => 0x1303,
        }
    }

    /// So many records may be protected with one key: 2^24 for AES-GCM keeps an attacker's chance below 2^-60
    /// (draft-irtf-cfrg-aead-limits, as rustls counts); ChaCha20-Poly1305 has no limit that could be reached.
    pub fn record_limit(self) -> u64 {
        match self {
            Self::Aes128 | Self::Aes256 => 1 << 24,
            Self::Chacha20 => u64::MAX,
        }
    }

    pub(super) fn secret_len(self) -> usize {
        match self {
            Self::Aes128 | Self::Chacha20 => 32,
            Self::Aes256 => 48,
        }
    }

    fn aead(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128 => &aead::AES_128_GCM,
            Self::Aes256 => &aead::AES_256_GCM,
            Self::Chacha20 => &aead::CHACHA20_POLY1305,
        }
    }

    fn hkdf(self) -> hkdf::Algorithm {
        match self {
            Self::Aes128 | Self::Chacha20 => hkdf::HKDF_SHA256,
            Self::Aes256 => hkdf::HKDF_SHA384,
        }
    }

    /// The secret after `secret`, when keys are updated (RFC 8446, 7.2).
    pub(super) fn next(self, secret: &Secret) -> Result<Secret, RecordError> {
        let mut next = Secret { bytes: [0; MAX_SECRET], len: self.secret_len() };
        let len = next.len;
        self.expand(secret, b"traffic upd", &mut next.bytes[..len])?;
        Ok(next)
    }

    /// Whether `key` and `iv` are those of `secret`.
    pub(in crate::tunnel) fn has_keys(
        self,
        secret: &Secret,
        key: &[u8],
        iv: &[u8],
    ) -> Result<bool, RecordError> {
        let mut ours = Zeroizing::new([0; 32 + IV]);
        let (our_key, rest) =
            ours.split_at_mut_checked(self.aead().key_len()).ok_or(RecordError::Library("key length"))?;
        let our_iv = rest.get_mut(..IV).ok_or(RecordError::Library("key length"))?;
        self.expand(secret, b"key", our_key)?;
        self.expand(secret, b"iv", our_iv)?;
        let same = |ours: &[u8], theirs| verify_slices_are_equal(ours, theirs).is_ok();
        Ok(same(our_key, key) & same(our_iv, iv))
    }

    /// HKDF-Expand-Label with an empty context (RFC 8446, 7.1).
    fn expand(self, secret: &Secret, label: &[u8], out: &mut [u8]) -> Result<(), RecordError> {
        const PREFIX: &[u8] = b"tls13 ";
        let length = (out.len() as u16).to_be_bytes();
        let label_length = [(PREFIX.len() + label.len()) as u8];
        let info = [&length[..], &label_length, PREFIX, label, &[0]];
        let key = hkdf::Prk::new_less_safe(self.hkdf(), secret.expose());
        let okm = key.expand(&info, Length(out.len())).and_then(|okm| okm.fill(out));
        okm.map_err(|_| RecordError::Library("HKDF"))
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// Key and IV of one direction.
pub(super) struct RecordKey {
    pub(super) key: LessSafeKey,
    iv: [u8; IV],
}

impl RecordKey {
    pub(super) fn new(suite: Suite, secret: &Secret) -> Result<Self, RecordError> {
        let mut bytes = [0; 32];
        let key = bytes.get_mut(..suite.aead().key_len()).ok_or(RecordError::Library("key length"))?;
        suite.expand(secret, b"key", key)?;
        let unbound = UnboundKey::new(suite.aead(), key).map_err(|_| RecordError::Library("AEAD key"));
        bytes.zeroize();
        let mut iv = [0; IV];
        suite.expand(secret, b"iv", &mut iv)?;
        Ok(Self { key: LessSafeKey::new(unbound?), iv })
    }

    /// RFC 8446, 5.3. Each number is used once: it belongs to the key's owner, which counts.
    pub(super) fn nonce(&self, number: u64) -> Nonce {
        let mut nonce = self.iv;
        for (byte, of_number) in nonce[IV - 8..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= of_number;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

impl Drop for RecordKey {
    fn drop(&mut self) {
        self.iv.zeroize();
    }
}
