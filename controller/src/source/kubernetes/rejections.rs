//! Objects that are rejected right now, for the events that tell their owners.

use super::ledger::Rejected;
use crate::objects::Kind;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A rejected object with all that a reference to it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// `apiVersion` of the object.
    pub api_version: String,
    /// Its kind.
    pub kind: Kind,
    /// Which, and why.
    pub rejected: Rejected,
}

/// The current rejections of every kind; of each a bounded number.
#[derive(Clone, Debug, Default)]
pub struct Rejections {
    by_kind: Arc<Mutex<BTreeMap<Kind, Vec<Rejection>>>>,
}

impl Rejections {
    /// All of them.
    pub fn list(&self) -> Vec<Rejection> {
        self.by_kind.lock().values().flatten().cloned().collect()
    }

    pub(super) fn replace(&self, kind: Kind, api_version: &str, rejected: Vec<Rejected>) {
        let rejection = |rejected| Rejection { api_version: api_version.to_owned(), kind, rejected };
        let rejections: Vec<_> = rejected.into_iter().map(rejection).collect();
        self.by_kind.lock().insert(kind, rejections);
    }
}
