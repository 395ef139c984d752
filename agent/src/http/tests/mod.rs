//! The pipeline over streams in memory: clients that write bytes, servers that are hyper or a script.

mod changes;
mod connections;
mod framing;
mod limits;
mod mirrors;
mod protocols;
mod rest;
mod routing;
mod streams;
mod tracing;
mod tries;
mod world;
