//! Where a request or a connection of a pod would go, and why, without sending anything; and the rules that are in force.
//!
//! Every decision is taken by the function that takes it for traffic (which rules are in force, which matches, which endpoint,
//! who may enter). Here they are asked in the order of the stories ([`outbound`](crate::outbound), [`http`](crate::http)), and
//! what they say is put into words. Nothing is counted and nothing is kept: a choice by chance is one of those that may be.
//!
//! ```text
//!   question --ask--> Ask --client, whom--> who asks, and what they reach --story--> steps, outcome
//!                                             request: rules, faults, split     backend: endpoint, transport, verdict
//! ```

mod ask;
mod backend;
mod known;
mod request;
mod routes;
mod story;
mod tale;
#[cfg(test)]
mod tests;
mod whom;
mod words;

pub use ask::AskError;
pub use known::{Known, Nothing, Seen};
pub use routes::routes;
pub use story::why;
pub use whom::NoClient;

use crate::store::Mesh;
use std::time::Instant;

/// What is looked at.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// The mesh as the node knows it.
    pub mesh: &'a Mesh,
    /// The node whose pods ask; none: any pod may.
    pub node: Option<&'a str>,
    /// What is known of endpoints beside the configuration.
    pub known: &'a dyn Known,
    /// A random number.
    pub entropy: u64,
    /// The time.
    pub now: Instant,
}

/// Why nothing can be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// The question.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The client.
    #[error(transparent)]
    Client(#[from] NoClient),
}
