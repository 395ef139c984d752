//! Which resources depend on an object, as the index stands.

use super::{Index, ResourceKey};
use crate::objects::{EndpointSlice, Key, Kind, Name};
use std::collections::BTreeSet;

impl Index {
    pub(super) fn affected_by(&self, key: &Key, affected: &mut BTreeSet<ResourceKey>) {
        match key.kind {
            Kind::Pod => drop(affected.insert(ResourceKey::Workload(key.name.clone()))),
            // Its labels may enrol every pod in it.
            Kind::Namespace => {
                let first = Name::new(key.name.name.clone(), "");
                let pods = self.pods.range(first..).map(|(name, _)| name);
                let pods = pods.take_while(|name| name.namespace == key.name.name);
                affected.extend(pods.cloned().map(ResourceKey::Workload));
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
            Kind::Node | Kind::ServiceAccount => {}
        }
    }

    fn pods_in(&self, slice: &EndpointSlice, affected: &mut BTreeSet<ResourceKey>) {
        for endpoint in &slice.endpoints {
            affected.extend(endpoint.pod.iter().cloned().map(ResourceKey::Workload));
            let at_address = endpoint.addresses.iter().flat_map(|ip| self.pods_by_ip.get(ip));
            affected.extend(at_address.cloned().map(ResourceKey::Workload));
        }
    }
}
