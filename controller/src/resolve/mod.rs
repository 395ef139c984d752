//! From the index to what agents are told: workloads, services, policies and enrolled namespaces. Pure.

mod authorization_policy;
mod enrolment;
mod external;
pub mod findings;
mod host;
mod locality;
mod peer_authentication;
mod plaintext_policy;
mod route_status;
mod service;
mod traffic;
mod workload;

pub(crate) use enrolment::meshed_nodes;

pub use route_status::{Condition, ParentStatus, route_status};

use crate::index::{Index, ResourceKey};
use crate::objects::{EntryAddress, Key, Kind, Name};
use crate::source::Problem;
use std::net::IpAddr;
use std::sync::Arc;
use warren_common::model::traffic::Traffic;
use warren_common::model::{AuthorizationPolicy, CONVERTED_PREFIX, ServiceName, Workload};
use warren_common::proto::{
    ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL, MeshResource, NAMESPACE_TYPE_URL, TRAFFIC_TYPE_URL,
    traffic_name,
};

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
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// A workload or a service.
    Address(MeshResource),
    /// The name of an enrolled namespace.
    Namespace(Arc<str>),
    /// A policy.
    Authorization(Box<AuthorizationPolicy>),
    /// Routes and policies of the traffic to a service.
    Traffic(Box<Traffic>),
}

/// What became of a resource.
#[derive(Clone, Debug, PartialEq)]
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
        ResourceKey::Service(name) => of_host(index, config, &config.service_name(name)),
        ResourceKey::Host(name) => {
            let host = ServiceName { namespace: name.namespace.clone(), hostname: name.name.clone() };
            of_host(index, config, &host)
        }
        ResourceKey::Endpoint(service, ip) => {
            let workload = external::endpoint(index, config, service, *ip, &mut problems);
            external(config.endpoint_uid(service, *ip), workload)
        }
        ResourceKey::Listed(entry, address) => {
            let workload = external::listed(index, config, entry, address, &mut problems);
            external(config.listed_uid(entry, address), workload)
        }
        ResourceKey::WorkloadEntry(name) => {
            let key = Key { kind: Kind::WorkloadEntry, name: name.clone() };
            problems = findings::problems(index, config, &key);
            let workload = external::workload_entry(index, config, name, &mut problems);
            external(config.workload_entry_uid(name), workload)
        }
        ResourceKey::Namespace(name) => {
            let enrolled = enrolment::namespace(index, name, &mut problems);
            (NAMESPACE_TYPE_URL, name.to_string(), enrolled.then(|| Resource::Namespace(name.clone())))
        }
        ResourceKey::AuthorizationPolicy(name) => {
            let policy = authorization_policy::policy(index, config, name, &mut problems);
            authorization(name.to_string(), policy)
        }
        ResourceKey::PortPolicy(name) => {
            let policy = plaintext_policy::of_ports(index, name);
            authorization(format!("{}/{CONVERTED_PREFIX}{}", name.namespace, name.name), policy)
        }
        ResourceKey::StrictPolicy => {
            let name = plaintext_policy::strict_name(index).map(|name| name.to_string());
            authorization(name.unwrap_or_default(), plaintext_policy::strict(index))
        }
        ResourceKey::Traffic(service) => {
            let traffic = traffic::traffic(index, config, service);
            let resource = traffic.map(|traffic| Resource::Traffic(Box::new(traffic)));
            (TRAFFIC_TYPE_URL, traffic_name(service), resource)
        }
        ResourceKey::Remarks(key) => {
            problems = match key.kind {
                Kind::PeerAuthentication => peer_authentication::remarks(index, &key.name),
                Kind::ServiceEntry => {
                    let of_fields = findings::problems(index, config, key);
                    of_fields.into_iter().chain(host::remarks(index, config, &key.name)).collect()
                }
                _ => findings::problems(index, config, key),
            };
            // Nothing is ever published under this name.
            (ADDRESS_TYPE_URL, key.to_string(), None)
        }
    };
    Resolved { type_url, name, resource, problems }
}

type Named = (&'static str, String, Option<Resource>);

fn authorization(name: String, policy: Option<AuthorizationPolicy>) -> Named {
    (AUTHORIZATION_TYPE_URL, name, policy.map(|policy| Resource::Authorization(Box::new(policy))))
}

fn of_host(index: &Index, config: &ResolveConfig, host: &ServiceName) -> Named {
    let service = host::resolve(index, config, host).map(|service| MeshResource::Service(Box::new(service)));
    (ADDRESS_TYPE_URL, host.to_string(), service.map(Resource::Address))
}

fn external(uid: String, workload: Option<Workload>) -> Named {
    let workload = workload.map(|workload| MeshResource::Workload(Box::new(workload)));
    (ADDRESS_TYPE_URL, uid, workload.map(Resource::Address))
}

impl ResolveConfig {
    /// `<cluster>//Pod/<namespace>/<name>`: group and kind of the core API, as ztunnel's control plane names them.
    fn workload_uid(&self, pod: &Name) -> String {
        format!("{}//Pod/{}/{}", self.cluster, pod.namespace, pod.name)
    }

    fn endpoint_uid(&self, service: &Name, ip: IpAddr) -> String {
        format!("{}/discovery.k8s.io/EndpointSlice/{}/{}/{ip}", self.cluster, service.namespace, service.name)
    }

    fn listed_uid(&self, entry: &Name, address: &EntryAddress) -> String {
        format!(
            "{}/networking.istio.io/ServiceEntry/{}/{}/{address}",
            self.cluster, entry.namespace, entry.name
        )
    }

    fn workload_entry_uid(&self, entry: &Name) -> String {
        format!("{}/networking.istio.io/WorkloadEntry/{}/{}", self.cluster, entry.namespace, entry.name)
    }

    fn service_name(&self, service: &Name) -> ServiceName {
        let hostname = format!("{}.{}.svc.{}", service.name, service.namespace, self.cluster_domain);
        ServiceName { namespace: service.namespace.clone(), hostname: hostname.into() }
    }
}

#[cfg(test)]
mod authorization_policy_tests;
#[cfg(test)]
mod entry_tests;
#[cfg(test)]
mod membership_tests;
#[cfg(test)]
mod peer_authentication_tests;
#[cfg(test)]
mod service_tests;
#[cfg(test)]
pub(crate) mod tests;
