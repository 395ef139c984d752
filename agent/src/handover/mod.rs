//! From an agent to its successor: the listeners of every enrolled pod, so that no new connection fails in between, and
//! then the connections that stand, so that none breaks.
//!
//! ```text
//!   successor                    predecessor (listens on handover.sock)
//!     hello ------------------------->
//!     <------------------------ welcome, a message per pod with its sockets, endpoint sockets, end
//!     (enrols each pod: now both accept from it)
//!     taken ------------------------->  stops accepting, says GOAWAY, leaves the kernel to the other
//!     <------------------------ the pods enrolled meanwhile, done
//!     flows ------------------------->  (the successor is ready to judge)
//!     (serves the next handover)        hands its connections over, one by one (see [`flows`](self::describe)); those
//!                                       that can't be, it keeps until SIGTERM and its drain deadline
//! ```
//!
//! * The successor dies before `taken`: the predecessor goes on as if nothing had happened.
//! * The predecessor dies: the successor has copies of the sockets it got and opens those it lacks.
//! * The predecessor hangs: the successor goes on without it after [`DEADLINE`]; what it can't listen on is pending.
//! * After `done` the connection stays open: a predecessor whose successor ends with nobody in its place ends too, so
//!   that whoever looks after it starts an agent that serves.
//!
//! If the two disagree about the kernel's maps, `taken` is said before the successor loads its programs: what is
//! established from then on waits in the shared listeners.

mod arrive;
mod ask;
mod depart;
mod flows;
mod message;
mod offer;
mod wire;

pub use ask::{Lifeline, Predecessor, Rest, ask};
pub use flows::{ArrivedFlow, Departure, Exit, Exits, Fate, FlowMessage, GuestMessage, SpanLeft, describe};
pub use message::VERSION;
pub use offer::{Offer, Retire, offer};

use std::path::PathBuf;
use std::time::Duration;

/// How long a predecessor may take to answer.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// How long a predecessor waits for `taken`; a successor waits for its first configuration meanwhile.
const PATIENCE: Duration = Duration::from_secs(600);

/// Why this agent cannot follow another.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The other agent says no.
    #[error(
        "another agent serves this node and will not hand over through {socket}: {reason}; stop it first (its pods' connections fail until this one runs)"
    )]
    Refused {
        /// Where it was asked.
        socket: PathBuf,
        /// What it says.
        reason: String,
    },
    /// The conversation failed.
    #[error("{0}")]
    Wire(#[from] std::io::Error),
    /// The other side does not keep to the protocol.
    #[error("the other agent does not keep to the protocol: {0}")]
    Protocol(String),
    /// The agent that took over has ended, and no other one listens.
    #[error(
        "the agent that took over from this one has ended and nobody serves the pods: ending, to be started anew"
    )]
    Orphaned,
}
