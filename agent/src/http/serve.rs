//! The story of a client's HTTP connection: requests come in one after the other, or many at a time, and each is
//! [answered](super::request) on its own.

use super::answer::Answer;
use super::guard::{Guarded, Malformed, Watch};
use super::h2c::Upgraded;
use super::io::{OnWorker, Rewound, close, close_on_client};
use super::limits::{
    FIRST_LINE_DEADLINE, LAST_CALL, LEAVE, MAX_HEAD, MAX_HEADERS, MAX_STREAMS, MAX_TARGET, REST,
    STREAM_WINDOW,
};
use super::outlets::Outlets;
use super::request::answer;
use super::switch::Switching;
use super::visits::{Stay, Visits};
use super::window::Window;
use crate::limits::Excess;
use crate::observe::{FlowFlag, ResponseFlag};
use bytes::BytesMut;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{sleep, timeout};

/// Who speaks, and to what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    /// Its address.
    pub address: SocketAddr,
    /// The service that it dialled.
    pub dialled: SocketAddr,
    /// Whether it speaks HTTP/2.
    pub h2: bool,
}

/// A client's connection as its requests see it.
pub(super) struct Downstream {
    pub(super) client: SocketAddr,
    pub(super) dialled: SocketAddr,
    pub(super) h2: bool,
    watch: Option<Watch>,
    visits: Rc<Visits>,
    next: RefCell<Option<Next>>,
}

/// What a connection is after its last request of HTTP/1. Boxed: few come to it.
enum Next {
    /// Its endpoint's protocol.
    Joined(Box<Switching>),
    /// HTTP/2.
    H2(Box<Upgraded>),
}

impl Downstream {
    fn new(client: Client, watch: Option<Watch>) -> Self {
        let Client { address, dialled, h2 } = client;
        Self { client: address, dialled, h2, watch, visits: Visits::new(), next: RefCell::default() }
    }

    /// The request for another protocol was answered, with that protocol or with HTTP.
    pub(super) fn decide(&self, switches: bool) {
        if let Some(watch) = &self.watch {
            watch.decide(switches);
        }
    }

    /// Says with a response that it is the connection's last, if the connection is to end.
    fn take_leave(&self, response: &mut Response<Answer>) {
        if self.visits.is_leaving() && self.next.borrow().is_none() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// The connection goes on with `switching` once the response is out.
    pub(super) fn switch_to(&self, switching: Switching) {
        *self.next.borrow_mut() = Some(Next::Joined(Box::new(switching)));
    }

    /// The answer to a request that makes the connection one of HTTP/2, whose first it will be.
    fn upgrade<B: Body>(&self, request: &Request<B>) -> Option<Response<Answer>> {
        let upgraded = (!self.visits.is_leaving()).then(|| Upgraded::read(request))??;
        *self.next.borrow_mut() = Some(Next::H2(Box::new(upgraded)));
        self.decide(true);
        Some(Upgraded::answer(Answer::none()))
    }
}

/// Serves the requests of one connection. A stream that has ended in order is shut down;
/// else it is just dropped.
pub(crate) async fn serve<O, S>(outlets: Rc<O>, client: Client, stay: Stay, stream: S)
where
    O: Outlets,
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    match client.h2 {
        // Boxed: who speaks HTTP/1 shall not pay for it.
        true => Box::pin(serve_h2(outlets, client, stay, stream)).await,
        false => serve_h1(outlets, client, stay, stream).await,
    }
}

/// Completes when the client of a request that is under way will read no answer any more. hyper does not see that: it reads nothing
/// before the answer is out.
async fn client_gone<O: Outlets>(outlets: &O, visits: &Visits) {
    loop {
        outlets.client_gone().await;
        if visits.is_any() {
            return;
        }
    }
}

async fn serve_h1<O, S>(outlets: Rc<O>, client: Client, stay: Stay, stream: S)
where
    O: Outlets,
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (mut guarded, watch) = Guarded::new(stream);
    let downstream = Rc::new(Downstream::new(client, Some(watch.clone())));
    let service = |request: Request<Incoming>| {
        let visit = downstream.visits.begin();
        let (outlets, downstream) = (Rc::clone(&outlets), Rc::clone(&downstream));
        async move {
            if let Some(response) = downstream.upgrade(&request) {
                return Ok(response);
            }
            let mut response = answer(outlets, Rc::clone(&downstream), request, visit).await;
            downstream.take_leave(&mut response);
            Ok::<_, Infallible>(response)
        }
    };
    let mut over = pin!(downstream.visits.over(stay.clone(), false));
    let mut is_over = false;
    let (ended, stream, held) = loop {
        // Boxed: what a connection needs while it is awake is large, and it rests most of the time.
        let awake = Box::pin(async {
            let mut connection = http1::Builder::new()
                .half_close(true)
                .max_headers(MAX_HEADERS)
                // The guard is stricter, and what it says instead of a head that is too large has to fit.
                .max_buf_size(2 * MAX_HEAD)
                .serve_connection(TokioIo::new(guarded), service_fn(|request| Box::pin(service(request))));
            let mut gone = pin!(client_gone(&*outlets, &downstream.visits));
            let ended = loop {
                tokio::select! {
                    biased;
                    ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break Some(ended),
                    () = &mut over, if !is_over => {
                        is_over = true;
                        std::pin::Pin::new(&mut connection).graceful_shutdown();
                    }
                    () = downstream.visits.rest(REST), if !is_over => {
                        if watch.is_resting() {
                            break None;
                        }
                    }
                    // Its requests end with it, and their records say why.
                    () = &mut gone => return None,
                }
            };
            let parts = connection.into_parts();
            let (stream, held) = parts.io.into_inner().into_parts();
            let mut read = BytesMut::from(&*parts.read_buf);
            read.extend_from_slice(&held);
            Some((ended, stream, read))
        });
        let Some((ended, mut stream, mut read)) = awake.await else { return };
        if let Some(ended) = ended {
            break (ended, stream, read);
        }
        if read.is_empty() {
            let mut first = [0];
            let woken = tokio::select! {
                biased;
                woken = stream.read(&mut first) => woken,
                () = &mut over => Ok(0),
            };
            match woken {
                Ok(0) => break (Ok(()), stream, read),
                Ok(_) => read.extend_from_slice(&first),
                Err(error) => {
                    return tracing::debug!(client = %client.address, %error, "a client's HTTP connection ended early");
                }
            }
        }
        guarded = Guarded::resume(stream, read, watch.clone());
    };
    // Boxed, both: what few connections come to shall not cost all of them.
    if let Some(malformed) = watch.malformed() {
        refused(&outlets, malformed);
        // What the client still sends must not reset the connection before it has read the answer.
        return Box::pin(close(stream)).await;
    }
    let next = downstream.next.borrow_mut().take();
    if let Some(next) = next {
        let mut stream = Rewound::new(held.freeze(), stream);
        return match next {
            Next::Joined(switching) => Box::pin(switching.join(&mut stream)).await,
            Next::H2(upgraded) => Box::pin(serve_upgraded(outlets, client, stay, *upgraded, stream)).await,
        };
    }
    match ended {
        Ok(()) => Box::pin(close_on_client(stream)).await,
        // hyper has answered it: 400.
        Err(error) if error.is_parse() => {
            refused(&outlets, Malformed::Unreadable);
            Box::pin(close(stream)).await;
        }
        Err(error) => {
            tracing::debug!(client = %client.address, %error, "a client's HTTP connection ended early")
        }
    }
}

/// HTTP/2 whose first request came in HTTP/1.1.
async fn serve_upgraded<O, S>(outlets: Rc<O>, client: Client, stay: Stay, upgraded: Upgraded, mut stream: S)
where
    O: Outlets,
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut open = stay.open.clone();
    let begun = tokio::select! {
        biased;
        begun = timeout(FIRST_LINE_DEADLINE, upgraded.begin(&mut stream)) => begun,
        // It is to leave: its request is served still, if it begins within a moment.
        () = async {
            while open.changed().await.is_ok() {}
            sleep(LAST_CALL).await;
        } => return,
    };
    match begun.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        // Where nobody says what endpoints speak, that is HTTP/1.1 still: this client would have been content with it.
        Ok(first) => serve_h2(outlets, client, stay, Rewound::new(first, stream)).await,
        Err(error) => {
            let flow = outlets.begin();
            flow.request(|about| {
                about.seen.protocol = "HTTP/2".into();
                about.seen.details = "http2.codec_error".into();
                about.flag(ResponseFlag::DownstreamProtocol);
            });
            flow.fail(FlowFlag::Other, format!("it asked for HTTP/2, and did not begin it: {error}"));
        }
    }
}

async fn serve_h2<O, S>(outlets: Rc<O>, client: Client, stay: Stay, stream: S)
where
    O: Outlets,
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let downstream = Rc::new(Downstream::new(client, None));
    let visits = Rc::clone(&downstream.visits);
    let window = Window::of(outlets.limits());
    let service = service_fn(move |request| {
        let visit = downstream.visits.begin();
        let answered = answer(Rc::clone(&outlets), Rc::clone(&downstream), request, visit);
        async move { Ok::<_, Infallible>(answered.await) }
    });
    let mut connection = pin!(
        http2::Builder::new(OnWorker)
            // WebSocket (RFC 8441).
            .enable_connect_protocol()
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(window.bytes())
            .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
            .serve_connection(TokioIo::new(stream), service)
    );
    let mut over = pin!(visits.over(stay, true));
    let mut left = pin!(visits.rest(LEAVE));
    let mut is_over = false;
    let served = loop {
        tokio::select! {
            biased;
            served = &mut connection => break served,
            () = &mut over, if !is_over => {
                is_over = true;
                connection.as_mut().graceful_shutdown();
            }
            // Its client reads no more, and is not waited for.
            () = &mut left, if is_over => break Ok(()),
        }
    };
    if let Err(error) = served {
        tracing::debug!(client = %client.address, %error, "a client's HTTP/2 connection ended early");
    }
}

/// The record of a request that nobody could read.
fn refused<O: Outlets>(outlets: &Rc<O>, malformed: Malformed) {
    let excess = match malformed {
        Malformed::TooLarge => Some(Excess::Headers(MAX_HEAD)),
        Malformed::TooMany => Some(Excess::HeaderCount(MAX_HEADERS)),
        Malformed::TooLong => Some(Excess::Target(MAX_TARGET)),
        _ => None,
    };
    let exceeded = excess.map(|excess| outlets.limits().exceeded(excess));
    let flow = outlets.begin();
    flow.request(|about| {
        about.seen.protocol = "HTTP/1.1".into();
        about.seen.status = match malformed {
            Malformed::TooLarge | Malformed::TooMany => 431,
            Malformed::TooLong => 414,
            Malformed::TooSlow => 408,
            _ => 400,
        };
        about.seen.details = "http1.codec_error".into();
        about.flag(match exceeded {
            Some(_) => ResponseFlag::Overflow,
            None => ResponseFlag::DownstreamProtocol,
        });
    });
    match exceeded {
        Some(exceeded) => flow.fail(FlowFlag::Overload, exceeded),
        None => flow.fail(FlowFlag::Other, malformed),
    }
}
