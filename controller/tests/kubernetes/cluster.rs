//! The cluster under test: kubectl, and what tests make in it and leave not behind.

use super::server::{PATIENCE, Server};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::NamedTempFile;
use warren_controller::app::{KubernetesConfig, Source};
use warren_controller::objects::Name;

/// In which the cluster is described, as `cargo xtask cluster status -o json` prints it.
const VARIABLE: &str = "WARREN_CLUSTER";
/// The service account that agents run as in the tests.
pub const AGENT: &str = "warren-agent";

#[derive(Clone)]
pub struct Cluster {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
}

impl Cluster {
    /// The cluster, or a line that says why there is no test.
    pub fn find() -> Option<Self> {
        let Ok(text) = std::env::var(VARIABLE) else {
            let name = std::thread::current().name().unwrap_or("test").to_owned();
            // Past libtest's capture, so that it is seen.
            let why = "needs a cluster, as `cargo xtask test kubernetes` starts one";
            let _ = writeln!(std::io::stdout(), "SKIPPED: {name}: {why}");
            return None;
        };
        let described: Value = serde_json::from_str(&text).unwrap();
        let path = |field: &str| PathBuf::from(described[field].as_str().unwrap());
        Some(Self { kubectl: path("kubectl"), kubeconfig: path("kubeconfig") })
    }

    /// Runs kubectl as administrator.
    pub fn try_kubectl(&self, args: &[&str], input: &str) -> Result<String, String> {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }

    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args, "").unwrap_or_else(|error| panic!("kubectl {args:?}: {error}"))
    }

    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.kubectl(&[args, &["-o", "json"]].concat())).unwrap()
    }

    pub fn apply(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        let applied = self.try_kubectl(&["apply", "-f", "-"], &list);
        applied.unwrap_or_else(|error| panic!("apply: {error}"));
    }

    /// A namespace of this test alone, with the agents' account.
    pub fn namespace(&self, name: &str) -> Namespace {
        let name = format!("source-{name}-{}", std::process::id());
        self.apply(&[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})]);
        let namespace = Namespace { cluster: self.clone(), name };
        namespace.apply(&[account(AGENT), account("web")]);
        namespace
    }

    /// A kubeconfig of somebody who has this token.
    fn kubeconfig_for(&self, token: &str) -> NamedTempFile {
        let mut config = self.json(&["config", "view", "--raw", "--flatten"]);
        for user in config["users"].as_array_mut().unwrap() {
            user["user"] = json!({"token": token});
        }
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(config.to_string().as_bytes()).unwrap();
        file
    }
}

pub struct Namespace {
    pub cluster: Cluster,
    pub name: String,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.cluster.try_kubectl(&["delete", "namespace", &self.name, "--wait=false"], "");
    }
}

impl Namespace {
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.cluster.kubectl(&[&["-n", self.name.as_str()], args].concat())
    }

    pub fn apply(&self, objects: &[Value]) {
        let mut objects = objects.to_vec();
        for object in &mut objects {
            object["metadata"]["namespace"] = json!(self.name);
        }
        self.cluster.apply(&objects);
    }

    pub fn token(&self, account: &str, more: &[&str]) -> String {
        let args = [&["create", "token", account, "--duration=10m"], more].concat();
        self.kubectl(&args).trim().to_owned()
    }

    /// A token as the kubelet projects it into an agent's pod.
    pub fn pod_token(&self, account: &str, pod: &str) -> String {
        let bound = ["--audience=warren.dev", "--bound-object-kind=Pod", "--bound-object-name", pod];
        self.token(account, &bound)
    }

    /// A replica that has this namespace as its own, as administrator.
    pub async fn replica(&self, instance: &str) -> Server {
        self.start(self.cluster.kubeconfig.clone(), instance, true).await
    }

    /// The same with the rights of one of the namespace's accounts, which include `list` or don't.
    pub async fn replica_as(&self, account: &str, instance: &str, stream_lists: bool) -> Server {
        let kubeconfig = self.cluster.kubeconfig_for(&self.token(account, &[]));
        // It is read once.
        self.start(kubeconfig.path().to_owned(), instance, stream_lists).await
    }

    async fn start(&self, kubeconfig: PathBuf, instance: &str, stream_lists: bool) -> Server {
        let source = Source::Kubernetes(KubernetesConfig {
            kubeconfig: Some(kubeconfig),
            namespace: self.name.clone(),
            instance: instance.to_owned(),
            stream_lists,
        });
        Server::start(source, Name::new(self.name.as_str(), AGENT)).await
    }

    /// Waits until the replica serves, and trusts what the ConfigMap says.
    pub async fn ready(&self, server: &Server) {
        server.get_until("/healthz/ready", |text| text.contains("200 OK")).await;
        let root = until("the root", || self.root()).await;
        server.root.set(root).unwrap();
    }

    /// What agents would trust.
    pub fn root(&self) -> Option<String> {
        let path = "jsonpath={.data.root-cert\\.pem}";
        let args = ["-n", &self.name, "get", "configmap", "warren-ca-root", "-o", path];
        self.cluster.try_kubectl(&args, "").ok().filter(|text| !text.is_empty())
    }

    /// A pod that runs nowhere, on a node that is none.
    pub fn pod(&self, name: &str, account: &str, node: &str, address: &str) {
        self.apply(&[json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "nodeName": node, "serviceAccountName": account, "automountServiceAccountToken": false,
                "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": "main", "image": "none"}],
            },
        })]);
        let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}});
        self.kubectl(&[
            "patch",
            "pod",
            name,
            "--subresource=status",
            "--type=merge",
            "-p",
            &status.to_string(),
        ]);
    }
}

pub fn account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
}

/// Waits for what must come.
pub async fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let polled = tokio::time::timeout(PATIENCE, async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            tick.tick().await;
            if let Some(value) = attempt() {
                return value;
            }
        }
    });
    polled.await.unwrap_or_else(|_| panic!("{what} did not happen within {PATIENCE:?}"))
}
