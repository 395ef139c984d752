//! THE STORY of a request, from its head to the head of its response:
//!
//! 0. **admit**: its head is not too large, and its pod has not too many under way
//! 1. **match**: the client's rules for the service, the first that holds the request
//! 2. **fault**: what a rule spoils on purpose
//! 3. **split**: one of the rule's backends, and what changes on the way there
//! 4. **attempt**: an endpoint, a connection, the request; again where the rule allows it ([`attempt`](super::attempt))
//! 5. **answer**: what changes on the way back; the record ends with the response's last byte ([`Answer`])
//!
//! Whatever fails is answered here, and the record says why.

use super::answer::Answer;
use super::asked::Asked;
use super::attempt::{Attempts, Reached};
use super::clock::Clock;
use super::exchange::Exchange;
use super::extended;
use super::headers::{SERVICE_TIME, prepare, remove_hop_by_hop, wants_upgrade};
use super::limits::{MAX_HEADERS, MAX_REPLAY, MAX_TARGET};
use super::mirror::mirror;
use super::outlets::Outlets;
use super::replay::Replay;
use super::reply::Local;
use super::serve::Downstream;
use super::switch::Switching;
use super::visits::Visit;
use crate::limits::{Excess, Ticket};
use crate::observe::{ResponseFlag, shared};
use crate::route::http::{
    Action, BackendRule, CorsDecision, Forwarding, HttpTable, Matched, PathPart, Refusal, Rule, draw_fault,
    is_drawn, put_on, timeout_of,
};
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use std::rc::Rc;
use std::time::SystemTime;
use warren_common::model::traffic::{Destination, RouteApi};

/// What the steps of one request share.
pub(super) struct Journey<'a, O> {
    pub(super) outlets: &'a Rc<O>,
    pub(super) downstream: &'a Rc<Downstream>,
    pub(super) table: &'a HttpTable,
    pub(super) asked: &'a Asked,
    pub(super) exchange: &'a mut Exchange,
}

/// Answers one request; `visit` lasts until the answer is out, or the stream that it has become has ended.
pub(super) async fn answer<O: Outlets>(
    outlets: Rc<O>,
    downstream: Rc<Downstream>,
    mut request: Request<Incoming>,
    visit: Visit,
) -> Response<Answer> {
    let mut visit = Some(visit);
    let is_refused = extended::is_refused(&request);
    let stream = (!is_refused).then(|| extended::read(&mut request, rand::random())).flatten();
    let is_http11 = request.version() == Version::HTTP_11;
    let may_switch = is_http11 && request.headers().contains_key(http::header::UPGRADE)
        || request.method() == Method::CONNECT;
    let is_connect = request.method() == Method::CONNECT;
    let is_head = request.method() == Method::HEAD;
    let upgrade = wants_upgrade(&request) || (stream.is_some() && !is_connect);
    let admitted = match is_refused {
        true => {
            Err(Local::bad_request("http2.protocol_not_supported", "this protocol cannot be had on a stream"))
        }
        false => admit(&*outlets, &request),
    };
    prepare(&mut request, upgrade, rand::random());
    let mut exchange = Exchange::begin(outlets.begin(), &request);
    let answered = match admitted {
        Ok(ticket) => {
            exchange.counts_as(ticket);
            let answered = forward(&outlets, &downstream, request, &mut exchange).await;
            answered.and_then(|forwarded| match stream.is_some() && !is_connect {
                true => established(forwarded),
                false => Ok(forwarded),
            })
        }
        Err(local) => Err(local.into()),
    };
    let mut switches = false;
    let response = match answered {
        Ok(Forwarded { mut response, reached, deadline }) => {
            switches = is_switch(&response, is_connect);
            let keeps_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            remove_hop_by_hop(response.headers_mut(), keeps_upgrade);
            match switches {
                true => {
                    if stream.is_some() {
                        extended::answer(&mut response);
                    }
                    exchange.head(response.status().as_u16(), response.headers());
                    let Reached { lease, place, .. } = reached;
                    let switching = Switching { lease, exchange, place };
                    match stream {
                        Some(stream) => extended::join(stream, switching, visit.take()),
                        None => downstream.switch_to(switching),
                    }
                    response.map(|_| Answer::none())
                }
                false => Answer::upstream(response, exchange, reached, deadline),
            }
        }
        Err(Stopped { local, extra }) => {
            exchange.local(&local);
            let (mut response, _) = local.into_response(exchange.is_grpc, is_head);
            if let Some(extra) = extra {
                extra(response.headers_mut());
            }
            Answer::local(response, exchange)
        }
    };
    if may_switch {
        downstream.decide(switches);
    }
    response.map(|body| body.during(visit))
}

/// Its place among all that are under way.
fn admit<O: Outlets>(outlets: &O, request: &Request<Incoming>) -> Result<Ticket, Local> {
    let limits = outlets.limits();
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > MAX_TARGET {
        let exceeded = limits.exceeded(Excess::Target(MAX_TARGET));
        return Err(Local::too_large(StatusCode::URI_TOO_LONG, exceeded));
    }
    if request.headers().len() > MAX_HEADERS {
        let exceeded = limits.exceeded(Excess::HeaderCount(MAX_HEADERS));
        return Err(Local::too_large(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, exceeded));
    }
    // HTTP/2 lets the same number come twice, and in HTTP/1 readers disagree about that.
    if request.headers().get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Local::bad_request(
            "http2.invalid.header.field",
            "Content-Length is there more than once",
        ));
    }
    limits.request().map_err(Local::too_many)
}

/// A response of an endpoint.
struct Forwarded {
    response: Response<Incoming>,
    reached: Reached,
    deadline: Option<Clock>,
}

/// What rules put on a response.
type OnHeaders = Box<dyn FnOnce(&mut HeaderMap)>;

/// An answer of ours, with what rules put on it.
pub(super) struct Stopped {
    local: Local,
    extra: Option<OnHeaders>,
}

impl<L: Into<Local>> From<L> for Stopped {
    fn from(local: L) -> Self {
        Self { local: local.into(), extra: None }
    }
}

fn is_switch<B>(response: &Response<B>, connect: bool) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS || (connect && response.status().is_success())
}

/// To a stream of HTTP/2 that asks for another protocol, any success says that it has it (RFC 8441, 5).
fn established(forwarded: Forwarded) -> Result<Forwarded, Stopped> {
    let status = forwarded.response.status();
    if status.is_success() {
        return Err(Local::not_http(format!("the endpoint answered {status} instead of switching")).into());
    }
    Ok(forwarded)
}

async fn forward<O: Outlets>(
    outlets: &Rc<O>,
    downstream: &Rc<Downstream>,
    request: Request<Incoming>,
    exchange: &mut Exchange,
) -> Result<Forwarded, Stopped> {
    let (mut parts, body) = request.into_parts();
    // HTTP/1.0 knows no hosts, and the endpoint is spoken to in HTTP/1.1.
    if parts.uri.authority().is_none() && !parts.headers.contains_key(HOST) {
        let dialled = HeaderValue::try_from(downstream.dialled.to_string());
        parts.headers.extend(dialled.ok().map(|host| (HOST, host)));
    }
    let asked = Asked::read(&mut parts, SystemTime::now())
        .map_err(|error| Local::bad_request("invalid_host", error.to_string()))?;
    let table = outlets.rules(asked.view().authority, exchange.flow()).map_err(Local::broken_rules)?;
    let matched = table.route(&asked.view()).ok_or_else(Refusal::no_rule)?;
    note(exchange, &table, &matched);
    let Matched { rule, part, .. } = matched;
    let mut cors = None;
    match rule.cors.as_ref().map(|cors| cors.decide(asked.method.as_str(), &asked.headers)) {
        Some(CorsDecision::Preflight(headers)) => return Err(Local::preflight(headers).into()),
        Some(CorsDecision::Allowed(headers)) => cors = Some(headers),
        Some(CorsDecision::Unrelated) | None => {}
    }
    let mut journey = Journey { outlets, downstream, table: &table, asked: &asked, exchange };
    let forwarded = match &rule.action {
        Action::Reply(reply) => Err(Local::direct(reply.status, &reply.body)),
        Action::Redirect(to) => {
            Err(Local::redirect(to.status, &to.location(&asked.view(), part, downstream.dialled.port())))
        }
        Action::Forward(forwarding) => journey.forward(rule, forwarding, part, parts, body).await,
    };
    match forwarded {
        Ok((mut forwarded, backend)) => {
            let headers = forwarded.response.headers_mut();
            if !(rule.response_headers.is_empty() && backend.response_headers.is_empty()) {
                let (came, view) = (headers.clone(), asked.view());
                let values = asked.values(&view, Some(&came), downstream.client);
                rule.response_headers.prepare(&values).apply(headers);
                backend.response_headers.prepare(&values).apply(headers);
            }
            if let Some(cors) = cors {
                put_on(headers, cors);
            }
            Ok(forwarded)
        }
        // What a rule says of responses holds for those that are made here, too.
        Err(local) => {
            let (rule, client) = (std::sync::Arc::clone(rule), downstream.client);
            let extra = move |headers: &mut HeaderMap| {
                let came = headers.clone();
                let view = asked.view();
                rule.response_headers.prepare(&asked.values(&view, Some(&came), client)).apply(headers);
                if let Some(cors) = cors {
                    put_on(headers, cors);
                }
            };
            Err(Stopped { local, extra: Some(Box::new(extra)) })
        }
    }
}

impl<O: Outlets> Journey<'_, O> {
    async fn forward<'r>(
        &mut self,
        rule: &Rule,
        forwarding: &'r Forwarding,
        part: PathPart,
        mut parts: Parts,
        body: Incoming,
    ) -> Result<(Forwarded, &'r BackendRule), Local> {
        self.fault(forwarding).await?;
        let of_client = self.grpc_timeout();
        let timeout = timeout_of(forwarding.timeout, of_client);
        // The Gateway API's begin with the request, and so does what the client itself says.
        let waits = self.table.api() == RouteApi::Istio && of_client.is_none();
        let no_backend = || Local::from(Refusal::no_backend(self.table.api()));
        let backend = forwarding.next_backend(rand::random()).ok_or_else(no_backend)?;
        if let Destination::Broken { wanted, why } = &backend.to {
            return Err(no_backend().because(format!("{wanted} leads nowhere: {why}")));
        }
        if let Some(to) = &backend.redirect {
            return Err(Local::redirect(
                to.status,
                &to.location(&self.asked.view(), part, self.downstream.dialled.port()),
            ));
        }
        self.asked.change(rule, backend, part, self.downstream.client, &mut parts);

        let mirrors: Vec<_> =
            backend.mirrors.iter().filter(|one| is_drawn(one.per_million, rand::random())).collect();
        let keeps = forwarding.retries.may_retry() || !mirrors.is_empty();
        let body = match keeps {
            true => Replay::new(body, MAX_REPLAY, self.outlets.limits()),
            false => Replay::once(body),
        };
        let upload = body.upload();
        self.exchange.body(&upload);
        let mirrored = !mirrors.is_empty();
        for one in mirrors {
            mirror(self, one, &parts, &upload);
        }
        let clock = |timeout| Clock::new(timeout, waits.then(|| upload.clone()));
        let deadline = timeout.map(clock);
        let attempts = Attempts { forwarding, backend, parts, body, deadline, waits, mirrored };
        let (mut response, reached, deadline) = attempts.run(self).await?;
        let took = reached.sent_at.elapsed().as_millis();
        self.exchange.flow().request(|about| {
            about.seen.upstream_ms = u64::try_from(took).ok();
            about.seen.details = shared("via_upstream");
        });
        if let Ok(took) = HeaderValue::try_from(took.to_string()) {
            response.headers_mut().insert(SERVICE_TIME, took);
        }
        Ok((Forwarded { response, reached, deadline }, backend))
    }

    /// A pause and an error, as the rule's dice fall.
    async fn fault(&self, forwarding: &Forwarding) -> Result<(), Local> {
        let Some(fault) = &forwarding.fault else { return Ok(()) };
        let drawn = draw_fault(fault, [rand::random(), rand::random()]);
        if let Some(delay) = drawn.delay {
            self.exchange.flag(ResponseFlag::DelayInjected);
            tokio::time::sleep(delay).await;
        }
        match drawn.abort {
            Some(abort) => Err(Local::fault(abort.http_status, abort.grpc_status)),
            None => Ok(()),
        }
    }

    fn grpc_timeout(&self) -> Option<&[u8]> {
        let timeout = self.asked.headers.get("grpc-timeout").filter(|_| self.exchange.is_grpc);
        timeout.map(HeaderValue::as_bytes)
    }
}

/// Which rule it was, for the record.
fn note(exchange: &Exchange, table: &HttpTable, matched: &Matched<'_>) {
    exchange.flow().request(|about| {
        about.seen.route = Some(matched.name.clone()).filter(|name| !name.is_empty());
        about.seen.objects = table.names_of_objects().cloned();
    });
}
