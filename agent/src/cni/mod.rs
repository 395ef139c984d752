//! The CNI plugin's other half: its questions answered, and its place in the node's CNI configuration kept.

mod install;
mod server;

pub use install::{InstallConfig, InstallError, follow, install, remove};
pub use server::serve;
