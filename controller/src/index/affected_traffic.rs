//! Which traffic resources and remarks depend on an object, as the index stands.

use super::hosts::holds;
use super::{Index, ResourceKey};
use crate::objects::{Key, Kind, Name, VirtualService};
use std::collections::BTreeSet;
use warren_common::model::ServiceName;

/// Every kind of route of the Gateway API.
const ROUTES: [Kind; 4] = [Kind::HTTPRoute, Kind::GRPCRoute, Kind::TLSRoute, Kind::TCPRoute];

impl Index {
    pub(super) fn affected_by_virtual_service(&self, name: &Name, affected: &mut BTreeSet<ResourceKey>) {
        affected.insert(remarks(Kind::VirtualService, name));
        let Some(service) = self.traffic.virtual_service(name) else { return };
        self.routed_by(service, affected);
        for target in service.targets().map(|to| self.full_name(&to.host, &name.namespace)) {
            self.sent_to(&target, affected);
        }
        // Those that have its rules, and those whose rules it has.
        for root in self.traffic.delegating_to(name) {
            affected.insert(remarks(Kind::VirtualService, &root.name));
            self.routed_by(root, affected);
        }
        affected.extend(service.delegates().map(|delegate| remarks(Kind::VirtualService, delegate)));
    }

    /// The services that a VirtualService may have routes for, and others with the same hosts.
    fn routed_by(&self, service: &VirtualService, affected: &mut BTreeSet<ResourceKey>) {
        if !service.is_of_mesh() {
            return;
        }
        for host in &service.hosts {
            let host = self.full_name(host, &service.name.namespace);
            affected.extend(self.services_held_by(&host).into_iter().map(ResourceKey::Traffic));
            let others = self.traffic.with_host(&host);
            affected.extend(others.map(|other| remarks(Kind::VirtualService, &other.name)));
        }
    }

    pub(super) fn affected_by_destination_rule(&self, name: &Name, affected: &mut BTreeSet<ResourceKey>) {
        affected.insert(remarks(Kind::DestinationRule, name));
        let Some(rule) = self.traffic.destination_rule(name) else { return };
        let host = self.full_name(&rule.host, &name.namespace);
        // Of one host they are merged.
        let others = self.traffic.destination_rules_of(&host).filter(|(pattern, _)| **pattern == *host);
        let others = others.flat_map(|(_, others)| others);
        affected.extend(others.map(|other| remarks(Kind::DestinationRule, &other.name)));
        for service in self.services_held_by(&host) {
            // Who sends to its subsets.
            let senders = self.traffic.sending_to(&service.hostname);
            affected.extend(senders.map(|sender| remarks(Kind::VirtualService, &sender.name)));
            // Whether requests can be sent there hinges on TLS.
            if let Some(name) = self.kubernetes_service_name(&service) {
                self.affected_by_backend(&name, affected);
            }
            affected.insert(ResourceKey::Traffic(service));
        }
    }

    pub(super) fn affected_by_route(&self, kind: Kind, name: &Name, affected: &mut BTreeSet<ResourceKey>) {
        affected.insert(remarks(kind, name));
        let Some(route) = self.traffic.route(kind, name) else { return };
        for target in route.targets().filter_map(|to| to.service(&name.namespace)) {
            self.sent_to(&self.kubernetes_name(&target).hostname, affected);
        }
        for (service, _) in route.services() {
            affected.insert(ResourceKey::Traffic(self.kubernetes_name(&service)));
            // Of kinds one loses to another, and of TCPRoutes the younger to the older.
            for other in ROUTES.into_iter().filter(|other| *other != kind || kind == Kind::TCPRoute) {
                let others = self.traffic.routes_of_kind(&service, other);
                affected.extend(others.map(|name| remarks(other, name)));
            }
            // Which no longer count, or count again.
            let host = self.kubernetes_name(&service).hostname;
            for (_, shadowed) in self.traffic.virtual_services_of(&host) {
                affected.extend(shadowed.iter().map(|other| remarks(Kind::VirtualService, &other.name)));
            }
        }
        // Of the same kind, those whose matches it takes.
        affected.extend(self.traffic.behind(route).iter().map(|name| remarks(kind, name)));
    }

    /// DestinationRules of what no connection shows hold where rules send there.
    fn sent_to(&self, host: &str, affected: &mut BTreeSet<ResourceKey>) {
        if self.services_named(host).iter().any(|service| self.unseen(service).is_some()) {
            let rules = self.traffic.destination_rules_of(host).flat_map(|(_, rules)| rules);
            affected.extend(rules.map(|rule| remarks(Kind::DestinationRule, &rule.name)));
        }
    }

    /// What is said about a service, and whoever sends to it.
    pub(super) fn affected_by_service(&self, service: &ServiceName, affected: &mut BTreeSet<ResourceKey>) {
        let (host, mut is_said) = (&service.hostname, false);
        for (_, found) in self.traffic.virtual_services_of(host) {
            is_said = true;
            affected.extend(found.iter().map(|found| remarks(Kind::VirtualService, &found.name)));
        }
        for (_, found) in self.traffic.destination_rules_of(host) {
            is_said = true;
            affected.extend(found.iter().map(|found| remarks(Kind::DestinationRule, &found.name)));
        }
        for sender in self.traffic.sending_to(host) {
            affected.insert(remarks(Kind::VirtualService, &sender.name));
            self.routed_by(sender, affected);
            self.traffic.delegating_to(&sender.name).for_each(|root| self.routed_by(root, affected));
        }
        if let Some(name) = self.kubernetes_service_name(service) {
            for route in self.traffic.routes_of(&name) {
                is_said = true;
                affected.insert(remarks(route.kind, &route.name));
            }
            self.affected_by_backend(&name, affected);
        }
        if is_said {
            affected.insert(ResourceKey::Traffic(service.clone()));
        }
    }

    /// Routes of the Gateway API that send to a service, and whatever they are attached to.
    fn affected_by_backend(&self, service: &Name, affected: &mut BTreeSet<ResourceKey>) {
        for route in self.traffic.routes_to(service) {
            affected.insert(remarks(route.kind, &route.name));
            let parents = route.services().map(|(parent, _)| self.kubernetes_name(&parent));
            affected.extend(parents.map(ResourceKey::Traffic));
        }
    }

    /// Services with this name; with a pattern, every service that it holds.
    pub fn services_held_by(&self, host: &str) -> Vec<ServiceName> {
        if !host.starts_with('*') {
            return self.services_named(host);
        }
        let kubernetes = self.services.keys().map(|name| self.kubernetes_name(name));
        let entries = self
            .entries
            .hosts()
            .map(|host| ServiceName { namespace: host.namespace.clone(), hostname: host.name.clone() });
        let all =
            kubernetes.chain(entries).filter(|name| holds(host, &name.hostname) || *name.hostname == *host);
        let all: BTreeSet<ServiceName> = all.collect();
        all.into_iter().collect()
    }

    /// Services with this full name: Kubernetes' one, and those that ServiceEntries give in any namespace.
    pub fn services_named(&self, host: &str) -> Vec<ServiceName> {
        let mut found = Vec::new();
        let parts = host.strip_suffix(&*self.domain).and_then(|rest| rest.strip_suffix(".svc."));
        if let Some((name, namespace)) = parts.and_then(|parts| parts.split_once('.')) {
            let name = Name::new(namespace, name);
            found.extend(self.services.contains_key(&name).then(|| self.kubernetes_name(&name)));
        }
        for namespace in self.entries.namespaces_of(host) {
            let name = ServiceName { namespace: namespace.clone(), hostname: host.into() };
            if !found.contains(&name) {
                found.push(name);
            }
        }
        found
    }

    /// The full name of a service of Kubernetes.
    pub fn kubernetes_name(&self, name: &Name) -> ServiceName {
        let hostname = format!("{}.{}.svc.{}", name.name, name.namespace, self.domain);
        ServiceName { namespace: name.namespace.clone(), hostname: hostname.into() }
    }

    /// The name of the service of Kubernetes that a full name means, if it means one.
    pub fn kubernetes_service_name(&self, service: &ServiceName) -> Option<Name> {
        let name = service.hostname.strip_suffix(&*self.domain)?.strip_suffix(".svc.")?;
        let name = name.strip_suffix(&*service.namespace)?.strip_suffix('.')?;
        Some(Name::new(service.namespace.clone(), name))
    }
}

fn remarks(kind: Kind, name: &Name) -> ResourceKey {
    ResourceKey::Remarks(Key { kind, name: name.clone() })
}
