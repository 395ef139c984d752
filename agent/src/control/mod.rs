//! What every conversation with the controller needs: whom to trust, an authenticated channel, a pace for retries, and
//! files that survive a crash. Shared by `xds` and `identity`, which must not know each other.

mod channel;
mod file;
mod trust;

pub use channel::{ControlChannel, ControlConfig, ControlError, DEFAULT_CONTROLLER_NAME, connect};
pub use file::write_atomically;
pub(crate) use trust::saved;
pub use trust::{Anchors, FROM_FILE, Trust, TrustError};
pub use warren_common::runtime::Backoff;
