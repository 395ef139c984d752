//! One type of one session: what is asked for, and which answers are owed.

use super::SessionError;
use super::everything::Everything;
use super::piece::Piece;
use super::selected::{Selected, Wish};
use crate::push::table::{Group, Table};
use std::collections::{BTreeMap, BTreeSet};

const WILDCARD: &str = "*";

#[derive(Debug)]
pub(super) struct Subscription {
    progress: Progress,
    wildcard: bool,
    /// Names and aliases asked for one by one.
    names: BTreeSet<String>,
    /// Asked for since the last poll: an answer is owed even when there is no such resource. True: also when the
    /// client holds it, for it may have dropped it.
    owed: BTreeMap<String, bool>,
    /// Not asked for any more since the last poll.
    left: BTreeSet<String>,
    /// A response is owed even when nothing differs.
    owes_response: bool,
    in_flight: Option<String>,
}

/// What the client knows, kept in the way that its subscription needs.
#[derive(Debug)]
enum Progress {
    Everything(Everything),
    Selected(Selected),
}

impl Subscription {
    /// The first request of a type; one that names nothing asks for everything. Names that come with versions are
    /// those of a client that resumes: what it holds is not sent again.
    pub(super) fn first(
        held: BTreeMap<String, String>,
        subscribe: Vec<String>,
        unsubscribe: Vec<String>,
    ) -> Self {
        let held = held.into_iter().map(|(name, version)| (name.into(), version.into()));
        let mut subscription = Self {
            progress: Progress::Everything(Everything::new(held.collect())),
            wildcard: subscribe.is_empty(),
            names: BTreeSet::new(),
            owed: BTreeMap::new(),
            left: BTreeSet::new(),
            owes_response: true,
            in_flight: None,
        };
        subscription.change(subscribe, unsubscribe);
        subscription.owed.values_mut().for_each(|forced| *forced = false);
        subscription
    }

    pub(super) fn names(&self) -> usize {
        self.names.len() + self.owed.len()
    }

    pub(super) fn change(&mut self, subscribe: Vec<String>, unsubscribe: Vec<String>) {
        // In both lists it means: nothing for now, names will follow (that is how ztunnel says it).
        let nothing = unsubscribe.iter().any(|name| name == WILDCARD);
        // Unsubscribing first: another name in both lists is asked for afresh.
        for name in unsubscribe {
            if name == WILDCARD {
                self.wildcard = false;
            } else if self.names.remove(&name) && self.wildcard {
                // The client may have dropped it, and the wildcard still covers it: say how it is.
                self.owed.insert(name, true);
            } else {
                self.owed.remove(&name);
                self.left.insert(name);
            }
        }
        for name in subscribe {
            if name != WILDCARD {
                // Asking again for what one has is asking for it to be sent again.
                self.owed.insert(name.clone(), true);
                self.left.remove(&name);
                self.names.insert(name);
            } else if !nothing {
                (self.wildcard, self.owes_response) = (true, true);
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

    /// Whether there may be something to tell. If so a response is owed, were it an empty one.
    pub(super) fn is_due(&mut self, table: &Table) -> bool {
        let is_due = match &self.progress {
            Progress::Everything(everything) => everything.is_due(table),
            Progress::Selected(selected) => selected.is_due(table),
        };
        self.owes_response |= is_due || !self.owed.is_empty() || !self.left.is_empty();
        self.owes_response
    }

    /// What the client must be told next; none while a response is in flight or when nothing differs.
    pub(super) fn poll(
        &mut self,
        node: Option<&Group>,
        table: &Table,
        max_bytes: usize,
    ) -> Result<Option<Piece>, SessionError> {
        if self.in_flight.is_some() {
            return Ok(None);
        }
        self.switch(table)?;
        let mut piece = Piece::new(max_bytes);
        let left = std::mem::take(&mut self.left);
        match &mut self.progress {
            Progress::Everything(everything) => {
                for name in std::mem::take(&mut self.owed).into_keys() {
                    everything.asked(&name, table);
                }
                everything.poll(table, &mut piece)?;
            }
            Progress::Selected(selected) => {
                left.iter().for_each(|name| selected.left(name, table));
                let wish = Wish { names: &self.names, node };
                for (name, forced) in std::mem::take(&mut self.owed) {
                    selected.asked(&name, forced, table);
                }
                selected.poll(wish, table, &mut piece);
            }
        }
        let due = self.owes_response || !piece.is_empty();
        self.owes_response = false;
        Ok(due.then_some(piece))
    }

    /// From everything to what is named, or back.
    fn switch(&mut self, table: &Table) -> Result<(), SessionError> {
        let is_everything = matches!(self.progress, Progress::Everything(_));
        if is_everything == self.wildcard {
            return Ok(());
        }
        let nothing = Progress::Everything(Everything::default());
        self.progress = match std::mem::replace(&mut self.progress, nothing) {
            Progress::Everything(everything) => {
                // With everything nobody was told which of their names nothing is called by any more.
                for name in &self.names {
                    self.owed.entry(name.clone()).or_insert(false);
                }
                Progress::Selected(everything.into_selected(table)?)
            }
            Progress::Selected(selected) => Progress::Everything(Everything::new(selected.into_versions())),
        };
        Ok(())
    }
}
