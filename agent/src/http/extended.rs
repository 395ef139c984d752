//! Streams of HTTP/2 that ask to become another protocol's (RFC 9113, 8.5; RFC 8441): here they are the requests of HTTP/1.1
//! that mean the same, whoever sent them, and to an endpoint of HTTP/2 they are such streams again.

use super::switch::Switching;
use super::visits::Visit;
use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

const WEBSOCKET: &str = "websocket";

/// Whether a stream asks for what nobody gets here: HTTP again, into which nobody would look behind the switch, or no protocol's name.
pub(super) fn is_refused<B>(request: &Request<B>) -> bool {
    let asked = request.extensions().get::<Protocol>().map(Protocol::as_str);
    asked.is_some_and(|asked| !is_token(asked) || is_http(asked))
}

/// Whether a protocol's name is one of HTTP: nobody gets that behind a switch, for nobody would look into its requests.
pub(super) fn is_http(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase();
    name.starts_with("h2c") || name.starts_with("http")
}

/// Makes such a request one of HTTP/1.1; the stream that it came on will be there once it is answered. `random`: the key of a
/// WebSocket, which HTTP/2 has none of.
pub(super) fn read<B>(request: &mut Request<B>, random: u128) -> Option<OnUpgrade> {
    if request.version() != Version::HTTP_2 || request.method() != Method::CONNECT {
        return None;
    }
    if let Some(protocol) = request.extensions_mut().remove::<Protocol>() {
        let protocol = HeaderValue::from_str(protocol.as_str()).ok()?;
        *request.method_mut() = Method::GET;
        let headers = request.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if protocol == WEBSOCKET
            && let Ok(key) = HeaderValue::try_from(STANDARD.encode(random.to_be_bytes()))
        {
            headers.insert(SEC_WEBSOCKET_KEY, key);
        }
        headers.insert(UPGRADE, protocol);
    }
    Some(hyper::upgrade::on(request))
}

/// The answer to it, once its endpoint has switched.
pub(super) fn answer<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT, CONTENT_LENGTH] {
        response.headers_mut().remove(name);
    }
}

/// Joins the stream with the endpoint that has switched. Its connection has a request, `visit`, for as long.
pub(super) fn join(stream: OnUpgrade, switching: Switching, visit: Option<Visit>) {
    tokio::task::spawn_local(async move {
        let _visit = visit;
        match stream.await {
            Ok(stream) => switching.join(&mut TokioIo::new(stream)).await,
            // Its record says that the client has gone.
            Err(error) => tracing::debug!(%error, "a stream ended before it had switched"),
        }
    });
}

/// A request for another protocol, as an endpoint of HTTP/2 is asked.
pub(super) struct Question {
    protocol: HeaderValue,
    /// What the answer has to prove to a WebSocket's client.
    key: Option<HeaderValue>,
}

impl Question {
    /// If a request asks for one protocol; for a WebSocket with the key that it has to have.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let protocol = only(headers, &UPGRADE)?;
        let name = protocol.to_str().ok().filter(|name| is_token(name) && !is_http(name))?;
        let key = only(headers, &SEC_WEBSOCKET_KEY).cloned();
        let is_complete = key.is_some() || !name.eq_ignore_ascii_case(WEBSOCKET);
        is_complete.then(|| Self { protocol: protocol.clone(), key })
    }

    /// Puts it as HTTP/2 does. The request has the shape of HTTP/2 already.
    pub(super) fn put<B>(&self, request: &mut Request<B>) {
        if let Ok(name) = self.protocol.to_str() {
            // Here it is compared as it is registered.
            let name = if name.eq_ignore_ascii_case(WEBSOCKET) { WEBSOCKET } else { name };
            request.extensions_mut().insert(Protocol::from(name));
        }
        *request.method_mut() = Method::CONNECT;
        for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY] {
            request.headers_mut().remove(name);
        }
    }

    /// Makes the answer that the stream is the protocol's now what it is in HTTP/1.1.
    pub(super) fn answered<B>(&self, response: &mut Response<B>) {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.protocol.clone());
        if let Some(Ok(proof)) = self.key.as_ref().map(|key| HeaderValue::try_from(proof(key.as_bytes()))) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, proof);
        }
    }
}

/// The one value of a header.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn is_token(text: &str) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(byte);
    !text.is_empty() && text.as_bytes().iter().all(is_part)
}

/// That a server has read a WebSocket's key (RFC 6455, 4.2.2): SHA-1, for the RFC says so.
fn proof(key: &[u8]) -> String {
    let mut read = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    read.update(key);
    read.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(read.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_websocket_gets_the_proof_that_it_waits_for() {
        // RFC 6455, 1.3.
        assert_eq!(proof(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn one_protocol_is_asked_for() {
        for (upgrade, keys, expected) in [
            (&["websocket"][..], &["a"][..], true),
            (&["WebSocket"], &["a"], true),
            (&["WebSocket"], &[], false),
            (&["websocket"], &["a", "b"], false),
            (&["any/1.0"], &[], true),
            (&["HTTP/2.0"], &[], false),
            (&[], &[], false),
            (&["a, b"], &[], false),
            (&["a", "b"], &[], false),
            (&[""], &[], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in upgrade {
                headers.append(UPGRADE, HeaderValue::from_static(value));
            }
            for value in keys {
                headers.append(SEC_WEBSOCKET_KEY, HeaderValue::from_static(value));
            }
            assert_eq!(Question::of(&headers).is_some(), expected, "{upgrade:?} {keys:?}");
        }
    }

    #[test]
    fn nobody_gets_http_behind_a_switch() {
        for (protocol, expected) in [
            ("websocket", false),
            ("connect-udp", false),
            ("h2c", true),
            ("H2C-14", true),
            ("HTTP/2.0", true),
            ("a, b", true),
            ("a b", true),
            ("\u{fc}", true),
        ] {
            let mut request = Request::connect("http://web/").body(()).unwrap();
            assert!(!is_refused(&request));
            request.extensions_mut().insert(Protocol::from(protocol));
            assert_eq!(is_refused(&request), expected, "{protocol}");
        }
    }
}
