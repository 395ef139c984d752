//! Resources to agents: delta ADS.
//!
//! [`table`] holds the current resources and who changed when, [`session`] is the protocol of one client, both
//! pure; [`publish`] shares the table, [`server`] is the tonic service around them. Nothing queues per client:
//! a slow one simply sees fewer, larger steps.

pub mod publish;
pub mod server;
pub mod session;
pub mod table;
mod version;

pub use version::{resource, revocations, trust};
