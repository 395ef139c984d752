//! HTTP/2 that begins as a question in HTTP/1.1: `Upgrade: h2c` (RFC 7540, 3.2; RFC 9113 no longer describes it, but clients ask,
//! Java's by default).
//!
//! The request that asks is the first of the new connection's streams. Its head is put, as HTTP/2 writes it, right behind the first
//! words of the client, so that it is read like any other.

use super::headers::{authority, names, remove_hop_by_hop};
use super::limits::MAX_HEAD;
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE};
use http::uri::Authority;
use http::{Request, Response, StatusCode, Version};
use hyper::body::Body;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The client's settings.
pub(super) const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
/// How every HTTP/2 connection begins (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Most bytes of a frame's payload that everybody takes (RFC 9113, 4.2).
const MAX_FRAME: usize = 16 << 10;
/// Most bytes of settings, where they come.
const MAX_SETTINGS: usize = 1 << 10;
/// What each field counts for beside its bytes (RFC 9113, 6.5.2).
const FIELD: usize = 32;
/// Bytes of one setting.
const SETTING: usize = 6;
/// RFC 7540 says that there is no padding; some write it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

// RFC 9113, 6.
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A request that is to be the first of an HTTP/2 connection.
#[derive(Debug)]
pub(super) struct Upgraded {
    settings: Vec<u8>,
    /// Its head, as frames.
    head: BytesMut,
}

impl Upgraded {
    /// If `request` asks for it in a way that can be followed: others are answered in HTTP/1.1, which the client has to
    /// understand too.
    pub(super) fn read<B: Body>(request: &Request<B>) -> Option<Self> {
        let headers = request.headers();
        let asks = request.version() == Version::HTTP_11
            && names(headers, &UPGRADE, "h2c")
            && names(headers, &CONNECTION, UPGRADE.as_str())
            && names(headers, &CONNECTION, HTTP2_SETTINGS.as_str());
        // What has a body would have to be read before the switch.
        if !asks || !request.body().is_end_stream() {
            return None;
        }
        let mut settings = headers.get_all(HTTP2_SETTINGS).iter();
        let (Some(settings), None) = (settings.next(), settings.next()) else { return None };
        let settings = BASE64.decode(settings).ok()?;
        if !settings.len().is_multiple_of(SETTING) || settings.len() > MAX_SETTINGS {
            return None;
        }
        // HTTP/2 ends the stream of a bad one without a word.
        let authority = Authority::try_from(authority(request)).ok()?;
        let path = request.uri().path_and_query().filter(|path| path.as_str().starts_with('/'))?;
        let mut headers = headers.clone();
        remove_hop_by_hop(&mut headers, false);
        headers.remove(HOST);
        let pseudo = [
            (":method", request.method().as_str()),
            (":scheme", "http"),
            (":authority", authority.as_str()),
            (":path", path.as_str()),
        ];
        let pseudo = pseudo.map(|(name, value)| (name, value.as_bytes()));
        let fields = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let (mut block, mut size) = (BytesMut::new(), 0);
        for (name, value) in pseudo.into_iter().chain(fields) {
            put_field(&mut block, name.as_bytes(), value);
            size += name.len() + value.len() + FIELD;
        }
        (size < MAX_HEAD).then(|| Self { settings, head: head_frames(&block) })
    }

    /// The answer after which the connection is HTTP/2.
    pub(super) fn answer<B>(body: B) -> Response<B> {
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("h2c"));
        response
    }

    /// Reads the first words of the client, and returns them with the request behind.
    ///
    /// # Errors
    /// Of the connection; `InvalidData` if they are not the preface and settings.
    pub(super) async fn begin<S: AsyncRead + Unpin>(mut self, io: &mut S) -> io::Result<Bytes> {
        let mut start = [0; PREFACE.len() + 9];
        io.read_exact(&mut start).await?;
        let (preface, frame) = start.split_at(PREFACE.len());
        let [high, middle, low, kind, flags, stream @ ..] = frame else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
        let is_first = preface == PREFACE && *kind == SETTINGS && flags & ACK == 0 && stream == [0; 4];
        if !is_first || !length.is_multiple_of(SETTING) || length > MAX_SETTINGS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "HTTP/2 did not begin with its preface and settings",
            ));
        }
        // One frame, for only one is acknowledged: the later of two values holds.
        let before = self.settings.len();
        self.settings.resize(before + length, 0);
        io.read_exact(&mut self.settings[before..]).await?;
        let mut first = BytesMut::from(PREFACE);
        put_frame(&mut first, SETTINGS, 0, 0, &self.settings);
        first.extend_from_slice(&self.head);
        Ok(first.freeze())
    }
}

/// The first stream's head, and its end.
fn head_frames(block: &[u8]) -> BytesMut {
    let mut frames = BytesMut::new();
    let mut parts = block.chunks(MAX_FRAME).peekable();
    let (mut kind, mut flags) = (HEADERS, END_STREAM);
    while let Some(part) = parts.next() {
        let end = if parts.peek().is_none() { END_HEADERS } else { 0 };
        put_frame(&mut frames, kind, flags | end, 1, part);
        (kind, flags) = (CONTINUATION, 0);
    }
    frames
}

/// `payload` has at most [`MAX_FRAME`] bytes.
fn put_frame(out: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.put_uint(payload.len() as u64, 3);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32(stream);
    out.extend_from_slice(payload);
}

/// A header as a literal that no table knows (RFC 7541, 6.2.2): the client's own table stays as it takes it to be.
fn put_field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.put_u8(0);
    for text in [name, value] {
        put_length(out, text.len());
        out.extend_from_slice(text);
    }
}

/// A number of which seven bits are in the first byte (RFC 7541, 5.1).
fn put_length(out: &mut BytesMut, length: usize) {
    const PREFIX: usize = 0x7f;
    if length < PREFIX {
        return out.put_u8(length as u8);
    }
    out.put_u8(PREFIX as u8);
    let mut left = length - PREFIX;
    while left > 0x7f {
        out.put_u8((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    out.put_u8(left as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{Empty, Full};
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    fn ask(more: &[(&str, &str)]) -> Request<Empty<Bytes>> {
        let mut request = Request::builder()
            .uri("/a?b")
            .header("host", "web:80")
            .header("connection", "Upgrade, HTTP2-Settings")
            .header("upgrade", "h2c")
            .header("http2-settings", "AAMAAABkAAQAoAAAAAIAAAAA")
            .header("x-mine", "1");
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        request.body(Empty::new()).unwrap()
    }

    fn changed(change: impl FnOnce(&mut Request<Empty<Bytes>>)) -> bool {
        let mut request = ask(&[]);
        change(&mut request);
        Upgraded::read(&request).is_some()
    }

    #[test]
    fn only_who_asks_rightly_gets_it() {
        assert!(changed(|_| {}));
        assert!(changed(|request| drop(
            request.headers_mut().insert("upgrade", "foo, H2C".parse().unwrap())
        )));
        let padded = "AAMAAABkAAQAoAAAAAIAAAAAAAMAAABk";
        assert!(changed(|request| drop(
            request.headers_mut().insert(HTTP2_SETTINGS, padded.parse().unwrap())
        )));
        for (name, value) in [
            ("connection", "Upgrade"),
            ("connection", "HTTP2-Settings"),
            ("upgrade", "h2"),
            ("http2-settings", "x"),
            ("http2-settings", "AAMAAABkAA"),
            ("host", "a b"),
        ] {
            let refused = changed(|request| {
                request.headers_mut().insert(HeaderName::from_static(name), value.parse().unwrap());
            });
            assert!(!refused, "{name}: {value}");
        }
        assert!(!changed(|request| *request.version_mut() = Version::HTTP_10));
        assert!(Upgraded::read(&ask(&[("http2-settings", "")])).is_none(), "settings twice");
        let long = BASE64.encode([0; MAX_SETTINGS + SETTING]);
        assert!(!changed(|request| drop(
            request.headers_mut().insert(HTTP2_SETTINGS, long.parse().unwrap())
        )));
        let with_body = ask(&[]).map(|_| Full::new(Bytes::from_static(b"body")));
        assert!(Upgraded::read(&with_body).is_none());
    }

    /// The library would end its stream.
    #[test]
    fn what_is_too_large_for_http_2_stays_with_http_1() {
        for (length, expected) in [(MAX_HEAD - 1000, true), (MAX_HEAD - 100, false)] {
            let long = "x".repeat(length);
            assert_eq!(Upgraded::read(&ask(&[("x-long", &long)])).is_some(), expected, "{length}");
        }
    }

    #[test]
    fn lengths_are_as_the_rfc_writes_them() {
        for (length, expected) in [
            (0, &[0][..]),
            (126, &[126]),
            (127, &[127, 0]),
            (128, &[127, 1]),
            // RFC 7541, C.1.2, for seven bits: 1337 - 127 = 1210.
            (1337, &[127, 0b1011_1010, 0b0000_1001]),
        ] {
            let mut out = BytesMut::new();
            put_length(&mut out, length);
            assert_eq!(&out[..], expected, "{length}");
        }
    }

    #[tokio::test]
    async fn the_request_comes_behind_the_clients_settings() {
        let upgraded = || Upgraded::read(&ask(&[])).unwrap();
        let mut said = BytesMut::from(PREFACE);
        put_frame(&mut said, SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 7]);
        said.extend_from_slice(b"more");
        let mut io = &said[..];
        let first = upgraded().begin(&mut io).await.unwrap();
        assert_eq!(io, b"more");
        let rest = first.strip_prefix(PREFACE).unwrap();
        assert_eq!(rest[..5], [0, 0, 24, SETTINGS, 0], "three settings and one, in one frame");
        assert_eq!(rest[9 + 18..9 + 24], [0, 3, 0, 0, 0, 7]);
        let head = &rest[9 + 24..];
        assert_eq!(head[3..9], [HEADERS, END_STREAM | END_HEADERS, 0, 0, 0, 1]);
        let text = String::from_utf8_lossy(head);
        assert!(text.contains("\x0a:authority\x06web:80") && text.contains("\x06x-mine\x011"), "{text}");
        assert!(!text.contains("upgrade") && !text.contains("http2-settings"), "{text}");
        for bad in [&b"GET / HTTP/1.1\r\nHost: web\r\n\r\n......."[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n"] {
            assert!(upgraded().begin(&mut &bad[..]).await.is_err());
        }
        for (kind, flags, stream, payload) in [
            (HEADERS, 0, 0, &[0; 6][..]),
            (SETTINGS, ACK, 0, &[]),
            (SETTINGS, 0, 1, &[]),
            (SETTINGS, 0, 0, &[0; 5]),
            (SETTINGS, 0, 0, &[0; MAX_SETTINGS + SETTING]),
        ] {
            let mut said = BytesMut::from(PREFACE);
            put_frame(&mut said, kind, flags, stream, payload);
            assert!(upgraded().begin(&mut &said[..]).await.is_err(), "{kind} {flags} {stream}");
        }
    }

    #[test]
    fn a_long_head_takes_several_frames() {
        let long = "x".repeat(2 * MAX_FRAME);
        let upgraded = Upgraded::read(&ask(&[("x-long", &long)])).unwrap();
        let mut rest = &upgraded.head[..];
        let mut seen = Vec::new();
        while let [high, middle, low, kind, flags, _, _, _, 1, payload @ ..] = rest {
            let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
            assert!(length <= MAX_FRAME);
            seen.push((*kind, *flags));
            rest = &payload[length..];
        }
        assert!(rest.is_empty());
        assert_eq!(seen, [(HEADERS, END_STREAM), (CONTINUATION, 0), (CONTINUATION, END_HEADERS)]);
    }

    /// What the library reads on a connection that was asked for in this way, and whether that is all of the request.
    async fn read_by_http_2(request: &Request<Empty<Bytes>>) -> Request<bool> {
        let mut said = BytesMut::from(PREFACE);
        put_frame(&mut said, SETTINGS, 0, 0, &[]);
        let first = Upgraded::read(request).unwrap().begin(&mut &said[..]).await.unwrap();
        let (mut client, server) = tokio::io::duplex(2 * MAX_HEAD);
        client.write_all(&first).await.unwrap();
        let limit = u32::try_from(MAX_HEAD).unwrap();
        let server = h2::server::Builder::new().max_header_list_size(limit).handshake::<_, Bytes>(server);
        let mut server = server.await.unwrap();
        let (read, _answer) = server.accept().await.unwrap().unwrap();
        read.map(|body| body.is_end_stream())
    }

    proptest! {
        #[test]
        fn http_2_reads_the_request_as_it_was_asked(
            method in prop_oneof![Just("GET"), Just("HEAD"), Just("DELETE"), Just("X-ODD")],
            path in "/[a-z0-9/._~%-]{0,300}(\\?[a-z=&]{0,50})?",
            fields in prop::collection::vec(("x-[a-z0-9-]{1,200}", "([!-~]([ -~]{0,2000}[!-~])?)?"), 0..20),
        ) {
            let mut request = ask(&[]);
            *request.method_mut() = method.parse().unwrap();
            *request.uri_mut() = path.parse().unwrap();
            for (name, value) in &fields {
                request.headers_mut().append(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let read = runtime.block_on(read_by_http_2(&request));
            prop_assert_eq!(read.method(), request.method());
            prop_assert_eq!(read.uri().to_string(), format!("http://web:80{path}"));
            for name in [HOST, CONNECTION, UPGRADE, HTTP2_SETTINGS] {
                request.headers_mut().remove(name);
            }
            prop_assert_eq!(read.headers(), request.headers());
            prop_assert!(read.body());
        }

        #[test]
        fn whatever_comes_first_is_read_or_refused(
            preface in any::<bool>(),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let said = [if preface { PREFACE } else { b"" }, &bytes].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _begun = runtime.block_on(Upgraded::read(&ask(&[])).unwrap().begin(&mut &said[..]));
        }
    }
}
