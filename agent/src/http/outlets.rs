//! What the pipeline asks of the story that it is part of: rules, endpoints, connections, records.

use super::pool::{Opened, Pool, PoolKey, Terms};
use crate::balance::{Overflow, Slot};
use crate::limits::OfPod;
use crate::observe::FlowHandle;
use crate::route::http::{Ended, HttpTable, Refusal, RequestView};
use http::Method;
use http::header::UPGRADE;
use std::rc::Rc;
use std::sync::Arc;
use warren_common::model::WorkloadUid;
use warren_common::model::traffic::{Destination, RouteApi};

/// What an endpoint is picked by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    /// The request, as its client sent it.
    pub request: &'a RequestView<'a>,
    /// The host that it asks for there, port included: rules may have changed it.
    pub authority: &'a str,
    /// A random number, the same for every try of the request.
    pub entropy: u64,
    /// Endpoints that were tried for it, and not to be tried again while there are others.
    pub tried: &'a [WorkloadUid],
    /// Whether the client speaks HTTP/2.
    pub h2: bool,
    /// Whether it is gRPC.
    pub grpc: bool,
    /// Whose rules lead there.
    pub api: RouteApi,
}

impl Ask<'_> {
    /// Whether the request asks for another protocol (WebSocket, CONNECT), which its connection then is.
    pub(crate) fn switches(&self) -> bool {
        self.request.method == Method::CONNECT.as_str() || self.request.headers.contains_key(UPGRADE)
    }
}

/// An endpoint that was picked.
pub(crate) struct Way<P> {
    /// Who may share its connections.
    pub key: PoolKey,
    /// What holds for its connections.
    pub terms: Terms,
    /// In Envoy's form: `outbound|port|subset|host`.
    pub cluster: Arc<str>,
    /// The client gets this cookie with the response.
    pub set_cookie: Option<String>,
    /// The story's own part: how to connect, and the endpoint's place in the balance, held for as long as the request lasts.
    pub place: P,
}

/// Why no endpoint was picked.
#[derive(Debug)]
pub(crate) struct NoWay {
    /// How it is answered.
    pub refusal: Refusal,
    /// For people.
    pub why: String,
}

/// Why an endpoint was not reached.
#[derive(Debug)]
pub(crate) struct NotReached {
    /// For people.
    pub why: String,
    /// What it means for the request.
    pub cause: Cause,
}

/// What it means that an endpoint was not reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// There is no connection; another try, or another endpoint, may have one.
    Failed,
    /// The same: its name cannot be looked up.
    Unknown,
    /// A policy refused it.
    Denied,
    /// A limit of the endpoint's node was reached.
    Overload,
}

/// What a pipeline asks of its story.
pub(crate) trait Outlets: 'static {
    /// The story's part of a [`Way`].
    type Place: 'static;
    /// The place of a new connection among those that may be open.
    type Seat: 'static;

    /// The rules as they are now, for a request that asks for this host, with or without a port, and has this record.
    ///
    /// # Errors
    /// Why they can't be applied: nothing is sent then.
    fn rules(&self, authority: &str, flow: &FlowHandle) -> Result<Arc<HttpTable>, String>;

    /// Waits until it is known whether there is such a service, where nobody here has asked yet; not for ever.
    async fn known(&self, to: &Destination);

    /// An endpoint of `to`.
    ///
    /// # Errors
    /// [`NoWay`].
    fn pick(&self, to: &Destination, ask: &Ask<'_>) -> Result<Way<Self::Place>, NoWay>;

    /// Waits until one more connection may be open.
    ///
    /// # Errors
    /// Too many wait already.
    async fn seat(&self, way: &Way<Self::Place>) -> Result<Self::Seat, NotReached>;

    /// Connects to it, for the request with this record.
    ///
    /// # Errors
    /// [`NotReached`].
    async fn open(
        &self,
        way: &Way<Self::Place>,
        seat: Self::Seat,
        flow: &FlowHandle,
    ) -> Result<Opened, NotReached>;

    /// Tells how a try at the endpoint ended.
    fn ended(&self, place: &Self::Place, ended: Ended);

    /// A place for another try after one at this endpoint.
    ///
    /// # Errors
    /// There are too many already.
    fn retry(&self, place: &Self::Place) -> Result<Option<Slot>, Overflow>;

    /// How much its pod may have.
    fn limits(&self) -> OfPod<'_>;

    /// Ends when the client of this connection will read no answer any more. One that has only ended its own direction still
    /// does.
    async fn client_gone(&self);

    /// The connections of this worker.
    fn pool(&self) -> &Rc<Pool>;

    /// A record for a request of this connection.
    fn begin(&self) -> FlowHandle;

    /// Says in a request's record where it goes.
    fn describe(&self, flow: &FlowHandle, way: &Way<Self::Place>);

    /// Says in a request's record that it has a connection there.
    fn connected(&self, flow: &FlowHandle, way: &Way<Self::Place>);
}
