//! The loop around the session: connect, exchange, and again after a pause, until the agent drains.

use super::disk::{self, Saved, Writer};
use super::session::{Outcome, Session};
use super::status::SharedControllerStatus;
use crate::control::{Backoff, ControlConfig, ControlError, Trust, connect};
use crate::interest::{Demand, Interest};
use crate::store::{MeshChange, Store};
use prost_types::{Struct, Value, value::Kind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use warren_common::model::TrustReport;
use warren_common::proto::discovery::{
    AggregatedDiscoveryServiceClient, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node,
};
use warren_common::proto::{
    ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL, MORE_FOLLOWS, TRAFFIC_TYPE_URL, TRUST_TYPE_URL,
    trust_report_fields,
};
use warren_common::runtime::{DrainWatch, ReadinessGuard};

const BACKOFF: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(15) };
/// A controller that sends its whole world in one message is understood up to here.
const MAX_MESSAGE: usize = 16 << 20;
const SAVED_CONFIGURATION: &str = "mesh.pb";

/// What an agent keeps in its state directory.
pub(crate) fn saved(state_dir: &Path) -> impl Iterator<Item = PathBuf> {
    std::iter::once(state_dir.join(SAVED_CONFIGURATION))
}

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub struct XdsConfig {
    /// `https://host:port` of the controller.
    pub url: String,
    /// The name that its certificate must carry.
    pub controller_name: String,
    /// What its certificate must lead to; and what the controller is told of it.
    pub trust: Trust,
    /// The agent's token; read at every connect.
    pub token_file: PathBuf,
    /// The agent's node.
    pub node: Arc<str>,
    /// Where the last good configuration is kept; without it an agent does not start without its controller.
    pub state_dir: Option<PathBuf>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("the controller refused the stream or broke it off: {}: {}", .0.code(), .0.message())]
    Status(#[from] Box<tonic::Status>),
    #[error("the controller ended the stream")]
    Ended,
}

/// Follows the controller until the drain begins. `ready` is dropped with the first configuration, be it from disk.
pub async fn run(
    config: XdsConfig,
    store: Arc<Store>,
    interest: Interest,
    status: SharedControllerStatus,
    ready: ReadinessGuard,
    mut drain: DrainWatch,
) {
    status.update(|status| {
        status.url.clone_from(&config.url);
        status.followed = interest.asks().then_some(0);
    });
    let session = if interest.asks() { Session::by_interest() } else { Session::new() };
    let mut link = Link {
        config,
        store,
        interest,
        status,
        ready: Some(ready),
        session,
        unapplied: Vec::new(),
        addresses_came: false,
        policies_came: false,
        is_partial: false,
        writer: None,
        answers: 0,
    };
    link.start().await;
    let mut failures = 0;
    loop {
        let before = link.answers;
        let ended = tokio::select! {
            () = drain.started() => break,
            error = link.serve() => error,
        };
        // A stream that brought something was a good one: the next may come soon.
        failures = if link.answers > before { 0 } else { failures + 1 };
        let delay = BACKOFF.delay(failures, rand::random());
        let text = ended.to_string();
        tracing::warn!(
            error = text,
            retry_in_ms = delay.as_millis() as u64,
            "no session with the controller"
        );
        link.status.update(|status| {
            status.connected = false;
            status.last_error = Some(text.clone());
        });
        link.interest.away(Some(&text));
        tokio::select! {
            () = drain.started() => break,
            () = tokio::time::sleep(delay) => {}
        }
    }
    if let Some(writer) = link.writer.take() {
        writer.finish().await;
    }
}

/// Everything a stream needs, and what outlives it.
struct Link {
    config: XdsConfig,
    store: Arc<Store>,
    interest: Interest,
    status: SharedControllerStatus,
    ready: Option<ReadinessGuard>,
    session: Session,
    /// What is not in the store yet: parts of a state whose rest is still to come, be it in another stream, and what
    /// came before addresses and policies did, for without those nothing is known of the mesh.
    unapplied: Vec<MeshChange>,
    /// Something was told of addresses, be it that there are none.
    addresses_came: bool,
    /// The same of policies.
    policies_came: bool,
    /// The last response about either was a part of one state of both.
    is_partial: bool,
    writer: Option<Writer>,
    /// Responses since the start.
    answers: u64,
}

impl Link {
    /// Takes up what the last run of the agent left on disk.
    async fn start(&mut self) {
        let Some(folder) = self.config.state_dir.clone() else {
            return;
        };
        let path = folder.join(SAVED_CONFIGURATION);
        if let Err(error) = tokio::fs::create_dir_all(&folder).await {
            tracing::warn!(path = %folder.display(), %error, "cannot keep the configuration on disk");
            return;
        }
        // Said before the store has it: who looks there must not take it for the controller's word.
        self.status.update(|status| status.from_disk = true);
        // Blocks this runtime for the time of one read, before anything else runs.
        let restored = disk::restore(&path, &mut self.session, &self.store);
        if !matches!(restored, Ok(true)) {
            self.status.update(|status| status.from_disk = false);
        }
        match restored {
            Ok(true) => {
                self.ready = None;
                self.interest.restore(self.session.answered().into_iter().flatten().cloned());
                self.interest.lead(&self.store.guard());
                tracing::info!(path = %path.display(), "started with the saved configuration");
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "saved configuration ignored");
                self.status.update(|status| status.last_error = Some(error.to_string()));
            }
        }
        self.writer = Some(Writer::spawn(path, self.store.clone()));
    }

    /// One stream, from connect to its end.
    async fn serve(&mut self) -> StreamError {
        match self.stream().await {
            Ok(()) => StreamError::Ended,
            Err(error) => error,
        }
    }

    async fn stream(&mut self) -> Result<(), StreamError> {
        let control = ControlConfig {
            url: self.config.url.clone(),
            controller_name: self.config.controller_name.clone(),
            trust: self.config.trust.clone(),
            token_file: self.config.token_file.clone(),
        };
        let channel = connect(&control).await?;
        let mut client =
            AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let mut reports = self.config.trust.reports();
        reports.mark_unchanged();
        let first = self.session.on_connect();
        // Each response is answered before the next is read, so there is room for every answer.
        let (requests, queue) = mpsc::channel(first.len() + 1);
        for mut request in first {
            request.node = Some(self.node());
            let _ = requests.try_send(request);
        }
        let responses =
            client.delta_aggregated_resources(ReceiverStream::new(queue)).await.map_err(Box::new)?;
        self.status.update(|status| {
            status.connected = true;
            status.last_error = None;
        });
        self.interest.away(None);
        tracing::info!(url = self.config.url, "session with the controller");
        self.exchange(responses.into_inner(), &requests, reports).await
    }

    async fn exchange(
        &mut self,
        mut responses: Streaming<DeltaDiscoveryResponse>,
        requests: &mpsc::Sender<DeltaDiscoveryRequest>,
        mut reports: watch::Receiver<TrustReport>,
    ) -> Result<(), StreamError> {
        loop {
            let request = tokio::select! {
                response = responses.message() => match response.map_err(Box::new)? {
                    Some(response) => Some(self.take(response)),
                    None => return Ok(()),
                },
                // The sender is our own.
                _ = reports.changed() => Some(self.report()),
                demand = self.interest.demand(&self.store), if self.interest.asks() => {
                    let (leave, ask) = self.tell(&demand);
                    if let Some(leave) = leave && requests.send(leave).await.is_err() {
                        return Err(StreamError::Ended);
                    }
                    ask
                }
            };
            if let Some(request) = request
                && requests.send(request).await.is_err()
            {
                return Err(StreamError::Ended);
            }
        }
    }

    /// One response: into the store when it is whole, and the answer to send.
    fn take(&mut self, response: DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
        let type_url = response.type_url.as_str();
        self.addresses_came |= type_url == ADDRESS_TYPE_URL;
        self.policies_came |= type_url == AUTHORIZATION_TYPE_URL;
        // Nobody waits for the first routes: there are controllers that know none.
        if [ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL, TRAFFIC_TYPE_URL].contains(&type_url) {
            self.is_partial = response.system_version_info == MORE_FOLLOWS;
        }
        // Not the number of what is applied: that an answer came at all is applied too.
        let count = response.resources.len() + response.removed_resources.len();
        let Outcome { changes, request, rejected, refused } = self.session.on_response(response);
        self.answers += 1;
        tracing::debug!(changes = count, rejected = rejected.len(), "configuration received");
        for rejection in &rejected {
            tracing::warn!(resource = rejection.resource, reason = rejection.reason, "resource rejected");
        }
        refused.iter().for_each(|(sought, reason)| self.interest.refuse(sought, reason));
        let total = self.session.rejected();
        self.status.update(|status| status.rejected = total);
        self.unapplied.extend(changes);
        // Addresses name policies, and policies forbid: neither counts without the other.
        let is_known = self.ready.is_none() || (self.addresses_came && self.policies_came);
        if !self.is_partial && is_known {
            self.apply();
            self.status.update(|status| status.from_disk &= !self.addresses_came);
        }
        request
    }

    fn apply(&mut self) {
        let changes = std::mem::take(&mut self.unapplied);
        // The first addresses and policies count even if there are none: now the mesh is known to be empty.
        if self.ready.take().is_some() || !changes.is_empty() {
            self.store.apply(changes);
            // What is known of a service, and its rules, may lead on to others.
            self.interest.lead(&self.store.guard());
            self.save();
        }
    }

    /// What to tell the controller to leave, and then what to ask it for.
    fn tell(
        &mut self,
        Demand { leave, ask }: &Demand,
    ) -> (Option<DeltaDiscoveryRequest>, Option<DeltaDiscoveryRequest>) {
        let followed = self.interest.followed();
        self.status.update(|status| status.followed = Some(followed));
        tracing::debug!(leave = leave.len(), ask = ask.len(), followed, "interest changed");
        let mut left = None;
        if !leave.is_empty() {
            // At once: what nobody is told of any more must not be taken for known.
            self.store.apply(leave.iter().cloned().map(MeshChange::Forget).collect());
            left = self.session.leave(leave);
            self.save();
        }
        let asked = if ask.is_empty() { None } else { self.session.ask(ask) };
        (left, asked)
    }

    fn save(&self) {
        if let (Some(writer), Some(versions)) = (&self.writer, self.session.versions(ADDRESS_TYPE_URL)) {
            let of = |type_url| self.session.versions(type_url).cloned().unwrap_or_default();
            let (policies, traffic) = (of(AUTHORIZATION_TYPE_URL), of(TRAFFIC_TYPE_URL));
            let answered = self.session.answered().cloned();
            writer.changed(Saved { versions: versions.clone(), policies, traffic, answered });
        }
    }

    /// Says how far the certificates of this node are; it asks for nothing.
    fn report(&self) -> DeltaDiscoveryRequest {
        let type_url = TRUST_TYPE_URL.to_owned();
        DeltaDiscoveryRequest { type_url, node: Some(self.node()), ..Default::default() }
    }

    fn node(&self) -> Node {
        let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let fields = [
            ("NODE_NAME".to_owned(), text(&self.config.node)),
            ("WARREN_VERSION".to_owned(), text(env!("CARGO_PKG_VERSION"))),
        ];
        let report = trust_report_fields(&self.config.trust.reports().borrow());
        Node {
            id: self.config.node.to_string(),
            cluster: String::new(),
            metadata: Some(Struct { fields: fields.into_iter().chain(report).collect() }),
        }
    }
}
