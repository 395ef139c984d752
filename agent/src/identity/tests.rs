//! Identities against a CA of our own, on simulated time; handshakes in memory.

mod controller;
mod fake;
mod handshake;
mod manager;
mod outside;
mod peer;
