//! Services that no connection shows: agents tell services by the addresses that are dialled, and nobody dials one of theirs.

use super::Index;
use crate::objects::{EntryAddress, EntryEndpoints, Name, Service, ServiceEntry};
use std::sync::Arc;
use warren_common::model::ServiceName;

/// Why no connection shows a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unseen<'a> {
    /// An ExternalName: its clients dial what another name stands for, this one.
    Alias(&'a Arc<str>),
    /// Its ServiceEntry gives it no address, and its endpoints have none that is known.
    Entry(&'a ServiceEntry),
}

impl Index {
    /// Why no connection shows that it is for this service; none if one may.
    pub fn unseen(&self, service: &ServiceName) -> Option<Unseen<'_>> {
        if let Some(service) = self.kubernetes_service(service) {
            return service.external_name.as_ref().map(Unseen::Alias);
        }
        let host = Name::new(service.namespace.clone(), service.hostname.clone());
        let entry = self.service_entry_of_host(&host)?;
        let is_address = |address: &EntryAddress| matches!(address, EntryAddress::Ip(_));
        let is_seen = !entry.addresses.is_empty()
            || matches!(entry.endpoints, EntryEndpoints::Selected(_))
            || entry.listed().iter().any(|(endpoint, _)| is_address(&endpoint.address));
        (!is_seen).then_some(Unseen::Entry(entry))
    }

    /// Whether it is a headless Service: who dials one of its endpoints is its client.
    pub fn is_headless(&self, service: &ServiceName) -> bool {
        self.kubernetes_service(service).is_some_and(|service| service.headless)
    }

    fn kubernetes_service(&self, service: &ServiceName) -> Option<&Service> {
        self.kubernetes_service_name(service).and_then(|name| self.service(&name))
    }

    /// Whether rules of the mesh send to this service what was meant for another one.
    pub fn is_sent_to(&self, service: &ServiceName) -> bool {
        let host = &service.hostname;
        let by_virtual_service = self.traffic.sending_to(host).any(|sender| {
            let mut hosts = sender.hosts.iter().map(|own| self.full_name(own, &sender.name.namespace));
            // Those without hosts are delegates.
            sender.hosts.is_empty() || (sender.is_of_mesh() && hosts.any(|own| own != *host))
        });
        let name = self.kubernetes_service_name(service);
        by_virtual_service || name.is_some_and(|name| self.traffic.routes_to(&name).next().is_some())
    }
}
