//! HTTP/1.1 heads of the CONNECT exchange (RFC 9112), written and read. Pure; what is read is a peer's and not trusted.
//!
//! Stricter than the RFC asks: what two parsers could understand differently is refused. Lines end with CRLF and nothing
//! else; no folded lines, no space before a colon; CONNECT has a `Host` that says the same as its target; nothing has a
//! body. A head is bounded ([`MAX_HEAD`], [`MAX_HEADERS`]).

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, StatusCode, Uri, Version};

/// Bytes of a head, as of an HTTP/2 header list.
pub(super) const MAX_HEAD: usize = 8 << 10;
/// Fields of a head.
const MAX_HEADERS: usize = 64;

/// Why a head is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Longer than any may be.
    #[error("its head is longer than {MAX_HEAD} bytes or has more than {MAX_HEADERS} fields")]
    TooLong,
    /// The first line.
    #[error("its first line is none of HTTP/1.1")]
    FirstLine,
    /// A field.
    #[error("a field of its head is malformed")]
    Field,
    /// `Host`.
    #[error("it has no Host, several, or one that is not its target")]
    Host,
    /// A body, in whatever way it is announced.
    #[error("it announces a body")]
    Body,
}

/// The head of a request without a body.
pub(super) fn write_request(request: &Request<()>) -> Vec<u8> {
    let authority = request.uri().authority().map_or("", |authority| authority.as_str());
    let mut head = format!("{} {authority} HTTP/1.1\r\nhost: {authority}\r\n", request.method()).into_bytes();
    write_fields(request.headers(), &mut head);
    head
}

/// The head of an answer without a body; one that refuses closes the connection.
pub(super) fn write_response(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or(""));
    if !status.is_success() {
        head.push_str("connection: close\r\ncontent-length: 0\r\n");
    }
    let mut head = head.into_bytes();
    write_fields(headers, &mut head);
    head
}

fn write_fields(headers: &HeaderMap, head: &mut Vec<u8>) {
    for (name, value) in headers.iter().filter(|(name, _)| *name != HOST) {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
}

/// The request that `bytes` begin with, and where it ends. None: not all of it is there.
///
/// # Errors
/// [`HeadError`]
pub fn parse_request(bytes: &[u8]) -> Result<Option<(Request<()>, usize)>, HeadError> {
    let Some((head, end)) = head(bytes)? else { return Ok(None) };
    let mut lines = lines(head);
    let line = lines.next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(b"HTTP/1.1"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(HeadError::FirstLine);
    };
    let method = Method::from_bytes(method).map_err(|_| HeadError::FirstLine)?;
    let headers = fields(lines)?;
    // Only CONNECT is served; its target is an authority, and so is whatever is refused with a name.
    let uri = Uri::try_from(target).map_err(|_| HeadError::FirstLine)?;
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(HeadError::Host) };
    if method == Method::CONNECT && host.as_bytes() != target {
        return Err(HeadError::Host);
    }
    if headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING) {
        return Err(HeadError::Body);
    }
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    Ok(Some((request, end)))
}

/// The answer that `bytes` begin with, and where it ends. None: not all of it is there.
///
/// # Errors
/// [`HeadError`]
pub fn parse_response(bytes: &[u8]) -> Result<Option<(StatusCode, HeaderMap, usize)>, HeadError> {
    let Some((head, end)) = head(bytes)? else { return Ok(None) };
    let mut lines = lines(head);
    let line = lines.next().unwrap_or_default();
    let (Some(b"HTTP/1.1 "), Some(status), rest) = (line.get(..9), line.get(9..12), line.get(12)) else {
        return Err(HeadError::FirstLine);
    };
    if rest.is_some_and(|byte| *byte != b' ') {
        return Err(HeadError::FirstLine);
    }
    let status = StatusCode::from_bytes(status).map_err(|_| HeadError::FirstLine)?;
    let headers = fields(lines)?;
    let announces = headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    // RFC 9110, 9.3.6: after CONNECT neither means anything in a 2xx; what refuses has no body here.
    if announces || (status.is_success() && headers.contains_key(CONNECTION)) || status.is_informational() {
        return Err(HeadError::Body);
    }
    Ok(Some((status, headers, end)))
}

/// All up to the empty line, without it, and where it ends.
fn head(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, HeadError> {
    let bounded = bytes.get(..MAX_HEAD).unwrap_or(bytes);
    match bounded.windows(4).position(|window| window == b"\r\n\r\n") {
        Some(at) => Ok(Some((bounded.get(..at).unwrap_or_default(), at + 4))),
        None if bytes.len() >= MAX_HEAD => Err(HeadError::TooLong),
        None => Ok(None),
    }
}

/// Lines between CRLFs.
fn lines(mut head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut done = false;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        match head.windows(2).position(|window| window == b"\r\n") {
            Some(at) => {
                let (line, rest) = head.split_at_checked(at)?;
                head = rest.get(2..)?;
                Some(line)
            }
            None => {
                done = true;
                Some(head)
            }
        }
    })
}

fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<HeaderMap, HeadError> {
    let mut headers = HeaderMap::new();
    for (index, line) in lines.enumerate() {
        if index >= MAX_HEADERS {
            return Err(HeadError::TooLong);
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or(HeadError::Field)?;
        let (name, value) = line.split_at_checked(colon).ok_or(HeadError::Field)?;
        // Tokens alone: neither a folded line nor a space before the colon is one.
        let name = HeaderName::from_bytes(name).map_err(|_| HeadError::Field)?;
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        // No control characters, no bare CR or LF.
        let value = HeaderValue::from_bytes(value).map_err(|_| HeadError::Field)?;
        if headers.try_append(name, value).is_err() {
            return Err(HeadError::TooLong);
        }
    }
    Ok(headers)
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;
