//! A controller in this process, and what talks to it.

use rcgen::{CertificateParams, KeyPair};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};
use warren_common::model::Identity;
use warren_common::proto::auth::{IstioCertificateRequest, IstioCertificateServiceClient};
use warren_common::proto::certificate_request;
use warren_common::runtime::{DrainTrigger, Readiness, drain};
use warren_controller::app::{
    self, AdminConfig, AppError, CaConfig, Config, PipelineConfig, ResolveConfig, RootNamespaces, Source,
};
use warren_controller::ca::RotationConfig;
use warren_controller::ca::serving::ServingConfig;
use warren_controller::objects::Name;

pub const PATIENCE: Duration = Duration::from_secs(20);
pub const AUDIENCE: &str = "warren.dev";

/// Waits for what must come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen within {PATIENCE:?}"))
}

/// A running controller.
pub struct Server {
    grpc: SocketAddr,
    http: SocketAddr,
    #[allow(dead_code, reason = "its drop removes the folder")]
    admin: TempDir,
    trigger: DrainTrigger,
    task: JoinHandle<Result<(), AppError>>,
    /// The root that its certificate is verified with, once it is known.
    pub root: OnceLock<String>,
}

impl Server {
    pub async fn start(source: Source, agent_account: Name) -> Self {
        let admin = tempfile::tempdir().unwrap();
        // With a directory rotations are seen to their end; in a cluster, where a test looks at objects with kubectl, a phase
        // has to last.
        let settle = Duration::from_secs(if matches!(source, Source::Kubernetes(_)) { 60 } else { 1 });
        let config = Config {
            source,
            resolve: ResolveConfig {
                cluster: "Kubernetes".into(),
                cluster_domain: "cluster.local".into(),
                trust_domain: "cluster.local".into(),
            },
            root_namespaces: RootNamespaces::default(),
            pipeline: PipelineConfig::default(),
            ca: CaConfig {
                lifetime: Duration::from_secs(86_400),
                rotation: RotationConfig { settle, ..RotationConfig::default() },
                agent_accounts: vec![agent_account],
            },
            audience: AUDIENCE.into(),
            serving: ServingConfig {
                names: vec!["localhost".into(), "127.0.0.1".into()],
                lifetime: Duration::from_secs(3600),
            },
            listen: "127.0.0.1:0".parse().unwrap(),
            metrics_listen: "127.0.0.1:0".parse().unwrap(),
            admin: AdminConfig { socket: Some(admin.path().join("admin.sock")), address: None },
        };
        let controller = app::Controller::bind(config, Readiness::default()).await.unwrap();
        let (grpc, http) = (controller.grpc_address().unwrap(), controller.metrics_address().unwrap());
        let (trigger, watch) = drain();
        let task = tokio::spawn(controller.serve(watch));
        Self { grpc, http, admin, trigger, task, root: OnceLock::new() }
    }

    /// Ends it in order.
    pub async fn stop(self) {
        assert!(self.trigger.start(PATIENCE).await, "the drain takes too long");
        soon("the end", self.task).await.unwrap().unwrap();
    }

    /// A response of the metrics server, once it is as wanted.
    pub async fn get_until(&self, path: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut latest = String::new();
        let polled = tokio::time::timeout(PATIENCE, async {
            let mut tick = tokio::time::interval(Duration::from_millis(10));
            loop {
                tick.tick().await;
                latest = self.get(path).await;
                if wanted(&latest) {
                    return;
                }
            }
        });
        assert!(polled.await.is_ok(), "{path} stayed:\n{latest}");
        latest
    }

    pub async fn get(&self, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(self.http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: controller\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    /// What the admin API answers, once it is there.
    pub async fn admin(&self, method: &str, path: &str) -> (u16, serde_json::Value) {
        let socket = self.admin.path().join("admin.sock");
        let connected = async {
            loop {
                match tokio::net::UnixStream::connect(&socket).await {
                    Ok(stream) => return stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let mut stream = soon("the admin API", connected).await;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: controller\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, serde_json::from_str(body).unwrap())
    }

    pub async fn channel(&self) -> Channel {
        self.channel_by(self.root.get().expect("the root is known")).await.unwrap()
    }

    /// A connection that is verified by this root.
    pub async fn channel_by(&self, root: &str) -> Result<Channel, tonic::transport::Error> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(root)).domain_name("localhost");
        let endpoint =
            Endpoint::from_shared(format!("https://{}", self.grpc)).unwrap().tls_config(tls).unwrap();
        soon("the connection", endpoint.connect()).await
    }

    pub async fn certificate(
        &self,
        bearer: Option<&str>,
        identity: &Identity,
    ) -> Result<Vec<String>, Status> {
        let key = KeyPair::generate().unwrap();
        let csr =
            CertificateParams::new(vec!["not.used".to_owned()]).unwrap().serialize_request(&key).unwrap();
        self.create(bearer, certificate_request(identity, csr.pem().unwrap(), 600)).await
    }

    pub async fn create(
        &self,
        bearer: Option<&str>,
        request: IstioCertificateRequest,
    ) -> Result<Vec<String>, Status> {
        let mut client = IstioCertificateServiceClient::new(self.channel().await);
        let response =
            soon("the certificate", client.create_certificate(authorised(bearer, request))).await?;
        Ok(response.into_inner().cert_chain)
    }
}

/// A request with a bearer token.
pub fn authorised<T>(bearer: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = bearer {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}
