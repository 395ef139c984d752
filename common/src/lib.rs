//! What more than one side of warren must agree on.
//!
//! * [`abi`]: the keys and values that kernel programs and agent share (layer 0, `no_std`);
//! * `model`: pure domain types (feature `std`);
//! * `proto`: generated messages and their typed conversion (feature `proto`);
//! * `runtime`: drain, readiness, signals, logging (feature `runtime`).
#![cfg_attr(not(feature = "std"), no_std)]

pub mod abi;
#[cfg(feature = "std")]
pub mod model;
#[cfg(feature = "proto")]
pub mod proto;
#[cfg(feature = "runtime")]
pub mod runtime;

/// The ports that warren's agent owns. ztunnel's users already have them in their NetworkPolicies.
pub mod ports {
    /// Outbound capture, on loopback in the pod's network namespace.
    pub const OUTBOUND: u16 = 15001;
    /// Plaintext inbound capture, on loopback in the pod's network namespace (reached through sk_lookup only).
    pub const INBOUND_PLAINTEXT: u16 = 15006;
    /// HBONE, in the pod's network namespace.
    pub const HBONE: u16 = 15008;
    /// gRPC of the controller: delta ADS and certificates, over TLS.
    pub const CONTROLLER: u16 = 15012;
    /// Prometheus metrics, in the agent's own network namespace.
    pub const METRICS: u16 = 15020;
    /// Readiness, in the agent's own network namespace.
    pub const READINESS: u16 = 15021;
    /// DNS capture, in the pod's network namespace.
    pub const DNS: u16 = 15053;
}
