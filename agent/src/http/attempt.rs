//! A request is sent to an endpoint, and to another one where that is allowed: not after a response has begun, and only while
//! all of its body is still there.

use super::clock::Clock;
use super::extended::Question;
use super::headers::{ATTEMPT_COUNT, authority_of, set_https, shape};
use super::outlets::{Ask, Cause, NoWay, NotReached, Outlets, Way};
use super::pool::{Lease, NotBegun, PoolKey, SendError};
use super::replay::{Outgoing, Replay, Upload};
use super::reply::Local;
use super::request::Journey;
use crate::observe::{FlowHandle, ResponseFlag};
use crate::route::http::{BackendRule, Ended, Forwarding, Situation, Verdict};
use http::header::{CONTENT_LENGTH, SET_COOKIE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::any::Any;
use std::cell::Cell;
use std::error::Error;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;
use warren_common::model::WorkloadUid;

/// A connection that a response is coming on.
pub(super) struct Reached {
    pub(super) lease: Lease,
    /// Held until the response has ended, and the request.
    pub(super) place: Box<dyn Any>,
    /// The request's body, of which some may still be to come.
    pub(super) upload: Upload,
    /// When the request was sent.
    pub(super) sent_at: Instant,
}

/// One request and how often it may be sent.
pub(super) struct Attempts<'r> {
    pub(super) forwarding: &'r Forwarding,
    pub(super) backend: &'r BackendRule,
    pub(super) parts: Parts,
    pub(super) body: Replay,
    pub(super) deadline: Option<Clock>,
    /// A try's own time begins when all of the request is there.
    pub(super) waits: bool,
    /// The body is needed for copies of the request, too.
    pub(super) mirrored: bool,
}

/// Why there is no connection.
pub(super) enum NoLease {
    /// It was not made.
    NotReached(NotReached),
    /// It was, and carries no HTTP.
    NotBegun(Rc<NotBegun>),
}

/// A connection: one that is there, or a new one; where no more may be open, the first that is free. `queued` says whether it
/// waits for that.
pub(super) async fn lease<O: Outlets>(
    outlets: &O,
    way: &Way<O::Place>,
    flow: &FlowHandle,
    queued: &Cell<bool>,
) -> Result<Lease, NoLease> {
    let pool = outlets.pool();
    loop {
        if let Some(lease) = pool.ready(&way.key, &way.terms) {
            return Ok(lease);
        }
        match pool.joined(&way.key).await {
            None => break,
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(NoLease::NotBegun(error)),
        }
    }
    queued.set(true);
    let got = tokio::select! {
        biased;
        lease = pool.next(&way.key, &way.terms) => Ok(lease),
        seat = outlets.seat(way) => Err(seat),
    };
    queued.set(false);
    let seat = match got {
        Ok(lease) => return Ok(lease),
        Err(seat) => seat.map_err(NoLease::NotReached)?,
    };
    let opened = outlets.open(way, seat, flow).await.map_err(NoLease::NotReached)?;
    pool.begin(&way.key, &way.terms, opened, outlets.limits()).await.map_err(NoLease::NotBegun)
}

async fn run_out(clock: Option<&Clock>) {
    match clock {
        Some(clock) => clock.run_out().await,
        None => pending().await,
    }
}

/// A try that brought no response.
struct Failed {
    ended: Ended,
    local: Local,
}

impl Attempts<'_> {
    /// Sends it until there is a response to pass on, or nothing more may be done.
    pub(super) async fn run<O: Outlets>(
        self,
        journey: &mut Journey<'_, O>,
    ) -> Result<(Response<Incoming>, Reached, Option<Clock>), Local> {
        let policy = &self.forwarding.retries;
        let mut tried: Vec<WorkloadUid> = Vec::new();
        let entropy = rand::random();
        let mut retrying = None;
        for tries in 1.. {
            self.known(journey).await?;
            let mut way = self.pick(journey, &tried, entropy)?;
            journey.exchange.flow().request(|about| {
                about.seen.attempts = tries;
                about.seen.cluster = Some(way.cluster.clone());
            });
            journey.outlets.describe(journey.exchange.flow(), &way);
            let endpoint = way.key.endpoint.clone();
            let queued = Cell::new(false);
            let sent = self.within(journey, &way, tries, &queued).await;
            let ended = match &sent {
                Ok((response, ..)) => {
                    Ended::Response { status: response.status().as_u16(), grpc: grpc_status(response) }
                }
                Err(failed) => failed.ended,
            };
            // Who was never asked is not blamed.
            let blamed = if queued.get() { Ended::Overflow } else { ended };
            journey.outlets.ended(&way.place, blamed);
            let situation = Situation {
                tries,
                replayable: self.body.is_whole(),
                left: self.left(),
                entropy: rand::random(),
            };
            let verdict = policy.decide(ended, &situation);
            if matches!(verdict, Verdict::Again(_)) {
                // A request that is tried again and again is one.
                drop(retrying.take());
            }
            match verdict {
                Verdict::Again(pause) => match journey.outlets.retry(&way.place) {
                    Ok(slot) => {
                        retrying = slot;
                        self.body.hold();
                        drop((sent, way));
                        if policy.other_endpoints {
                            tried.extend(endpoint);
                        }
                        tokio::time::sleep(pause).await;
                        continue;
                    }
                    // As many as may be are under way already.
                    Err(_) => journey.exchange.flag(ResponseFlag::Overflow),
                },
                Verdict::Exhausted => journey.exchange.flag(ResponseFlag::RetriesExceeded),
                Verdict::Never | Verdict::BodyGone | Verdict::OutOfTime => {}
            }
            if !self.mirrored {
                self.body.stop_keeping();
            }
            drop(retrying);
            return match sent {
                Ok((mut response, lease, sent_at)) => {
                    if let Some(cookie) =
                        way.set_cookie.take().and_then(|cookie| HeaderValue::try_from(cookie).ok())
                    {
                        response.headers_mut().append(SET_COOKIE, cookie);
                    }
                    let (place, upload) = (Box::new(way.place), self.body.upload());
                    Ok((response, Reached { lease, place, upload, sent_at }, self.deadline))
                }
                Err(failed) => Err(failed.local),
            };
        }
        Err(Local::not_connected("there were too many tries".to_owned()))
    }

    /// Of its time; none where that has no end, or does not pass.
    fn left(&self) -> Option<Duration> {
        let ends = self.deadline.as_ref()?.ends()?;
        Some(ends.saturating_duration_since(Instant::now()))
    }

    /// Waits until it is known whether its service is there, within the request's time.
    async fn known<O: Outlets>(&self, journey: &Journey<'_, O>) -> Result<(), Local> {
        tokio::select! {
            biased;
            () = journey.outlets.known(&self.backend.to) => Ok(()),
            () = run_out(self.deadline.as_ref()) => {
                let why = "its rules lead to a service that was not known here in time".to_owned();
                Err(Local::timed_out(false, why))
            }
        }
    }

    fn pick<O: Outlets>(
        &self,
        journey: &Journey<'_, O>,
        tried: &[WorkloadUid],
        entropy: u64,
    ) -> Result<Way<O::Place>, Local> {
        let (h2, grpc) = (journey.downstream.h2, journey.exchange.is_grpc);
        let view = journey.asked.view();
        let authority = authority_of(&self.parts);
        let ask = Ask { request: &view, authority, entropy, tried, h2, grpc, api: journey.table.api() };
        let picked = journey.outlets.pick(&self.backend.to, &ask);
        picked.map_err(|NoWay { refusal, why }| Local::from(refusal).because(why))
    }

    /// One try, within its own time and the request's.
    async fn within<O: Outlets>(
        &self,
        journey: &Journey<'_, O>,
        way: &Way<O::Place>,
        tries: u32,
        queued: &Cell<bool>,
    ) -> Result<(Response<Incoming>, Lease, Instant), Failed> {
        let upload = self.waits.then(|| self.body.upload());
        let own = self.forwarding.retries.per_try_timeout.map(|timeout| Clock::new(timeout, upload));
        let late = async {
            tokio::select! {
                biased;
                () = run_out(self.deadline.as_ref()) => false,
                () = run_out(own.as_ref()) => true,
            }
        };
        tokio::select! {
            biased;
            sent = self.once(journey, way, tries, queued) => sent,
            is_per_try = late => {
                let why = match queued.get() {
                    true => format!("no connection to {} was free in time", way.key.address),
                    false => format!("{} did not answer in time", way.key.address),
                };
                Err(Failed { ended: Ended::TimedOut, local: Local::timed_out(is_per_try, why) })
            }
        }
    }

    async fn once<O: Outlets>(
        &self,
        journey: &Journey<'_, O>,
        way: &Way<O::Place>,
        tries: u32,
        queued: &Cell<bool>,
    ) -> Result<(Response<Incoming>, Lease, Instant), Failed> {
        let outlets = journey.outlets;
        let question = match way.key.h2 && self.switches() {
            true => self.question(way)?,
            false => None,
        };
        let mut unsent: Option<Box<Request<Outgoing>>> = None;
        loop {
            let leased = lease(&**outlets, way, journey.exchange.flow(), queued).await;
            let mut lease = leased.map_err(|error| match error {
                NoLease::NotReached(error) => not_reached(error),
                NoLease::NotBegun(error) => self.not_begun(way, &error),
            })?;
            outlets.connected(journey.exchange.flow(), way);
            if question.is_some() && !lease.takes_protocols() {
                return Err(no_switch(
                    way,
                    "and takes no requests for other protocols there (RFC 8441): that needs a port of the service that is declared as http",
                ));
            }
            let request = match unsent.take() {
                Some(request) => *request,
                None => self.request(&way.key, tries, question.as_ref())?,
            };
            let sent_at = Instant::now();
            match lease.send(request).await {
                Ok(mut response) => {
                    if way.key.h2 && self.switches() && response.status().is_success() {
                        switched(way, question.as_ref(), &mut response)?;
                    }
                    if let Err(odd) = check(&response, self.upgrades()) {
                        let local = Local::not_http(format!("{} {odd}", way.key.address));
                        return Err(Failed { ended: Ended::Reset, local });
                    }
                    return Ok((response, lease, sent_at));
                }
                // The endpoint closed a kept connection just now, and has seen nothing of the request.
                Err(SendError { unsent: Some(request), .. }) if lease.reused => unsent = Some(request),
                // It closed the connection when the request was on its way: it may have read it, which does no harm to some.
                Err(SendError { error, unsent: None })
                    if lease.reused && !way.key.h2 && ended_early(&error) && self.is_repeatable() =>
                {
                    self.body.hold();
                }
                Err(SendError { error, .. }) => return Err(self.failed(way, &error)),
            }
        }
    }

    fn request(
        &self,
        key: &PoolKey,
        tries: u32,
        question: Option<&Question>,
    ) -> Result<Request<Outgoing>, Failed> {
        let body = self.body.copy().ok_or_else(|| self.lost())?;
        let mut request = Request::from_parts(self.parts.clone(), body);
        request.headers_mut().insert(ATTEMPT_COUNT, HeaderValue::from(tries));
        shape(&mut request, key.h2);
        if key.h2 && key.tls.is_some() {
            set_https(&mut request);
        }
        if let Some(question) = question {
            question.put(&mut request);
        }
        Ok(request)
    }

    /// How an endpoint of HTTP/2 is asked for another protocol; none: by CONNECT. What follows is the protocol's, so there is no
    /// body. HTTP/2 says no method with it, and GET is meant: with another one the rules would have judged another request.
    fn question<P>(&self, way: &Way<P>) -> Result<Option<Question>, Failed> {
        if !self.body.is_empty() {
            return Err(no_switch(way, "where a request for another protocol has no body"));
        }
        match (&self.parts.method, self.upgrades()) {
            (&Method::CONNECT, false) => Ok(None),
            (&Method::GET, _) => Question::of(&self.parts.headers).map(Some).ok_or_else(|| {
                no_switch(way, "where one protocol is asked for, and a WebSocket with one Sec-WebSocket-Key")
            }),
            _ => Err(no_switch(way, "where another protocol is asked for with GET, and not with CONNECT")),
        }
    }

    /// Its body is not there any more: a part of it would be another request.
    fn lost(&self) -> Failed {
        let why = "the request cannot be sent again: not all of its body was kept".to_owned();
        let local = if self.body.is_broken() { Local::client_gone(why) } else { Local::terminated(why) };
        Failed { ended: Ended::Overflow, local }
    }

    /// Whether its connection is to become another protocol's.
    fn switches(&self) -> bool {
        self.parts.method == Method::CONNECT || self.upgrades()
    }

    fn upgrades(&self) -> bool {
        self.parts.headers.contains_key(UPGRADE)
    }

    /// Whether sending it twice is as good as once, and can be done.
    fn is_repeatable(&self) -> bool {
        self.parts.method.is_idempotent() && self.body.is_whole()
    }

    fn not_begun<P>(&self, way: &Way<P>, error: &NotBegun) -> Failed {
        let ended = match error {
            NotBegun::Http(error) => return self.failed(way, error),
            // Its endpoint has done nothing.
            NotBegun::Cut => Ended::Overflow,
            NotBegun::Ended(_) | NotBegun::Silent | NotBegun::Full => Ended::NoConnection,
        };
        Failed { ended, local: Local::not_connected(format!("{}: {error}", way.key.address)) }
    }

    fn failed<P>(&self, way: &Way<P>, error: &hyper::Error) -> Failed {
        let why = format!("{}: {}", way.key.address, sources(error));
        if self.body.is_broken() {
            return Failed { ended: Ended::Overflow, local: Local::client_gone(why) };
        }
        let h2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
        if h2.is_some_and(is_refused) {
            return Failed { ended: Ended::Refused, local: Local::reset(why) };
        }
        if h2.and_then(h2::Error::reason).is_some_and(|reason| reason != h2::Reason::NO_ERROR) {
            return Failed { ended: Ended::Reset, local: Local::reset(why) };
        }
        if error.is_parse() {
            return Failed { ended: Ended::Reset, local: Local::not_http(why) };
        }
        Failed { ended: Ended::Reset, local: Local::terminated(why) }
    }
}

/// The endpoint is asked for nothing.
fn no_switch<P>(way: &Way<P>, why: &str) -> Failed {
    let why = format!("{} is spoken to in HTTP/2, {why}", way.key.address);
    Failed { ended: Ended::Overflow, local: Local::not_http(why) }
}

/// An endpoint of HTTP/2 has said yes; `question`: to what, unless that was CONNECT.
fn switched<P, B>(
    way: &Way<P>,
    question: Option<&Question>,
    response: &mut Response<B>,
) -> Result<(), Failed> {
    let status = response.status();
    if status != StatusCode::OK {
        let why = format!("{} answered {status} where 200 says that it has switched", way.key.address);
        return Err(Failed { ended: Ended::Reset, local: Local::not_http(why) });
    }
    if let Some(question) = question {
        question.answered(response);
    }
    Ok(())
}

fn not_reached(NotReached { why, cause }: NotReached) -> Failed {
    let (ended, local) = match cause {
        Cause::Failed => (Ended::NoConnection, Local::not_connected(why)),
        Cause::Unknown => (Ended::NoConnection, Local::not_found(why)),
        // Another try, and another endpoint, would be refused by the same rule.
        Cause::Denied => {
            let mut local = Local::not_connected(why);
            local.flag = Some(ResponseFlag::Deny);
            (Ended::Overflow, local)
        }
        Cause::Overload => {
            let refusal = crate::route::http::Refusal::overflow();
            (Ended::Overflow, Local::from(refusal).because(why))
        }
    };
    Failed { ended, local }
}

/// Whether the response can be passed on; `upgrades`: the request asked for another protocol.
fn check<B>(response: &Response<B>, upgrades: bool) -> Result<(), &'static str> {
    let headers = response.headers();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => {}
        (Some(_), _) if headers.contains_key(CONTENT_LENGTH) => {
            return Err("framed its response in two ways");
        }
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {}
        // The header is not passed on, and nobody would decode it.
        _ => return Err("encoded its response for the transfer, and not just in chunks"),
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS && !upgrades {
        return Err("switched to another protocol, which nobody asked for");
    }
    Ok(())
}

fn grpc_status<B>(response: &Response<B>) -> Option<u8> {
    response.headers().get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// No byte of a response came.
fn ended_early(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || error.is_canceled() || error.is_closed() || is_reset(error)
}

fn is_reset(error: &hyper::Error) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| {
        matches!(io.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe)
    })
}

/// The endpoint has not looked at the request: it said so, or its GOAWAY named an earlier stream as its last (RFC 9113, 6.8), for h2
/// gives that error to the later ones alone.
fn is_refused(error: &h2::Error) -> bool {
    error.reason() == Some(h2::Reason::REFUSED_STREAM) || (error.is_go_away() && error.is_remote())
}

/// An error with what it was caused by.
fn sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
