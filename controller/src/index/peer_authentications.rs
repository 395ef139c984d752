//! PeerAuthentications, arranged by namespace and age: of several that could apply, the oldest does.

use crate::objects::{Created, Map, Name, PeerAuthentication, matches};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Namespaces whose selector-less objects hold for the whole mesh, the most important first: where both say
/// something, the first does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootNamespaces(pub Vec<Arc<str>>);

impl Default for RootNamespaces {
    /// warren's own, and Istio's for the manifests that people already have.
    fn default() -> Self {
        Self(vec!["warren-system".into(), "istio-system".into()])
    }
}

impl RootNamespaces {
    /// Whether `namespace` is one.
    pub fn contains(&self, namespace: &str) -> bool {
        self.0.iter().any(|root| **root == *namespace)
    }
}

/// The objects, and those of each namespace in the order of their age.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PeerAuthentications {
    all: BTreeMap<Name, Arc<PeerAuthentication>>,
    /// Without a selector.
    general: ByAge,
    /// With one.
    selecting: ByAge,
}

type ByAge = BTreeMap<Arc<str>, BTreeSet<(Created, Name)>>;

impl PeerAuthentications {
    pub(super) fn insert(&mut self, policy: &PeerAuthentication) {
        let namespace = policy.name.namespace.clone();
        let age = (policy.created, policy.name.clone());
        self.by_age(policy).entry(namespace).or_default().insert(age);
        self.all.insert(policy.name.clone(), Arc::new(policy.clone()));
    }

    pub(super) fn remove(&mut self, name: &Name) {
        let Some(policy) = self.all.remove(name) else { return };
        let by_age = self.by_age(&policy);
        if let Some(ages) = by_age.get_mut(&name.namespace) {
            ages.remove(&(policy.created, name.clone()));
            if ages.is_empty() {
                by_age.remove(&name.namespace);
            }
        }
    }

    fn by_age(&mut self, policy: &PeerAuthentication) -> &mut ByAge {
        if policy.selector.is_empty() { &mut self.general } else { &mut self.selecting }
    }

    pub(super) fn get(&self, name: &Name) -> Option<&PeerAuthentication> {
        self.all.get(name).map(AsRef::as_ref)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.all.keys()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Those with a selector and ports of their own, of one namespace or of all.
    pub(super) fn with_ports<'a>(&'a self, namespace: Option<&'a str>) -> impl Iterator<Item = &'a Name> {
        let of_namespace =
            move |name: &&Name| namespace.is_none_or(|namespace| *name.namespace == *namespace);
        let names = self.selecting.values().flatten().map(|(_, name)| name).filter(of_namespace);
        names.filter(|name| self.get(name).is_some_and(|policy| !policy.ports.is_empty()))
    }

    /// The one that holds for a whole namespace.
    pub(super) fn of_namespace(&self, namespace: &str) -> Option<&PeerAuthentication> {
        let (_, name) = self.general.get(namespace)?.first()?;
        self.get(name)
    }

    /// The one that selects a pod with these labels.
    pub(super) fn selecting(&self, namespace: &str, labels: &Map) -> Option<&PeerAuthentication> {
        let by_age = self.selecting.get(namespace)?.iter();
        by_age.filter_map(|(_, name)| self.get(name)).find(|policy| matches(&policy.selector, labels))
    }
}
