//! From the index to what agents are told: workloads, services and enrolled namespaces. Pure.

mod enrolment;
mod peer_authentication;
mod service;
mod workload;

use crate::index::{Index, ResourceKey};
use crate::objects::Name;
use crate::source::Problem;
use std::sync::Arc;
use warren_common::model::ServiceName;
use warren_common::proto::{ADDRESS_TYPE_URL, MeshResource, NAMESPACE_TYPE_URL};

/// Names that every resource of this cluster carries.
#[derive(Clone, Debug)]
pub struct ResolveConfig {
    /// Cluster id, for example `Kubernetes`.
    pub cluster: Arc<str>,
    /// DNS suffix of services, for example `cluster.local`.
    pub cluster_domain: Arc<str>,
    /// Trust domain of identities, for example `cluster.local`.
    pub trust_domain: Arc<str>,
}

/// What agents are told of, by type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A workload or a service.
    Address(MeshResource),
    /// The name of an enrolled namespace.
    Namespace(Arc<str>),
}

/// What became of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Its type on the wire.
    pub type_url: &'static str,
    /// Its name on the wire, also when there is none (any more).
    pub name: String,
    /// The resource, unless its objects are gone or do not make one.
    pub resource: Option<Resource>,
    /// What could not be applied; the rest of the resource does.
    pub problems: Vec<Problem>,
}

/// Resolves one resource.
pub fn resolve(index: &Index, config: &ResolveConfig, key: &ResourceKey) -> Resolved {
    let mut problems = Vec::new();
    let (type_url, name, resource) = match key {
        ResourceKey::Workload(pod) => {
            let workload =
                index.pod(pod).and_then(|pod| workload::workload(index, config, pod, &mut problems));
            let address = workload.map(|workload| MeshResource::Workload(Box::new(workload)));
            (ADDRESS_TYPE_URL, config.workload_uid(pod), address.map(Resource::Address))
        }
        ResourceKey::Service(name) => {
            let service = index.service(name).and_then(|service| service::service(config, service));
            let address = service.map(|service| MeshResource::Service(Box::new(service)));
            (ADDRESS_TYPE_URL, config.service_name(name).to_string(), address.map(Resource::Address))
        }
        ResourceKey::Namespace(name) => {
            let enrolled = enrolment::namespace(index, name, &mut problems);
            (NAMESPACE_TYPE_URL, name.to_string(), enrolled.then(|| Resource::Namespace(name.clone())))
        }
        ResourceKey::Remarks(key) => {
            problems = peer_authentication::remarks(index, &key.name);
            // Nothing is ever published under this name.
            (ADDRESS_TYPE_URL, key.to_string(), None)
        }
    };
    Resolved { type_url, name, resource, problems }
}

impl ResolveConfig {
    /// `<cluster>//Pod/<namespace>/<name>`: group and kind of the core API, as ztunnel's control plane names them.
    fn workload_uid(&self, pod: &Name) -> String {
        format!("{}//Pod/{}/{}", self.cluster, pod.namespace, pod.name)
    }

    fn service_name(&self, service: &Name) -> ServiceName {
        let hostname = format!("{}.{}.svc.{}", service.name, service.namespace, self.cluster_domain);
        ServiceName { namespace: service.namespace.clone(), hostname: hostname.into() }
    }
}

#[cfg(test)]
mod membership_tests;
#[cfg(test)]
mod peer_authentication_tests;
#[cfg(test)]
mod tests;
