//! A controller that follows a directory, and tokens for it.

pub mod agent;
pub mod server;

pub use agent::Agent;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::KeyPair;
use serde_json::json;
use server::{AUDIENCE, Server};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tonic::Status;
use warren_common::model::Identity;
use warren_common::proto::auth::IstioCertificateRequest;
use warren_common::proto::{ADDRESS_TYPE_URL, TRUST_TYPE_URL};
use warren_controller::app::{ManifestsConfig, Source};
use warren_controller::objects::Name;

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
    server: Server,
}

impl Deref for Controller {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
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
        let source = Source::Manifests {
            manifests,
            ca_directory: path.join("ca"),
            jwks: path.join("jwks.json"),
            issuer: None,
        };
        let server = Server::start(source, Name::new("warren-system", "warren-agent")).await;
        let root = std::fs::read_to_string(path.join("ca/root-cert.pem")).unwrap();
        server.root.set(root).unwrap();
        Self { directory, server }
    }

    /// Ends it in order.
    pub async fn stop(self) -> Directory {
        self.server.stop().await;
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

    /// An agent of node n1 that asks for addresses.
    pub async fn agent(&self, subscribe: &[&str], held: &BTreeMap<String, String>) -> Agent {
        self.agent_for(ADDRESS_TYPE_URL, subscribe, held).await
    }

    pub async fn agent_for(
        &self,
        type_url: &str,
        subscribe: &[&str],
        held: &BTreeMap<String, String>,
    ) -> Agent {
        let bearer = self.sign(&Token::agent("n1"));
        Agent::open(self, bearer.as_deref(), type_url, subscribe, held).await.unwrap()
    }

    /// An agent that asks whom to trust.
    pub async fn agent_on(&self, node: &'static str) -> Agent {
        let bearer = self.sign(&Token::agent(node));
        Agent::open(self, bearer.as_deref(), TRUST_TYPE_URL, &[], &BTreeMap::new()).await.unwrap()
    }

    /// An agent of node n1 that asks for nothing yet.
    pub async fn agent_by_interest(&self) -> Agent {
        let bearer = self.sign(&Token::agent("n1"));
        Agent::by_interest(self, bearer.as_deref()).await.unwrap()
    }

    /// Whether somebody with this token may ask at all.
    pub async fn try_agent(&self, token: &Token) -> Result<(), Status> {
        let bearer = self.sign(token);
        Agent::open(self, bearer.as_deref(), ADDRESS_TYPE_URL, &[], &BTreeMap::new()).await.map(drop)
    }

    pub async fn certificate(&self, token: &Token, identity: &Identity) -> Result<Vec<String>, Status> {
        self.server.certificate(self.sign(token).as_deref(), identity).await
    }

    pub async fn create(
        &self,
        token: &Token,
        request: IstioCertificateRequest,
    ) -> Result<Vec<String>, Status> {
        self.server.create(self.sign(token).as_deref(), request).await
    }

    fn sign(&self, token: &Token) -> Option<String> {
        if token.missing {
            return None;
        }
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
        Some(jsonwebtoken::encode(&header, &claims, &key).unwrap())
    }
}
