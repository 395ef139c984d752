//! ServiceEntries and WorkloadEntries, arranged by host and by what they select.

use crate::objects::{Created, EntryEndpoints, Map, Name, ServiceEntry, WorkloadEntry};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entries {
    services: BTreeMap<Name, Arc<ServiceEntry>>,
    workloads: BTreeMap<Name, Arc<WorkloadEntry>>,
    /// By namespace and host, those that have the host, the oldest first.
    by_host: BTreeMap<Name, BTreeSet<(Created, Name)>>,
    /// By host, the namespaces in which there are contenders for it.
    namespaces: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// By namespace, those with a selector.
    selecting: BTreeMap<Arc<str>, BTreeSet<Name>>,
}

impl Entries {
    pub(super) fn insert_service(&mut self, entry: &ServiceEntry) {
        for host in &entry.hosts {
            let contenders = self.by_host.entry(Name::new(entry.name.namespace.clone(), host.clone()));
            contenders.or_default().insert((entry.created, entry.name.clone()));
            let namespaces = self.namespaces.entry(host.clone()).or_default();
            namespaces.insert(entry.name.namespace.clone());
        }
        if matches!(entry.endpoints, EntryEndpoints::Selected(_)) {
            let selecting = self.selecting.entry(entry.name.namespace.clone());
            selecting.or_default().insert(entry.name.clone());
        }
        self.services.insert(entry.name.clone(), Arc::new(entry.clone()));
    }

    pub(super) fn remove_service(&mut self, name: &Name) {
        let Some(entry) = self.services.remove(name) else { return };
        for host in &entry.hosts {
            let host = Name::new(name.namespace.clone(), host.clone());
            take(&mut self.by_host, &host, &(entry.created, name.clone()));
            if !self.by_host.contains_key(&host) {
                take(&mut self.namespaces, &host.name, &host.namespace);
            }
        }
        take(&mut self.selecting, &name.namespace, name);
    }

    pub(super) fn insert_workload(&mut self, entry: &WorkloadEntry) {
        self.workloads.insert(entry.name.clone(), Arc::new(entry.clone()));
    }

    pub(super) fn remove_workload(&mut self, name: &Name) {
        self.workloads.remove(name);
    }

    pub(super) fn service_names(&self) -> impl Iterator<Item = &Name> {
        self.services.keys()
    }

    pub(super) fn workload_names(&self) -> impl Iterator<Item = &Name> {
        self.workloads.keys()
    }

    pub(super) fn service(&self, name: &Name) -> Option<&ServiceEntry> {
        self.services.get(name).map(AsRef::as_ref)
    }

    pub(super) fn workload(&self, name: &Name) -> Option<&WorkloadEntry> {
        self.workloads.get(name).map(AsRef::as_ref)
    }

    pub(super) fn all_services(&self) -> impl Iterator<Item = &ServiceEntry> {
        self.services.values().map(AsRef::as_ref)
    }

    pub(super) fn all_workloads(&self) -> impl Iterator<Item = &WorkloadEntry> {
        self.workloads.values().map(AsRef::as_ref)
    }

    /// The one that counts for a host of a namespace.
    pub(super) fn of_host(&self, host: &Name) -> Option<&ServiceEntry> {
        self.contenders(host).next()
    }

    /// All that have a host of a namespace, the oldest first.
    pub(super) fn contenders<'a>(&'a self, host: &Name) -> impl Iterator<Item = &'a ServiceEntry> + use<'a> {
        self.by_host.get(host).into_iter().flatten().filter_map(|(_, name)| self.service(name))
    }

    /// Those that count for a host of a namespace that begins so.
    pub(super) fn of_hosts_from<'a>(
        &'a self,
        namespace: &'a Arc<str>,
        beginning: &'a str,
    ) -> impl Iterator<Item = &'a ServiceEntry> {
        let from = Name::new(namespace.clone(), beginning);
        let hosts = self.by_host.range(from..).map(|(host, _)| host);
        let hosts =
            hosts.take_while(move |host| host.namespace == *namespace && host.name.starts_with(beginning));
        hosts.filter_map(|host| self.of_host(host))
    }

    /// Namespaces with ServiceEntries for a host.
    pub(super) fn namespaces_of(&self, host: &str) -> impl Iterator<Item = &Arc<str>> {
        self.namespaces.get(host).into_iter().flatten()
    }

    /// Every host of every namespace.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &Name> {
        self.by_host.keys()
    }

    /// Those that select a workload of a namespace by its labels.
    pub(super) fn selecting<'a>(
        &'a self,
        namespace: &str,
        labels: &'a Map,
    ) -> impl Iterator<Item = &'a ServiceEntry> {
        let names = self.selecting.get(namespace).into_iter().flatten();
        names.filter_map(|name| self.service(name)).filter(|entry| entry.selects(labels))
    }

    /// WorkloadEntries of a namespace.
    pub(super) fn workloads_in<'a>(
        &'a self,
        namespace: &'a Arc<str>,
    ) -> impl Iterator<Item = &'a Arc<WorkloadEntry>> {
        let entries = self.workloads.range(Name::new(namespace.clone(), "")..);
        entries.take_while(move |(name, _)| name.namespace == *namespace).map(|(_, entry)| entry)
    }
}

/// Removes a value from a set of the map; no set stays empty.
fn take<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}
