//! The current resources of one type, and in which order they changed. Pure.
//!
//! Clients remember one number, the revision they have seen; what they missed is the log's tail. A name is in the
//! log once, at its latest change, so the log is never longer than the resources and the remembered removals.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Removals remembered; a client further behind compares everything instead, or starts again.
const MAX_TOMBSTONES: usize = 100_000;

/// A resource, ready to send. Every session sends the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Version: equal exactly when the content is.
    pub version: Arc<str>,
    /// The encoded envelope: name, version, aliases and content.
    pub body: Bytes,
    /// Other names that clients may ask for it by.
    pub aliases: Vec<Arc<str>>,
    /// With whom it comes along, unasked.
    pub groups: Vec<Group>,
}

/// Resources that come together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Whoever asks for the resource of this name gets these too: the workloads behind a service. And whoever gets one of these gets
    /// that resource, if it has no other names to be asked for by.
    Behind(Arc<str>),
    /// The agent of this node gets these: its own pods.
    Node(Arc<str>),
}

impl Group {
    /// The service that it is about.
    pub fn leader(&self) -> Option<&Arc<str>> {
        match self {
            Self::Behind(service) => Some(service),
            Self::Node(_) => None,
        }
    }
}

/// The latest change of a name.
#[derive(Clone, Copy, Debug)]
pub struct Changed<'t> {
    /// When.
    pub revision: u64,
    /// The table's own copy of the name.
    pub name: &'t Arc<str>,
    /// What it is now; None when it is gone.
    pub resource: Option<&'t Arc<Resource>>,
    /// Before this revision there was no such resource (for as long as is remembered).
    pub born: u64,
}

#[derive(Debug)]
struct Entry {
    changed: u64,
    born: u64,
    resource: Arc<Resource>,
}

#[derive(Debug)]
struct Tombstone {
    changed: u64,
    born: u64,
}

/// The resources of one type.
#[derive(Debug)]
pub struct Table {
    resources: BTreeMap<Arc<str>, Entry>,
    names_by_alias: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    members: BTreeMap<Group, BTreeSet<Arc<str>>>,
    /// Revision to the name that changed then.
    log: BTreeMap<u64, Arc<str>>,
    tombstones: BTreeMap<Arc<str>, Tombstone>,
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
            members: BTreeMap::new(),
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
            (Some(old), Some(new)) if old.resource.version == new.version => return false,
            _ => {}
        }
        self.revision += 1;
        let mut born = self.revision;
        let mut shared: Option<Arc<str>> = None;
        if let Some((name, old)) = self.resources.remove_entry(name) {
            self.log.remove(&old.changed);
            self.leave(&name, &old.resource);
            (born, shared) = (old.born, Some(name));
        }
        if let Some((name, old)) = self.tombstones.remove_entry(name) {
            self.log.remove(&old.changed);
            // Who saw the earlier one and not its removal must hear of the next removal.
            (born, shared) = (old.born, Some(name));
        }
        let name = shared.unwrap_or_else(|| name.into());
        self.log.insert(self.revision, name.clone());
        match resource {
            Some(mut resource) => {
                self.join(&name, &mut resource);
                let entry = Entry { changed: self.revision, born, resource: Arc::new(resource) };
                self.resources.insert(name, entry);
            }
            None => {
                self.tombstones.insert(name, Tombstone { changed: self.revision, born });
                self.trim();
            }
        }
        true
    }

    /// The number of changes so far.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Removals up to this revision may be forgotten.
    pub fn floor(&self) -> u64 {
        self.floor
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
        self.resources.get_key_value(name).map(|(name, entry)| (name, &entry.resource))
    }

    /// Names of all resources.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.resources.keys()
    }

    /// Names of the resources that are called `name`, as their own name or as an alias.
    pub fn called<'t>(&'t self, name: &str) -> impl Iterator<Item = &'t Arc<str>> + use<'t> {
        let own = self.resources.get_key_value(name).map(|(name, _)| name);
        own.into_iter().chain(self.names_by_alias.get(name).into_iter().flatten())
    }

    /// Names of the resources of a group.
    pub fn members(&self, group: &Group) -> impl Iterator<Item = &Arc<str>> {
        self.members.get(group).into_iter().flatten()
    }

    /// What changed after `revision`, oldest first. Removals up to [`Self::floor`] may be missing.
    pub fn changed_since(&self, revision: u64) -> impl Iterator<Item = Changed<'_>> {
        self.log.range(revision + 1..).filter_map(|(revision, name)| {
            let changed = |born, resource| Changed { revision: *revision, name, resource, born };
            match self.resources.get(name) {
                Some(entry) => Some(changed(entry.born, Some(&entry.resource))),
                None => self.tombstones.get(name).map(|tombstone| changed(tombstone.born, None)),
            }
        })
    }

    /// Enters a resource's other names and groups; a group's name is kept once.
    fn join(&mut self, name: &Arc<str>, resource: &mut Resource) {
        for alias in &resource.aliases {
            self.names_by_alias.entry(alias.clone()).or_default().insert(name.clone());
        }
        for group in &mut resource.groups {
            if let Some((shared, _)) = self.members.get_key_value(group) {
                *group = shared.clone();
            }
            self.members.entry(group.clone()).or_default().insert(name.clone());
        }
    }

    fn leave(&mut self, name: &Arc<str>, resource: &Resource) {
        for alias in &resource.aliases {
            leave(&mut self.names_by_alias, alias, name);
        }
        for group in &resource.groups {
            leave(&mut self.members, group, name);
        }
    }

    /// Forgets the older half of the removals when there are too many.
    fn trim(&mut self) {
        if self.tombstones.len() <= self.max_tombstones {
            return;
        }
        let mut revisions: Vec<u64> = self.tombstones.values().map(|tombstone| tombstone.changed).collect();
        revisions.sort_unstable();
        let Some(floor) = revisions.get(revisions.len() / 2).copied() else {
            return;
        };
        let log = &mut self.log;
        self.tombstones.retain(|_, tombstone| {
            let keep = tombstone.changed > floor;
            if !keep {
                log.remove(&tombstone.changed);
            }
            keep
        });
        self.floor = floor;
    }
}

fn leave<K: Ord>(sets: &mut BTreeMap<K, BTreeSet<Arc<str>>>, key: &K, name: &Arc<str>) {
    if let Some(names) = sets.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            sets.remove(key);
        }
    }
}
