//! AuthorizationPolicies, and those of each namespace that select workloads.

use crate::objects::{AuthorizationPolicy, Map, Name, matches};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AuthorizationPolicies {
    all: BTreeMap<Name, Arc<AuthorizationPolicy>>,
    selecting: BTreeMap<Arc<str>, BTreeSet<Name>>,
}

impl AuthorizationPolicies {
    pub(super) fn insert(&mut self, policy: &AuthorizationPolicy) {
        if policy.selector().is_some() {
            let selecting = self.selecting.entry(policy.name.namespace.clone());
            selecting.or_default().insert(policy.name.clone());
        }
        self.all.insert(policy.name.clone(), Arc::new(policy.clone()));
    }

    pub(super) fn remove(&mut self, name: &Name) {
        self.all.remove(name);
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
