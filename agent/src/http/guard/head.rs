//! The head of an HTTP/1 request, as far as it decides where the next one begins. Pure.
//!
//! Two readers that disagree about the end of a message are what request smuggling lives on. So only heads that every
//! reader understands in one way pass: what RFC 9112 lets a recipient repair is refused here.

use super::super::limits::MAX_HEADERS;

/// Why a request is not read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A line ends without CR and LF, or there is a CR or a NUL within one.
    #[error("a line does not end with CR LF")]
    LineEnd,
    /// Not `METHOD target HTTP/1.x`.
    #[error("the request line is not METHOD, target and HTTP/1.0 or HTTP/1.1, each after one space")]
    RequestLine,
    /// Not a path, an absolute URL, `*` of OPTIONS, or the authority of CONNECT (RFC 9112, 3.2).
    #[error(
        "the request's target is not a path, a URL with its scheme, * of OPTIONS, or host and port of CONNECT"
    )]
    Target,
    /// Nothing of the above, and hyper does not read it.
    #[error("the head cannot be read, for example because of a character that no URL may have")]
    Unreadable,
    /// A header without a name, with a space before its colon, or with control characters.
    #[error("a header line is not a name, a colon and a value")]
    Header,
    /// A header goes on in the next line (obs-fold).
    #[error("a header goes on in the next line (obs-fold)")]
    Fold,
    /// Not a number, or more than one.
    #[error("Content-Length is not one number")]
    Length,
    /// Something else than `chunked`, or in HTTP/1.0.
    #[error("Transfer-Encoding is not just chunked")]
    Coding,
    /// Both `Content-Length` and `Transfer-Encoding`.
    #[error("Content-Length and Transfer-Encoding are both there")]
    TwoLengths,
    /// None in HTTP/1.1, or several.
    #[error("there is not exactly one Host")]
    Host,
    /// Chunk sizes, extensions or ends.
    #[error("a chunk is not size, CR LF, so many bytes, CR LF")]
    Chunk,
    /// The head or the trailers.
    #[error("the head, or the trailers, have too many bytes")]
    TooLarge,
    /// More headers than are read.
    #[error("the head has too many headers")]
    TooMany,
    /// The request line.
    #[error("the request's target has too many bytes")]
    TooLong,
    /// The head came too slowly.
    #[error("the head was not complete in time")]
    TooSlow,
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Framed {
    /// The body.
    pub(super) body: Body,
    /// The client asks for another protocol (`Upgrade`, or CONNECT): the answer decides what comes after.
    pub(super) may_switch: bool,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes.
    Sized(u64),
    /// In chunks.
    Chunked,
}

/// Reads a whole head, its empty line included.
///
/// # Errors
/// [`Malformed`].
pub(super) fn read(head: &[u8]) -> Result<Framed, Malformed> {
    let mut lines = Lines(head);
    let first = lines.next().ok_or(Malformed::RequestLine)??;
    let (is_connect, is_http11) = request_line(first)?;
    let (mut length, mut chunked, mut hosts, mut upgrade) = (None, false, 0, false);
    for (count, line) in lines.enumerate() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if count == MAX_HEADERS {
            return Err(Malformed::TooMany);
        }
        let (name, value) = header(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            if length.is_some() {
                return Err(Malformed::Length);
            }
            length = Some(number(value)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if chunked || !is_http11 || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed::Coding);
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            upgrade = is_http11;
        }
    }
    if hosts > 1 || (is_http11 && hosts == 0) {
        return Err(Malformed::Host);
    }
    let body = match (length, chunked) {
        (Some(_), true) => return Err(Malformed::TwoLengths),
        (length, false) => Body::Sized(length.unwrap_or(0)),
        (None, true) => Body::Chunked,
    };
    Ok(Framed { body, may_switch: upgrade || is_connect })
}

/// Checks one line of trailers, without its end.
pub(super) fn trailer(line: &[u8]) -> Result<(), Malformed> {
    header(line).map(|_| ())
}

/// Lines that end with CR LF, without it.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let end = self.0.iter().position(|byte| matches!(byte, b'\r' | b'\n' | 0));
        let Some((line, rest)) = end.map(|end| self.0.split_at(end)) else {
            return Some(Err(Malformed::LineEnd));
        };
        let Some(rest) = rest.strip_prefix(b"\r\n") else { return Some(Err(Malformed::LineEnd)) };
        self.0 = rest;
        Some(Ok(line))
    }
}

/// Whether it is CONNECT, and whether it is HTTP/1.1.
fn request_line(line: &[u8]) -> Result<(bool, bool), Malformed> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Malformed::RequestLine);
    };
    let is_target = !target.is_empty() && target.iter().all(|byte| byte.is_ascii_graphic() || *byte >= 0x80);
    if method.is_empty() || !method.iter().all(is_token) || !is_target {
        return Err(Malformed::RequestLine);
    }
    let is_http11 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return Err(Malformed::RequestLine),
    };
    if !has_form(method, target) {
        return Err(Malformed::Target);
    }
    Ok((method == b"CONNECT", is_http11))
}

/// Whether a target has one of the forms that its method may have. A host alone would count for more than `Host`.
fn has_form(method: &[u8], target: &[u8]) -> bool {
    let is_absolute = || {
        let colon = target.iter().position(|byte| !byte.is_ascii_alphanumeric() && !b"+-.".contains(byte));
        colon.is_some_and(|at| {
            at > 0 && target[at..].strip_prefix(b"://").is_some_and(|rest| !rest.is_empty())
        })
    };
    let has_form = match method {
        b"CONNECT" => !target.iter().any(|byte| b"/?#@".contains(byte)),
        b"OPTIONS" if target == b"*" => true,
        _ => target.starts_with(b"/") || is_absolute(),
    };
    has_form && std::str::from_utf8(target).is_ok()
}

fn header(line: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
        return Err(Malformed::Fold);
    }
    let colon = line.iter().position(|byte| *byte == b':').ok_or(Malformed::Header)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_text = |byte: &u8| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f);
    if name.is_empty() || !name.iter().all(is_token) || !value.iter().all(is_text) {
        return Err(Malformed::Header);
    }
    Ok((name, value.trim_ascii()))
}

fn number(value: &[u8]) -> Result<u64, Malformed> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(Malformed::Length);
    }
    Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(headers: &str) -> Result<Framed, Malformed> {
        read(format!("POST /x HTTP/1.1\r\nHost: web\r\n{headers}\r\n").as_bytes())
    }

    #[test]
    fn what_every_reader_understands_passes() {
        let body = |headers| framed(headers).unwrap().body;
        assert_eq!(body(""), Body::Sized(0));
        assert_eq!(body("Content-Length: 12\r\n"), Body::Sized(12));
        assert_eq!(body("transfer-encoding:Chunked \r\n"), Body::Chunked);
        assert!(framed("Upgrade: websocket\r\n").unwrap().may_switch);
        assert!(read(b"CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n").unwrap().may_switch);
        assert_eq!(read(b"GET / HTTP/1.0\r\n\r\n").unwrap().body, Body::Sized(0));
        assert_eq!(body("X-Text: gr\u{fc}n\ttea\r\n"), Body::Sized(0));
    }

    #[test]
    fn what_readers_disagree_about_is_refused() {
        for (headers, why) in [
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Malformed::TwoLengths),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Malformed::TwoLengths),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Malformed::Length),
            ("Content-Length: 5, 5\r\n", Malformed::Length),
            ("Content-Length: +5\r\n", Malformed::Length),
            ("Content-Length: 0x5\r\n", Malformed::Length),
            ("Content-Length:\r\n", Malformed::Length),
            ("Content-Length: 1234567890123456789\r\n", Malformed::Length),
            ("Transfer-Encoding: gzip, chunked\r\n", Malformed::Coding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Malformed::Coding),
            ("Transfer-Encoding: \x0bchunked\r\n", Malformed::Header),
            ("Transfer-Encoding : chunked\r\n", Malformed::Header),
            ("X: a\r\n b\r\n", Malformed::Fold),
            ("X: a\nY: b\r\n", Malformed::LineEnd),
            ("X: a\rb\r\n", Malformed::LineEnd),
            ("X: a\0b\r\n", Malformed::LineEnd),
            ("No colon\r\n", Malformed::Header),
            (": empty\r\n", Malformed::Header),
            ("Host: other\r\n", Malformed::Host),
        ] {
            assert_eq!(framed(headers), Err(why), "{headers:?}");
        }
        for line in [
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET /",
            "GET / HTTP/2.0",
            "G\tT / HTTP/1.1",
            " / HTTP/1.1",
        ] {
            let head = format!("{line}\r\nHost: web\r\n\r\n");
            assert_eq!(read(head.as_bytes()), Err(Malformed::RequestLine), "{line:?}");
        }
        for (line, is_one) in [
            ("GET /a?b", true),
            ("GET http://web/a", true),
            ("GET HTTPS://web:443", true),
            ("GET /gr\u{fc}n", true),
            ("OPTIONS *", true),
            ("CONNECT web:80", true),
            ("CONNECT [::1]:80", true),
            ("GET *", false),
            ("GET web", false),
            ("GET web:80", false),
            ("GET http:/web/a", false),
            ("GET http://", false),
            ("GET ://web", false),
            ("GET ?a", false),
            ("CONNECT /a", false),
            ("CONNECT http://web/", false),
            ("CONNECT user@web:80", false),
        ] {
            let head = format!("{line} HTTP/1.1\r\nHost: web\r\n\r\n");
            let expected = if is_one { Ok(()) } else { Err(Malformed::Target) };
            assert_eq!(read(head.as_bytes()).map(|_| ()), expected, "{line:?}");
        }
        assert_eq!(read(b"GET /\xff HTTP/1.1\r\nHost: web\r\n\r\n"), Err(Malformed::Target));
        assert_eq!(read(b"GET / HTTP/1.1\r\n\r\n"), Err(Malformed::Host));
        assert_eq!(read(b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(Malformed::Coding));
    }
}
