//! Pods of this node: finding their network namespace, enrolling and releasing them live, and before their first
//! process where the container runtime asks.

mod discover;
mod lifetime;
mod listening;
mod manager;
mod offline;
mod registry;
mod request;
mod sandbox;
#[cfg(test)]
pub(crate) mod testing;

pub use discover::{DiscoverError, Discovery, ProcDiscovery};
pub use lifetime::Lifetime;
pub use listening::{Door, DoorSockets, HeldPods, Leaf, ListenError, PodListeners};
pub use manager::{Inheritance, PodDoor, PodManager, PodManagerConfig};
pub use registry::{Pod, PodRegistry};
pub use request::PodRequests;

use std::path::{Path, PathBuf};
use warren_common::model::cni::OFFLINE_FILE;

/// What the manager keeps in the state directory.
pub(crate) fn saved(state_dir: &Path) -> impl Iterator<Item = PathBuf> {
    [OFFLINE_FILE, sandbox::FILE].map(|name| state_dir.join(name)).into_iter()
}
