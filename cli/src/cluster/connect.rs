//! From `--kubeconfig` and `--context` to a client.

use super::ClusterError;
use crate::args::ClusterArgs;
use k8s_openapi::NamespaceResourceScope;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use std::time::Duration;

/// An API server that takes longer to accept a connection is not there.
const CONNECT: Duration = Duration::from_secs(10);

/// A cluster that may be asked.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    /// The context's namespace.
    pub(crate) namespace: String,
    /// Where the API server is.
    pub(crate) server: String,
}

impl Cluster {
    /// Reads the kubeconfig as kubectl does: the flag, `KUBECONFIG`, `~/.kube/config`; inside a pod its service
    /// account. Nothing is asked yet.
    ///
    /// # Errors
    /// [`ClusterError::Config`] when there is none, or none that can be used.
    pub(crate) async fn connect(args: &ClusterArgs) -> Result<Self, ClusterError> {
        let wrong = |error: &dyn std::fmt::Display| ClusterError::Config(error.to_string());
        let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
        let mut config = match &args.kubeconfig {
            Some(file) => {
                let read = Kubeconfig::read_from(file).map_err(|error| wrong(&error))?;
                Config::from_custom_kubeconfig(read, &options).await.map_err(|error| wrong(&error))?
            }
            None if args.context.is_some() => {
                Config::from_kubeconfig(&options).await.map_err(|error| wrong(&error))?
            }
            None => Config::infer().await.map_err(|error| wrong(&error))?,
        };
        config.connect_timeout = Some(CONNECT);
        let (namespace, server) = (config.default_namespace.clone(), config.cluster_url.to_string());
        let client = Client::try_from(config).map_err(|error| wrong(&error))?;
        Ok(Self { client, namespace, server })
    }

    /// Objects of one namespace.
    pub(crate) fn within<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Objects of all namespaces, or of none.
    pub(crate) fn all<K>(&self) -> Api<K>
    where
        K: Resource,
        K::DynamicType: Default,
    {
        Api::all(self.client.clone())
    }
}
