//! The node agent: capture -> accept -> identify -> permit -> route -> tunnel -> observe.
//!
//! Read [`outbound`] and [`inbound`] first: each tells a connection's life from top to bottom.

pub mod accept;
pub mod app;
pub mod balance;
pub mod cgroup;
pub mod cleanup;
pub mod cni;
mod context;
pub mod control;
mod doors;
pub mod explain;
mod farewell;
mod flow;
mod gate;
pub mod handover;
mod hash;
pub mod http;
pub mod identity;
mod inbound;
pub mod interest;
pub mod kernel;
pub mod limits;
pub mod observe;
mod outbound;
pub mod pods;
pub mod policy;
pub mod route;
mod standing;
pub mod store;
pub mod tunnel;
mod view;
pub mod workers;
pub mod xds;
