//! The node agent: capture -> accept -> identify -> permit -> route -> tunnel -> observe.
//!
//! Read [`outbound`] and [`inbound`] first: each tells a connection's life from top to bottom.

pub mod accept;
pub mod control;
pub mod flow;
pub mod kernel;
pub mod observe;
pub mod pods;
pub mod policy;
pub mod route;
pub mod store;
pub mod tunnel;
pub mod workers;
pub mod xds;
