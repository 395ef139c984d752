//! What every conversation with the controller needs: an authenticated channel, a pace for retries, and files
//! that survive a crash. Shared by `xds` and `identity`, which must not know each other.

mod channel;
mod file;

pub use channel::{ControlChannel, ControlConfig, ControlError, DEFAULT_CONTROLLER_NAME, connect};
pub use file::write_atomically;
pub use warren_common::runtime::Backoff;
