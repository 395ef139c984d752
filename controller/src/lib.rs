//! warren's controller: it watches configuration, resolves it for the agents, pushes it to them, and issues
//! the certificates of the mesh.
//!
//! ```text
//! source -> index -> resolve -> push      (one direction; `app` wires them)
//!                                 ca      (reads the index: who runs where)
//!   `---- what is rejected ----> status   (written back to the cluster, by one replica)
//! ```
//!
//! `objects`, `index`, `resolve`, `push::session`, `push::table` and `ca::authorise` are pure: no clock, no
//! sockets, no runtime.

mod admin;
pub mod app;
pub mod ca;
pub mod index;
pub mod kubernetes;
mod listen;
pub mod objects;
pub mod observe;
mod pipeline;
pub mod push;
pub mod resolve;
pub mod source;
mod status;
