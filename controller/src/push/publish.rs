//! The tables that all sessions read and the pipeline writes.

use super::session::{Response, Session, SessionError};
use super::table::{Resource, Table};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use tokio::sync::watch;

/// What became of one resource: its type, its name, and what it is now, if it still is.
pub type Publication = (&'static str, String, Option<Resource>);

/// What is published, a table for each type. Encoding happens before, so the lock is held for single steps only.
#[derive(Debug)]
pub struct Published {
    tables: RwLock<BTreeMap<&'static str, Table>>,
    /// Of every type that the controller does not serve.
    nothing: Table,
    changes: watch::Sender<u64>,
}

impl Default for Published {
    fn default() -> Self {
        Self { tables: RwLock::default(), nothing: Table::default(), changes: watch::Sender::new(0) }
    }
}

impl Published {
    /// Applies a batch in one step and wakes the sessions. Returns how many resources changed.
    pub fn apply(&self, batch: Vec<Publication>) -> usize {
        let changed = {
            let mut tables = self.tables.write();
            let set = |(type_url, name, resource): Publication| {
                tables.entry(type_url).or_default().set(&name, resource).then_some(())
            };
            batch.into_iter().filter_map(set).count()
        };
        self.changes.send_if_modified(|changes| {
            *changes += changed as u64;
            changed > 0
        });
        changed
    }

    /// Told after every change.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The next response that a session owes its client.
    ///
    /// # Errors
    /// As [`Session::poll`].
    pub fn poll(&self, session: &mut Session) -> Result<Option<Response>, SessionError> {
        let tables = self.tables.read();
        session.poll(|type_url| tables.get(type_url).unwrap_or(&self.nothing))
    }
}
