//! Which resources depend on an object, as the index stands.

use super::{Index, ResourceKey};
use crate::objects::{EndpointSlice, Key, Kind, Name, Pod, matches};
use std::collections::BTreeSet;
use std::sync::Arc;

impl Index {
    pub(super) fn affected_by(&self, key: &Key, affected: &mut BTreeSet<ResourceKey>) {
        match key.kind {
            Kind::Pod => drop(affected.insert(ResourceKey::Workload(key.name.clone()))),
            // Its labels may enrol every pod in it.
            Kind::Namespace => {
                let pods = self.pods_in_namespace(&key.name.name).map(|pod| pod.name.clone());
                affected.extend(pods.map(ResourceKey::Workload));
                affected.insert(ResourceKey::Namespace(key.name.name.clone()));
            }
            // Its ports are in the workloads behind it.
            Kind::Service => {
                affected.insert(ResourceKey::Service(key.name.clone()));
                for slice in self.slices_by_service.get(&key.name).filter_map(|name| self.slices.get(name)) {
                    self.pods_in(slice, affected);
                }
            }
            Kind::EndpointSlice => {
                if let Some(slice) = self.slices.get(&key.name) {
                    self.pods_in(slice, affected);
                }
            }
            Kind::PeerAuthentication => self.affected_by_policy(&key.name, affected),
            Kind::Node | Kind::ServiceAccount => {}
        }
    }

    fn affected_by_policy(&self, name: &Name, affected: &mut BTreeSet<ResourceKey>) {
        let remarks =
            |name: &Name| ResourceKey::Remarks(Key { kind: Kind::PeerAuthentication, name: name.clone() });
        affected.insert(remarks(name));
        // Whoever was the oldest, or is now, hears of it.
        affected
            .extend(self.namespace_peer_authentication(&name.namespace).map(|oldest| remarks(&oldest.name)));
        let Some(policy) = self.peer_authentication(name) else { return };
        if policy.selector.is_empty() && self.roots.contains(&name.namespace) {
            affected.extend(self.pods.keys().cloned().map(ResourceKey::Workload));
        } else {
            let pods = self.pods_in_namespace(&name.namespace);
            let pods = pods.filter(|pod| matches(&policy.selector, &pod.labels));
            affected.extend(pods.map(|pod| ResourceKey::Workload(pod.name.clone())));
        }
    }

    fn pods_in_namespace<'a>(&'a self, namespace: &'a Arc<str>) -> impl Iterator<Item = &'a Arc<Pod>> {
        let pods = self.pods.range(Name::new(namespace.clone(), "")..);
        pods.take_while(|(name, _)| name.namespace == *namespace).map(|(_, pod)| pod)
    }

    fn pods_in(&self, slice: &EndpointSlice, affected: &mut BTreeSet<ResourceKey>) {
        for endpoint in &slice.endpoints {
            affected.extend(endpoint.pod.iter().cloned().map(ResourceKey::Workload));
            let at_address = endpoint.addresses.iter().flat_map(|ip| self.pods_by_ip.get(ip));
            affected.extend(at_address.cloned().map(ResourceKey::Workload));
        }
    }
}
