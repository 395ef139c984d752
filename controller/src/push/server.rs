//! Delta ADS over tonic: one task per client, with its [`Session`].

use super::publish::Published;
use super::session::{Event, Request, Response, Session, SessionError};
use crate::ca::rotation::Seat;
use crate::ca::{Authenticator, Roster};
use crate::observe::Metrics;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use warren_common::proto::discovery::{
    AggregatedDiscoveryService, DeltaDiscoveryRequest, DeltaDiscoveryResponse,
};
use warren_common::proto::{MORE_FOLLOWS, trust_report};
use warren_common::runtime::DrainWatch;

/// A response (bytes): large enough that a first state of 30 MB takes few round trips, small enough that a thousand
/// agents which all come back at once do not hold gigabytes of buffers. gRPC clients refuse 4 MiB by default.
const MAX_RESPONSE: usize = 512 << 10;

/// The discovery service.
#[derive(Debug)]
pub struct DiscoveryService {
    published: Arc<Published>,
    authenticator: Arc<Authenticator>,
    roster: Roster,
    metrics: Metrics,
    drain: DrainWatch,
}

impl DiscoveryService {
    /// Serves what is published to those who can say who they are, until the drain.
    pub fn new(
        published: Arc<Published>,
        authenticator: Arc<Authenticator>,
        roster: Roster,
        metrics: Metrics,
        drain: DrainWatch,
    ) -> Self {
        Self { published, authenticator, roster, metrics, drain }
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for DiscoveryService {
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn delta_aggregated_resources(
        &self,
        request: tonic::Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<tonic::Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let caller = self.authenticator.authenticate(request.metadata()).await;
        let caller = caller.map_err(|error| error.status())?;
        let (responses, stream) = mpsc::channel(1);
        let client = Client {
            seat: self.roster.join(caller.node.clone()),
            node: caller.node,
            requests: request.into_inner(),
            responses,
            published: self.published.clone(),
            metrics: self.metrics.clone(),
        };
        tokio::spawn(client.serve(self.drain.clone()));
        Ok(tonic::Response::new(ReceiverStream::new(stream)))
    }
}

struct Client {
    node: Arc<str>,
    seat: Seat,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    published: Arc<Published>,
    metrics: Metrics,
}

impl Client {
    async fn serve(mut self, mut drain: DrainWatch) {
        let _connected = self.metrics.client_connected();
        tracing::info!(node = %self.node, "agent connected");
        let responses = self.responses.clone();
        let result = tokio::select! {
            result = self.converse() => result,
            () = responses.closed() => Ok(()),
            () = drain.started() => Err(Status::unavailable("this controller is shutting down; connect again")),
        };
        match result {
            Ok(()) => tracing::info!(node = %self.node, "agent disconnected"),
            Err(status) => {
                tracing::info!(node = %self.node, reason = status.message(), "agent's stream ends");
                // No room means that the client reads nothing any more.
                let _ = responses.try_send(Err(status));
            }
        }
    }

    async fn converse(&mut self) -> Result<(), Status> {
        let responses = self.responses.clone();
        let mut session = Session::new(MAX_RESPONSE);
        session.of_node(&self.node);
        let mut changed = self.published.watch();
        loop {
            while let Some(response) = self.published.poll(&mut session).map_err(|error| refused(&error))? {
                self.metrics.pushed(&response.type_url);
                if responses.send(Ok(to_wire(response))).await.is_err() {
                    return Ok(());
                }
            }
            tokio::select! {
                request = self.requests.message() => match request? {
                    Some(request) => self.take(&mut session, request)?,
                    None => return Ok(()),
                },
                // The sender lives in `published`, which we hold.
                _ = changed.changed() => {}
            }
        }
    }

    fn take(&self, session: &mut Session, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        if let Some(node) = named_node(&request).filter(|_| self.node.is_empty()) {
            session.of_node(node);
        }
        if let Some(report) = request.node.as_ref().and_then(trust_report) {
            self.seat.report(report);
        }
        let request = from_wire(request);
        let type_url = request.type_url.clone();
        let event = session.on_request(request).map_err(|error| refused(&error))?;
        match event {
            Event::Nack { reason } => {
                self.metrics.rejected(&type_url);
                tracing::warn!(node = %self.node, %type_url, %reason, "agent rejects configuration");
            }
            Event::Stale => tracing::debug!(node = %self.node, %type_url, "answer to an older response"),
            Event::Ack | Event::Subscription => {}
        }
        Ok(())
    }
}

fn from_wire(request: DeltaDiscoveryRequest) -> Request {
    Request {
        type_url: request.type_url,
        subscribe: request.resource_names_subscribe,
        unsubscribe: request.resource_names_unsubscribe,
        initial_versions: request.initial_resource_versions.into_iter().collect(),
        nonce: request.response_nonce,
        error: request.error_detail.map(|status| status.message),
    }
}

/// The node that a client says it is of. It decides nothing but which pods it hears of unasked.
fn named_node(request: &DeltaDiscoveryRequest) -> Option<&str> {
    let metadata = request.node.as_ref()?.metadata.as_ref()?;
    match metadata.fields.get("NODE_NAME")?.kind.as_ref()? {
        prost_types::value::Kind::StringValue(name) => Some(name),
        _ => None,
    }
}

fn refused(error: &SessionError) -> Status {
    match error {
        SessionError::Behind => Status::aborted(error.to_string()),
        SessionError::NoType | SessionError::Limit { .. } => Status::invalid_argument(error.to_string()),
    }
}

/// Nothing is encoded here: the bytes are the table's.
fn to_wire(response: Response) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        system_version_info: if response.more_follows { MORE_FOLLOWS.to_owned() } else { String::new() },
        resources: response.resources.into_iter().map(|(_, resource)| resource.body.clone()).collect(),
        removed_resources: response.removed.iter().map(ToString::to_string).collect(),
        nonce: response.nonce,
        type_url: response.type_url,
    }
}
