//! The current resources of one type, and in which order they changed. Pure.
//!
//! Clients remember one number, the revision they have seen; what they missed is the log's tail. A name is in the
//! log once, at its latest change, so the log is never longer than the resources and the remembered removals.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Removals remembered; a client further behind compares everything instead.
const MAX_TOMBSTONES: usize = 100_000;

/// A resource, ready to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Version: equal exactly when the content is.
    pub version: Arc<str>,
    /// The encoded message.
    pub body: Bytes,
    /// Other names that clients may ask for it by.
    pub aliases: Vec<Arc<str>>,
}

/// The resources of one type.
#[derive(Debug)]
pub struct Table {
    resources: BTreeMap<Arc<str>, (u64, Arc<Resource>)>,
    names_by_alias: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Revision to the name that changed then.
    log: BTreeMap<u64, Arc<str>>,
    /// Removed names and when.
    tombstones: BTreeMap<Arc<str>, u64>,
    max_tombstones: usize,
    revision: u64,
    /// The log is complete after this revision.
    floor: u64,
}

impl Default for Table {
    fn default() -> Self {
        Self::with_tombstones(MAX_TOMBSTONES)
    }
}

impl Table {
    /// A table that remembers so many removals.
    pub fn with_tombstones(max_tombstones: usize) -> Self {
        Self {
            resources: BTreeMap::new(),
            names_by_alias: BTreeMap::new(),
            log: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            max_tombstones,
            revision: 0,
            floor: 0,
        }
    }

    /// Sets or removes a resource. Returns whether that changed anything.
    pub fn set(&mut self, name: &str, resource: Option<Resource>) -> bool {
        match (self.resources.get(name), &resource) {
            (None, None) => return false,
            (Some((_, old)), Some(new)) if old.version == new.version => return false,
            _ => {}
        }
        let name: Arc<str> = name.into();
        self.revision += 1;
        if let Some((changed, old)) = self.resources.remove(&name) {
            self.log.remove(&changed);
            self.forget_aliases(&name, &old);
        }
        if let Some(changed) = self.tombstones.remove(&name) {
            self.log.remove(&changed);
        }
        self.log.insert(self.revision, name.clone());
        match resource {
            Some(resource) => {
                for alias in &resource.aliases {
                    self.names_by_alias.entry(alias.clone()).or_default().insert(name.clone());
                }
                self.resources.insert(name, (self.revision, Arc::new(resource)));
            }
            None => {
                self.tombstones.insert(name, self.revision);
                self.trim();
            }
        }
        true
    }

    /// The number of changes so far.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many resources there are.
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// A resource and the table's own copy of its name.
    pub fn get(&self, name: &str) -> Option<(&Arc<str>, &Arc<Resource>)> {
        self.resources.get_key_value(name).map(|(name, (_, resource))| (name, resource))
    }

    /// Names of all resources.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.resources.keys()
    }

    /// Names of the resources that have an alias.
    pub fn with_alias(&self, alias: &str) -> impl Iterator<Item = &Arc<str>> {
        self.names_by_alias.get(alias).into_iter().flatten()
    }

    /// Names that changed after `revision`; `None` when that is too long ago to know.
    pub fn changed_since(&self, revision: u64) -> Option<impl Iterator<Item = &Arc<str>>> {
        (revision >= self.floor).then(|| self.log.range(revision + 1..).map(|(_, name)| name))
    }

    fn forget_aliases(&mut self, name: &Arc<str>, resource: &Resource) {
        for alias in &resource.aliases {
            if let Some(names) = self.names_by_alias.get_mut(alias) {
                names.remove(name);
                if names.is_empty() {
                    self.names_by_alias.remove(alias);
                }
            }
        }
    }

    /// Forgets the older half of the removals when there are too many.
    fn trim(&mut self) {
        if self.tombstones.len() <= self.max_tombstones {
            return;
        }
        let mut revisions: Vec<u64> = self.tombstones.values().copied().collect();
        revisions.sort_unstable();
        let Some(floor) = revisions.get(revisions.len() / 2).copied() else {
            return;
        };
        let log = &mut self.log;
        self.tombstones.retain(|_, changed| {
            let keep = *changed > floor;
            if !keep {
                log.remove(changed);
            }
            keep
        });
        self.floor = floor;
    }
}
