//! Copies of requests: sent when all of the request's body is there, and forgotten.

use super::asked::{Asked, set_authority};
use super::attempt::{NoLease, lease};
use super::exchange::Exchange;
use super::headers::{authority_of, shape};
use super::limits::{MAX_MIRRORS, MIRROR_DEADLINE};
use super::outlets::{Ask, NoWay, Outlets};
use super::replay::Upload;
use super::reply::Local;
use super::request::Journey;
use crate::route::http::shadow;
use http::request::Parts;
use http::{HeaderValue, Request};
use http_body_util::BodyExt;
use std::cell::Cell;
use std::rc::Rc;
use warren_common::model::traffic::{Destination, Mirror, RouteApi};

thread_local! {
    /// Copies on their way.
    static COPIES: Cell<usize> = const { Cell::new(0) };
}

/// Copies on their way.
#[cfg(test)]
pub(super) fn under_way() -> usize {
    COPIES.with(Cell::get)
}

/// A copy's place among all of the worker.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        COPIES
            .with(|copies| (copies.get() < MAX_MIRRORS).then(|| copies.set(copies.get() + 1)).map(|()| Self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        COPIES.with(|copies| copies.set(copies.get().saturating_sub(1)));
    }
}

/// Sends a copy to where `mirror` says. A request with a longer body than is kept is not copied, and neither is one too many.
pub(super) fn mirror<O: Outlets>(journey: &Journey<'_, O>, mirror: &Mirror, parts: &Parts, body: &Upload) {
    let Some(place) = Place::take() else {
        return tracing::debug!("a request is not copied: too many copies are on their way");
    };
    let mut parts = parts.clone();
    let authority = authority_of(&parts).to_owned();
    if mirror.shadow_host
        && let Ok(host) = HeaderValue::try_from(shadow(&authority))
    {
        set_authority(&mut parts, &host);
    }
    let copy = Copy {
        outlets: Rc::clone(journey.outlets),
        asked: journey.asked.clone(),
        authority,
        to: mirror.to.clone(),
        parts,
        body: body.clone(),
        h2: journey.downstream.h2,
        api: journey.table.api(),
    };
    tokio::task::spawn_local(async move {
        let _place = place;
        let _in_time = tokio::time::timeout(MIRROR_DEADLINE, copy.send()).await;
    });
}

struct Copy<O> {
    outlets: Rc<O>,
    asked: Asked,
    /// As the rule has changed it.
    authority: String,
    to: Destination,
    parts: Parts,
    body: Upload,
    h2: bool,
    api: RouteApi,
}

impl<O: Outlets> Copy<O> {
    /// Sends it, and reads its response away. It has a record of its own.
    async fn send(self) {
        let Some(copy) = self.body.complete().await else {
            return tracing::debug!("a request is not copied: its body is too long to be kept");
        };
        let Self { outlets, asked, authority, to, parts, body, h2, api } = self;
        let mut request = Request::from_parts(parts, copy);
        let mut exchange = Exchange::begin(outlets.begin(), &request);
        exchange.body(&body);
        outlets.known(&to).await;
        let view = asked.view();
        let ask = Ask {
            request: &view,
            authority: &authority,
            entropy: rand::random(),
            tried: &[],
            h2,
            grpc: exchange.is_grpc,
            api,
        };
        let way = match outlets.pick(&to, &ask) {
            Ok(way) => way,
            Err(NoWay { refusal, why }) => return exchange.fail(&Local::from(refusal).because(why)),
        };
        exchange.flow().request(|about| {
            about.seen.attempts = 1;
            about.seen.route = Some("mirror".into());
            about.seen.cluster = Some(way.cluster.clone());
        });
        outlets.describe(exchange.flow(), &way);
        let mut lease = match lease(&*outlets, &way, exchange.flow(), &Cell::default()).await {
            Ok(lease) => lease,
            Err(NoLease::NotReached(error)) => return exchange.fail(&Local::not_connected(error.why)),
            Err(NoLease::NotBegun(error)) => return exchange.fail(&Local::terminated(error.to_string())),
        };
        outlets.connected(exchange.flow(), &way);
        shape(&mut request, way.key.h2);
        let response = match lease.send(request).await {
            Ok(response) => response,
            Err(error) => return exchange.fail(&Local::terminated(error.error.to_string())),
        };
        exchange.head(response.status().as_u16(), response.headers());
        exchange.flow().request(|about| about.seen.details = "via_upstream".into());
        let mut answer = response.into_body();
        while let Some(Ok(frame)) = answer.frame().await {
            exchange.received_data(frame.data_ref().map_or(&[][..], |data| &data[..]));
        }
        lease.give_back();
        exchange.finish();
    }
}
