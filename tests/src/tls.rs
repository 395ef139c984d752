//! As much of TLS as passes in the clear: what a ServerHello chose (RFC 8446, 4.1.3).

const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;
const CLIENT_HELLO: u8 = 1;

/// What the server chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// 0x0304 is TLS 1.3.
    pub(crate) version: u16,
    cipher: u16,
    group: Option<u16>,
}

impl Choice {
    pub(crate) fn is_tls13(self) -> bool {
        self.version == 0x0304
    }
}

impl std::fmt::Display for Choice {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.version {
            0x0304 => write!(out, "TLS 1.3")?,
            other => write!(out, "version {other:#06x}")?,
        }
        match self.cipher {
            0x1301 => write!(out, ", AES-128-GCM")?,
            0x1302 => write!(out, ", AES-256-GCM")?,
            0x1303 => write!(out, ", ChaCha20-Poly1305")?,
            other => write!(out, ", cipher {other:#06x}")?,
        }
        match self.group {
            Some(0x11ec) => write!(out, ", key exchange X25519MLKEM768 (post-quantum)"),
            Some(0x001d) => write!(out, ", key exchange X25519"),
            Some(other) => write!(out, ", key exchange {other:#06x}"),
            None => Ok(()),
        }
    }
}

/// Whether the first bytes of a connection begin a TLS handshake.
pub(crate) fn is_client_hello(bytes: &[u8]) -> bool {
    matches!(bytes, [HANDSHAKE, 3, _, _, _, CLIENT_HELLO, ..])
}

/// Reads the first bytes that a server sent; none when they are no ServerHello.
pub(crate) fn server_hello(bytes: &[u8]) -> Option<Choice> {
    let [HANDSHAKE, 3, _, _, _, SERVER_HELLO, _, _, _, rest @ ..] = bytes else {
        return None;
    };
    let legacy = number(rest, 0)?;
    let session = usize::from(*rest.get(34)?);
    let after = rest.get(35 + session..)?;
    let mut choice = Choice { version: legacy, cipher: number(after, 0)?, group: None };
    let length = usize::from(number(after, 3)?);
    let mut extensions = after.get(5..)?;
    // The last one may be in the next segment; what is here is enough.
    extensions = &extensions[..length.min(extensions.len())];
    while let (Some(kind), Some(length)) = (number(extensions, 0), number(extensions, 2)) {
        match kind {
            43 => choice.version = number(extensions, 4)?,
            51 => choice.group = number(extensions, 4),
            _ => {}
        }
        extensions = extensions.get(4 + usize::from(length)..).unwrap_or_default();
    }
    Some(choice)
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Vec<u8> {
        let mut bytes = vec![22, 3, 3, 0, 0, 2, 0, 0, 0, 3, 3];
        bytes.extend([7; 32]);
        bytes.extend([2, 9, 9, 0x13, 0x02, 0]);
        bytes.extend([0, 14, 0, 51, 0, 4, 0x11, 0xec, 0, 0, 0, 43, 0, 2, 3, 4]);
        bytes
    }

    #[test]
    fn a_server_hello_tells_version_cipher_and_group() {
        let choice = server_hello(&hello()).expect("a ServerHello");
        assert!(choice.is_tls13());
        assert_eq!(choice.to_string(), "TLS 1.3, AES-256-GCM, key exchange X25519MLKEM768 (post-quantum)");
    }

    #[test]
    fn other_bytes_are_no_server_hello() {
        assert_eq!(server_hello(b"HTTP/1.1 200 OK\r\n\r\n"), None);
        let whole = hello();
        for length in 0..whole.len() {
            let _ = server_hello(&whole[..length]);
        }
        assert!(is_client_hello(&[22, 3, 1, 0, 9, 1, 0]) && !is_client_hello(b"GET / HTTP/1.1"));
    }
}
