//! The tables that all sessions read and the pipeline writes.

use super::session::{Response, Session};
use super::table::{Resource, Table};
use parking_lot::RwLock;
use tokio::sync::watch;
use warren_common::proto::ADDRESS_TYPE_URL;

/// What is published. Encoding happens before, so the lock is held for single steps only.
#[derive(Debug)]
pub struct Published {
    addresses: RwLock<Table>,
    /// Of every type that the controller does not serve.
    nothing: Table,
    revision: watch::Sender<u64>,
}

impl Default for Published {
    fn default() -> Self {
        Self { addresses: RwLock::default(), nothing: Table::default(), revision: watch::Sender::new(0) }
    }
}

impl Published {
    /// Applies a batch in one step and wakes the sessions. Returns how many resources changed.
    pub fn apply(&self, batch: Vec<(String, Option<Resource>)>) -> usize {
        let (changed, revision) = {
            let mut table = self.addresses.write();
            let changed =
                batch.into_iter().filter_map(|(name, resource)| table.set(&name, resource).then_some(()));
            (changed.count(), table.revision())
        };
        self.revision.send_if_modified(|seen| std::mem::replace(seen, revision) != revision);
        changed
    }

    /// Told after every change.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// The next response that a session owes its client.
    pub fn poll(&self, session: &mut Session) -> Option<Response> {
        let addresses = self.addresses.read();
        session.poll(|type_url| if type_url == ADDRESS_TYPE_URL { &*addresses } else { &self.nothing })
    }
}
