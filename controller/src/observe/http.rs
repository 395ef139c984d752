//! `/metrics`, `/debug/problems`, `/healthz/ready` and `/healthz/live` over plain HTTP/1.1.

use super::Metrics;
use crate::source::SourceProblems;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use warren_common::runtime::{DrainWatch, Readiness};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Scrapers are few; more connections than this are somebody's mistake.
const MAX_CONNECTIONS: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// What an answer can fail on.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The metrics could not be written.
    #[error("metrics can't be encoded: {0}")]
    Metrics(#[from] std::fmt::Error),
    /// The problems could not be written.
    #[error("problems can't be encoded: {0}")]
    Problems(#[from] serde_json::Error),
}

/// The answers to people and scrapers.
#[derive(Clone, Debug)]
pub struct Http {
    /// Shown under `/metrics`.
    pub metrics: Metrics,
    /// Shown under `/debug/problems`.
    pub problems: SourceProblems,
    /// Shown under `/healthz/ready`.
    pub readiness: Readiness,
}

impl Http {
    /// Serves until the drain.
    pub async fn serve(self, listener: TcpListener, mut drain: DrainWatch) {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = drain.started() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "metrics connection not accepted");
                    // Out of descriptors: don't spin.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(permit) = connections.clone().try_acquire_owned() else {
                continue;
            };
            let http = self.clone();
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let response = http.respond(request.method(), request.uri().path());
                    async { Ok::<_, Infallible>(response) }
                });
                let mut server = hyper::server::conn::http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
                if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                    tracing::debug!(%error, "metrics connection ended");
                }
                drop(permit);
            });
        }
    }

    fn respond(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        }
        let answer = match path {
            "/metrics" | "/stats/prometheus" => self
                .metrics
                .encode(&self.problems)
                .map(|text| with_type(text, OPENMETRICS))
                .map_err(HttpError::from),
            "/debug/problems" => serde_json::to_string_pretty(&self.problems.list())
                .map(|text| with_type(text, "application/json"))
                .map_err(HttpError::from),
            "/healthz/ready" => Ok(self.ready()),
            // That it is answered is the answer.
            "/healthz/live" => Ok(plain(StatusCode::OK, "live\n".to_owned())),
            _ => {
                let paths = "try /metrics, /debug/problems, /healthz/ready, /healthz/live\n";
                Ok(plain(StatusCode::NOT_FOUND, paths.to_owned()))
            }
        };
        answer.unwrap_or_else(|error| plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")))
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let waiting = self.readiness.waiting_for();
        if waiting.is_empty() {
            return plain(StatusCode::OK, "ready\n".to_owned());
        }
        plain(StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", waiting.join(", ")))
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = with_type(text, "text/plain; charset=utf-8");
    *response.status_mut() = status;
    response
}

fn with_type(text: String, content_type: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
