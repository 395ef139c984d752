//! The body of a response on its way to the client.

use super::BoxError;
use super::attempt::Reached;
use super::clock::Clock;
use super::exchange::Exchange;
use super::pool::Lease;
use super::replay::Upload;
use super::visits::Visit;
use crate::observe::ResponseFlag;
use bytes::Bytes;
use http::Response;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::any::Any;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The body of a response, with what lasts as long as it.
pub(super) struct Answer {
    body: Inner,
    exchange: Option<Exchange>,
    lease: Option<Lease>,
    deadline: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// What the endpoint's place in the balance is held by.
    place: Option<Box<dyn Any>>,
    /// The request's body.
    upload: Option<Upload>,
    /// Its connection has something to do as long as it is there.
    _visit: Option<Visit>,
}

enum Inner {
    Full(Bytes),
    Upstream(Incoming),
}

impl Answer {
    /// An answer of ours.
    pub(super) fn local(response: Response<Bytes>, exchange: Exchange) -> Response<Self> {
        exchange.head(response.status().as_u16(), response.headers());
        exchange.received(response.body().len());
        exchange.finish();
        response.map(|body| Self {
            body: Inner::Full(body),
            exchange: None,
            lease: None,
            deadline: None,
            place: None,
            upload: None,
            _visit: None,
        })
    }

    /// As long as it is there, its request is.
    pub(super) fn during(self, visit: Option<Visit>) -> Self {
        Self { _visit: visit, ..self }
    }

    /// No body.
    pub(super) fn none() -> Self {
        let body = Inner::Full(Bytes::new());
        Self { body, exchange: None, lease: None, deadline: None, place: None, upload: None, _visit: None }
    }

    /// An endpoint's; it has to be over when `deadline` has run out.
    pub(super) fn upstream(
        response: Response<Incoming>,
        exchange: Exchange,
        Reached { lease, place, upload, .. }: Reached,
        deadline: Option<Clock>,
    ) -> Response<Self> {
        exchange.head(response.status().as_u16(), response.headers());
        response.map(|body| {
            let deadline = deadline.map(|clock| {
                let late: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move { clock.run_out().await });
                late
            });
            let ended = body.is_end_stream();
            let mut answer = Self {
                body: Inner::Upstream(body),
                exchange: Some(exchange),
                lease: Some(lease),
                deadline,
                place: Some(place),
                upload: Some(upload),
                _visit: None,
            };
            // Such a body is dropped without a look.
            if ended {
                answer.finish();
            }
            answer
        })
    }

    fn finish(&mut self) {
        let ticket = self.exchange.take().and_then(Exchange::finish);
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
        let place = self.place.take();
        self.deadline = None;
        if let Some(upload) = self.upload.take().filter(|upload| !upload.is_over()) {
            upload.outlives((ticket, place));
        }
    }

    fn break_off(&mut self, flag: ResponseFlag, details: &'static str, why: &str) {
        if let Some(mut exchange) = self.exchange.take() {
            exchange.broken(flag, details, why);
        }
        self.lease = None;
        self.place = None;
        self.deadline = None;
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let body = match &mut this.body {
            Inner::Full(body) => {
                let body = std::mem::take(body);
                return Poll::Ready((!body.is_empty()).then(|| Ok(Frame::data(body))));
            }
            Inner::Upstream(body) => body,
        };
        if this.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            let why = "the request's timeout ended within its response";
            this.break_off(ResponseFlag::UpstreamTimeout, "response_timeout", why);
            return Poll::Ready(Some(Err(why.into())));
        }
        match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                // Nothing follows trailers, and nobody asks whether.
                let ended = frame.is_trailers() || body.is_end_stream();
                if let Some(exchange) = &mut this.exchange {
                    if let Some(data) = frame.data_ref() {
                        exchange.received_data(data);
                    }
                    if let Some(trailers) = frame.trailers_ref() {
                        exchange.grpc_status(trailers);
                    }
                }
                if ended {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                let details = "upstream_reset_after_response_started{connection_termination}";
                let why = format!("the response broke off: {error}");
                this.break_off(ResponseFlag::UpstreamTermination, details, &why);
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                this.finish();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Inner::Full(body) => body.is_empty(),
            Inner::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Inner::Full(body) => SizeHint::with_exact(body.len() as u64),
            Inner::Upstream(body) => body.size_hint(),
        }
    }
}
