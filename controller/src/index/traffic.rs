//! Routes and traffic policies, arranged by the hosts and services that they are about.

use super::attached::{Attached, Group, Ports};
use super::hosts::{full_name, patterns};
use super::reverse::Reverse;
use crate::objects::{
    BackendRef, DestinationRule, Kind, Name, RankedMatch, ReferenceGrant, Refused, Route, Service,
    VirtualService,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A route's kind and name.
pub(super) type RouteKey = (Kind, Name);

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TrafficObjects {
    virtual_services: BTreeMap<Name, Arc<VirtualService>>,
    destination_rules: BTreeMap<Name, Arc<DestinationRule>>,
    routes: BTreeMap<RouteKey, Arc<Route>>,
    grants: BTreeMap<Name, Arc<ReferenceGrant>>,
    /// By full host or pattern, those for clients in the mesh.
    virtual_by_host: Reverse<Arc<str>>,
    /// By the full host of a destination.
    virtual_by_target: Reverse<Arc<str>>,
    /// By what they delegate to.
    delegating: Reverse<Name>,
    /// By full host or pattern.
    rules_by_host: Reverse<Arc<str>>,
    /// By the service they are attached to.
    routes_by_parent: BTreeMap<Name, BTreeSet<RouteKey>>,
    /// By what decides which of them counts.
    attached: Attached,
    /// By the service they send to.
    routes_by_target: BTreeMap<Name, BTreeSet<RouteKey>>,
}

impl TrafficObjects {
    pub(super) fn insert_virtual_service(&mut self, service: &VirtualService, domain: &str) {
        let (hosts, targets) = names(service, domain);
        self.virtual_by_host.insert_all(&hosts, &service.name);
        self.virtual_by_target.insert_all(&targets, &service.name);
        self.delegating.insert_all(service.delegates(), &service.name);
        self.virtual_services.insert(service.name.clone(), Arc::new(service.clone()));
    }

    pub(super) fn remove_virtual_service(&mut self, name: &Name, domain: &str) {
        let Some(service) = self.virtual_services.remove(name) else { return };
        let (hosts, targets) = names(&service, domain);
        self.virtual_by_host.remove_all(&hosts, name);
        self.virtual_by_target.remove_all(&targets, name);
        self.delegating.remove_all(service.delegates(), name);
    }

    pub(super) fn insert_destination_rule(&mut self, rule: &DestinationRule, domain: &str) {
        let host = full_name(&rule.host, &rule.name.namespace, domain);
        self.rules_by_host.insert_all([&host], &rule.name);
        self.destination_rules.insert(rule.name.clone(), Arc::new(rule.clone()));
    }

    pub(super) fn remove_destination_rule(&mut self, name: &Name, domain: &str) {
        let Some(rule) = self.destination_rules.remove(name) else { return };
        let host = full_name(&rule.host, &name.namespace, domain);
        self.rules_by_host.remove_all([&host], name);
    }

    pub(super) fn insert_route(&mut self, route: &Route) {
        let key = (route.kind, route.name.clone());
        for (service, _) in route.services() {
            self.routes_by_parent.entry(service).or_default().insert(key.clone());
        }
        for service in targets(route) {
            self.routes_by_target.entry(service).or_default().insert(key.clone());
        }
        self.attached.insert(route);
        self.routes.insert(key, Arc::new(route.clone()));
    }

    pub(super) fn remove_route(&mut self, kind: Kind, name: &Name) {
        let key = (kind, name.clone());
        let Some(route) = self.routes.remove(&key) else { return };
        for (service, _) in route.services() {
            take(&mut self.routes_by_parent, &service, &key);
        }
        for service in targets(&route) {
            take(&mut self.routes_by_target, &service, &key);
        }
        self.attached.remove(&route);
    }

    /// A newer version of a route can't be used.
    pub(super) fn refuse_route(&mut self, kind: Kind, name: &Name, newer: &Refused) {
        if let Some(route) = self.routes.get_mut(&(kind, name.clone())) {
            Arc::make_mut(route).newer = Some(newer.clone());
        }
    }

    pub(super) fn insert_grant(&mut self, grant: &ReferenceGrant) {
        self.grants.insert(grant.name.clone(), Arc::new(grant.clone()));
    }

    pub(super) fn remove_grant(&mut self, name: &Name) {
        self.grants.remove(name);
    }

    pub(super) fn virtual_service(&self, name: &Name) -> Option<&VirtualService> {
        self.virtual_services.get(name).map(AsRef::as_ref)
    }

    pub(super) fn virtual_services(&self) -> impl Iterator<Item = &VirtualService> {
        self.virtual_services.values().map(AsRef::as_ref)
    }

    pub(super) fn destination_rule(&self, name: &Name) -> Option<&DestinationRule> {
        self.destination_rules.get(name).map(AsRef::as_ref)
    }

    pub(super) fn destination_rules(&self) -> impl Iterator<Item = &DestinationRule> {
        self.destination_rules.values().map(AsRef::as_ref)
    }

    pub(super) fn route(&self, kind: Kind, name: &Name) -> Option<&Route> {
        self.routes.get(&(kind, name.clone())).map(AsRef::as_ref)
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.values().map(AsRef::as_ref)
    }

    pub(super) fn grant(&self, name: &Name) -> Option<&ReferenceGrant> {
        self.grants.get(name).map(AsRef::as_ref)
    }

    pub(super) fn grant_names(&self) -> impl Iterator<Item = &Name> {
        self.grants.keys()
    }

    /// VirtualServices of the mesh whose host is exactly this (a host, or a pattern).
    pub(super) fn with_host<'a>(&'a self, host: &str) -> impl Iterator<Item = &'a VirtualService> {
        self.virtual_by_host.get(host).filter_map(|name| self.virtual_service(name))
    }

    /// VirtualServices of the mesh that hold a host, for each of their patterns, the most specific first.
    pub(super) fn virtual_services_of<'a>(
        &'a self,
        host: &'a str,
    ) -> impl Iterator<Item = (String, Vec<&'a VirtualService>)> {
        let groups = patterns(host).map(|pattern| {
            let found = self.with_host(&pattern).collect();
            (pattern, found)
        });
        groups.filter(|(_, found): &(String, Vec<_>)| !found.is_empty())
    }

    /// DestinationRules that hold a host, likewise.
    pub(super) fn destination_rules_of<'a>(
        &'a self,
        host: &'a str,
    ) -> impl Iterator<Item = (String, Vec<&'a DestinationRule>)> {
        let groups = patterns(host).map(|pattern| {
            let names = self.rules_by_host.get(pattern.as_str());
            let found = names.filter_map(|name| self.destination_rule(name)).collect();
            (pattern, found)
        });
        groups.filter(|(_, found): &(String, Vec<_>)| !found.is_empty())
    }

    /// VirtualServices that send to a host.
    pub(super) fn sending_to<'a>(&'a self, host: &str) -> impl Iterator<Item = &'a VirtualService> {
        self.virtual_by_target.get(host).filter_map(|name| self.virtual_service(name))
    }

    /// VirtualServices that delegate to one.
    pub(super) fn delegating_to<'a>(&'a self, name: &Name) -> impl Iterator<Item = &'a VirtualService> {
        self.delegating.get(name).filter_map(|name| self.virtual_service(name))
    }

    /// Routes that are attached to a service.
    pub(super) fn routes_of<'a>(&'a self, service: &Name) -> impl Iterator<Item = &'a Route> {
        let keys = self.routes_by_parent.get(service).into_iter().flatten();
        keys.filter_map(|key| self.routes.get(key)).map(AsRef::as_ref)
    }

    /// Those of one kind.
    pub(super) fn routes_of_kind<'a>(&'a self, service: &Name, kind: Kind) -> impl Iterator<Item = &'a Name> {
        let keys = self.routes_by_parent.get(service).into_iter();
        let from = keys.flat_map(move |keys| keys.range((kind, Name::new("", ""))..));
        from.take_while(move |key| key.0 == kind).map(|key| &key.1)
    }

    /// Of the routes of a kind and namespace that are attached to a port, the one that comes first: of all, or of those that
    /// have a match.
    pub(super) fn first_route(
        &self,
        service: &Service,
        port: u16,
        namespace: &Arc<str>,
        kind: Kind,
        with: Option<&RankedMatch>,
    ) -> Option<&Route> {
        let group = Group {
            service: service.name.clone(),
            namespace: namespace.clone(),
            kind,
            digest: with.map(RankedMatch::digest),
        };
        let ports = Ports::that_mean(service, port);
        let firsts = ports.iter().filter_map(|ports| self.first_of(&group, ports, with));
        firsts.min_by(|one, other| (one.created, &one.name).cmp(&(other.created, &other.name)))
    }

    fn first_of(&self, group: &Group, ports: &Ports, with: Option<&RankedMatch>) -> Option<&Route> {
        let mut routes = self.attached.meaning(group, ports).filter_map(|name| self.route(group.kind, &name));
        routes.find(|route| with.is_none_or(|one| route.matches().any(|own| own.ranked.is_same(one))))
    }

    /// Routes that have a match of this one, attached to the same service, where this one may come first.
    pub(super) fn behind(&self, route: &Route) -> BTreeSet<Name> {
        let mut behind = BTreeSet::new();
        for own in route.matches() {
            let digest = Some(own.ranked.digest());
            for (service, parent) in route.services() {
                let namespace = route.name.namespace.clone();
                let group = Group { service, namespace, kind: route.kind, digest };
                let first = self.first_of(&group, &Ports::of(parent), Some(own.ranked));
                if first.is_some_and(|first| first.name == route.name) {
                    behind.extend(self.attached.all(&group));
                }
            }
        }
        behind
    }

    /// Routes that send to a service.
    pub(super) fn routes_to<'a>(&'a self, service: &Name) -> impl Iterator<Item = &'a Route> {
        let keys = self.routes_by_target.get(service).into_iter().flatten();
        keys.filter_map(|key| self.routes.get(key)).map(AsRef::as_ref)
    }
}

/// Full names of the hosts it is for, if it is for the mesh, and of those it sends to.
fn names(service: &VirtualService, domain: &str) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
    let full = |host: &Arc<str>| full_name(host, &service.name.namespace, domain);
    let hosts = if service.is_of_mesh() { service.hosts.as_slice() } else { &[] };
    (hosts.iter().map(full).collect(), service.targets().map(|target| full(&target.host)).collect())
}

fn targets(route: &Route) -> impl Iterator<Item = Name> {
    route.targets().filter_map(|target: &BackendRef| target.service(&route.name.namespace))
}

fn take(sets: &mut BTreeMap<Name, BTreeSet<RouteKey>>, name: &Name, key: &RouteKey) {
    if let Some(set) = sets.get_mut(name) {
        set.remove(key);
        if set.is_empty() {
            sets.remove(name);
        }
    }
}
