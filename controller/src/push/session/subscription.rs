//! One type of one session: what is asked for, what the client holds, and what differs.

use crate::push::table::{Resource, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const WILDCARD: &str = "*";

/// Changed resources, and names that are gone.
pub(super) type Difference = (Vec<(Arc<str>, Arc<Resource>)>, Vec<Arc<str>>);

#[derive(Debug)]
pub(super) struct Subscription {
    wildcard: bool,
    /// Names and aliases asked for one by one.
    names: BTreeSet<String>,
    /// What the client holds, or rejected: name to version.
    held: BTreeMap<Arc<str>, Arc<str>>,
    /// Asked for since the last poll: an answer is owed even when there is no such resource.
    owed: BTreeSet<String>,
    /// Resources to compare.
    dirty: BTreeSet<Arc<str>>,
    /// Everything is to be compared.
    compare_all: bool,
    /// A response is owed even when nothing differs.
    owes_response: bool,
    /// Revision of the table up to which `dirty` is complete.
    seen: u64,
    in_flight: Option<String>,
}

impl Subscription {
    /// The first request of a type; one that names nothing asks for everything.
    pub(super) fn first(held: BTreeMap<String, String>, wildcard: bool) -> Self {
        Self {
            wildcard,
            names: BTreeSet::new(),
            held: held.into_iter().map(|(name, version)| (name.into(), version.into())).collect(),
            owed: BTreeSet::new(),
            dirty: BTreeSet::new(),
            compare_all: true,
            owes_response: true,
            seen: 0,
            in_flight: None,
        }
    }

    pub(super) fn names(&self) -> usize {
        self.names.len() + self.owed.len()
    }

    pub(super) fn change(&mut self, subscribe: Vec<String>, unsubscribe: Vec<String>) {
        // Unsubscribing first: a name in both lists is asked for afresh.
        for name in unsubscribe {
            self.compare_all = true;
            if name == WILDCARD {
                self.wildcard = false;
            } else if self.names.remove(&name) && self.wildcard {
                // The client may have dropped it, and the wildcard still covers it: say how it is.
                self.owed.insert(name);
            } else {
                self.owed.remove(&name);
            }
        }
        for name in subscribe {
            if name == WILDCARD {
                self.wildcard = true;
                (self.compare_all, self.owes_response) = (true, true);
            } else {
                // Asking again for what one has is asking for it to be sent again.
                self.owed.insert(name.clone());
                self.names.insert(name);
            }
        }
    }

    /// Whether `nonce` is the one in flight, which is no longer in flight then.
    pub(super) fn answered(&mut self, nonce: &str) -> bool {
        self.in_flight.take_if(|in_flight| in_flight == nonce).is_some()
    }

    pub(super) fn sent(&mut self, nonce: String) {
        self.in_flight = Some(nonce);
    }

    /// What the client must be told next; none while a response is in flight or when nothing differs.
    pub(super) fn poll(&mut self, table: &Table, max_bytes: usize) -> Option<Difference> {
        if self.in_flight.is_some() {
            return None;
        }
        self.gather(table);
        let (mut resources, mut removed) = (Vec::new(), Vec::new());
        self.settle_debts(table, &mut removed);
        let mut bytes = 0;
        while let Some(name) = self.dirty.pop_first() {
            match table.get(&name).filter(|(name, resource)| self.wants(name, resource)) {
                Some((shared, resource)) => {
                    if self.held.get(shared) == Some(&resource.version) {
                        continue;
                    }
                    let size = resource.body.len() + 2 * shared.len() + 64;
                    if !resources.is_empty() && bytes + size > max_bytes {
                        self.dirty.insert(name);
                        break;
                    }
                    bytes += size;
                    self.held.insert(shared.clone(), resource.version.clone());
                    resources.push((shared.clone(), resource.clone()));
                }
                None => removed.extend(self.held.remove_entry(&name).map(|(name, _)| name)),
            }
        }
        let due = self.owes_response || !resources.is_empty() || !removed.is_empty();
        self.owes_response = false;
        due.then_some((resources, removed))
    }

    /// Everything that may differ goes to `dirty`.
    fn gather(&mut self, table: &Table) {
        match table.changed_since(self.seen).filter(|_| !self.compare_all) {
            Some(changed) => {
                for name in changed {
                    let wanted =
                        || table.get(name).is_some_and(|(name, resource)| self.wants(name, resource));
                    if self.held.contains_key(name) || wanted() {
                        self.dirty.insert(name.clone());
                    }
                }
            }
            None => {
                self.dirty.extend(self.held.keys().cloned());
                if self.wildcard {
                    self.dirty.extend(table.names().cloned());
                } else {
                    for name in &self.names {
                        self.dirty.extend(table.get(name).map(|(name, _)| name.clone()));
                        self.dirty.extend(table.with_alias(name).cloned());
                    }
                }
            }
        }
        self.compare_all = false;
        self.seen = table.revision();
    }

    /// Asked for by name: sent whatever the client holds, or named as not there.
    fn settle_debts(&mut self, table: &Table, removed: &mut Vec<Arc<str>>) {
        for name in std::mem::take(&mut self.owed) {
            let found: Vec<_> =
                table.get(&name).map(|(name, _)| name).into_iter().chain(table.with_alias(&name)).collect();
            if found.is_empty() {
                self.held.remove(name.as_str());
                removed.push(name.into());
            }
            for name in found {
                // No version is empty: it is sent, and until then still known to be held.
                self.held.insert(name.clone(), Arc::default());
                self.dirty.insert(name.clone());
            }
        }
    }

    fn wants(&self, name: &str, resource: &Resource) -> bool {
        self.wildcard
            || self.names.contains(name)
            || resource.aliases.iter().any(|alias| self.names.contains(alias.as_ref()))
    }
}
