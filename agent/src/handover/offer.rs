//! The predecessor's side: answers on the socket for as long as this agent serves.

use super::depart::Departures;
use super::flows::Exits;
use super::message::{self, Answer, Request, VERSION};
use super::wire::{self, Packet, Wire};
use super::{DEADLINE, HandoverError};
use crate::pods::HeldPods;
use rustix::fd::{AsFd, OwnedFd};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use warren_common::runtime::{DrainWatch, SocketFile};

/// How often a retired agent looks after its successor.
const LOOK: Duration = Duration::from_millis(500);

/// When for so long no connection has come that wants to go, all have gone that can.
const QUIET: Duration = Duration::from_secs(1);

/// What this agent hands over.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The node's name.
    pub node: Arc<str>,
    /// Layout of its kernel maps.
    pub abi: &'static str,
    /// The pods it serves.
    pub pods: HeldPods,
    /// The listeners of metrics and readiness.
    pub endpoints: Vec<Arc<OwnedFd>>,
    /// The way out for its connections.
    pub exits: Exits,
}

/// What happens when a successor has taken over.
pub trait Retire: Send + Sync + 'static {
    /// Stops accepting, and touches the kernel no more. `endpoints`: stops answering for metrics and readiness too.
    fn retire(&self, endpoints: bool) -> impl Future<Output = ()> + Send;
}

/// Offers until a successor has taken over, or the drain begins; after the former looks after the successor.
///
/// # Errors
/// [`HandoverError::Orphaned`]; or the socket cannot be made.
pub async fn offer(
    path: PathBuf,
    offer: Offer,
    retire: impl Retire,
    mut drain: DrainWatch,
) -> Result<(), HandoverError> {
    let (listener, file) = SocketFile::place(&path, wire::listen)?;
    // Only accepting is asked of it, which is the same for packets as for streams.
    let listener = UnixListener::from_std(listener.into())?;
    let Taken { wire, endpoints, flows, given } = loop {
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted?,
            () = drain.started() => return Ok(()),
        };
        let talk = tokio::task::spawn_blocking({
            let offer = offer.clone();
            move || converse(accepted, &offer)
        });
        // A drain is not delayed: the conversation's thread ends with its deadline, or with the process.
        let talked = tokio::select! {
            talked = talk => talked.map_err(io::Error::other)?,
            () = drain.started() => return Ok(()),
        };
        match talked {
            Ok(Some(taken)) => break taken,
            Ok(None) => {
                tracing::warn!("a successor asked for the pods and has gone without taking them; going on")
            }
            Err(error) => tracing::warn!(%error, "a handover failed; going on"),
        }
    };
    // From here on nobody else is handed anything, and the path is the successor's to take.
    drop(listener);
    retire.retire(endpoints).await;
    let exits = offer.exits.clone();
    let late = tokio::task::spawn_blocking(move || {
        let sent = finish(&wire, &offer.pods, &given);
        (wire, sent)
    });
    let (wire, sent) = late.await.map_err(io::Error::other)?;
    if let Err(error) = sent {
        tracing::warn!(%error, "the successor did not hear that this agent has stopped accepting");
    }
    tracing::info!(
        flows,
        "a successor serves the pods; what it does not take goes on until this agent is told to stop"
    );
    let wire = Arc::new(wire);
    let mut ready = std::pin::pin!(is_ready_for_flows(Arc::clone(&wire), flows));
    let mut departures: Option<Departures> = None;
    let mut is_draining = false;
    loop {
        if is_draining && (!flows || exits.is_unused()) {
            return Ok(());
        }
        let patience = match &departures {
            _ if !is_draining => LOOK,
            // What can go still goes: the successor will ask, and then they come one after the other.
            None => DEADLINE,
            // Whoever is on the way arrives, or is lost, within a deadline of its own.
            Some(departures) if departures.is_talking() => DEADLINE + LOOK,
            Some(_) => QUIET,
        };
        let step = async {
            match &mut departures {
                Some(departures) => departures.step().await,
                None => ready.as_mut().await,
            }
        };
        tokio::select! {
            () = step => {
                departures.get_or_insert_with(|| Departures::open(Arc::clone(&wire), &exits));
            }
            () = tokio::time::sleep(patience) => if is_draining { return Ok(()) },
            () = drain.started(), if !is_draining => is_draining = true,
        }
        if wire.is_gone() && !wire::is_served(&path) {
            drop(file);
            return Err(HandoverError::Orphaned);
        }
    }
}

/// Completes when the successor asks for connections; one that does not know how to never does.
async fn is_ready_for_flows(wire: Arc<Wire>, knows_how: bool) {
    let asked = async {
        let talk = tokio::task::spawn_blocking(move || {
            wire.set_patience(None)?;
            wire.receive::<Request>()
        });
        matches!(talk.await, Ok(Ok(Packet::Message(Request::Flows, _))))
    };
    if !knows_how || !asked.await {
        std::future::pending().await
    }
}

/// A successor has taken over.
struct Taken {
    wire: Wire,
    /// Metrics and readiness too.
    endpoints: bool,
    /// It takes connections that stand.
    flows: bool,
    given: Given,
}

/// The next conversation; blocking from here on, as it has a thread of its own.
async fn accept(listener: &UnixListener) -> io::Result<OwnedFd> {
    let (stream, _) = listener.accept().await?;
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream.into())
}

/// Pods by UID, with the cookie they had.
type Given = BTreeMap<Arc<str>, u64>;

/// Tells a successor everything and waits until it has taken over; `None` when it goes without.
fn converse(socket: OwnedFd, offer: &Offer) -> Result<Option<Taken>, HandoverError> {
    let wire = Wire::accepted(socket)?;
    wire.set_deadline(DEADLINE)?;
    let none = std::iter::empty;
    let Packet::Message(Request::Hello { version, node, flows }, _) = wire.receive()? else {
        return Ok(None);
    };
    let refusal = if version != VERSION {
        Some(format!("it speaks version {VERSION} of the handover, this agent version {version}"))
    } else if node != *offer.node {
        Some(format!("it serves node {}, this agent was started for {node}", offer.node))
    } else {
        None
    };
    if let Some(reason) = refusal {
        tracing::warn!(reason, "a successor was refused");
        wire.send(&Answer::Refused { reason }, none())?;
        return Ok(None);
    }
    wire.send(&Answer::Welcome { abi: offer.abi.to_owned(), flows: true }, none())?;
    let mut given = Given::new();
    send_pods(&wire, &offer.pods, &mut given)?;
    for endpoint in &offer.endpoints {
        wire.send(&Answer::Endpoint, std::iter::once(endpoint.as_fd()))?;
    }
    wire.send(&Answer::End, none())?;
    tracing::info!(pods = given.len(), "handing over to a successor; serving until it does");
    wire.set_deadline(super::PATIENCE)?;
    match wire.receive()? {
        Packet::Message(Request::Taken { endpoints }, _) => Ok(Some(Taken { wire, endpoints, flows, given })),
        Packet::Message(other, _) => Err(HandoverError::Protocol(format!("{other:?} instead of taken"))),
        Packet::Gone => {
            tracing::warn!("a successor asked for the pods and has gone without taking them; going on");
            Ok(None)
        }
    }
}

/// The pods that were enrolled since, and that this agent accepts no more.
fn finish(wire: &Wire, pods: &HeldPods, given: &Given) -> io::Result<()> {
    let sent = wire.set_deadline(DEADLINE).and_then(|()| send_pods(wire, pods, &mut given.clone()));
    // Before the other hears that this was all: then nobody but it has the listeners.
    pods.retain(|_| false);
    sent?;
    wire.send(&Answer::End, std::iter::empty())
}

fn send_pods(wire: &Wire, pods: &HeldPods, given: &mut Given) -> io::Result<()> {
    for (uid, sockets) in pods.snapshot() {
        if given.get(&uid) != Some(&sockets.cookie) {
            let beside = sockets.sockets.values().map(|fd| fd.as_fd());
            wire.send(&message::pod(&uid, &sockets), beside)?;
            given.insert(uid, sockets.cookie);
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "offer_tests.rs"]
mod tests;
