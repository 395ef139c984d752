//! A client that wants everything: a place in the table's log, and nothing per resource.

use super::SessionError;
use super::piece::Piece;
use super::selected::{Held, Selected};
use crate::push::table::Table;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How far a client has come.
#[derive(Debug, Default)]
pub(super) struct Everything {
    /// It has been told everything up to this revision.
    seen: u64,
    /// The table's revision when it came: removals before do not concern it.
    since: Option<u64>,
    resumed: Option<Resumed>,
    /// To be told ahead of the log, because it asked.
    asked: BTreeSet<Arc<str>>,
    /// Told ahead of the log.
    ahead: BTreeSet<Arc<str>>,
}

/// What it held when it came; needed until its place in the log is past everything that was there then.
#[derive(Debug)]
struct Resumed {
    held: BTreeMap<Arc<str>, Arc<str>>,
    /// Held, gone, and not yet told.
    gone: Vec<Arc<str>>,
}

impl Everything {
    /// A client that holds these versions.
    pub(super) fn new(held: BTreeMap<Arc<str>, Arc<str>>) -> Self {
        let resumed = (!held.is_empty()).then_some(Resumed { held, gone: Vec::new() });
        Self { resumed, ..Self::default() }
    }

    /// The client asks for `name`, which it is told of anyhow: it may have dropped it.
    pub(super) fn asked(&mut self, name: &str, table: &Table) {
        let mut called = table.called(name).peekable();
        if called.peek().is_none() {
            self.asked.insert(name.into());
        }
        self.asked.extend(called.cloned());
    }

    /// Whether the client may lack something.
    pub(super) fn is_due(&self, table: &Table) -> bool {
        self.since.is_none()
            || self.resumed.is_some()
            || !self.asked.is_empty()
            || self.seen < table.revision()
    }

    /// Fills a piece with what comes next.
    ///
    /// # Errors
    /// [`SessionError::Behind`].
    pub(super) fn poll(&mut self, table: &Table, piece: &mut Piece) -> Result<(), SessionError> {
        let since = *self.since.get_or_insert_with(|| {
            if let Some(Resumed { held, gone }) = &mut self.resumed {
                gone.extend(held.keys().filter(|name| table.get(name).is_none()).cloned());
            }
            table.revision()
        });
        self.is_not_behind(table)?;
        if let Some(Resumed { held, gone }) = &mut self.resumed {
            while let Some(name) = gone.pop() {
                if !piece.remove(&name) {
                    gone.push(name);
                    return Ok(());
                }
                held.remove(&name);
            }
        }
        while let Some(name) = self.asked.pop_first() {
            let fits = match table.get(&name) {
                Some((name, resource)) => piece.add(name, resource),
                None => piece.remove(&name),
            };
            if !fits {
                self.asked.insert(name);
                return Ok(());
            }
            if table.get(&name).is_some() {
                self.ahead.insert(name);
            }
        }
        let before = self.seen;
        for changed in table.changed_since(before) {
            let held = self.resumed.as_ref().and_then(|resumed| resumed.held.get(changed.name));
            let fits = match changed.resource {
                // What changed since it came was not what it held, whatever it is now.
                Some(resource) if changed.revision <= since && held == Some(&resource.version) => true,
                Some(resource) => piece.add(changed.name, resource),
                None => {
                    let told = changed.born <= before || held.is_some() || self.ahead.contains(changed.name);
                    changed.revision <= since || !told || piece.remove(changed.name)
                }
            };
            if !fits {
                break;
            }
            self.seen = changed.revision;
        }
        if self.seen >= since {
            self.resumed = None;
        }
        if self.seen == table.revision() {
            self.ahead.clear();
        }
        Ok(())
    }

    /// What the client holds, when it wants to go on with less than everything, and which answers it waits for.
    ///
    /// # Errors
    /// [`SessionError::Behind`].
    pub(super) fn into_selected(self, table: &Table) -> Result<Selected, SessionError> {
        self.is_not_behind(table)?;
        let mut held = Held::new();
        if let Some(Resumed { held: told, gone }) = self.resumed {
            held.extend(told.into_iter().map(|(name, version)| (name, Some(version))));
            held.extend(gone.into_iter().map(|name| (name, None)));
        }
        for changed in table.changed_since(0) {
            match changed.resource {
                Some(resource) if changed.revision <= self.seen => {
                    held.insert(changed.name.clone(), Some(resource.version.clone()));
                }
                _ if changed.revision > self.seen && changed.born <= self.seen => {
                    held.insert(changed.name.clone(), None);
                }
                _ => {}
            }
        }
        held.extend(self.ahead.into_iter().map(|name| (name, None)));
        Ok(Selected::new(held, self.asked))
    }

    /// Removals that concern it are all remembered.
    fn is_not_behind(&self, table: &Table) -> Result<(), SessionError> {
        match self.since {
            Some(since) if table.floor() > self.seen.max(since) => Err(SessionError::Behind),
            _ => Ok(()),
        }
    }
}
