//! Wiring only: which part gets what.

mod backend;

pub use crate::admin::AdminConfig;
use crate::admin::{self, Admin};
use crate::ca::authorise::Rules;
use crate::ca::keeper::Following;
use crate::ca::revocations::RevocationError;
use crate::ca::service::CertificateService;
use crate::ca::serving::{ServingConfig, ServingError, server_config};
use crate::ca::{CaError, RotationConfig};
use crate::index::Index;
pub use crate::index::RootNamespaces;
use crate::kubernetes::ConnectError;
pub use crate::kubernetes::KubernetesConfig;
use crate::listen;
use crate::objects::Name;
use crate::observe::{Http, Metrics};
use crate::pipeline::Pipeline;
pub use crate::pipeline::PipelineConfig;
use crate::push::publish::Published;
use crate::push::server::DiscoveryService;
use crate::push::{revocations, trust};
pub use crate::resolve::ResolveConfig;
use crate::resolve::meshed_nodes;
pub use crate::source::manifests::ManifestsConfig;
use crate::source::manifests::ManifestsError;
use crate::source::{Change, SourceProblems};
use crate::status;
use backend::{Backend, Running, Shared};
use parking_lot::RwLock;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use warren_common::model::TrustBundle;
use warren_common::proto::auth::IstioCertificateServiceServer;
use warren_common::proto::discovery::AggregatedDiscoveryServiceServer;
use warren_common::proto::{REVOCATIONS, REVOCATIONS_TYPE_URL, TRUST, TRUST_TYPE_URL};
use warren_common::runtime::{DrainWatch, Readiness, ReadinessGuard};

/// Batches between source and pipeline; the source waits when they are full.
const BATCHES: usize = 16;
/// An agent with 50,000 pods resumes with about 5 MB of names and versions.
const MAX_REQUEST: usize = 32 << 20;
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// The configuration of every part.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where objects, the CA and trust in callers come from.
    pub source: Source,
    /// Cluster, cluster domain and trust domain.
    pub resolve: ResolveConfig,
    /// Where the objects are that hold for the whole mesh.
    pub root_namespaces: RootNamespaces,
    /// How changes are gathered.
    pub pipeline: PipelineConfig,
    /// The certificate authority.
    pub ca: CaConfig,
    /// `aud` that a caller's token must have.
    pub audience: String,
    /// The gRPC server's certificate.
    pub serving: ServingConfig,
    /// gRPC: discovery and certificates, over TLS. `[::]` serves IPv4 too.
    pub listen: SocketAddr,
    /// Metrics, problems and readiness, over HTTP.
    pub metrics_listen: SocketAddr,
    /// Where the CA is asked and told, if anywhere.
    pub admin: AdminConfig,
}

/// Where objects, the CA and trust in callers come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Files.
    Manifests {
        /// The directory of manifests.
        manifests: ManifestsConfig,
        /// `root-cert.pem`, `ca-cert.pem`, `ca-key.pem`, `cert-chain.pem`; made when there is none of them.
        ca_directory: PathBuf,
        /// Public keys that callers' tokens are verified with, a JWK Set; read again when the file changes.
        jwks: PathBuf,
        /// `iss` that a token must have, if any.
        issuer: Option<String>,
    },
    /// A cluster: its objects, the CA in a Secret, tokens verified by TokenReview.
    Kubernetes(KubernetesConfig),
}

/// The certificate authority.
#[derive(Clone, Debug)]
pub struct CaConfig {
    /// Longest lifetime of a workload's certificate.
    pub lifetime: Duration,
    /// How a CA of our own is kept fresh.
    pub rotation: RotationConfig,
    /// Service accounts that agents run as; no other account may ask for the identities of its node.
    pub agent_accounts: Vec<Name>,
}

/// Why the controller does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The manifests.
    #[error(transparent)]
    Manifests(#[from] ManifestsError),
    /// The cluster.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The CA.
    #[error("certificate authority: {0}")]
    Ca(#[from] CaError),
    /// The identities that are revoked.
    #[error(transparent)]
    Revocations(#[from] RevocationError),
    /// The admin API.
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
    /// The server's certificate.
    #[error(transparent)]
    Serving(#[from] ServingError),
    /// A listener.
    #[error("can't listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// The gRPC server.
    #[error("the gRPC server ended: {0}")]
    Grpc(#[from] tonic::transport::Error),
    /// No source feeds the controller any more.
    #[error("the source of configuration ended")]
    SourceEnded,
}

/// Runs the controller until the drain.
///
/// # Errors
/// When it can't start, or a part of it ends early.
pub async fn run(config: Config, drain: DrainWatch, readiness: Readiness) -> Result<(), AppError> {
    Controller::bind(config, readiness).await?.serve(drain).await
}

/// A controller that listens but does not serve yet.
pub struct Controller {
    config: Config,
    readiness: Readiness,
    first_batch: ReadinessGuard,
    problems: SourceProblems,
    batches: mpsc::Receiver<Vec<Change>>,
    backend: Backend,
    grpc: TcpListener,
    http: TcpListener,
}

impl Controller {
    /// Does everything that can fail for good: configuration, files, listeners. Needs a tokio runtime.
    ///
    /// # Errors
    /// What failed.
    pub async fn bind(config: Config, readiness: Readiness) -> Result<Self, AppError> {
        let problems = SourceProblems::default();
        let first_batch = readiness.wait_for("the first complete configuration");
        let (to_pipeline, batches) = mpsc::channel(BATCHES);
        let backend = Backend::prepare(&config, &problems, to_pipeline).await?;
        let listen = |address| listen::bind(address).map_err(|error| AppError::Listen { address, error });
        let (grpc, http) = (listen(config.listen)?, listen(config.metrics_listen)?);
        Ok(Self { config, readiness, first_batch, problems, batches, backend, grpc, http })
    }

    /// Where gRPC is served.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn grpc_address(&self) -> std::io::Result<SocketAddr> {
        self.grpc.local_addr()
    }

    /// Where metrics are served.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn metrics_address(&self) -> std::io::Result<SocketAddr> {
        self.http.local_addr()
    }

    /// Serves until the drain.
    ///
    /// # Errors
    /// When a part of it ends early.
    pub async fn serve(self, mut drain: DrainWatch) -> Result<(), AppError> {
        let Self { config, readiness, first_batch, problems, batches, backend, grpc, http } = self;
        let metrics = Metrics::default();
        let index = Arc::new(RwLock::new(Index::new(
            config.root_namespaces.clone(),
            config.resolve.cluster_domain.clone(),
        )));
        let published = Arc::new(Published::default());

        let answers =
            Http { metrics: metrics.clone(), problems: problems.clone(), readiness: readiness.clone() };
        let answers = tokio::spawn(answers.serve(http, drain.clone()));

        let shared =
            Shared { problems: problems.clone(), readiness, metrics: metrics.clone(), index: index.clone() };
        let mut ending = drain.clone();
        let running = tokio::select! {
            running = backend.start(&config, &shared, &drain) => Some(running),
            () = ending.started() => None,
        };
        let Some(Running { keeper, revocations: revoked, authenticator, _source: source, status }) = running
        else {
            let _ = answers.await;
            return Ok(());
        };
        let meshed: Arc<dyn Fn() -> BTreeSet<String> + Send + Sync> = {
            let index = index.clone();
            Arc::new(move || meshed_nodes(&index.read()))
        };
        let routes = {
            let (index, resolve) = (index.clone(), config.resolve.clone());
            Arc::new(move || status::list_routes(&index.read(), &resolve))
        };
        let admin =
            Admin { keeper: keeper.clone(), revocations: revoked.clone(), meshed: meshed.clone(), routes };
        admin.spawn(&config.admin, &drain)?;
        let tell_trust = {
            let published = published.clone();
            move |bundle: &TrustBundle| {
                published.apply(vec![(TRUST_TYPE_URL, TRUST.to_owned(), Some(trust(bundle)))]);
            }
        };
        // Before it is known which nodes have pods of the mesh, all of them would seem to be done with whatever a rotation waits for.
        let knows_nodes = Arc::new(AtomicBool::new(false));
        let following = Following {
            leads: match &status {
                Some(status) => Box::new(status.leads()),
                // Nobody else is there.
                None => Box::new(|| true),
            },
            knows_nodes: {
                let knows_nodes = knows_nodes.clone();
                Box::new(move || knows_nodes.load(Ordering::Acquire))
            },
            meshed: Box::new(move || meshed()),
            tell: Box::new(tell_trust),
            problems: problems.clone(),
            metrics: metrics.clone(),
        };
        tokio::spawn(keeper.clone().follow(following, drain.clone()));
        let tell = {
            let published = published.clone();
            move |list: &_| {
                let resource = revocations(list);
                published.apply(vec![(REVOCATIONS_TYPE_URL, REVOCATIONS.to_owned(), resource)]);
            }
        };
        tokio::spawn(revoked.clone().follow(tell, problems.clone(), drain.clone()));
        let authenticator = Arc::new(authenticator);
        let tls = server_config(keeper.clone(), config.serving)?;

        let (read, mut first_batch_read) = mpsc::channel::<()>(1);
        let pipeline = Pipeline {
            config: config.pipeline,
            resolve: config.resolve.clone(),
            batches,
            index: index.clone(),
            published: published.clone(),
            problems,
            metrics: metrics.clone(),
        };
        let pipeline = tokio::spawn(pipeline.run((first_batch, read), drain.clone()));
        // Served before, an agent that resumes would be told that everything is gone.
        let _ = first_batch_read.recv().await;
        knows_nodes.store(true, Ordering::Release);

        let discovery = DiscoveryService::new(
            published,
            authenticator.clone(),
            keeper.roster().clone(),
            metrics.clone(),
            drain.clone(),
        );
        let certificates = CertificateService {
            authenticator,
            rules: Rules {
                trust_domain: config.resolve.trust_domain.to_string(),
                agent_accounts: config.ca.agent_accounts,
            },
            index,
            revocations: revoked,
            keeper,
            lifetime: config.ca.lifetime,
            metrics,
        };
        let incoming = listen::tls_incoming(grpc, Arc::new(tls), drain.clone());
        let mut ending = drain.clone();
        let server = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_service(
                AggregatedDiscoveryServiceServer::new(discovery).max_decoding_message_size(MAX_REQUEST),
            )
            .add_service(IstioCertificateServiceServer::new(certificates))
            .serve_with_incoming_shutdown(incoming, async move { ending.started().await });
        tokio::select! {
            result = server => result?,
            _ = pipeline => if !drain.is_draining() { return Err(AppError::SourceEnded) },
        }
        drain.started().await;
        drop(source);
        if let Some(status) = status {
            status.ended().await;
        }
        let _ = answers.await;
        Ok(())
    }
}
