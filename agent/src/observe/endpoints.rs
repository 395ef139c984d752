//! What the outside asks over TCP: metrics (15020) and readiness (15021). Nothing that reveals traffic.

use super::flows::Observer;
use super::http::{Answer, Limits, answer, serve, text};
use http::{Method, Request, Response, StatusCode};
use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpListener;
use warren_common::runtime::Readiness;

/// Every request has a connection of its own, so that a slow reader can't hold a place for long.
const LIMITS: Limits = Limits {
    connections: 32,
    header_timeout: Duration::from_secs(5),
    header_bytes: 8 * 1024,
    lifetime: Some(Duration::from_secs(30)),
};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why an endpoint can't be served.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The port is taken, or the address is not ours.
    #[error("cannot listen on {address} ({source}); is another agent running on this node?")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// Listens on `address`. `[::]` stands for all addresses of both families; on a node without IPv6 it
/// falls back to `0.0.0.0`.
///
/// # Errors
/// [`EndpointError::Bind`].
pub async fn bind(address: SocketAddr) -> Result<TcpListener, EndpointError> {
    let result = match TcpListener::bind(address).await {
        Err(error)
            if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                && error.kind() != io::ErrorKind::AddrInUse =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        result => result,
    };
    result.map_err(|source| EndpointError::Bind { address, source })
}

/// Serves `/metrics` and `/stats/prometheus` until it is dropped.
pub async fn serve_metrics(listener: TcpListener, observer: Observer) -> Infallible {
    serve(listener, LIMITS, move |request| {
        ready(get(&request, &["/metrics", "/stats/prometheus"], || {
            let body = Answer::Full(Some(observer.encode_metrics().into()));
            answer(StatusCode::OK, OPENMETRICS, body)
        }))
    })
    .await
}

/// Serves `/healthz/ready` until it is dropped: 200, or 503 with what is still waited for, a line each.
pub async fn serve_readiness(listener: TcpListener, readiness: Readiness) -> Infallible {
    serve(listener, LIMITS, move |request| {
        ready(get(&request, &["/healthz/ready"], || {
            let waiting = readiness.waiting_for();
            if waiting.is_empty() {
                text(StatusCode::OK, "ready\n".to_owned())
            } else {
                let lines = waiting.iter().map(|name| format!("waiting for {name}\n")).collect();
                text(StatusCode::SERVICE_UNAVAILABLE, lines)
            }
        }))
    })
    .await
}

fn get<B>(
    request: &Request<B>,
    paths: &[&str],
    respond: impl FnOnce() -> Response<Answer>,
) -> Response<Answer> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n".to_owned());
    }
    if paths.contains(&request.uri().path()) {
        return respond();
    }
    text(StatusCode::NOT_FOUND, format!("there is {} here\n", paths.join(" and ")))
}

#[cfg(test)]
#[path = "endpoints_tests.rs"]
mod tests;
