//! What is known of one kind: which objects there are, and which of them can't be used. Pure.

use crate::objects::{Key, Kind, Name, Object};
use crate::source::{Change, Problem};
use std::collections::{BTreeMap, BTreeSet};

/// Rejected objects of a kind that are reported one by one; more are counted.
const MAX_REPORTED: usize = 100;

/// An object that can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Namespace and name.
    pub name: Name,
    /// `metadata.uid`.
    pub uid: String,
    /// Why, shortened.
    pub reason: String,
}

/// The objects of one kind: names only, the objects themselves live in the index.
#[derive(Debug)]
pub(super) struct Ledger {
    kind: Kind,
    /// Objects that the index has.
    known: BTreeSet<Name>,
    /// Names that the list at work has brought so far.
    seen: Option<BTreeSet<Name>>,
    /// By the order in which they came, so that what is reported stays while more come.
    rejected: BTreeMap<u64, Rejected>,
    rejected_at: BTreeMap<Name, u64>,
    next: u64,
    /// For these the index has what stands for them.
    stood_in: BTreeSet<Name>,
}

impl Ledger {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            known: BTreeSet::new(),
            seen: None,
            rejected: BTreeMap::new(),
            rejected_at: BTreeMap::new(),
            next: 0,
            stood_in: BTreeSet::new(),
        }
    }

    /// A list begins: what it does not bring is gone when it ends.
    pub(super) fn list_begins(&mut self) {
        self.seen = Some(BTreeSet::new());
    }

    /// An object is there. One that can't be used changes nothing: its last good version stays, and `instead` is told so. If
    /// there was none, something may stand in for it, and says what it is for.
    pub(super) fn present(
        &mut self,
        name: Name,
        uid: &str,
        object: Result<Object, String>,
        instead: impl FnOnce(&str, bool) -> Option<Change>,
    ) -> Option<Change> {
        if let Some(seen) = &mut self.seen {
            seen.insert(name.clone());
        }
        match object {
            Ok(object) => {
                self.accept(&name);
                self.known.insert(name);
                Some(Change::Upsert(object))
            }
            Err(reason) => {
                let at = *self.rejected_at.entry(name.clone()).or_insert_with(|| {
                    self.next += 1;
                    self.next
                });
                let was_good = self.known.contains(&name) && !self.stood_in.contains(&name);
                let instead = instead(&reason, was_good);
                self.rejected.insert(at, Rejected { name: name.clone(), uid: uid.to_owned(), reason });
                match instead {
                    Some(Change::Upsert(object)) => {
                        self.stood_in.insert(name.clone());
                        self.known.insert(name);
                        Some(Change::Upsert(object))
                    }
                    Some(remark) => Some(remark),
                    // What stood in for an earlier version would refuse what nobody means any more.
                    None if self.stood_in.remove(&name) => {
                        self.known.remove(&name);
                        Some(self.deletion(name))
                    }
                    None => None,
                }
            }
        }
    }

    /// An object is gone.
    pub(super) fn gone(&mut self, name: &Name) -> Option<Change> {
        self.accept(name);
        self.known.remove(name).then(|| self.deletion(name.clone()))
    }

    /// The list is complete.
    pub(super) fn list_ends(&mut self) -> Vec<Change> {
        let seen = self.seen.take().unwrap_or_default();
        let vanished: BTreeSet<Name> = self
            .known
            .iter()
            .chain(self.rejected_at.keys())
            .filter(|name| !seen.contains(name))
            .cloned()
            .collect();
        vanished.iter().filter_map(|name| self.gone(name)).collect()
    }

    /// The kind itself is gone, and all of its objects.
    pub(super) fn all_gone(&mut self) -> Vec<Change> {
        self.list_begins();
        self.list_ends()
    }

    /// Those that are reported one by one, and how many more there are.
    pub(super) fn rejected(&self) -> (Vec<Rejected>, usize) {
        let reported: Vec<_> = self.rejected.values().take(MAX_REPORTED).cloned().collect();
        let more = self.rejected.len() - reported.len();
        (reported, more)
    }

    /// Whether there are any.
    pub(super) fn has_rejected(&self) -> bool {
        !self.rejected.is_empty()
    }

    /// The same as problems.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let (reported, more) = self.rejected();
        let kind = self.kind.as_str();
        let problem = |rejected: Rejected| {
            let stays = if self.stood_in.contains(&rejected.name) {
                match self.kind {
                    Kind::AuthorizationPolicy => "; nobody may enter what it may be for",
                    _ => "",
                }
            } else if self.known.contains(&rejected.name) {
                "; its last good version stays"
            } else {
                ""
            };
            let reason = format!("rejected: {}{stays}", rejected.reason);
            Problem { place: format!("{kind} {}", rejected.name), line: None, reason }
        };
        let rest = (more > 0).then(|| Problem {
            place: kind.to_owned(),
            line: None,
            reason: format!("{more} more objects are rejected; repair those that are listed to see them"),
        });
        reported.into_iter().map(problem).chain(rest).collect()
    }

    fn accept(&mut self, name: &Name) {
        self.stood_in.remove(name);
        if let Some(at) = self.rejected_at.remove(name) {
            self.rejected.remove(&at);
        }
    }

    fn deletion(&self, name: Name) -> Change {
        Change::Delete(Key { kind: self.kind, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{Map, Namespace, Refused};

    fn name(name: &str) -> Name {
        Name::new("", name)
    }

    fn namespace(name: &str) -> Object {
        Object::Namespace(Namespace { name: name.into(), labels: Map::new() })
    }

    fn put(ledger: &mut Ledger, text: &str) -> Option<Change> {
        ledger.present(name(text), "", Ok(namespace(text)), |_, _| None)
    }

    fn bad(ledger: &mut Ledger, text: &str) {
        assert_eq!(ledger.present(name(text), "u", Err("broken".into()), |_, _| None), None);
    }

    fn deleted(text: &str) -> Change {
        Change::Delete(Key { kind: Kind::Namespace, name: name(text) })
    }

    #[test]
    fn a_list_deletes_what_it_does_not_bring() {
        for (before, rejected_before, listed, expected) in [
            (vec![], vec![], vec![], vec![]),
            (vec!["a", "b"], vec![], vec!["a", "b"], vec![]),
            (vec!["a", "b", "c"], vec![], vec!["b"], vec!["a", "c"]),
            (vec!["a"], vec!["x"], vec![], vec!["a"]),
            (vec!["a"], vec!["a"], vec!["a"], vec![]),
            (vec![], vec!["x"], vec!["y"], vec![]),
        ] {
            let mut ledger = Ledger::new(Kind::Namespace);
            before.iter().for_each(|name| drop(put(&mut ledger, name)));
            rejected_before.iter().for_each(|name| bad(&mut ledger, name));
            ledger.list_begins();
            for name in &listed {
                assert_eq!(put(&mut ledger, name), Some(Change::Upsert(namespace(name))));
            }
            let expected: Vec<_> = expected.into_iter().map(deleted).collect();
            assert_eq!(ledger.list_ends(), expected, "{before:?} {listed:?}");
            assert_eq!(ledger.problems(), []);
        }
    }

    #[test]
    fn what_was_never_good_is_stood_in_for() {
        let mut ledger = Ledger::new(Kind::AuthorizationPolicy);
        let deleted = |text: &str| Change::Delete(Key { kind: Kind::AuthorizationPolicy, name: name(text) });
        let remark = |why: &str| {
            let refused = Refused { generation: 2, why: why.to_owned() };
            Change::Refused(Key { kind: Kind::AuthorizationPolicy, name: name("a") }, refused)
        };
        let bad = |ledger: &mut Ledger, stand_in: Option<&str>| {
            let instead = |why: &str, was_good: bool| {
                if was_good {
                    Some(remark(why))
                } else {
                    stand_in.map(|text| Change::Upsert(namespace(text)))
                }
            };
            ledger.present(name("a"), "u", Err("broken".into()), instead)
        };
        assert_eq!(bad(&mut ledger, Some("x")), Some(Change::Upsert(namespace("x"))));
        assert!(ledger.problems()[0].reason.contains("nobody may enter"), "{:?}", ledger.problems());
        assert_eq!(bad(&mut ledger, Some("y")), Some(Change::Upsert(namespace("y"))));
        assert_eq!(bad(&mut ledger, None), Some(deleted("a")));
        assert_eq!(bad(&mut ledger, None), None);
        assert_eq!(put(&mut ledger, "a"), Some(Change::Upsert(namespace("a"))));
        assert_eq!(bad(&mut ledger, Some("x")), Some(remark("broken")), "the last good version stays");
        assert!(ledger.problems()[0].reason.contains("last good version stays"), "{:?}", ledger.problems());
        assert_eq!(ledger.gone(&name("a")), Some(deleted("a")));
        bad(&mut ledger, Some("x"));
        assert_eq!(ledger.gone(&name("a")), Some(deleted("a")), "what stood in goes too");
    }

    #[test]
    fn a_list_that_is_begun_again_counts_from_the_start() {
        let mut ledger = Ledger::new(Kind::Namespace);
        ledger.list_begins();
        put(&mut ledger, "a");
        ledger.list_begins();
        put(&mut ledger, "b");
        assert_eq!(ledger.list_ends(), [deleted("a")]);
    }

    #[test]
    fn the_last_good_version_stays_until_the_object_goes() {
        let mut ledger = Ledger::new(Kind::Namespace);
        put(&mut ledger, "a");
        bad(&mut ledger, "a");
        bad(&mut ledger, "new");
        let texts: Vec<_> = ledger.problems().iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["Namespace a: rejected: broken; its last good version stays", "Namespace new: rejected: broken"]
        );
        ledger.list_begins();
        bad(&mut ledger, "a");
        assert_eq!(ledger.list_ends(), []);
        assert_eq!(ledger.problems().len(), 1);
        assert_eq!(ledger.gone(&name("a")), Some(deleted("a")));
        assert_eq!(ledger.gone(&name("a")), None);
        assert_eq!(ledger.problems(), []);
    }

    #[test]
    fn thousands_of_bad_ones_are_counted_and_the_reported_ones_stay() {
        let mut ledger = Ledger::new(Kind::Namespace);
        (0..5000).rev().for_each(|n| bad(&mut ledger, &format!("n{n}")));
        let first = ledger.problems();
        assert_eq!(first.len(), MAX_REPORTED + 1);
        assert!(first[MAX_REPORTED].reason.starts_with("4900 more"));
        bad(&mut ledger, "a");
        assert_eq!(ledger.problems()[..MAX_REPORTED], first[..MAX_REPORTED]);
        // One is repaired: the next one is shown.
        put(&mut ledger, "n4999");
        assert_eq!(ledger.problems()[MAX_REPORTED - 1].place, "Namespace n4899");
        assert_eq!(ledger.all_gone(), [deleted("n4999")]);
        assert_eq!(ledger.problems(), []);
    }
}
