//! Pods of this node: finding their network namespace, enrolling and releasing them live.

mod discover;
mod manager;
mod registry;

pub use discover::{DiscoverError, Discovery, ProcDiscovery};
pub use manager::{PodDoor, PodListeners, PodManager, PodManagerConfig};
pub use registry::{Pod, PodRegistry};
