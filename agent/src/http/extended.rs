//! Streams of HTTP/2 that ask to become another protocol's (RFC 9113, 8.5; RFC 8441): here they are the requests of HTTP/1.1
//! that mean the same, with which endpoints can be asked.

use super::switch::Switching;
use super::visits::Visit;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

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
        if protocol == "websocket"
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
