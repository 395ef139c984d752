//! What goes into one response.

use crate::push::table::Resource;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Framing of a resource in its response (bytes).
const FRAMING: usize = 8;

/// A response that is being filled.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) resources: Vec<(Arc<str>, Arc<Resource>)>,
    pub(super) removed: BTreeSet<Arc<str>>,
    /// Something had no room.
    pub(super) is_full: bool,
    bytes: usize,
    max_bytes: usize,
}

impl Piece {
    /// An empty one that takes about `max_bytes`, or a single resource that is larger.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { resources: Vec::new(), removed: BTreeSet::new(), is_full: false, bytes: 0, max_bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty()
    }

    /// Adds a resource, unless there is no room for it.
    pub(super) fn add(&mut self, name: &Arc<str>, resource: &Arc<Resource>) -> bool {
        let fits = self.take(resource.body.len());
        if fits {
            self.resources.push((name.clone(), resource.clone()));
        }
        fits
    }

    /// Adds the name of what is gone, unless there is no room for it.
    pub(super) fn remove(&mut self, name: &Arc<str>) -> bool {
        let fits = self.take(name.len());
        if fits {
            self.removed.insert(name.clone());
        }
        fits
    }

    fn take(&mut self, bytes: usize) -> bool {
        let fits = self.is_empty() || self.bytes + bytes + FRAMING <= self.max_bytes;
        if fits {
            self.bytes += bytes + FRAMING;
        }
        self.is_full |= !fits;
        fits
    }
}
