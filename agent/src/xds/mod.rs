//! The mesh's configuration: a delta-ADS session with the controller, into the store and onto the disk.
//!
//! ```text
//!   disk --------.                                     .--> store (one swap per response)
//!                 >--> Session (sans-IO) --> Outcome --<
//!   controller --'                                     '--> ACK or NACK back, disk (debounced)
//! ```

mod client;
mod disk;
mod session;
mod status;

#[cfg(test)]
mod tests;

pub(crate) use client::saved;
pub use client::{XdsConfig, run};
pub use session::{Outcome, Rejection, Session, Versions};
pub use status::SharedControllerStatus;
