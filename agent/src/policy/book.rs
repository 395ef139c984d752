//! The policies of one snapshot of the mesh, and where they apply.

use super::compile::Compiled;
use imbl::{OrdMap, OrdSet};
use std::collections::HashMap;
use std::sync::Arc;
use warren_common::model::{AuthorizationPolicy, Identity, PolicyName, PolicyScope};

/// Every policy there is, and every identity that was revoked. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    // None until the controller (or the disk) has said.
    entries: Option<OrdMap<PolicyName, Entry>>,
    revoked: OrdSet<Identity>,
    // Of the entries; another one after every change, so that it tells whether there was any.
    index: Arc<Index>,
}

/// A policy that is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Whom it is for, if that can be read. Otherwise it is taken for one of its namespace, which also is for whoever
    /// names it.
    pub scope: Option<PolicyScope>,
    /// What is wrong with it.
    pub why: Arc<str>,
    /// Its content as it came: it is kept on disk, for an agent that understands it.
    pub content: Arc<[u8]>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    good: Option<Arc<Compiled>>,
    /// What came after the good one.
    refused: Option<Refused>,
}

/// By whom they are for.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) global: Vec<Applying>,
    pub(super) by_namespace: HashMap<Arc<str>, Vec<Applying>>,
    pub(super) by_name: HashMap<PolicyName, Applying>,
    pub(super) revoked: OrdSet<Identity>,
    pub(super) known: bool,
}

/// A policy, or why there is none in its place.
#[derive(Clone, Debug)]
pub(super) enum Applying {
    Good(Arc<Compiled>),
    Refused(PolicyName, Arc<str>),
}

impl Policies {
    /// From now on they are known, be it that there are none.
    pub(crate) fn told(&mut self) -> bool {
        let first = self.entries.is_none();
        self.entries.get_or_insert_default();
        first
    }

    /// A policy is new or changed. Call [`Self::settle`] after the last change.
    pub(crate) fn put(&mut self, policy: Arc<AuthorizationPolicy>) -> bool {
        let entries = self.entries.get_or_insert_default();
        let same = |entry: &Entry| {
            entry.refused.is_none() && entry.good.as_ref().is_some_and(|good| *good.policy == *policy)
        };
        if entries.get(&policy.name).is_some_and(same) {
            return false;
        }
        let name = policy.name.clone();
        entries.insert(name, Entry { good: Some(Arc::new(Compiled::new(policy))), refused: None });
        true
    }

    /// A policy is not understood: the last good version stays; where there is none, nobody enters what it may be for.
    pub(crate) fn refuse(&mut self, name: PolicyName, refused: Refused) -> bool {
        let entry = self.entries.get_or_insert_default().entry(name).or_default();
        let changed = entry.refused.as_ref() != Some(&refused);
        entry.refused = Some(refused);
        changed
    }

    /// A policy is gone.
    pub(crate) fn remove(&mut self, name: &PolicyName) -> bool {
        self.entries.as_mut().is_some_and(|entries| entries.remove(name).is_some())
    }

    /// From now on these identities, and no others, are revoked: who has one neither enters a pod nor is entered, and what
    /// is open is closed like everything else that loses its permit.
    pub(crate) fn revoke(&mut self, identities: OrdSet<Identity>) -> bool {
        let changed = self.revoked != identities;
        self.revoked = identities;
        changed
    }

    /// Makes what was changed count.
    pub(crate) fn settle(&mut self) {
        let mut index =
            Index { revoked: self.revoked.clone(), known: self.entries.is_some(), ..Index::default() };
        for (name, entry) in self.entries.iter().flatten() {
            let (scope, applying) = match (&entry.good, &entry.refused) {
                (Some(good), _) => (good.policy.scope, Applying::Good(Arc::clone(good))),
                (None, Some(refused)) => (
                    refused.scope.unwrap_or(PolicyScope::Namespace),
                    Applying::Refused(name.clone(), Arc::clone(&refused.why)),
                ),
                (None, None) => continue,
            };
            match scope {
                PolicyScope::Global => index.global.push(applying.clone()),
                PolicyScope::Namespace => {
                    let list = index.by_namespace.entry(Arc::clone(name.namespace())).or_default();
                    list.push(applying.clone());
                }
                PolicyScope::Workload => {}
            }
            index.by_name.insert(name.clone(), applying);
        }
        self.index = Arc::new(index);
    }

    /// Whether anybody has said which there are.
    pub fn is_known(&self) -> bool {
        self.entries.is_some()
    }

    /// Every policy by name: the last good version, and what came after it and was refused.
    pub fn list(
        &self,
    ) -> impl Iterator<Item = (&PolicyName, Option<&Arc<AuthorizationPolicy>>, Option<&Refused>)> {
        self.entries
            .iter()
            .flatten()
            .map(|(name, entry)| (name, entry.good.as_ref().map(|good| &good.policy), entry.refused.as_ref()))
    }

    /// The identities that were revoked.
    pub fn revoked(&self) -> &OrdSet<Identity> {
        &self.revoked
    }

    /// Whether nothing has changed since `other` was taken.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.index, &other.index)
    }

    pub(super) fn index(&self) -> &Arc<Index> {
        &self.index
    }
}
