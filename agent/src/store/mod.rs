//! The mesh as this agent knows it: immutable snapshots, applied off to the side and swapped in one step.
//!
//! Readers never wait for a writer and never see half of a change. Invariant: only [`Store`] swaps snapshots.

mod apply;
mod claims;
mod mesh;
mod sought;

#[cfg(test)]
mod tests;

pub use apply::MeshChange;
pub use mesh::Mesh;
pub use sought::Sought;

use arc_swap::{ArcSwap, Guard};
use mesh::Scope;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Holds the current [`Mesh`].
#[derive(Debug)]
pub struct Store {
    current: ArcSwap<Mesh>,
    // Writers build upon each other's result; readers never take this lock.
    writing: Mutex<()>,
    generation: watch::Sender<u64>,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty mesh, generation 0. It will hold everything.
    pub fn new() -> Self {
        Self { current: ArcSwap::default(), writing: Mutex::default(), generation: watch::channel(0).0 }
    }

    /// An empty mesh, generation 0. It will hold what is asked for.
    pub fn by_interest() -> Self {
        let mesh = Mesh {
            scope: Scope::Asked { absent: imbl::HashSet::new(), told: imbl::HashSet::new() },
            ..Mesh::default()
        };
        Self { current: ArcSwap::from_pointee(mesh), ..Self::new() }
    }

    /// The current snapshot, to keep for as long as it is needed.
    pub fn load(&self) -> Arc<Mesh> {
        self.current.load_full()
    }

    /// The current snapshot, for a few look-ups: cheaper than [`Self::load`], not to be held across an await.
    pub fn guard(&self) -> Guard<Arc<Mesh>> {
        self.current.load()
    }

    /// Applies `changes` in their order, as one step. What changes nothing wakes nobody, but for the first time:
    /// from generation 1 on the mesh is known, be it empty.
    pub fn apply(&self, changes: Vec<MeshChange>) {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut mesh = Mesh::clone(&self.current.load());
        if !mesh.apply(changes) && *self.generation.borrow() > 0 {
            return;
        }
        self.current.store(Arc::new(mesh));
        drop(writing);
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// How many changes there were; a snapshot that is loaded afterwards has all of them.
    pub fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    /// Wakes after every change; the value counts them.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}
