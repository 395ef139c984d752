//! The successor's side. Blocking: for a thread that may wait.

use super::message::{Answer, Request, Told, VERSION};
use super::wire::{Packet, Wire};
use super::{DEADLINE, HandoverError};
use crate::pods::DoorSockets;
use rustix::fd::OwnedFd;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pause before asking again where a predecessor has just given way to another.
const AGAIN: Duration = Duration::from_millis(20);

/// An agent that goes on serving until it is told that this one does.
#[derive(Debug)]
pub struct Predecessor {
    wire: Wire,
    flows: bool,
    /// Layout of its kernel maps.
    pub abi: String,
    /// What it serves.
    pub pods: Vec<(Arc<str>, DoorSockets)>,
    /// Where it answers for metrics and readiness.
    pub endpoints: Vec<OwnedFd>,
}

/// What a predecessor gave at the end.
#[derive(Debug)]
pub struct Rest {
    /// Pods that it enrolled meanwhile.
    pub pods: Vec<(Arc<str>, DoorSockets)>,
    /// To be held as long as this agent serves.
    pub lifeline: Lifeline,
    /// Whether it hands its connections over.
    pub flows: bool,
}

/// As long as this is held, the predecessor knows that its successor lives.
#[derive(Debug)]
pub struct Lifeline {
    pub(super) wire: Wire,
}

/// Asks the agent that serves this node for what it serves. `None`: there is none, or it died meanwhile.
///
/// # Errors
/// [`HandoverError`]: it says no, says nothing for [`DEADLINE`], or not what it should.
pub fn ask(socket: &Path, node: &str) -> Result<Option<Predecessor>, HandoverError> {
    let until = Instant::now() + DEADLINE;
    loop {
        let wire = match Wire::connect(socket, DEADLINE) {
            Ok(wire) => wire,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        match converse(&wire, node) {
            Ok(Told { refused: Some(reason), .. }) => {
                return Err(HandoverError::Refused { socket: socket.to_owned(), reason });
            }
            Ok(Told { abi: Some(abi), flows, pods, endpoints, .. }) => {
                return Ok(Some(Predecessor { wire, flows, abi, pods, endpoints }));
            }
            // It gave way to another successor just now, or died: ask whoever is there.
            Ok(Told { abi: None, .. }) if Instant::now() < until => pause(),
            Ok(_) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "between two questions, with a deadline, on a thread that may wait"
)]
fn pause() {
    std::thread::sleep(AGAIN);
}

fn converse(wire: &Wire, node: &str) -> Result<Told, HandoverError> {
    let mut told = Told::default();
    let hello = Request::Hello { version: VERSION, node: node.to_owned(), flows: true };
    if wire.send(&hello, std::iter::empty()).is_err() {
        return Ok(told);
    }
    hear_all(wire, &mut told)?;
    Ok(told)
}

/// Listens until the other side has said all, or has gone: what it gave until then is good.
fn hear_all(wire: &Wire, told: &mut Told) -> Result<(), HandoverError> {
    loop {
        match wire.receive::<Answer>()? {
            Packet::Gone => return Ok(()),
            Packet::Message(answer, sockets) => {
                if told.hear(answer, sockets)? {
                    return Ok(());
                }
            }
        }
    }
}

impl Predecessor {
    /// Says that this agent serves the pods now, and the endpoints if so said. When this returns, the other one accepts
    /// no more. One that has died or hangs is gone on without.
    ///
    /// # Errors
    /// [`HandoverError`]: it does not answer as it should; it may still accept.
    pub fn taken(self, endpoints: bool) -> Result<Rest, HandoverError> {
        self.wire.set_deadline(DEADLINE)?;
        let mut told = Told { abi: Some(self.abi), ..Told::default() };
        if self.wire.send(&Request::Taken { endpoints }, std::iter::empty()).is_ok() {
            hear_all(&self.wire, &mut told)?;
        }
        Ok(Rest { pods: told.pods, lifeline: Lifeline { wire: self.wire }, flows: self.flows })
    }
}
