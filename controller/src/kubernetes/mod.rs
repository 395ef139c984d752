//! The connection to the API server, shared by those who talk to it: the source, the CA and the status.

mod call;

pub use call::CallError;
pub(crate) use call::{Body, Prepared, shorten};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// An API server that does not even accept a connection in this time is tried again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Which cluster, and who we are in it.
#[derive(Clone, Debug)]
pub struct KubernetesConfig {
    /// A kubeconfig file; without one the pod's own service account is used.
    pub kubeconfig: Option<PathBuf>,
    /// The controller's own namespace: the CA, the root for agents and the lease are there.
    pub namespace: String,
    /// This replica's name, unique among them: the pod's.
    pub instance: String,
    /// Read lists as streams where the API server offers that (Kubernetes 1.34); otherwise page by page.
    pub stream_lists: bool,
}

/// Why there is no way to talk to a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig can't be used.
    #[error("the kubeconfig {}: {error}", .path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: Box<kube::config::KubeconfigError>,
    },
    /// Not in a pod.
    #[error(
        "this is not a pod with a service account ({0}); give --kubeconfig, or --manifests for a directory"
    )]
    NotInCluster(#[from] Box<kube::config::InClusterError>),
    /// TLS or credentials.
    #[error("no client for the API server can be made: {0}")]
    Client(#[from] Box<kube::Error>),
}

/// A cluster that can be asked. Cloning is cheap.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: Arc<str>,
    instance: Arc<str>,
    stream_lists: bool,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("namespace", &self.namespace)
            .field("instance", &self.instance)
            .finish()
    }
}

impl Cluster {
    /// A client; the API server itself is not asked yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the configuration can't be used.
    pub async fn connect(config: &KubernetesConfig) -> Result<Self, ConnectError> {
        let mut client = match &config.kubeconfig {
            Some(path) => {
                let unusable =
                    |error| ConnectError::Kubeconfig { path: path.clone(), error: Box::new(error) };
                let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                    .await
                    .map_err(unusable)?
            }
            None => Config::incluster().map_err(Box::new)?,
        };
        client.connect_timeout = Some(CONNECT_TIMEOUT);
        // Every caller has its own deadline and its own patience.
        client.default_retry = false;
        Ok(Self {
            client: Client::try_from(client).map_err(Box::new)?,
            namespace: config.namespace.as_str().into(),
            instance: config.instance.as_str().into(),
            stream_lists: config.stream_lists,
        })
    }

    /// Through a client that somebody else has made, for who only reads.
    pub fn of(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.into(), instance: "warren".into(), stream_lists: false }
    }

    /// The controller's own namespace.
    pub(crate) fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    /// Whether lists may be streamed.
    pub(crate) fn streams_lists(&self) -> bool {
        self.stream_lists
    }

    /// This replica's name.
    pub(crate) fn instance(&self) -> &Arc<str> {
        &self.instance
    }
}
