//! What a proxy does to headers, whatever the routes say. Pure.

use super::extended::is_http;
use super::h2c::HTTP2_SETTINGS;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderMap, HeaderName,
    HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::Scheme;
use http::{Method, Request, Uri, Version};
use hyper::body::Body;

/// `x-request-id`.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `x-forwarded-proto`.
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `x-forwarded-for`.
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Which try a request is, beginning with 1.
pub(crate) const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
/// Milliseconds from sending a request to its response's head.
pub(crate) const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
/// The path before it was rewritten.
pub(crate) const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
/// A limit was reached before the request was sent.
pub(crate) const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Never taken away because `Connection` names them: they are what others decide by.
fn is_end_to_end(name: &HeaderName) -> bool {
    [HOST, AUTHORIZATION, COOKIE, CONTENT_LENGTH, CONTENT_TYPE, REQUEST_ID, FORWARDED_FOR, FORWARDED_PROTO]
        .contains(name)
}

/// Takes away what is meant for this connection alone (RFC 9110, 7.6.1), except an upgrade that is passed on.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap, keep_upgrade: bool) {
    // `te: trailers` is the one value that has a meaning from end to end, and gRPC asks for it.
    let wants_trailers = names(headers, &TE, "trailers");
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .filter(|name| !is_end_to_end(name) && *name != UPGRADE)
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRANSFER_ENCODING,
        HTTP2_SETTINGS,
    ] {
        headers.remove(name);
    }
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    match keep_upgrade {
        true => {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        false => {
            headers.remove(UPGRADE);
        }
    }
}

/// Whether a client asks for another protocol on its HTTP/1.1 connection: `Upgrade` means nothing where `Connection` does not name it
/// (RFC 9110, 7.8). HTTP/2 is [had here](super::h2c) and not passed on: behind an upgrade nobody would look into its requests.
pub(crate) fn wants_upgrade<B>(request: &Request<B>) -> bool {
    let asked = || request.headers().get_all(UPGRADE).iter().filter_map(|value| value.to_str().ok());
    let is_any_http = |value: &str| value.split(',').any(is_http);
    request.version() == Version::HTTP_11
        && asked().next().is_some()
        && names(request.headers(), &CONNECTION, UPGRADE.as_str())
        && !asked().any(is_any_http)
}

/// Whether one of the values of `header`, which are lists, is `wanted`.
pub(super) fn names(headers: &HeaderMap, header: &HeaderName, wanted: &str) -> bool {
    let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(wanted))
}

/// The host that a request is for, port included.
pub(crate) fn authority<B>(request: &Request<B>) -> &str {
    host_of(request.uri(), request.headers())
}

/// The same of what is left of a request without its body.
pub(crate) fn authority_of(parts: &Parts) -> &str {
    host_of(&parts.uri, &parts.headers)
}

fn host_of<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    match uri.authority() {
        Some(authority) => authority.as_str(),
        None => headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
    }
}

/// HTTP/2 says how it is carried.
pub(crate) fn set_https<B>(request: &mut Request<B>) {
    let mut parts = request.uri().clone().into_parts();
    if parts.scheme.is_some() {
        parts.scheme = Some(Scheme::HTTPS);
    }
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

/// Whether it is gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let rest = kind.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// What every request carries on: an id, what the client spoke; not what it asked of us alone.
pub(crate) fn prepare<B>(request: &mut Request<B>, keep_upgrade: bool, random: u128) {
    remove_hop_by_hop(request.headers_mut(), keep_upgrade);
    let headers = request.headers_mut();
    headers.remove(EXPECT);
    headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    if !headers.contains_key(REQUEST_ID)
        && let Ok(id) = HeaderValue::from_bytes(&uuid(random))
    {
        headers.insert(REQUEST_ID, id);
    }
}

/// Shapes a request for the version that its endpoint is spoken to in. A body of unknown length is chunked in HTTP/1.1, for
/// hyper sends none with GET, HEAD and the like unless it is told how.
pub(crate) fn shape<B: Body>(request: &mut Request<B>, h2: bool) {
    let is_connect = request.method() == Method::CONNECT;
    if h2 {
        let authority = authority(request).to_owned();
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        *request.version_mut() = Version::HTTP_2;
        let uri = match is_connect {
            true => Uri::builder().authority(authority.as_str()).build(),
            false => Uri::builder().scheme("http").authority(authority.as_str()).path_and_query(path).build(),
        };
        if let Ok(uri) = uri {
            *request.uri_mut() = uri;
            request.headers_mut().remove(HOST);
        }
        return;
    }
    *request.version_mut() = Version::HTTP_11;
    join_cookies(request.headers_mut());
    if request.headers().contains_key(TE) {
        // RFC 9110, 10.1.4.
        request.headers_mut().append(CONNECTION, HeaderValue::from_static("te"));
    }
    // Its target is a path already, and its host a header, if its client speaks HTTP/1 too.
    let is_absolute = request.uri().authority().is_some();
    if (is_absolute || request.headers().get_all(HOST).iter().nth(1).is_some())
        && let Ok(host) = HeaderValue::try_from(authority(request))
    {
        request.headers_mut().insert(HOST, host);
    }
    if is_connect {
        return;
    }
    if is_absolute {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        if let Ok(uri) = Uri::try_from(path) {
            *request.uri_mut() = uri;
        }
    }
    let is_sized =
        request.headers().contains_key(CONTENT_LENGTH) || request.body().size_hint().exact().is_some();
    if !is_sized && !request.body().is_end_stream() {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// HTTP/2 may split cookies into several headers; HTTP/1 knows one (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let joined =
        headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, value);
    }
}

/// A random UUID, version 4.
fn uuid(random: u128) -> [u8; 36] {
    let mut left = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let mut text = [b'-'; 36];
    let digits = text.iter_mut().enumerate().filter(|(place, _)| !matches!(place, 8 | 13 | 18 | 23));
    for (_, digit) in digits.rev() {
        let value = (left & 0xf) as u8;
        *digit = if value < 10 { b'0' + value } else { b'a' + value - 10 };
        left >>= 4;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::{Empty, Full, StreamBody};
    use hyper::body::Frame;
    use std::convert::Infallible;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn what_is_for_this_connection_stays_here() {
        let mut map = headers(&[
            ("connection", "close, X-Mine, authorization, TE"),
            ("x-mine", "1"),
            ("authorization", "kept"),
            ("keep-alive", "5"),
            ("te", "gzip, Trailers"),
            ("upgrade", "websocket"),
            ("transfer-encoding", "chunked"),
            ("x-other", "kept"),
        ]);
        let mut upgrading = map.clone();
        remove_hop_by_hop(&mut map, false);
        assert_eq!(map, headers(&[("authorization", "kept"), ("te", "trailers"), ("x-other", "kept")]));
        remove_hop_by_hop(&mut upgrading, true);
        assert_eq!(upgrading.get("upgrade").unwrap(), "websocket");
        assert_eq!(upgrading.get("connection").unwrap(), "upgrade");
    }

    #[test]
    fn h2c_is_not_passed_on() {
        let asks = |value: &str| {
            let request = Request::builder().header("connection", "Upgrade").header("upgrade", value);
            wants_upgrade(&request.body(()).unwrap())
        };
        assert!(asks("websocket") && asks("any/1.0"));
        assert!(!asks("h2c") && !asks("websocket, H2C") && !asks("HTTP/2.0"));
        assert!(!wants_upgrade(&Request::new(())));
    }

    #[test]
    fn an_upgrade_is_one_where_connection_names_it() {
        for (connection, expected) in [
            (None, false),
            (Some("keep-alive"), false),
            (Some("upgrades"), false),
            (Some("upgrade"), true),
            (Some("keep-alive, Upgrade"), true),
        ] {
            let mut request = Request::builder().header("upgrade", "websocket").body(()).unwrap();
            request.headers_mut().extend(connection.map(|value| (CONNECTION, value.parse().unwrap())));
            assert_eq!(wants_upgrade(&request), expected, "{connection:?}");
        }
    }

    #[test]
    fn te_is_for_the_next_connection_too() {
        let mut request = Request::builder()
            .uri("http://web/")
            .header("te", "trailers")
            .body(Empty::<Bytes>::new())
            .unwrap();
        shape(&mut request, true);
        assert!(!request.headers().contains_key(CONNECTION));
        shape(&mut request, false);
        assert_eq!(request.headers()[CONNECTION], "te");
    }

    #[test]
    fn a_request_takes_the_shape_of_its_endpoints_version() {
        let mut request = Request::builder().uri("http://web:80/a?b").body(Empty::<Bytes>::new()).unwrap();
        request.headers_mut().append(COOKIE, HeaderValue::from_static("a=1"));
        request.headers_mut().append(COOKIE, HeaderValue::from_static("b=2"));
        shape(&mut request, false);
        assert_eq!(
            (request.uri().to_string(), request.headers()["host"].to_str().unwrap()),
            ("/a?b".into(), "web:80")
        );
        assert_eq!(request.headers()["cookie"], "a=1; b=2");
        shape(&mut request, true);
        assert_eq!(request.uri(), "http://web:80/a?b");
        assert!(!request.headers().contains_key(HOST));
    }

    #[test]
    fn a_body_of_unknown_length_is_chunked_whatever_the_method() {
        fn framing<B: Body>(mut request: Request<B>, h2: bool) -> Option<HeaderValue> {
            shape(&mut request, h2);
            request.headers_mut().remove(TRANSFER_ENCODING)
        }
        let frames =
            || futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"abc")))]);
        for method in ["GET", "HEAD", "DELETE", "POST"] {
            let request = || Request::builder().method(method).uri("http://web/");
            assert_eq!(
                framing(request().body(StreamBody::new(frames())).unwrap(), false).unwrap(),
                "chunked"
            );
            assert_eq!(framing(request().body(StreamBody::new(frames())).unwrap(), true), None);
            assert_eq!(framing(request().body(Full::new(Bytes::from_static(b"abc"))).unwrap(), false), None);
            assert_eq!(framing(request().body(Empty::<Bytes>::new()).unwrap(), false), None);
            let sized = request().header("content-length", "3").body(StreamBody::new(frames())).unwrap();
            assert_eq!(framing(sized, false), None);
        }
        let connect = Request::connect("far:443").body(StreamBody::new(frames())).unwrap();
        assert_eq!(framing(connect, false), None);
    }

    #[test]
    fn ids_are_uuids() {
        assert_eq!(uuid(0), *b"00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), *b"ffffffff-ffff-4fff-bfff-ffffffffffff");
        let random = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;
        assert_eq!(uuid(random), *b"01234567-89ab-4def-8123-456789abcdef");
    }

    #[test]
    fn grpc_is_told_by_its_type() {
        let is = |kind: &'static str| is_grpc(&headers(&[("content-type", kind)]));
        assert!(is("application/grpc") && is("application/grpc+proto") && is("application/grpc;x=y"));
        assert!(!is("application/grpc-web") && !is("text/plain"));
    }
}
