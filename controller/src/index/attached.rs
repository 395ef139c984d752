//! Routes of the Gateway API as they are attached to services, in the order in which they count: what comes first on a port is
//! found without a look at the others, of which a service may have thousands.

use crate::objects::{Created, Kind, Name, ParentRef, Route, Service};
use std::collections::{BTreeSet, btree_set};
use std::sync::Arc;

/// Routes of which one may take the requests of another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    /// The service they are attached to.
    pub(super) service: Name,
    /// Their own; others' are for other clients.
    pub(super) namespace: Arc<str>,
    pub(super) kind: Kind,
    /// Of a match that they have; none: whatever they match.
    pub(super) digest: Option<u64>,
}

/// Which ports of the service a parent means, as it says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ports {
    section: Option<Arc<str>>,
    number: Option<u16>,
}

impl Ports {
    pub(super) fn of(parent: &ParentRef) -> Self {
        Self { section: parent.section.clone(), number: parent.port }
    }

    /// Every way to mean one port.
    pub(super) fn that_mean(service: &Service, port: u16) -> Vec<Self> {
        let known = service.ports.iter().find(|known| known.port == port);
        let sections = std::iter::once(None).chain(known.map(|known| Some(known.name.clone())));
        let both = |section: Option<Arc<str>>| {
            [None, Some(port)].map(|number| Self { section: section.clone(), number })
        };
        sections.flat_map(both).collect()
    }
}

/// Its order is that in which routes count: within a group and the ports that are meant, the oldest first, then by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    group: Group,
    ports: Ports,
    created: Created,
    name: Arc<str>,
}

impl Entry {
    fn route(&self) -> Name {
        Name::new(self.group.namespace.clone(), self.name.clone())
    }
}

/// One flat set: a map of sets would spend a node on each match that only one route has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Attached(BTreeSet<Entry>);

impl Attached {
    pub(super) fn insert(&mut self, route: &Route) {
        self.0.extend(entries(route));
    }

    pub(super) fn remove(&mut self, route: &Route) {
        for entry in entries(route) {
            self.0.remove(&entry);
        }
    }

    /// Routes of a group that mean their ports in one way, in the order in which they count.
    pub(super) fn meaning<'a>(
        &'a self,
        group: &'a Group,
        ports: &'a Ports,
    ) -> impl Iterator<Item = Name> + 'a {
        let all = self.starting(group, ports);
        all.take_while(move |entry| entry.group == *group && entry.ports == *ports).map(Entry::route)
    }

    /// Routes of a group, whatever ports they mean. One may be there several times.
    pub(super) fn all<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = Name> + 'a {
        let all = self.starting(group, &Ports::default());
        all.take_while(move |entry| entry.group == *group).map(Entry::route)
    }

    fn starting<'a>(&'a self, group: &Group, ports: &Ports) -> btree_set::Range<'a, Entry> {
        // What sorts before every other.
        let first = Entry { group: group.clone(), ports: ports.clone(), created: None, name: "".into() };
        self.0.range(first..)
    }
}

/// None of a route that can't be used: it does not count.
fn entries(route: &Route) -> Vec<Entry> {
    let mut found = Vec::new();
    if route.unsupported.is_some() {
        return found;
    }
    let digests: BTreeSet<u64> = route.matches().map(|one| one.ranked.digest()).collect();
    for (service, parent) in route.services() {
        for digest in std::iter::once(None).chain(digests.iter().copied().map(Some)) {
            let (service, namespace) = (service.clone(), route.name.namespace.clone());
            found.push(Entry {
                group: Group { service, namespace, kind: route.kind, digest },
                ports: Ports::of(parent),
                created: route.created,
                name: route.name.name.clone(),
            });
        }
    }
    found
}
