//! A controller in this process, and what talks to it.

mod agent;

pub use agent::Agent;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
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
    self, AppError, CaConfig, Config, ManifestsConfig, PipelineConfig, ResolveConfig, RootNamespaces,
};
use warren_controller::ca::TokenConfig;
use warren_controller::ca::serving::ServingConfig;
use warren_controller::objects::Name;

const PATIENCE: Duration = Duration::from_secs(20);
const AUDIENCE: &str = "warren.dev";

/// Waits for what must come.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen within {PATIENCE:?}"))
}

/// A ready pod that runs as the service account of its own name.
pub fn pod(name: &str, node: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, uid: uid-{name}}}\n\
         spec: {{nodeName: {node}, serviceAccountName: {name}, containers: []}}\n\
         status: {{phase: Running, podIPs: [{{ip: {ip}}}], conditions: [{{type: Ready, status: 'True'}}]}}\n"
    )
}

/// What a token says.
#[derive(Clone, Debug)]
pub struct Token {
    pub node: Option<&'static str>,
    pub account: &'static str,
    pub audience: &'static str,
    pub expires_in_s: i64,
    /// Signed with a key that the controller does not know.
    pub own_key: bool,
    pub missing: bool,
}

impl Token {
    /// The agent's, on a node.
    pub fn agent(node: &'static str) -> Self {
        Self {
            node: Some(node),
            account: "warren-agent",
            audience: AUDIENCE,
            expires_in_s: 600,
            own_key: false,
            missing: false,
        }
    }
}

/// Files of one controller; they outlive it.
pub struct Directory {
    temporary: TempDir,
    key: KeyPair,
}

pub struct Controller {
    directory: Directory,
    grpc: SocketAddr,
    http: SocketAddr,
    trigger: DrainTrigger,
    task: JoinHandle<Result<(), AppError>>,
}

impl Controller {
    pub async fn start(manifests: &[(&str, String)]) -> Self {
        let directory =
            Directory { temporary: tempfile::tempdir().unwrap(), key: KeyPair::generate().unwrap() };
        std::fs::create_dir(directory.temporary.path().join("manifests")).unwrap();
        for (name, text) in manifests {
            std::fs::write(directory.temporary.path().join("manifests").join(name), text).unwrap();
        }
        let raw = directory.key.public_key_raw();
        let jwks = json!({"keys": [{
            "kty": "EC", "crv": "P-256", "kid": "test", "alg": "ES256", "use": "sig",
            "x": URL_SAFE_NO_PAD.encode(&raw[1..33]), "y": URL_SAFE_NO_PAD.encode(&raw[33..65]),
        }]});
        std::fs::write(directory.temporary.path().join("jwks.json"), jwks.to_string()).unwrap();
        Self::start_in(directory).await
    }

    pub async fn start_in(directory: Directory) -> Self {
        let path = directory.temporary.path();
        let mut manifests = ManifestsConfig::new(path.join("manifests"));
        manifests.debounce = Duration::from_millis(5);
        let config = Config {
            manifests,
            resolve: ResolveConfig {
                cluster: "Kubernetes".into(),
                cluster_domain: "cluster.local".into(),
                trust_domain: "cluster.local".into(),
            },
            root_namespaces: RootNamespaces::default(),
            pipeline: PipelineConfig::default(),
            ca: CaConfig {
                directory: path.join("ca"),
                lifetime: Duration::from_secs(86_400),
                agent_accounts: vec![Name::new("warren-system", "warren-agent")],
            },
            tokens: TokenConfig { jwks: path.join("jwks.json"), audience: AUDIENCE.into(), issuer: None },
            serving: ServingConfig {
                names: vec!["localhost".into(), "127.0.0.1".into()],
                lifetime: Duration::from_secs(3600),
            },
            listen: "127.0.0.1:0".parse().unwrap(),
            metrics_listen: "127.0.0.1:0".parse().unwrap(),
        };
        let controller = app::Controller::bind(config, Readiness::default()).unwrap();
        let (grpc, http) = (controller.grpc_address().unwrap(), controller.metrics_address().unwrap());
        let (trigger, watch) = drain();
        let task = tokio::spawn(controller.serve(watch));
        Self { directory, grpc, http, trigger, task }
    }

    /// Ends it in order.
    pub async fn stop(self) -> Directory {
        assert!(self.trigger.start(PATIENCE).await, "the drain takes too long");
        soon("the end", self.task).await.unwrap().unwrap();
        self.directory
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.directory.temporary.path().join("manifests").join(name)
    }

    pub fn ca_file(&self, name: &str) -> PathBuf {
        self.directory.temporary.path().join("ca").join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.manifest(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.manifest(name)).unwrap();
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

    async fn get(&self, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(self.http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: controller\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    async fn channel(&self) -> Channel {
        let root = std::fs::read_to_string(self.ca_file("root-cert.pem")).unwrap();
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(root)).domain_name("localhost");
        let endpoint =
            Endpoint::from_shared(format!("https://{}", self.grpc)).unwrap().tls_config(tls).unwrap();
        soon("the connection", endpoint.connect()).await.unwrap()
    }

    fn authorised<T>(&self, token: &Token, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if !token.missing {
            let value = format!("Bearer {}", self.sign(token)).parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        request
    }

    fn sign(&self, token: &Token) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let mut kubernetes =
            json!({"namespace": "warren-system", "serviceaccount": {"name": token.account, "uid": "u"}});
        if let Some(node) = token.node {
            kubernetes["node"] = json!({"name": node, "uid": "u"});
        }
        let claims = json!({
            "aud": [token.audience], "exp": now + token.expires_in_s, "nbf": now - 7200, "iat": now - 7200,
            "iss": "https://kubernetes.default.svc", "kubernetes.io": kubernetes,
            "sub": format!("system:serviceaccount:warren-system:{}", token.account),
        });
        let own = token.own_key.then(|| KeyPair::generate().unwrap());
        let key = own.as_ref().unwrap_or(&self.directory.key).serialize_pem();
        let key = jsonwebtoken::EncodingKey::from_ec_pem(key.as_bytes()).unwrap();
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
        header.kid = Some("test".to_owned());
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }

    pub async fn certificate(&self, token: &Token, identity: &Identity) -> Result<Vec<String>, Status> {
        let key = KeyPair::generate().unwrap();
        let csr =
            CertificateParams::new(vec!["not.used".to_owned()]).unwrap().serialize_request(&key).unwrap();
        self.create(token, certificate_request(identity, csr.pem().unwrap(), 600)).await
    }

    pub async fn create(
        &self,
        token: &Token,
        request: IstioCertificateRequest,
    ) -> Result<Vec<String>, Status> {
        let mut client = IstioCertificateServiceClient::new(self.channel().await);
        let response =
            soon("the certificate", client.create_certificate(self.authorised(token, request))).await?;
        Ok(response.into_inner().cert_chain)
    }
}
