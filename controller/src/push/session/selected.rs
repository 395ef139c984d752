//! A client that wants what it names: those resources, what comes along with them, and the pods of its node.
//!
//! With a service come the workloads behind it. With a workload come the services that it stands behind and that nobody can ask
//! for, as they have no address: who dials the workload is a client of theirs. These bring nobody else.

use super::piece::Piece;
use crate::push::table::{Group, Resource, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a client holds, or has rejected: the versions, None where some version must be replaced.
pub(super) type Held = BTreeMap<Arc<str>, Option<Arc<str>>>;

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'s> {
    pub(super) names: &'s BTreeSet<String>,
    pub(super) node: Option<&'s Group>,
}

/// What a client holds and where it may differ from the table.
#[derive(Debug)]
pub(super) struct Selected {
    held: Held,
    /// The services that the workloads stand behind that the client is told of; of those that stand behind some.
    behind: BTreeMap<Arc<str>, Box<[Arc<str>]>>,
    /// The same by service: how many of them there are.
    fronts: BTreeMap<Arc<str>, usize>,
    /// Resources to compare.
    dirty: BTreeSet<Arc<str>>,
    /// Resources to compare after those: whoever is told of a service has been told of what is behind it.
    leaders: BTreeSet<Arc<str>>,
    /// To be sent whatever is held.
    forced: BTreeSet<Arc<str>>,
    /// Everything held and everything asked for is to be compared.
    compare_all: bool,
    /// Names asked for that the client knows to be called by nothing.
    absent: BTreeSet<Arc<str>>,
    /// Names may have come to that since they were last looked at.
    doubtful: bool,
    /// Revision of the table up to which all this is complete.
    seen: u64,
}

impl Selected {
    /// A client that holds this, and waits for those.
    pub(super) fn new(held: Held, forced: BTreeSet<Arc<str>>) -> Self {
        Self {
            held,
            behind: BTreeMap::new(),
            fronts: BTreeMap::new(),
            dirty: forced.clone(),
            leaders: BTreeSet::new(),
            forced,
            compare_all: true,
            absent: BTreeSet::new(),
            doubtful: false,
            seen: 0,
        }
    }

    /// The versions that the client holds, when it wants everything from now on.
    pub(super) fn into_versions(self) -> BTreeMap<Arc<str>, Arc<str>> {
        // No version is empty.
        self.held.into_iter().map(|(name, version)| (name, version.unwrap_or_default())).collect()
    }

    /// The client does not ask for `name` any more.
    pub(super) fn left(&mut self, name: &str, table: &Table) {
        self.absent.remove(name);
        self.compare(name, table);
    }

    /// The client asks for `name`; what it holds is sent again if it is `forced`.
    pub(super) fn asked(&mut self, name: &str, forced: bool, table: &Table) {
        if forced {
            self.forced.extend(table.called(name).cloned());
        }
        self.absent.remove(name);
        self.doubtful = true;
        self.compare(name, table);
    }

    fn compare(&mut self, name: &str, table: &Table) {
        // What is behind a service may be there before it.
        self.dirty.extend(table.members(&Group::Behind(name.into())).cloned());
        for name in table.called(name) {
            self.dirty.extend(table.members(&Group::Behind(name.clone())).cloned());
            self.note(name, table);
        }
    }

    /// Whether the client may lack something.
    pub(super) fn is_due(&self, table: &Table) -> bool {
        let noted = !self.dirty.is_empty() || !self.leaders.is_empty();
        noted || self.compare_all || self.doubtful || self.seen < table.revision()
    }

    /// Fills a piece with what comes next.
    pub(super) fn poll(&mut self, wish: Wish<'_>, table: &Table, piece: &mut Piece) {
        self.gather(wish, table);
        while let Some(name) = self.dirty.pop_first() {
            if !self.settle(&name, wish, table, piece) {
                self.dirty.insert(name);
                return;
            }
        }
        while let Some(name) = self.leaders.pop_first() {
            if !self.settle(&name, wish, table, piece) {
                self.leaders.insert(name);
                return;
            }
        }
        if std::mem::take(&mut self.doubtful) {
            self.look_for_absent(wish, table, piece);
        }
    }

    /// A name that nothing is called by (any more) is told to be gone, once.
    fn look_for_absent(&mut self, wish: Wish<'_>, table: &Table, piece: &mut Piece) {
        for name in wish.names {
            if table.called(name).next().is_some() {
                self.absent.remove(name.as_str());
            } else if !self.absent.contains(name.as_str()) {
                let name = Arc::from(name.as_str());
                if !piece.remove(&name) {
                    self.doubtful = true;
                    return;
                }
                self.absent.insert(name);
            }
        }
    }

    /// Everything that may differ goes to `dirty` and `leaders`.
    fn gather(&mut self, wish: Wish<'_>, table: &Table) {
        // Removals of what is held may be forgotten.
        if table.floor() > self.seen {
            self.compare_all = true;
        }
        if std::mem::take(&mut self.compare_all) {
            let held: Vec<_> = self.held.keys().cloned().collect();
            held.iter().for_each(|name| self.note(name, table));
            self.dirty.extend(wish.node.into_iter().flat_map(|node| table.members(node)).cloned());
            for name in wish.names {
                self.compare(name, table);
            }
            // One that has come since, or lost its address, was brought by nobody yet.
            let brought = self.fronts.keys().filter(|name| table.get(name).is_some());
            self.leaders.extend(brought.cloned());
        } else {
            for changed in table.changed_since(self.seen) {
                let wanted = changed.resource.is_some_and(|r| self.covers(wish, changed.name, r, table));
                let held = self.held.contains_key(changed.name);
                let pending = self.leaders.contains(changed.name);
                if wanted || held || pending {
                    // What is behind it may come or go with it.
                    self.dirty.extend(table.members(&Group::Behind(changed.name.clone())).cloned());
                    self.note(changed.name, table);
                }
            }
        }
        self.seen = table.revision();
    }

    /// To be compared in its turn.
    fn note(&mut self, name: &Arc<str>, table: &Table) {
        let leads = table.members(&Group::Behind(name.clone())).next().is_some();
        let turn = if leads { &mut self.leaders } else { &mut self.dirty };
        turn.insert(name.clone());
    }

    /// Tells the client how one resource is now, if it holds another state. False when there is no room.
    fn settle(&mut self, name: &Arc<str>, wish: Wish<'_>, table: &Table, piece: &mut Piece) -> bool {
        self.doubtful = true;
        let now = table.get(name).filter(|(name, resource)| self.covers(wish, name, resource, table));
        self.stands_behind(name, now.map_or(&[], |(_, resource)| resource.groups.as_slice()), table);
        let before = self.held.get(name);
        if let (Some((_, now)), Some(before)) = (now, before)
            && before.as_deref() == Some(&now.version)
            && !self.forced.contains(name)
        {
            return true;
        }
        match now {
            Some((name, resource)) => {
                if !piece.add(name, resource) {
                    return false;
                }
                self.held.insert(name.clone(), Some(resource.version.clone()));
                for called in resource.aliases.iter().chain([name]) {
                    self.absent.remove(called);
                }
            }
            None => {
                if before.is_some() && !piece.remove(name) {
                    return false;
                }
                self.held.remove(name);
            }
        }
        self.forced.remove(name);
        true
    }
}

impl Selected {
    fn covers(&self, wish: Wish<'_>, name: &str, resource: &Resource, table: &Table) -> bool {
        wish.covers(name, resource, table) || (resource.aliases.is_empty() && self.fronts.contains_key(name))
    }

    /// The client is told of a workload, which brings services, or is not told of it any more: `groups` is empty then.
    fn stands_behind(&mut self, name: &Arc<str>, groups: &[Group], table: &Table) {
        let now = || groups.iter().filter_map(Group::leader);
        let before = self.behind.get(name).map_or(&[][..], |before| before);
        if before.iter().eq(now()) {
            return;
        }
        let mut looked_at = Vec::new();
        for service in now() {
            let count = self.fronts.entry(service.clone()).or_default();
            *count += 1;
            if *count == 1 {
                looked_at.push(service.clone());
            }
        }
        for service in before {
            if let Some(count) = self.fronts.get_mut(service) {
                *count -= 1;
                if *count == 0 {
                    self.fronts.remove(service);
                    looked_at.push(service.clone());
                }
            }
        }
        let now: Box<[_]> = now().cloned().collect();
        match now.is_empty() {
            true => drop(self.behind.remove(name)),
            false => drop(self.behind.insert(name.clone(), now)),
        }
        // One with an address comes when it is asked for.
        let comes_along =
            |service: &Arc<str>| table.get(service).is_some_and(|(_, resource)| resource.aliases.is_empty());
        self.leaders.extend(looked_at.into_iter().filter(comes_along));
    }
}

impl Wish<'_> {
    fn covers(&self, name: &str, resource: &Resource, table: &Table) -> bool {
        let along = |group: &Group| match group {
            Group::Node(_) => self.node == Some(group),
            Group::Behind(leader) => {
                self.names.contains(leader.as_ref())
                    || table.get(leader).is_some_and(|(_, leader)| self.calls(leader))
            }
        };
        self.names.contains(name) || self.calls(resource) || resource.groups.iter().any(along)
    }

    fn calls(&self, resource: &Resource) -> bool {
        resource.aliases.iter().any(|alias| self.names.contains(alias.as_ref()))
    }
}
