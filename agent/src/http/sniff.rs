//! What a client speaks, by its first bytes. Pure.

use super::limits::MAX_FIRST_LINE;

/// What begins every connection of HTTP/2 with prior knowledge.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// No method of HTTP is longer.
const MAX_METHOD: usize = 32;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Something else.
    Other,
    /// It may be HTTP; there is more to come.
    Unclear,
}

/// What a client speaks that begins with `first`.
pub(crate) fn spoken(first: &[u8]) -> Spoken {
    if first.len() >= PREFACE.len() && first.starts_with(PREFACE) {
        return Spoken::Http2;
    }
    if PREFACE.starts_with(first) {
        return Spoken::Unclear;
    }
    let line_end = first.iter().position(|byte| *byte == b'\n');
    let line = first.get(..line_end.unwrap_or(first.len())).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.splitn(2, |byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    let is_method =
        method.len() <= MAX_METHOD && method.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'-');
    let Some(rest) = words.next() else {
        return if is_method && line_end.is_none() { Spoken::Unclear } else { Spoken::Other };
    };
    if method.is_empty() || !is_method || rest.iter().any(u8::is_ascii_control) {
        return Spoken::Other;
    }
    match line_end {
        // Whoever asks for more than anybody serves is told so in HTTP.
        None if first.len() >= MAX_FIRST_LINE => Spoken::Http1,
        None => Spoken::Unclear,
        Some(_) if rest.ends_with(b" HTTP/1.1") || rest.ends_with(b" HTTP/1.0") => Spoken::Http1,
        Some(_) => Spoken::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell() {
        for (first, wanted) in [
            ("GET / HTTP/1.1\r\n", Spoken::Http1),
            ("M-SEARCH * HTTP/1.0\r\nHost: x", Spoken::Http1),
            ("GET /a b HTTP/1.1\r\n", Spoken::Http1),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", Spoken::Http2),
            ("PRI * HTTP/2.0\r\n\r\nSM", Spoken::Unclear),
            ("", Spoken::Unclear),
            ("P", Spoken::Unclear),
            ("POST", Spoken::Unclear),
            ("GET /index", Spoken::Unclear),
            ("PING\r\n", Spoken::Other),
            ("GET key\r\n", Spoken::Other),
            ("*1\r\n$4\r\nPING\r\n", Spoken::Other),
            ("\x16\x03\x01", Spoken::Other),
            ("EHLO mail\r\n", Spoken::Other),
            ("SSH-2.0-OpenSSH_9.2\r\n", Spoken::Other),
            ("get / HTTP/1.1\r\n", Spoken::Other),
        ] {
            assert_eq!(spoken(first.as_bytes()), wanted, "{first:?}");
        }
        let long = format!("GET /{}", "x".repeat(MAX_FIRST_LINE));
        assert_eq!(spoken(long.as_bytes()), Spoken::Http1);
    }
}
