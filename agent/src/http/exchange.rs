//! The record of one request, from its head to the end of its response.

use super::grpc::Messages;
use super::headers::{FORWARDED_FOR, REQUEST_ID, authority, is_grpc};
use super::replay::Upload;
use super::reply::Local;
use crate::limits::Ticket;
use crate::observe::{FlowFlag, FlowHandle, ResponseFlag, TraceId, shared};
use http::header::{HeaderMap, HeaderName, USER_AGENT};
use http::{Request, Version};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// One request and its response. Dropping it ends its record; unless it has [finished](Self::finish), its client has gone.
#[derive(Debug)]
pub(super) struct Exchange {
    flow: FlowHandle,
    /// Bytes of the request's body.
    body: Rc<Cell<u64>>,
    head_bytes: u64,
    finished: bool,
    /// Its place among all that are under way.
    ticket: Option<Ticket>,
    /// Whether it is gRPC.
    pub(super) is_grpc: bool,
    /// Of its response.
    messages: Messages,
}

impl Exchange {
    /// Begins the record of `request`.
    pub(super) fn begin<B>(flow: FlowHandle, request: &Request<B>) -> Self {
        let headers = request.headers();
        let is_grpc = is_grpc(headers);
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let head = request.method().as_str().len() + path.len() + 12 + size(headers);
        flow.request(|about| {
            about.trace = TraceId::of(headers);
            let seen = &mut about.seen;
            seen.protocol = shared(protocol(request.version()));
            seen.grpc = is_grpc;
            seen.method = shared(request.method().as_str());
            seen.path = shared(path);
            seen.authority = shared(authority(request));
            // Nobody else has the same.
            seen.request_id = text(headers, &REQUEST_ID).map(Into::into);
            seen.user_agent = text(headers, &USER_AGENT).map(shared);
            seen.forwarded_for = text(headers, &FORWARDED_FOR).map(shared);
        });
        let head_bytes = head as u64;
        let (body, messages) = (Rc::default(), Messages::default());
        Self { flow, body, head_bytes, finished: false, ticket: None, is_grpc, messages }
    }

    /// The record.
    pub(super) fn flow(&self) -> &FlowHandle {
        &self.flow
    }

    /// It has this place until its record ends.
    pub(super) fn counts_as(&mut self, ticket: Ticket) {
        self.ticket = Some(ticket);
    }

    /// Where the request's bytes are counted, and its messages.
    pub(super) fn body(&mut self, body: &Upload) {
        self.body = body.received();
        if self.is_grpc {
            body.count_messages(Arc::clone(self.flow.messages()));
        }
    }

    /// Says why it is not just answered by an application.
    pub(super) fn flag(&self, flag: ResponseFlag) {
        self.flow.request(|about| about.flag(flag));
    }

    /// It is answered here.
    pub(super) fn local(&self, local: &Local) {
        self.flow.request(|about| {
            about.seen.details = shared(&local.details);
            if let Some(flag) = local.flag {
                about.flag(flag);
            }
        });
        if let Some(why) = &local.why {
            self.flow.fail(FlowFlag::Other, why);
        }
    }

    /// It ends here, and nobody hears of it.
    pub(super) fn fail(mut self, local: &Local) {
        self.local(local);
        self.finished = true;
    }

    /// The head of the response goes out.
    pub(super) fn head(&self, status: u16, headers: &HeaderMap) {
        self.flow.bytes().received.fetch_add(size(headers) as u64 + 17, Relaxed);
        self.flow.request(|about| about.seen.status = status);
        self.grpc_status(headers);
    }

    /// Takes `grpc-status` from a head or from trailers.
    pub(super) fn grpc_status(&self, headers: &HeaderMap) {
        let status = headers.get("grpc-status").and_then(|status| status.to_str().ok());
        if let Some(status) = status.and_then(|status| status.parse().ok()) {
            self.flow.request(|about| about.seen.grpc_status = Some(status));
        }
    }

    /// Bytes that the client sent after a switch.
    pub(super) fn sent(&self, bytes: u64) {
        self.flow.bytes().sent.fetch_add(bytes, Relaxed);
    }

    /// Bytes of the response's body.
    pub(super) fn received(&self, bytes: usize) {
        self.flow.bytes().received.fetch_add(bytes as u64, Relaxed);
    }

    /// A part of the response's body.
    pub(super) fn received_data(&mut self, data: &[u8]) {
        self.received(data.len());
        if self.is_grpc {
            self.flow.messages().received.fetch_add(self.messages.count(data), Relaxed);
        }
    }

    /// The response breaks off.
    pub(super) fn broken(&mut self, flag: ResponseFlag, details: &'static str, why: &str) {
        self.flow.request(|about| {
            about.flag(flag);
            about.seen.details = shared(details);
        });
        self.flow.fail(FlowFlag::Other, why);
        self.finished = true;
    }

    /// All of the response is out. Its place among all that are under way, for as long as the request is not.
    pub(super) fn finish(mut self) -> Option<Ticket> {
        self.finished = true;
        self.ticket.take()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.flow.bytes().sent.fetch_add(self.head_bytes + self.body.get(), Relaxed);
        if !self.finished {
            self.flow.request(|about| {
                about.flag(ResponseFlag::DownstreamGone);
                about.seen.details = shared("downstream_remote_disconnect");
            });
            self.flow.fail(FlowFlag::Other, "the client has gone before its response's end");
        }
    }
}

/// As Envoy writes it.
fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Bytes of headers as HTTP/1 writes them.
fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}
