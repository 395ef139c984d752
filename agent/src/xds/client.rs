//! The loop around the session: connect, exchange, and again after a pause, until the agent drains.

use super::disk::{self, Writer};
use super::session::{Outcome, Session};
use super::status::SharedControllerStatus;
use crate::control::{Backoff, ControlConfig, ControlError, connect};
use crate::store::{MeshChange, Store};
use prost_types::{Struct, Value, value::Kind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use warren_common::proto::ADDRESS_TYPE_URL;
use warren_common::proto::discovery::{
    AggregatedDiscoveryServiceClient, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node,
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
    /// PEM certificates that its certificate must lead to; read at every connect.
    pub ca_file: PathBuf,
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
    status: SharedControllerStatus,
    ready: ReadinessGuard,
    mut drain: DrainWatch,
) {
    status.update(|status| status.url.clone_from(&config.url));
    let mut link = Link {
        config,
        store,
        status,
        ready: Some(ready),
        session: Session::new(),
        writer: None,
        answers: 0,
        early: Vec::new(),
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
    status: SharedControllerStatus,
    ready: Option<ReadinessGuard>,
    session: Session,
    writer: Option<Writer>,
    /// Responses since the start.
    answers: u64,
    /// What came before the first address did: without those nothing is known of the mesh.
    early: Vec<MeshChange>,
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
            ca_file: self.config.ca_file.clone(),
            token_file: self.config.token_file.clone(),
        };
        let channel = connect(&control).await?;
        let mut client =
            AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
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
        tracing::info!(url = self.config.url, "session with the controller");
        self.exchange(responses.into_inner(), &requests).await
    }

    async fn exchange(
        &mut self,
        mut responses: Streaming<DeltaDiscoveryResponse>,
        requests: &mpsc::Sender<DeltaDiscoveryRequest>,
    ) -> Result<(), StreamError> {
        while let Some(response) = responses.message().await.map_err(Box::new)? {
            // Not the number of what is applied: that an answer came at all is applied too.
            let changes_told = response.resources.len() + response.removed_resources.len();
            let Outcome { changes, request, rejected } = self.session.on_response(response);
            self.answers += 1;
            tracing::debug!(changes = changes_told, rejected = rejected.len(), "configuration received");
            for rejection in &rejected {
                tracing::warn!(resource = rejection.resource, reason = rejection.reason, "resource rejected");
            }
            self.take(changes, request.type_url == ADDRESS_TYPE_URL);
            if requests.send(request).await.is_err() {
                return Err(StreamError::Ended);
            }
        }
        Ok(())
    }

    fn take(&mut self, changes: Vec<MeshChange>, addresses: bool) {
        self.early.extend(changes);
        // The first addresses count even if there are none: now the mesh is known to be empty.
        let first = addresses && self.ready.is_some();
        if first || (self.ready.is_none() && !self.early.is_empty()) {
            self.store.apply(std::mem::take(&mut self.early));
            if let (Some(writer), Some(versions)) = (&self.writer, self.session.versions(ADDRESS_TYPE_URL)) {
                writer.changed(versions);
            }
        }
        if addresses {
            self.ready = None;
        }
        let total = self.session.rejected();
        self.status.update(|status| {
            status.from_disk &= !addresses;
            status.rejected = total;
        });
    }

    fn node(&self) -> Node {
        let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let fields = [
            ("NODE_NAME".to_owned(), text(&self.config.node)),
            ("WARREN_VERSION".to_owned(), text(env!("CARGO_PKG_VERSION"))),
        ];
        Node {
            id: self.config.node.to_string(),
            cluster: String::new(),
            metadata: Some(Struct { fields: fields.into() }),
        }
    }
}
