//! L7: the pipeline of requests, around hyper.
//!
//! Read [`serve`] (a client's connection), then [`request`] (a request's story), then [`attempt`] (how it reaches an
//! endpoint). A connection, its requests and the connections that they go out on live on one worker.
//!
//! ```text
//!   client -> guard -> hyper -> request: match, fault, split -> attempt: pick, lease, send -> answer -> hyper -> client
//!                                                                       pool -> hyper -> endpoint
//! ```
//!
//! Every request is parsed once and written once: what hyper would repair where others read something else is refused
//! before ([`guard`]). The room knows no sockets and no tunnels: the story that it is part of hands it byte streams
//! ([`Outlets`]).

mod answer;
mod asked;
mod attempt;
mod clock;
mod exchange;
mod extended;
mod grpc;
pub mod guard;
mod h2c;
mod headers;
mod io;
mod limits;
mod mirror;
mod outlets;
mod pool;
mod replay;
mod reply;
mod request;
mod serve;
mod sever;
mod sniff;
mod switch;
#[cfg(test)]
mod tests;
mod visits;
mod window;

pub(crate) use asked::Asked;
pub(crate) use io::{BoxIo, close};
pub(crate) use limits::{FIRST_LINE_DEADLINE, IDLE, MAX_FIRST_LINE};
pub(crate) use outlets::{Ask, Cause, NoWay, NotReached, Outlets, Way};
pub(crate) use pool::{Opened, Origination, Phase, Pool, PoolKey, Terms};
pub(crate) use serve::{Client, serve};
pub(crate) use sniff::{Spoken, spoken};
pub(crate) use visits::Stay;

/// Any error of a body.
type BoxError = Box<dyn std::error::Error + Send + Sync>;
