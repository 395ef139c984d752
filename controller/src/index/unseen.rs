//! Services that no connection shows: agents tell services by the virtual addresses that are dialled, and they have none.

use super::Index;
use crate::objects::{Name, ServiceEntry};
use std::sync::Arc;
use warren_common::model::ServiceName;

/// Why no connection shows a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unseen<'a> {
    /// An ExternalName: its clients dial what another name stands for, this one.
    Alias(&'a Arc<str>),
    /// It is headless: its clients dial one of its pods.
    Headless,
    /// Its ServiceEntry gives it no address.
    Entry(&'a ServiceEntry),
}

impl Index {
    /// Why no connection shows that it is for this service; none if one may.
    pub fn unseen(&self, service: &ServiceName) -> Option<Unseen<'_>> {
        let kubernetes = self.kubernetes_service_name(service);
        if let Some(service) = kubernetes.and_then(|name| self.service(&name)) {
            let alias = service.external_name.as_ref().map(Unseen::Alias);
            return alias.or(service.headless.then_some(Unseen::Headless));
        }
        let host = Name::new(service.namespace.clone(), service.hostname.clone());
        let entry = self.service_entry_of_host(&host)?;
        entry.addresses.is_empty().then_some(Unseen::Entry(entry))
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
