//! Which resources depend on an object, as the index stands.

use super::{Index, ResourceKey};
use crate::objects::{
    AuthorizationPolicy, EndpointSlice, EntryEndpoints, Key, Kind, Name, Pod, ServiceEntry, matches,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use warren_common::model::ServiceName;

impl Index {
    pub(super) fn affected_by(&self, key: &Key, affected: &mut BTreeSet<ResourceKey>) {
        match key.kind {
            Kind::Pod => {
                affected.insert(ResourceKey::Workload(key.name.clone()));
                // What a slice names without a reference is a pod's address, or nobody's.
                let addresses = self.pods.get(&key.name).into_iter().flat_map(|pod| &pod.addresses);
                for ip in addresses {
                    let slices = self.slices_by_ip.get(ip).filter_map(|name| self.slices.get(name));
                    let services = slices.filter_map(|slice| slice.service.clone());
                    affected.extend(services.map(|service| ResourceKey::Endpoint(service, *ip)));
                }
            }
            // Its labels may enrol every pod in it.
            Kind::Namespace => {
                let pods = self.pods_in_namespace(&key.name.name).map(|pod| pod.name.clone());
                affected.extend(pods.map(ResourceKey::Workload));
                affected.insert(ResourceKey::Namespace(key.name.name.clone()));
            }
            // Its ports are in the workloads behind it.
            Kind::Service => {
                affected.insert(ResourceKey::Service(key.name.clone()));
                self.attached_to(&key.name, affected);
                for slice in self.slices_by_service.get(&key.name).filter_map(|name| self.slices.get(name)) {
                    self.members(slice, affected);
                }
                // One of the same name stands back behind it.
                let host = format!("{}.{}.svc.", key.name.name, key.name.namespace);
                for entry in self.entries.of_hosts_from(&key.name.namespace, &host) {
                    self.members_of_entry(entry, affected);
                }
                self.affected_by_service(&self.kubernetes_name(&key.name), affected);
            }
            Kind::EndpointSlice => {
                if let Some(slice) = self.slices.get(&key.name) {
                    self.members(slice, affected);
                    slice.service.iter().for_each(|service| self.attached_to(service, affected));
                }
            }
            Kind::PeerAuthentication => self.affected_by_policy(&key.name, affected),
            Kind::AuthorizationPolicy => self.affected_by_authorization(&key.name, affected),
            Kind::ServiceEntry => self.affected_by_entry(&key.name, affected),
            Kind::WorkloadEntry => drop(affected.insert(ResourceKey::WorkloadEntry(key.name.clone()))),
            Kind::VirtualService => self.affected_by_virtual_service(&key.name, affected),
            Kind::DestinationRule => self.affected_by_destination_rule(&key.name, affected),
            Kind::HTTPRoute | Kind::GRPCRoute | Kind::TLSRoute | Kind::TCPRoute => {
                self.affected_by_route(key.kind, &key.name, affected);
            }
            // Routes of the mesh need no leave.
            Kind::ReferenceGrant => {
                affected.insert(ResourceKey::Remarks(key.clone()));
            }
            // Where its pods are.
            Kind::Node => {
                let pods = self.pods_by_node.get(&key.name.name);
                affected.extend(pods.cloned().map(ResourceKey::Workload));
                let slices = self.slices_by_node.get(&key.name.name).filter_map(|name| self.slices.get(name));
                for slice in slices {
                    self.members(slice, affected);
                }
            }
            Kind::ServiceAccount => {}
        }
    }

    fn affected_by_policy(&self, name: &Name, affected: &mut BTreeSet<ResourceKey>) {
        let remarks =
            |name: &Name| ResourceKey::Remarks(Key { kind: Kind::PeerAuthentication, name: name.clone() });
        affected.extend([remarks(name), ResourceKey::PortPolicy(name.clone()), ResourceKey::StrictPolicy]);
        // Whoever was the oldest, or is now, hears of it.
        affected
            .extend(self.namespace_peer_authentication(&name.namespace).map(|oldest| remarks(&oldest.name)));
        let Some(policy) = self.peer_authentication(name) else { return };
        let is_mesh_wide = policy.selector.is_empty() && self.roots.contains(&name.namespace);
        if policy.selector.is_empty() {
            // What their ports inherit.
            let namespace = (!is_mesh_wide).then_some(&*name.namespace);
            let inheriting = self.peer_authentications.with_ports(namespace);
            affected.extend(inheriting.cloned().map(ResourceKey::PortPolicy));
        }
        if is_mesh_wide {
            affected.extend(self.pods.keys().cloned().map(ResourceKey::Workload));
        } else {
            let pods = self.pods_in_namespace(&name.namespace);
            let pods = pods.filter(|pod| matches(&policy.selector, &pod.labels));
            affected.extend(pods.map(|pod| ResourceKey::Workload(pod.name.clone())));
        }
    }

    fn affected_by_authorization(&self, name: &Name, affected: &mut BTreeSet<ResourceKey>) {
        affected.insert(ResourceKey::AuthorizationPolicy(name.clone()));
        for service in self.authorization_policy(name).into_iter().flat_map(AuthorizationPolicy::services) {
            for slice in self.slices_by_service.get(&service).filter_map(|name| self.slices.get(name)) {
                self.members(slice, affected);
            }
        }
        // The others apply by their scope: no pod names them.
        let Some(selector) = self.authorization_policy(name).and_then(AuthorizationPolicy::selector) else {
            return;
        };
        let selected = |pod: &&Arc<Pod>| matches(selector, &pod.labels);
        let key = |pod: &Arc<Pod>| ResourceKey::Workload(pod.name.clone());
        if self.roots.contains(&name.namespace) {
            affected.extend(self.pods.values().filter(selected).map(key));
        } else {
            affected.extend(self.pods_in_namespace(&name.namespace).filter(selected).map(key));
        }
    }

    /// Policies that have the ports of a service.
    fn attached_to(&self, service: &Name, affected: &mut BTreeSet<ResourceKey>) {
        let policies = self.attached_authorization_policies(service);
        affected.extend(policies.map(|policy| ResourceKey::AuthorizationPolicy(policy.name.clone())));
    }

    fn pods_in_namespace<'a>(&'a self, namespace: &'a Arc<str>) -> impl Iterator<Item = &'a Arc<Pod>> {
        let pods = self.pods.range(Name::new(namespace.clone(), "")..);
        pods.take_while(|(name, _)| name.namespace == *namespace).map(|(_, pod)| pod)
    }

    fn affected_by_entry(&self, name: &Name, affected: &mut BTreeSet<ResourceKey>) {
        affected.insert(ResourceKey::Remarks(Key { kind: Kind::ServiceEntry, name: name.clone() }));
        let Some(entry) = self.service_entry(name) else { return };
        for host in &entry.hosts {
            let service = ServiceName { namespace: name.namespace.clone(), hostname: host.clone() };
            self.affected_by_service(&service, affected);
        }
        self.members_of_entry(entry, affected);
        // Whoever counts for one of its hosts, and whoever would without it.
        for host in &entry.hosts {
            let host = Name::new(name.namespace.clone(), host.clone());
            let others = self.entries.contenders(&host).take(2).filter(|other| other.name != *name);
            others.for_each(|other| self.members_of_entry(other, affected));
        }
    }

    fn members_of_entry(&self, entry: &ServiceEntry, affected: &mut BTreeSet<ResourceKey>) {
        let namespace = &entry.name.namespace;
        affected.insert(ResourceKey::Remarks(Key { kind: Kind::ServiceEntry, name: entry.name.clone() }));
        let hosts = entry.hosts.iter().map(|host| Name::new(namespace.clone(), host.clone()));
        affected.extend(hosts.map(ResourceKey::Host));
        let listed = entry.listed().into_iter().map(|(endpoint, _)| endpoint.address);
        affected.extend(listed.map(|address| ResourceKey::Listed(entry.name.clone(), address)));
        if let EntryEndpoints::Selected(selector) = &entry.endpoints {
            let pods = self.pods_in_namespace(namespace).filter(|pod| matches(selector, &pod.labels));
            affected.extend(pods.map(|pod| ResourceKey::Workload(pod.name.clone())));
            let others = self.entries.workloads_in(namespace);
            let others = others.filter(|other| matches(selector, &other.endpoint.labels));
            affected.extend(others.map(|other| ResourceKey::WorkloadEntry(other.name.clone())));
        }
    }

    /// Pods and addresses that a slice names.
    fn members(&self, slice: &EndpointSlice, affected: &mut BTreeSet<ResourceKey>) {
        for endpoint in &slice.endpoints {
            if let (Some(service), None) = (&slice.service, &endpoint.pod) {
                let addresses = endpoint.addresses.iter();
                affected.extend(addresses.map(|ip| ResourceKey::Endpoint(service.clone(), *ip)));
            }
            affected.extend(endpoint.pod.iter().cloned().map(ResourceKey::Workload));
            let at_address = endpoint.addresses.iter().flat_map(|ip| self.pods_by_ip.get(ip));
            affected.extend(at_address.cloned().map(ResourceKey::Workload));
        }
    }
}
