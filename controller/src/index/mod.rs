//! What is known of the cluster, arranged for the questions that resolving asks. Pure and deterministic.

mod affected;
mod affected_traffic;
mod attached;
mod authorization_policies;
mod entries;
pub mod hosts;
mod peer_authentications;
mod reverse;
mod traffic;
mod unseen;

pub use peer_authentications::RootNamespaces;
pub use unseen::Unseen;

use crate::objects::{
    AuthorizationPolicy, DestinationRule, EndpointSlice, EntryAddress, Key, Kind, Map, Name, Namespace,
    Object, PeerAuthentication, Plain, Pod, RankedMatch, ReferenceGrant, Route, Service, ServiceEntry,
    VirtualService, WorkloadEntry,
};
use crate::source::Change;
use authorization_policies::AuthorizationPolicies;
use entries::Entries;
use peer_authentications::PeerAuthentications;
use reverse::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use traffic::TrafficObjects;
use warren_common::model::ServiceName;

/// A resource that agents may have to be told about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKey {
    /// The workload of a pod.
    Workload(Name),
    /// A service.
    Service(Name),
    /// A host of a namespace, to which ServiceEntries may give a service: namespace and host.
    Host(Name),
    /// An address that a service's slices name and that is no pod's.
    Endpoint(Name, IpAddr),
    /// An endpoint that a ServiceEntry lists.
    Listed(Name, EntryAddress),
    /// The workload of a WorkloadEntry.
    WorkloadEntry(Name),
    /// A namespace, as far as it enrols its pods.
    Namespace(Arc<str>),
    /// An AuthorizationPolicy.
    AuthorizationPolicy(Name),
    /// A PeerAuthentication with ports of its own, as a policy: for agents that know no PeerAuthentications.
    PortPolicy(Name),
    /// The policy that refuses all plaintext, for the same agents.
    StrictPolicy,
    /// Routes and policies of the traffic to a service.
    Traffic(ServiceName),
    /// No resource of its own: what is to be said about an object that shapes others.
    Remarks(Key),
}

/// Every object, and who refers to whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    roots: RootNamespaces,
    /// DNS suffix of services.
    domain: Arc<str>,
    namespaces: BTreeMap<Arc<str>, Arc<Namespace>>,
    nodes: BTreeMap<Arc<str>, Arc<Plain>>,
    pods: BTreeMap<Name, Arc<Pod>>,
    services: BTreeMap<Name, Arc<Service>>,
    slices: BTreeMap<Name, Arc<EndpointSlice>>,
    pods_by_node: Reverse<Arc<str>>,
    pods_by_ip: Reverse<IpAddr>,
    slices_by_service: Reverse<Name>,
    slices_by_pod: Reverse<Name>,
    slices_by_ip: Reverse<IpAddr>,
    /// Only of endpoints that are no pods: pods have their node themselves.
    slices_by_node: Reverse<Arc<str>>,
    peer_authentications: PeerAuthentications,
    authorization_policies: AuthorizationPolicies,
    entries: Entries,
    traffic: TrafficObjects,
}

impl Default for Index {
    /// With the default root namespaces and the domain `cluster.local`.
    fn default() -> Self {
        Self::new(RootNamespaces::default(), "cluster.local".into())
    }
}

impl Index {
    /// An empty index. Services' names end with `domain`.
    pub fn new(roots: RootNamespaces, domain: Arc<str>) -> Self {
        Self {
            roots,
            domain,
            namespaces: BTreeMap::new(),
            nodes: BTreeMap::new(),
            pods: BTreeMap::new(),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            pods_by_node: Reverse::default(),
            pods_by_ip: Reverse::default(),
            slices_by_service: Reverse::default(),
            slices_by_pod: Reverse::default(),
            slices_by_ip: Reverse::default(),
            slices_by_node: Reverse::default(),
            peer_authentications: PeerAuthentications::default(),
            authorization_policies: AuthorizationPolicies::default(),
            entries: Entries::default(),
            traffic: TrafficObjects::default(),
        }
    }

    /// Takes a change in and says which resources may look different now.
    pub fn apply(&mut self, change: &Change) -> BTreeSet<ResourceKey> {
        let key = change.key();
        if matches!(change, Change::Upsert(object) if self.has(object)) {
            // Nodes' heartbeats, pods' conditions that are none of ours, a whole list read again: most of what comes.
            return BTreeSet::new();
        }
        if let Change::Refused(key, refused) = change {
            self.traffic.refuse_route(key.kind, &key.name, refused);
            // Its last good version holds as it did.
            return BTreeSet::new();
        }
        let mut affected = BTreeSet::new();
        // What referred to it before, and what refers to it after.
        self.affected_by(&key, &mut affected);
        self.remove(key.kind, &key.name);
        if let Change::Upsert(object) = change {
            self.insert(object);
        }
        self.affected_by(&key, &mut affected);
        affected
    }

    /// A pod.
    pub fn pod(&self, name: &Name) -> Option<&Pod> {
        self.pods.get(name).map(AsRef::as_ref)
    }

    /// Every pod, in the order of their names.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values().map(AsRef::as_ref)
    }

    /// A service.
    pub fn service(&self, name: &Name) -> Option<&Service> {
        self.services.get(name).map(AsRef::as_ref)
    }

    /// The labels of a namespace; none when there is no such object.
    pub fn namespace_labels(&self, name: &str) -> Option<&Map> {
        self.namespaces.get(name).map(|namespace| &namespace.labels)
    }

    /// The labels of a node; none when there is no such object.
    pub fn node_labels(&self, name: &str) -> Option<&Map> {
        self.nodes.get(name).map(|node| &node.labels)
    }

    /// Slices of a service, in the order of their names.
    pub fn slices_of_service(&self, service: &Name) -> impl Iterator<Item = &EndpointSlice> {
        self.slices_by_service.get(service).filter_map(|name| self.slices.get(name)).map(AsRef::as_ref)
    }

    /// Pods that have an address, in the order of their names.
    pub fn pods_at<'a>(&'a self, ip: &IpAddr) -> impl Iterator<Item = &'a Pod> + use<'a> {
        self.pods_by_ip.get(ip).filter_map(|name| self.pod(name))
    }

    /// A ServiceEntry.
    pub fn service_entry(&self, name: &Name) -> Option<&ServiceEntry> {
        self.entries.service(name)
    }

    /// Every ServiceEntry, in the order of their names.
    pub fn service_entries(&self) -> impl Iterator<Item = &ServiceEntry> {
        self.entries.all_services()
    }

    /// The ServiceEntry that counts for a host of a namespace: the oldest.
    pub fn service_entry_of_host(&self, host: &Name) -> Option<&ServiceEntry> {
        self.entries.of_host(host)
    }

    /// ServiceEntries that select a workload of a namespace by its labels.
    pub fn selecting_service_entries<'a>(
        &'a self,
        namespace: &str,
        labels: &'a Map,
    ) -> impl Iterator<Item = &'a ServiceEntry> {
        self.entries.selecting(namespace, labels)
    }

    /// A WorkloadEntry.
    pub fn workload_entry(&self, name: &Name) -> Option<&WorkloadEntry> {
        self.entries.workload(name)
    }

    /// Every WorkloadEntry, in the order of their names.
    pub fn workload_entries(&self) -> impl Iterator<Item = &WorkloadEntry> {
        self.entries.all_workloads()
    }

    /// Pods bound to a node, in the order of their names.
    pub fn pods_on_node(&self, node: &str) -> impl Iterator<Item = &Pod> {
        self.pods_by_node.get(node).filter_map(|name| self.pod(name))
    }

    /// Slices that name the pod or one of its addresses, in the order of their names.
    pub fn slices_of(&self, pod: &Pod) -> Vec<&EndpointSlice> {
        let by_ip = pod.addresses.iter().flat_map(|ip| self.slices_by_ip.get(ip));
        let names: BTreeSet<&Name> = self.slices_by_pod.get(&pod.name).chain(by_ip).collect();
        names.into_iter().filter_map(|name| self.slices.get(name)).map(AsRef::as_ref).collect()
    }

    /// Namespaces whose objects may hold for the whole mesh.
    pub fn root_namespaces(&self) -> &RootNamespaces {
        &self.roots
    }

    /// A PeerAuthentication.
    pub fn peer_authentication(&self, name: &Name) -> Option<&PeerAuthentication> {
        self.peer_authentications.get(name)
    }

    /// The PeerAuthentication of the whole mesh.
    pub fn mesh_peer_authentication(&self) -> Option<&PeerAuthentication> {
        self.roots.0.iter().find_map(|root| self.namespace_peer_authentication(root))
    }

    /// The PeerAuthentication of a whole namespace.
    pub fn namespace_peer_authentication(&self, namespace: &str) -> Option<&PeerAuthentication> {
        self.peer_authentications.of_namespace(namespace)
    }

    /// The PeerAuthentication that selects a pod of a namespace by these labels. Those of a root namespace
    /// select nothing.
    pub fn selecting_peer_authentication(
        &self,
        namespace: &str,
        labels: &Map,
    ) -> Option<&PeerAuthentication> {
        let of_root = self.roots.contains(namespace);
        self.peer_authentications.selecting(namespace, labels).filter(|_| !of_root)
    }

    /// An AuthorizationPolicy.
    pub fn authorization_policy(&self, name: &Name) -> Option<&AuthorizationPolicy> {
        self.authorization_policies.get(name)
    }

    /// AuthorizationPolicies that select a pod of a namespace by its labels: those of the namespace, and those of root
    /// namespaces.
    pub fn selecting_authorization_policies<'a>(
        &'a self,
        namespace: &'a Arc<str>,
        labels: &'a Map,
    ) -> impl Iterator<Item = &'a AuthorizationPolicy> {
        let roots = self.roots.0.iter().filter(move |root| *root != namespace);
        let namespaces = std::iter::once(namespace).chain(roots);
        namespaces.flat_map(|namespace| self.authorization_policies.selecting(namespace, labels))
    }

    /// AuthorizationPolicies that are attached to a service.
    pub fn attached_authorization_policies(
        &self,
        service: &Name,
    ) -> impl Iterator<Item = &AuthorizationPolicy> {
        self.authorization_policies.attached(service)
    }

    /// Whether there is any PeerAuthentication.
    pub fn has_peer_authentications(&self) -> bool {
        !self.peer_authentications.is_empty()
    }

    /// The full name of a host that an object of `namespace` names.
    pub fn full_name(&self, host: &Arc<str>, namespace: &str) -> Arc<str> {
        hosts::full_name(host, namespace, &self.domain)
    }

    /// A VirtualService.
    pub fn virtual_service(&self, name: &Name) -> Option<&VirtualService> {
        self.traffic.virtual_service(name)
    }

    /// All VirtualServices, in the order of their names.
    pub fn virtual_services(&self) -> impl Iterator<Item = &VirtualService> {
        self.traffic.virtual_services()
    }

    /// VirtualServices for clients in the mesh that hold a host, for each of their patterns, the most specific first.
    pub fn virtual_services_of<'a>(
        &'a self,
        host: &'a str,
    ) -> impl Iterator<Item = (String, Vec<&'a VirtualService>)> {
        self.traffic.virtual_services_of(host)
    }

    /// VirtualServices that delegate to one.
    pub fn delegating_to<'a>(&'a self, name: &Name) -> impl Iterator<Item = &'a VirtualService> {
        self.traffic.delegating_to(name)
    }

    /// A DestinationRule.
    pub fn destination_rule(&self, name: &Name) -> Option<&DestinationRule> {
        self.traffic.destination_rule(name)
    }

    /// All DestinationRules, in the order of their names.
    pub fn destination_rules(&self) -> impl Iterator<Item = &DestinationRule> {
        self.traffic.destination_rules()
    }

    /// DestinationRules that hold a host, for each of their patterns, the most specific first.
    pub fn destination_rules_of<'a>(
        &'a self,
        host: &'a str,
    ) -> impl Iterator<Item = (String, Vec<&'a DestinationRule>)> {
        self.traffic.destination_rules_of(host)
    }

    /// A route of the Gateway API.
    pub fn route(&self, kind: Kind, name: &Name) -> Option<&Route> {
        self.traffic.route(kind, name)
    }

    /// All routes of the Gateway API, in the order of their kinds and names.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.traffic.routes()
    }

    /// Routes of the Gateway API that are attached to a service.
    pub fn routes_of<'a>(&'a self, service: &Name) -> impl Iterator<Item = &'a Route> {
        self.traffic.routes_of(service)
    }

    /// Of the routes of a kind and namespace that can be used and are attached to a port of a service, the one that comes
    /// first: of all of them, or of those that have a match.
    pub fn first_route(
        &self,
        service: &Service,
        port: u16,
        namespace: &Arc<str>,
        kind: Kind,
        with: Option<&RankedMatch>,
    ) -> Option<&Route> {
        self.traffic.first_route(service, port, namespace, kind, with)
    }

    /// A ReferenceGrant.
    pub fn reference_grant(&self, name: &Name) -> Option<&ReferenceGrant> {
        self.traffic.grant(name)
    }

    /// What identifies every object of which something may have to be said: all but those that Kubernetes alone makes sense of.
    pub fn keys(&self) -> Vec<Key> {
        fn of<'a>(kind: Kind, names: impl Iterator<Item = &'a Name>) -> impl Iterator<Item = Key> {
            names.map(move |name| Key { kind, name: name.clone() })
        }
        let namespaces = self.namespaces.keys();
        let namespaces =
            namespaces.map(|name| Key { kind: Kind::Namespace, name: Name::new("", name.clone()) });
        let all = namespaces
            .chain(of(Kind::Pod, self.pods.keys()))
            .chain(of(Kind::PeerAuthentication, self.peer_authentications.names()))
            .chain(of(Kind::AuthorizationPolicy, self.authorization_policies.names()))
            .chain(of(Kind::ServiceEntry, self.entries.service_names()))
            .chain(of(Kind::WorkloadEntry, self.entries.workload_names()))
            .chain(of(Kind::VirtualService, self.virtual_services().map(|service| &service.name)))
            .chain(of(Kind::DestinationRule, self.destination_rules().map(|rule| &rule.name)))
            .chain(self.routes().map(|route| Key { kind: route.kind, name: route.name.clone() }))
            .chain(of(Kind::ReferenceGrant, self.traffic.grant_names()));
        all.collect()
    }

    /// How many pods and services there are.
    pub fn len(&self) -> (usize, usize) {
        (self.pods.len(), self.services.len())
    }

    /// Whether an object is here already, just like that.
    fn has(&self, object: &Object) -> bool {
        fn same<T: PartialEq>(known: Option<&Arc<T>>, object: &T) -> bool {
            known.is_some_and(|known| **known == *object)
        }
        match object {
            Object::Namespace(namespace) => same(self.namespaces.get(&namespace.name), namespace),
            Object::Node(node) => same(self.nodes.get(&node.name.name), node),
            Object::Pod(pod) => same(self.pods.get(&pod.name), pod),
            Object::Service(service) => same(self.services.get(&service.name), service),
            Object::EndpointSlice(slice) => same(self.slices.get(&slice.name), slice),
            // Few and rarely read again.
            _ => false,
        }
    }

    fn insert(&mut self, object: &Object) {
        match object {
            Object::Namespace(namespace) => {
                self.namespaces.insert(namespace.name.clone(), Arc::new(namespace.clone()));
            }
            Object::Pod(pod) => {
                self.pods_by_node.insert_all([&pod.node], &pod.name);
                self.pods_by_ip.insert_all(&pod.addresses, &pod.name);
                self.pods.insert(pod.name.clone(), Arc::new(pod.clone()));
            }
            Object::Service(service) => {
                self.services.insert(service.name.clone(), Arc::new(service.clone()));
            }
            Object::EndpointSlice(slice) => {
                let endpoints = || slice.endpoints.iter();
                self.slices_by_service.insert_all(&slice.service, &slice.name);
                self.slices_by_pod.insert_all(endpoints().filter_map(|e| e.pod.as_ref()), &slice.name);
                self.slices_by_ip.insert_all(endpoints().flat_map(|e| &e.addresses), &slice.name);
                self.slices_by_node.insert_all(nodes(slice), &slice.name);
                self.slices.insert(slice.name.clone(), Arc::new(slice.clone()));
            }
            Object::PeerAuthentication(policy) => self.peer_authentications.insert(policy),
            Object::AuthorizationPolicy(policy) => self.authorization_policies.insert(policy),
            Object::ServiceEntry(entry) => self.entries.insert_service(entry),
            Object::WorkloadEntry(entry) => self.entries.insert_workload(entry),
            Object::VirtualService(service) => self.traffic.insert_virtual_service(service, &self.domain),
            Object::DestinationRule(rule) => self.traffic.insert_destination_rule(rule, &self.domain),
            Object::Route(route) => self.traffic.insert_route(route),
            Object::ReferenceGrant(grant) => self.traffic.insert_grant(grant),
            Object::Node(node) => {
                self.nodes.insert(node.name.name.clone(), Arc::new(node.clone()));
            }
            // Nothing is resolved from these yet.
            Object::ServiceAccount(_) => {}
        }
    }

    fn remove(&mut self, kind: Kind, name: &Name) {
        match kind {
            Kind::Namespace => drop(self.namespaces.remove(&name.name)),
            Kind::Service => drop(self.services.remove(name)),
            Kind::Pod => {
                if let Some(pod) = self.pods.remove(name) {
                    self.pods_by_node.remove_all([&pod.node], name);
                    self.pods_by_ip.remove_all(&pod.addresses, name);
                }
            }
            Kind::EndpointSlice => {
                if let Some(slice) = self.slices.remove(name) {
                    let endpoints = || slice.endpoints.iter();
                    self.slices_by_service.remove_all(&slice.service, name);
                    self.slices_by_pod.remove_all(endpoints().filter_map(|e| e.pod.as_ref()), name);
                    self.slices_by_ip.remove_all(endpoints().flat_map(|e| &e.addresses), name);
                    self.slices_by_node.remove_all(nodes(&slice), name);
                }
            }
            Kind::PeerAuthentication => self.peer_authentications.remove(name),
            Kind::AuthorizationPolicy => self.authorization_policies.remove(name),
            Kind::ServiceEntry => self.entries.remove_service(name),
            Kind::WorkloadEntry => self.entries.remove_workload(name),
            Kind::VirtualService => self.traffic.remove_virtual_service(name, &self.domain),
            Kind::DestinationRule => self.traffic.remove_destination_rule(name, &self.domain),
            Kind::HTTPRoute | Kind::GRPCRoute | Kind::TLSRoute | Kind::TCPRoute => {
                self.traffic.remove_route(kind, name);
            }
            Kind::ReferenceGrant => self.traffic.remove_grant(name),
            Kind::Node => drop(self.nodes.remove(&name.name)),
            Kind::ServiceAccount => {}
        }
    }
}

/// Nodes of a slice's endpoints that are no pods.
fn nodes(slice: &EndpointSlice) -> impl Iterator<Item = &Arc<str>> {
    let foreign = slice.endpoints.iter().filter(|endpoint| endpoint.pod.is_none());
    foreign.map(|endpoint| &endpoint.node).filter(|node| !node.is_empty())
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod traffic_tests;
