//! AuthorizationPolicies, and those of each namespace that select workloads or are attached to a service.

use super::reverse::Reverse;
use crate::objects::{AuthorizationPolicy, Map, Name, matches};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AuthorizationPolicies {
    all: BTreeMap<Name, Arc<AuthorizationPolicy>>,
    selecting: BTreeMap<Arc<str>, BTreeSet<Name>>,
    attached: Reverse<Name>,
}

impl AuthorizationPolicies {
    pub(super) fn insert(&mut self, policy: &AuthorizationPolicy) {
        if policy.selector().is_some() {
            let selecting = self.selecting.entry(policy.name.namespace.clone());
            selecting.or_default().insert(policy.name.clone());
        }
        self.attached.insert_all(&policy.services().collect::<Vec<_>>(), &policy.name);
        self.all.insert(policy.name.clone(), Arc::new(policy.clone()));
    }

    pub(super) fn remove(&mut self, name: &Name) {
        if let Some(policy) = self.all.remove(name) {
            self.attached.remove_all(&policy.services().collect::<Vec<_>>(), name);
        }
        if let Some(names) = self.selecting.get_mut(&name.namespace) {
            names.remove(name);
            if names.is_empty() {
                self.selecting.remove(&name.namespace);
            }
        }
    }

    pub(super) fn get(&self, name: &Name) -> Option<&AuthorizationPolicy> {
        self.all.get(name).map(AsRef::as_ref)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.all.keys()
    }

    /// Those that are attached to a service, in the order of their names.
    pub(super) fn attached(&self, service: &Name) -> impl Iterator<Item = &AuthorizationPolicy> {
        self.attached.get(service).filter_map(|name| self.get(name))
    }

    /// Those of a namespace that select a workload by its labels.
    pub(super) fn selecting<'a>(
        &'a self,
        namespace: &str,
        labels: &'a Map,
    ) -> impl Iterator<Item = &'a AuthorizationPolicy> {
        let names = self.selecting.get(namespace).into_iter().flatten();
        let selects = |policy: &&AuthorizationPolicy| {
            policy.selector().is_some_and(|selector| matches(selector, labels))
        };
        names.filter_map(|name| self.get(name)).filter(selects)
    }
}
