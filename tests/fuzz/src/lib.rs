//! What fuzz targets share: a client in memory, and hyper behind the guard as the agent has it.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};
use warren_agent::http::guard::Guarded;

/// A request whose body came as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Its method.
    pub method: String,
    /// How many headers it has.
    pub headers: usize,
    /// Its body, without the framing.
    pub body: Vec<u8>,
    /// How many trailers follow.
    pub trailers: usize,
}

/// What an application behind guard and hyper is asked by a client that says `bytes` in pieces, and what the client gets, which
/// is its bodies again. Nobody gets another protocol.
pub fn serve(bytes: &[u8], piece: usize) -> (Vec<Message>, Vec<u8>) {
    let (read, written) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(Vec::new())));
    let (guarded, watch) = Guarded::new(Client { rest: bytes, piece, written: Rc::clone(&written) });
    let service = service_fn(|request: Request<Incoming>| {
        let (read, watch) = (Rc::clone(&read), watch.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await;
            watch.decide(false);
            let mut response = Response::new(Full::<Bytes>::default());
            if head.method == Method::CONNECT {
                *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            }
            if let Ok(body) = body {
                let trailers = body.trailers().map_or(0, hyper::HeaderMap::len);
                let body = body.to_bytes();
                *response.body_mut() = Full::new(body.clone());
                let (method, headers) = (head.method.to_string(), head.headers.len());
                read.borrow_mut().push(Message { method, headers, body: body.into(), trailers });
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .max_headers(100)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(guarded), service);
    // How it ends is told by what was read and written.
    let _ended = run(connection);
    (read.take(), written.take())
}

fn run<F: Future>(work: F) -> F::Output {
    thread_local! {
        static RUNTIME: Runtime =
            Builder::new_current_thread().enable_time().build().expect("a runtime without any I/O");
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}

/// Says its bytes in pieces and keeps what it is told.
struct Client<'a> {
    rest: &'a [u8],
    piece: usize,
    written: Rc<RefCell<Vec<u8>>>,
}

impl AsyncRead for Client<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let (now, later) = self.rest.split_at(self.rest.len().min(out.remaining()).min(self.piece));
        out.put_slice(now);
        self.rest = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.written.borrow_mut().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What a chunked body holds, how many trailers follow, and where it ends. A slow reader that believes what it reads.
pub fn read_chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize, usize)> {
    let line = |from: usize| Some(from + bytes.get(from..)?.windows(2).position(|two| two == b"\r\n")? + 2);
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let next = line(at)?;
        let size = std::str::from_utf8(&bytes[at..next]).ok()?.split([';', '\r']).next()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        at = next;
        if size == 0 {
            break;
        }
        body.extend_from_slice(bytes.get(at..at.checked_add(size)?)?);
        at = line(at + size)?;
    }
    for trailers in 0.. {
        let next = line(at)?;
        if next - at == 2 {
            return Some((body, trailers, next));
        }
        at = next;
    }
    None
}
