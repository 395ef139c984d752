//! A small HTTP/1.1 server with limits, shared by the admin socket and the TCP endpoints.

use super::stream::FlowStream;
use bytes::Bytes;
use http::{Response, StatusCode, header};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use warren_common::model::admin::AdminError;

/// What one client, and all of them together, may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at once; more wait in the listen queue.
    pub(super) connections: usize,
    /// For the headers of a request to arrive.
    pub(super) header_timeout: Duration,
    /// Bytes of headers (hyper's least is 8 KiB).
    pub(super) header_bytes: usize,
    /// For a whole connection, against slow readers; none where answers may be streamed for hours.
    pub(super) lifetime: Option<Duration>,
}

/// Where connections come from.
pub(super) trait Accept {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for tokio::net::UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn accept(&mut self) -> io::Result<Self::Stream> {
        Ok(tokio::net::UnixListener::accept(self).await?.0)
    }
}

impl Accept for tokio::net::TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn accept(&mut self) -> io::Result<Self::Stream> {
        Ok(tokio::net::TcpListener::accept(self).await?.0)
    }
}

/// Serves until it is dropped; its connections end with it.
pub(super) async fn serve<L, H, F>(mut listener: L, limits: Limits, handler: H) -> Infallible
where
    L: Accept,
    H: Fn(http::Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Answer>> + Send + 'static,
{
    let handler = Arc::new(handler);
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed; without a place the clients wait in the listen queue.
        let Ok(place) = places.clone().acquire_owned().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                // Out of descriptors, usually: the next attempt may succeed, a tight loop would not help.
                tracing::warn!(%error, "cannot accept a connection to the debug endpoints");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let handler = handler.clone();
        connections.spawn(async move {
            let _place = place;
            let service = service_fn(|request| {
                let answer = handler(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.header_timeout)
                .max_buf_size(limits.header_bytes)
                .max_headers(64)
                .keep_alive(limits.lifetime.is_none())
                .serve_connection(TokioIo::new(stream), service);
            // How a debug connection ends matters to nobody but its client.
            match limits.lifetime {
                Some(lifetime) => drop(tokio::time::timeout(lifetime, connection).await),
                None => drop(connection.await),
            }
        });
    }
}

/// A body: all at once, or flow events as lines while they come.
#[derive(Debug)]
pub(super) enum Answer {
    Full(Option<Bytes>),
    Events(Box<FlowStream>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = serde_json::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, serde_json::Error>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Events(stream) => stream.poll_next(context).map(|event| {
                let mut line = match serde_json::to_vec(&event?) {
                    Ok(line) => line,
                    Err(error) => return Some(Err(error)),
                };
                line.push(b'\n');
                Some(Ok(Frame::data(line.into())))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Self::Full(bytes) => {
                hyper::body::SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Events(_) => hyper::body::SizeHint::default(),
        }
    }
}

/// An answer with a body of `kind`.
pub(super) fn answer(status: StatusCode, kind: &'static str, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// Plain text.
pub(super) fn text(status: StatusCode, body: String) -> Response<Answer> {
    answer(status, "text/plain; charset=utf-8", Answer::Full(Some(body.into())))
}

/// `value` as JSON.
pub(super) fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Answer> {
    match serde_json::to_vec(value) {
        Ok(body) => answer(status, "application/json", Answer::Full(Some(body.into()))),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode the answer: {error}")),
    }
}

/// An error, and what to do about it.
pub(super) fn error(status: StatusCode, error: String) -> Response<Answer> {
    json(status, &AdminError { error })
}
