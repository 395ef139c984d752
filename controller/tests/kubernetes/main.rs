//! The controller against a real API server (`cargo xtask test kubernetes` gives it one). It needs neither nodes nor
//! the other parts of Kubernetes.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

#[path = "../support/agent.rs"]
#[allow(dead_code, reason = "shared with the other suites")]
mod agent;
mod ca;
mod cluster;
mod kinds;
mod permissions;
#[path = "../support/server.rs"]
#[allow(dead_code, reason = "shared with the other suites")]
mod server;
mod tokens;
