use super::*;
use crate::control::Trust;
use crate::interest::Interest;
use crate::store::Store;
use crate::xds::{SharedControllerStatus, XdsConfig, run};
use rcgen::{CertificateParams, KeyPair};
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use warren_common::proto::MORE_FOLLOWS;
use warren_common::proto::discovery::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer, DeltaDiscoveryRequest,
};
use warren_common::runtime::{DrainTrigger, Readiness, drain};

const NAME: &str = "controller.test";

/// One stream as the controller sees it.
pub(super) struct Stream1 {
    token: String,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
}

impl Stream1 {
    /// The next one about addresses.
    pub(super) async fn request(&mut self) -> DeltaDiscoveryRequest {
        self.request_of(ADDRESS_TYPE_URL).await
    }

    /// The next one about resources of this type.
    pub(super) async fn request_of(&mut self, type_url: &str) -> DeltaDiscoveryRequest {
        loop {
            let request = within(self.requests.next()).await.unwrap().unwrap();
            if request.type_url == type_url {
                return request;
            }
        }
    }

    pub(super) async fn send(&self, response: DeltaDiscoveryResponse) {
        self.responses.send(Ok(response)).await.unwrap();
    }
}

struct Handler(mpsc::Sender<Stream1>);

#[tonic::async_trait]
impl AggregatedDiscoveryService for Handler {
    type DeltaAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let token = request.metadata().get("authorization").unwrap().to_str().unwrap().to_owned();
        let (responses, queue) = mpsc::channel(8);
        self.0.send(Stream1 { token, requests: request.into_inner(), responses }).await.unwrap();
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }
}

pub(super) struct Controller {
    pub(super) url: String,
    streams: mpsc::Receiver<Stream1>,
    pub(super) task: JoinHandle<()>,
}

impl Controller {
    /// Starts one and writes what the agent needs to trust it to `folder`.
    pub(super) async fn start(folder: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
        let identity = Identity::from_pem(certificate.pem(), key.serialize_pem());
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let url = format!("https://{}", incoming.local_addr().unwrap());
        let (handler, streams) = mpsc::channel(4);
        let server = Server::builder()
            .tls_config(ServerTlsConfig::new().identity(identity))
            .unwrap()
            .add_service(AggregatedDiscoveryServiceServer::new(Handler(handler)));
        let task = tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
        Self { url, streams, task }
    }

    pub(super) async fn stream(&mut self) -> Stream1 {
        within(self.streams.recv()).await.unwrap()
    }
}

pub(super) struct Agent {
    pub(super) store: Arc<Store>,
    pub(super) interest: Interest,
    pub(super) status: SharedControllerStatus,
    pub(super) readiness: Readiness,
    trigger: DrainTrigger,
    task: JoinHandle<()>,
}

impl Agent {
    pub(super) fn start(folder: &Path, url: &str) -> Self {
        Self::run(folder, url, Store::new(), Interest::everything())
    }

    pub(super) fn by_interest(folder: &Path, url: &str) -> Self {
        Self::run(folder, url, Store::by_interest(), Interest::asking())
    }

    fn run(folder: &Path, url: &str, store: Store, interest: Interest) -> Self {
        let config = XdsConfig {
            url: url.to_owned(),
            controller_name: NAME.to_owned(),
            trust: Trust::new(folder.join("ca.pem"), None),
            token_file: folder.join("token"),
            node: "n1".into(),
            state_dir: Some(folder.join("state")),
        };
        let (store, status, readiness) =
            (Arc::new(store), SharedControllerStatus::default(), Readiness::default());
        let (trigger, watch) = drain();
        let task = tokio::spawn(run(
            config,
            store.clone(),
            interest.clone(),
            status.clone(),
            readiness.wait_for("configuration"),
            watch,
        ));
        Self { store, interest, status, readiness, trigger, task }
    }

    pub(super) async fn has(&self, name: &str) {
        let mut changed = self.store.changed();
        within(changed.wait_for(|_| self.store.load().service(&key(name)).is_some())).await.unwrap();
    }

    /// Drains, as the daemon does: afterwards the disk has everything.
    pub(super) async fn stop(self) {
        assert!(self.trigger.start(Duration::from_secs(10)).await);
        self.task.await.unwrap();
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("took longer than 20 s")
}

#[tokio::test]
async fn a_session_survives_stream_controller_and_agent() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "one\n").unwrap();
    let mut controller = Controller::start(folder.path()).await;
    let agent = Agent::start(folder.path(), &controller.url);

    let mut stream = controller.stream().await;
    assert_eq!(stream.token, "Bearer one");
    let first = stream.request().await;
    let node = first.node.unwrap();
    assert_eq!(
        (node.id.as_str(), node.metadata.unwrap().fields.contains_key("WARREN_VERSION")),
        ("n1", true)
    );
    // Namespaces alone are no configuration.
    stream.send(enrolled("0", &["shop"], &[])).await;
    stream.send(response("1", vec![good("a", "1"), bad("b", |r| r.resource = None)], &[])).await;
    assert!(stream.request().await.error_detail.unwrap().message.contains("shop/b"));
    // Without policies nothing is known of who may enter.
    assert!(!agent.readiness.is_ready() && agent.store.load().services().len() == 0);
    let mut unknown = good_policy("later", "1");
    unknown.resource.as_mut().unwrap().value.extend([4 << 3, 9]);
    stream.send(policies("p", vec![good_policy("deny-all", "3"), unknown], &[])).await;
    agent.has("a").await;
    let status = agent.status.get();
    assert!(agent.readiness.is_ready() && status.connected && !status.from_disk && status.rejected == 2);
    assert!(agent.store.load().enrolled_namespaces().unwrap().contains("shop"));

    // The stream breaks: a new one resumes by version, with the token of now.
    std::fs::write(folder.path().join("token"), "two").unwrap();
    drop(stream);
    let mut stream = controller.stream().await;
    assert_eq!(stream.token, "Bearer two");
    assert_eq!(
        stream.request().await.initial_resource_versions,
        [("shop/a".to_owned(), "1".to_owned())].into()
    );
    // A part of a state, which is applied with the rest of it.
    let part = DeltaDiscoveryResponse {
        system_version_info: MORE_FOLLOWS.to_owned(),
        ..response("2", vec![good("c", "7")], &[])
    };
    stream.send(part).await;
    assert!(stream.request().await.error_detail.is_none());
    assert!(agent.store.load().service(&key("c")).is_none());
    stream.send(routes("3", vec![traffic("c", "9"), traffic("d", "1")], &["shop/d"])).await;
    agent.has("c").await;
    assert!(agent.store.load().traffic(&key("c")).is_some());

    // The agent restarts while the controller is away: it starts from disk, says so, and comes back later.
    agent.stop().await;
    controller.task.abort();
    let agent = Agent::start(folder.path(), "https://127.0.0.1:9");
    agent.has("a").await;
    agent.has("c").await;
    assert!(agent.readiness.is_ready() && agent.status.get().from_disk);
    // Policies outlive the restart, also what of them was not understood: neither is forgotten, neither lets anybody in.
    let mesh = agent.store.load();
    let held: Vec<_> = mesh
        .policies()
        .list()
        .map(|(name, good, refused)| (name.to_string(), good.is_some(), refused.is_some()))
        .collect();
    assert_eq!(held, [("shop/deny-all".to_owned(), true, false), ("shop/later".to_owned(), false, true)]);
    assert_eq!(*mesh.traffic(&key("c")).unwrap().as_ref(), no_traffic("c"));
    assert_eq!(mesh.all_traffic().len(), 1);
    agent.stop().await;
    let mut controller = Controller::start(folder.path()).await;
    let agent = Agent::start(folder.path(), &controller.url);
    let mut stream = controller.stream().await;
    let traffic = stream.request_of(TRAFFIC_TYPE_URL).await.initial_resource_versions;
    assert_eq!(traffic, [("shop/c".to_owned(), "9".to_owned())].into());
    let versions = stream.request().await.initial_resource_versions;
    assert_eq!(versions.len(), 2);
    assert_eq!(versions.get("shop/c").unwrap(), "7");
    let policies = stream.request_of(AUTHORIZATION_TYPE_URL).await.initial_resource_versions;
    assert_eq!(policies, [("shop/deny-all".to_owned(), "3".to_owned())].into());
    agent.stop().await;
}

#[tokio::test]
async fn a_damaged_file_is_reported_and_ignored() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "t").unwrap();
    let mut controller = Controller::start(folder.path()).await;
    let agent = Agent::start(folder.path(), &controller.url);
    let mut stream = controller.stream().await;
    stream.request().await;
    stream.send(policies("0", vec![], &[])).await;
    stream.send(response("1", vec![good("a", "1")], &[])).await;
    agent.has("a").await;
    agent.stop().await;

    let path = folder.path().join("state/mesh.pb");
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [&flipped[..], &whole[..whole.len() - 1], &whole[..20], b"", b"something else entirely"] {
        std::fs::write(&path, damaged).unwrap();
        let mut session = crate::xds::Session::new();
        let store = Store::new();
        assert!(crate::xds::disk::restore(&path, &mut session, &store).is_err());
        assert_eq!(store.load().services().len(), 0);
    }
    let agent = Agent::start(folder.path(), &controller.url);
    assert!(controller.stream().await.request().await.initial_resource_versions.is_empty());
    assert!(!agent.readiness.is_ready());
    agent.stop().await;
}

#[tokio::test]
async fn a_controller_of_another_name_or_ca_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "t").unwrap();
    let other = tempfile::tempdir().unwrap();
    let controller = Controller::start(other.path()).await;
    let key = KeyPair::generate().unwrap();
    let ca = CertificateParams::new(vec![NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
    let config = |folder: &Path, name: &str| crate::control::ControlConfig {
        url: controller.url.clone(),
        controller_name: name.to_owned(),
        trust: Trust::new(folder.join("ca.pem"), None),
        token_file: folder.join("token"),
    };
    std::fs::write(other.path().join("token"), "t").unwrap();
    assert!(crate::control::connect(&config(other.path(), NAME)).await.is_ok());
    let error = crate::control::connect(&config(folder.path(), NAME)).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    let error = crate::control::connect(&config(other.path(), "another.test")).await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
}
