//! The predecessor's side of flows that go: sends them as they come, hears what has arrived.

use super::flows::{Departure, Exits, Fate, MAX_TAIL};
use super::message::{Answer, MAX_BYTES, Request, encode};
use super::wire::{Packet, Wire};
use super::{DEADLINE, HandoverError};
use rustix::fd::AsFd;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use warren_common::model::WorkloadUid;

/// Flows that are on the way at a time: so many waits for the successor become one.
const BATCH: usize = 64;

/// Flows on their way to one successor.
pub(super) struct Departures {
    wire: Arc<Wire>,
    queue: mpsc::Receiver<Departure>,
    exits: Exits,
    named: HashSet<WorkloadUid>,
    next: u64,
    moved: u64,
    talk: Option<JoinHandle<Talked>>,
    /// The successor takes no more.
    is_over: bool,
}

/// What a thread that has sent flows gives back.
struct Talked {
    named: HashSet<WorkloadUid>,
    next: u64,
    moved: Result<u64, HandoverError>,
}

impl Departures {
    /// Tells all flows to come.
    pub(super) fn open(wire: Arc<Wire>, exits: &Exits) -> Self {
        let (queue, exits) = (exits.open(), exits.clone());
        Self { wire, queue, exits, named: HashSet::new(), next: 0, moved: 0, talk: None, is_over: false }
    }

    /// Whether flows are on their way.
    pub(super) fn is_talking(&self) -> bool {
        self.talk.is_some()
    }

    /// Sends the next flows that want to go, or hears what became of them; never completes when there are none. May be dropped
    /// and called again.
    pub(super) async fn step(&mut self) {
        if self.is_over {
            return self.refuse().await;
        }
        if self.talk.is_none() {
            let mut batch = Vec::new();
            if self.queue.recv_many(&mut batch, BATCH).await == 0 {
                return std::future::pending().await;
            }
            let (wire, mut named, mut next) =
                (Arc::clone(&self.wire), std::mem::take(&mut self.named), self.next);
            // It ends with a deadline of its own, and tells the flows their fate, whoever waits for it.
            self.talk = Some(tokio::task::spawn_blocking(move || {
                let moved = send(&wire, batch, &mut named, &mut next);
                Talked { named, next, moved }
            }));
            return;
        }
        let Some(talk) = &mut self.talk else { return };
        let talked = talk.await;
        self.talk = None;
        let moved = talked.map_err(|error| HandoverError::Wire(error.into())).and_then(|talked| {
            (self.named, self.next) = (talked.named, talked.next);
            talked.moved
        });
        match moved {
            Ok(moved) => {
                self.moved += moved;
                tracing::info!(moved, all = self.moved, "connections handed over");
            }
            Err(error) => {
                tracing::warn!(%error, "the successor takes no more connections; those that have not left stay here");
                self.exits.close();
                self.queue.close();
                self.is_over = true;
                // Who has queued stays, at once; who has room and has not queued yet is answered in the next step.
                while self.queue.try_recv().is_ok() {}
            }
        }
    }

    /// Lets everybody stay who had room when the queue was closed, until nobody has any.
    async fn refuse(&mut self) {
        while self.queue.recv().await.is_some() {}
        std::future::pending().await
    }
}

/// How many were moved.
fn send(
    wire: &Wire,
    batch: Vec<Departure>,
    named: &mut HashSet<WorkloadUid>,
    next: &mut u64,
) -> Result<u64, HandoverError> {
    wire.set_deadline(DEADLINE)?;
    let mut under_way = HashMap::new();
    let mut moved = 0;
    // Whoever is dropped on the way out of here is told: not sent: stays; sent: lost.
    for mut departure in batch {
        *next += 1;
        if send_one(wire, &mut departure, *next, named)? {
            under_way.insert(*next, departure);
        }
    }
    while !under_way.is_empty() {
        match wire.receive::<Request>()? {
            Packet::Message(Request::Moved { id }, _) => {
                if let Some(mut departure) = under_way.remove(&id) {
                    departure.is(Fate::Moved);
                    moved += 1;
                }
            }
            Packet::Message(other, _) => {
                return Err(HandoverError::Protocol(format!("{other:?} instead of moved")));
            }
            Packet::Gone => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
    Ok(moved)
}

/// Whether it is on its way; one that is too large for any message stays.
fn send_one(
    wire: &Wire,
    departure: &mut Departure,
    id: u64,
    named: &mut HashSet<WorkloadUid>,
) -> Result<bool, HandoverError> {
    let (tail, flow) = (departure.tail.len(), Box::new(departure.message.clone()));
    let message = encode(&Answer::Flow { id, flow, tail });
    if message.len() > MAX_BYTES || tail > MAX_TAIL {
        return Ok(false);
    }
    for workload in &departure.workloads {
        if named.insert(workload.uid.clone()) {
            let named = encode(&Answer::Workload { workload: workload.clone() });
            if named.len() <= MAX_BYTES {
                wire.send_bytes(&named, std::iter::empty())?;
            }
        }
    }
    // From here on somebody else may have the sockets.
    departure.is(Fate::Lost);
    wire.send_bytes(&message, departure.sockets.iter().map(AsFd::as_fd))?;
    for part in departure.tail.chunks(MAX_BYTES) {
        wire.send_bytes(part, std::iter::empty())?;
    }
    Ok(true)
}

#[cfg(test)]
#[path = "depart_tests.rs"]
mod tests;
