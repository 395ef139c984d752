//! A connection that stands between two sockets: the part that all stories share once both ends are open.
//!
//! ```text
//!   copied --both directions ended--> ended in order
//!    | ^ \--a side failed, the permit or the peer's trust was lost--> both sides reset
//!    | `--stays--.
//!    `--a successor takes connections--> frozen --moved--> forgotten: it goes on there
//!                                              \--lost--> both sides reset
//! ```
//!
//! What it takes to go on elsewhere is all here: the copy's state ([`Relay`]), the record, who is inside which pod.

use crate::accept::{abort, end, reset};
use crate::context::Context;
use crate::gate::Admitted;
use crate::handover::{ArrivedFlow, Departure, Exit, Fate, GuestMessage, SpanLeft, describe};
use crate::identity::Proof;
use crate::limits::{Exceeded, Excess, Ticket, idle};
use crate::observe::{ByteCounters, FlowFlag, FlowHandle};
use crate::pods::{Pod, PodRegistry};
use crate::policy::Denial;
use crate::tunnel::{CopyError, Meter, Relay};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc::OwnedPermit;
use tokio::time::{Instant, sleep_until};
use warren_common::model::{Workload, WorkloadUid};

/// How long a connection that was handed over waits for its pod to be enrolled.
const ENROLMENT_PAUSE: Duration = Duration::from_millis(50);
const ENROLMENT_LOOKS: u32 = 60;

/// Why a connection that stood ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// One side failed.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// It may stay no longer.
    #[error("closed, for the rules have changed: {0}")]
    Evicted(Denial),
    /// It carried nothing for too long.
    #[error(transparent)]
    Idle(Exceeded),
    /// The same, by its DestinationRule.
    #[error("it carried nothing for {} s (tcp.idleTimeout of its DestinationRule)", .0.as_secs_f64())]
    Silent(Duration),
    /// It has stood for as long as it may.
    #[error("it has stood for as long as it may (tcp.maxConnectionDuration of its DestinationRule)")]
    Expired,
    /// The pod that it had entered, or left, is no more.
    #[error("the pod {0} has gone, and with it what was left of its connections")]
    Gone(Arc<str>),
    /// It was to go on in another process and did not arrive there.
    #[error("lost between this agent and its successor, which ended in the middle of the handover")]
    Lost,
    /// What came from the predecessor can't go on.
    #[error("it came from the agent before and can't go on: {0}")]
    Broken(String),
}

impl Ended {
    /// In the short form.
    pub(crate) fn flag(&self) -> FlowFlag {
        match self {
            Self::Copy(_) | Self::Gone(_) | Self::Lost | Self::Broken(_) => FlowFlag::Other,
            Self::Idle(_) | Self::Silent(_) => FlowFlag::Idle,
            Self::Expired => FlowFlag::Expired,
            Self::Evicted(_) => FlowFlag::Deny,
        }
    }
}

/// How long a connection may stand, where its DestinationRule says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    idle: Option<Duration>,
    until: Option<Instant>,
}

impl Span {
    /// Of a connection that begins to stand now: how long it may be silent, and how long it may last.
    pub(crate) fn from_now(idle: Option<Duration>, lasts: Option<Duration>) -> Self {
        // What cannot be reckoned with never comes.
        Self { idle, until: lasts.and_then(|lasts| Instant::now().checked_add(lasts)) }
    }

    /// Ends when the connection, of which these are the bytes, has to.
    pub(crate) async fn over(self, bytes: &ByteCounters) -> Ended {
        let Self { idle: silent, until } = self;
        if silent.is_none() && until.is_none() {
            return std::future::pending().await;
        }
        let late = async {
            match until {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        // Boxed: connections without a limit shall not have room for its timers.
        Box::pin(async {
            tokio::select! {
                () = late => Ended::Expired,
                () = idle(bytes, silent.unwrap_or_default()) => Ended::Silent(silent.unwrap_or_default()),
            }
        })
        .await
    }

    fn left(self) -> SpanLeft {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let left = |at: Instant| ms(at.saturating_duration_since(Instant::now()));
        SpanLeft { idle_ms: self.idle.map(ms), left_ms: self.until.map(left) }
    }
}

impl From<SpanLeft> for Span {
    fn from(left: SpanLeft) -> Self {
        Self::from_now(left.idle_ms.map(Duration::from_millis), left.left_ms.map(Duration::from_millis))
    }
}

/// Who is inside a pod of this node.
#[derive(Debug)]
pub(crate) struct Guest {
    /// The pod.
    pub pod: Arc<Pod>,
    /// The place at the gate.
    pub admitted: Admitted,
    /// What the peer of a tunnel of its own proved itself with.
    pub proof: Option<Rc<Proof>>,
    /// The second record and its ticket, where both pods are of this node.
    pub local: Option<Box<(FlowHandle, Ticket)>>,
}

impl Guest {
    /// The counters of the second record.
    pub(crate) fn bytes(&self) -> Option<Arc<ByteCounters>> {
        self.local.as_ref().map(|local| Arc::clone(local.0.bytes()))
    }

    /// Waits until it may stay no longer, or has nowhere to; its record says so.
    pub(crate) async fn evicted(mut self) {
        let ended = tokio::select! {
            denial = self.admitted.hold(std::future::pending::<Denial>()) => match denial {
                Ok(denial) | Err(denial) => Ended::Evicted(denial),
            },
            () = self.pod.lifetime.cut() => Ended::Gone(Arc::clone(&self.pod.workload.name)),
        };
        if let Some(local) = &self.local {
            if let Ended::Evicted(denial) = &ended {
                local.0.evicted(&denial.rule(), &denial.policy());
            }
            local.0.fail(ended.flag(), &ended);
        }
    }
}

/// A connection that stands.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Both ends.
    pub relay: Relay,
    /// The record: of the side where the connection came to this agent.
    pub flow: FlowHandle,
    /// The pod whose connection it is.
    pub pod: Arc<Pod>,
    /// Who is inside a pod of this node, if the server's pod is one.
    pub guest: Option<Guest>,
    /// How long it may stand.
    pub span: Span,
}

/// What happened first.
enum Event {
    Done(Result<(), Ended>),
    Go(OwnedPermit<Departure>),
}

impl Standing {
    /// Copies until it is over, here or elsewhere. Its records say how it went.
    pub(crate) async fn carry(mut self, context: &Context) {
        let mut exit = context.node.exits.exit();
        loop {
            match self.next_event(context, &mut exit).await {
                Event::Done(result) => return self.finish(result),
                Event::Go(room) => match self.depart(room, &context.node.pods).await {
                    Fate::Stays => exit.rest(),
                    Fate::Moved => return self.forget(),
                    Fate::Lost => return self.abort(),
                },
            }
        }
    }

    async fn next_event(&mut self, context: &Context, exit: &mut Exit) -> Event {
        let Self { relay, flow, pod, guest, span } = self;
        let local = guest.as_ref().and_then(|guest| guest.local.as_ref());
        let meter = Meter::new(
            [Some(&*flow), local.map(|local| &local.0)].into_iter().flatten().map(|f| Arc::clone(f.bytes())),
        );
        let (pod, inside) = (Arc::clone(pod), guest.as_ref().map(|guest| Arc::clone(&guest.pod)));
        let limits = &context.node.limits;
        let bytes = Arc::clone(flow.bytes());
        tokio::select! {
            biased;
            denial = evicted(context, guest) => {
                let inner = guest.as_ref().and_then(|guest| guest.local.as_ref()).map_or(&*flow, |local| &local.0);
                inner.evicted(&denial.rule(), &denial.policy());
                Event::Done(Err(Ended::Evicted(denial)))
            }
            name = gone(&pod, inside.as_deref()) => Event::Done(Err(Ended::Gone(name))),
            room = exit.wait() => Event::Go(room),
            copied = relay.copy(&meter) => Event::Done(copied.map_err(Ended::from)),
            ended = span.over(&bytes) => Event::Done(Err(ended)),
            () = idle(&bytes, limits.config().idle_connection) => {
                Event::Done(Err(Ended::Idle(limits.exceeded(&pod.workload.uid, Excess::Idle))))
            }
        }
    }

    fn finish(self, result: Result<(), Ended>) {
        let [client, server] = self.relay.into_sockets();
        match result {
            Ok(()) => {
                end(server);
                end(client);
            }
            Err(error) => {
                if let Some(local) = self.guest.as_ref().and_then(|guest| guest.local.as_ref()) {
                    local.0.fail(error.flag(), &error);
                }
                self.flow.fail(error.flag(), error);
                reset(server);
                reset(client);
            }
        }
    }

    /// Offers it to the successor; nothing is copied meanwhile.
    async fn depart(&self, room: OwnedPermit<Departure>, pods: &PodRegistry) -> Fate {
        let ours = [Some(&self.pod), self.guest.as_ref().map(|guest| &guest.pod)];
        let is_here = |pod: &Arc<Pod>| pods.is_here(&pod.workload.uid, &pod.workload.enrolment.pod_uid);
        if !ours.into_iter().flatten().all(is_here) {
            // Its successor has not enrolled it and would reset the flow; here it may go on to its end.
            return Fate::Stays;
        }
        let Ok((departure, fate)) = self.departure() else { return Fate::Stays };
        room.send(departure);
        // Whoever drops a departure tells its fate first.
        fate.await.unwrap_or(Fate::Lost)
    }

    fn departure(&self) -> io::Result<(Departure, tokio::sync::oneshot::Receiver<Fate>)> {
        let (flow, mut workloads) = self.flow.to_moved();
        workloads.push(Arc::clone(&self.pod.workload));
        let guest = match &self.guest {
            None => None,
            Some(guest) => {
                let left = || io::Error::other("it is being evicted");
                let (workload, visitor) = guest.admitted.visit().ok_or_else(left)?;
                let local = guest.local.as_ref().map(|local| {
                    let (flow, named) = local.0.to_moved();
                    workloads.extend(named);
                    flow
                });
                workloads.push(Arc::clone(&workload));
                Some(GuestMessage {
                    pod: workload.uid.clone(),
                    pod_uid: Arc::clone(&workload.enrolment.pod_uid),
                    source: visitor.source,
                    peer: visitor.peer,
                    client: visitor.client,
                    destination: visitor.destination,
                    server_name: visitor.server_name,
                    local,
                })
            }
        };
        let proof = self.guest.as_ref().and_then(|guest| guest.proof.as_ref()).map(|proof| proof.to_moved());
        let [client, server] = self.relay.descriptors();
        let sockets = [client.try_clone_to_owned()?, server.try_clone_to_owned()?];
        let pod = (self.pod.workload.uid.clone(), Arc::clone(&self.pod.workload.enrolment.pod_uid));
        let described = describe(flow, pod, guest, &self.relay.state(), proof, self.span.left());
        Ok(Departure::new(described, sockets, workloads))
    }

    /// The successor has it. Its sockets are closed here and stay open there.
    fn forget(self) {
        if let Some(local) = self.guest.and_then(|guest| guest.local) {
            local.0.moved();
        }
        self.flow.moved();
    }

    /// Nobody has it, though somebody may still hold its sockets.
    fn abort(self) {
        for socket in self.relay.descriptors() {
            abort(socket);
        }
        self.finish(Err(Ended::Lost));
    }
}

/// Waits until one of the pods is no more.
async fn gone(pod: &Pod, inside: Option<&Pod>) -> Arc<str> {
    let other = async {
        match inside {
            Some(inside) => inside.lifetime.cut().await,
            None => std::future::pending().await,
        }
    };
    let gone = tokio::select! {
        () = pod.lifetime.cut() => pod,
        () = other => inside.unwrap_or(pod),
    };
    Arc::clone(&gone.workload.name)
}

/// Waits until whoever is inside may stay no longer.
async fn evicted(context: &Context, guest: &mut Option<Guest>) -> Denial {
    let Some(Guest { admitted, proof, .. }) = guest else { return std::future::pending().await };
    let client = admitted.visit().and_then(|(_, visitor)| visitor.source);
    let distrusted = async {
        match (proof, client) {
            (Some(proof), Some(client)) => {
                let why = context.node.identities.distrust(proof).await.to_string().into();
                Denial::Distrusted { client, why }
            }
            _ => std::future::pending().await,
        }
    };
    // Boxed: who is inside nobody's pod shall not have room for it.
    match Box::pin(admitted.hold(distrusted)).await {
        Ok(denial) | Err(denial) => denial,
    }
}

/// A connection that the agent before this one has handed over: goes on, if it still may.
pub(crate) async fn resume(context: Rc<Context>, arrived: ArrivedFlow) {
    let ArrivedFlow { message, tail, sockets, workloads } = arrived;
    // What the mesh says now counts; who has gone from it is still known by the agent before.
    let workload = |uid: &WorkloadUid| {
        let mesh = context.node.store.guard();
        mesh.workload(uid).or_else(|| workloads.get(uid)).cloned()
    };
    let observer = &context.node.observer;
    let span = message.span.into();
    message.flow.addresses().for_each(|address| context.node.interest.used(address.ip()));
    let parts = message.parts(&tail);
    drop(tail);
    let flow = observer.resume(message.flow, workload);
    let broken = |flow: &FlowHandle, why: String| {
        let error = Ended::Broken(why);
        flow.fail(error.flag(), &error);
    };
    // Dropping the sockets resets them, until the connection has ended in order.
    let relay = parts.ok_or_else(|| "its bytes are not what was said of them".to_owned()).and_then(
        |(state, proof)| {
            let [client, server] =
                sockets.map(|socket| TcpStream::from_std(std::net::TcpStream::from(socket)));
            let (client, server) = (client.map_err(|e| e.to_string())?, server.map_err(|e| e.to_string())?);
            Ok((Relay::restore(client, server, state).map_err(|error| error.to_string())?, proof))
        },
    );
    let (relay, proof) = match relay {
        Ok(relay) => relay,
        Err(why) => return broken(&flow, why),
    };
    let pods = &context.node.pods;
    let owner = match enrolled(pods, &message.pod, &message.pod_uid, workload).await {
        Ok(owner) => owner,
        Err(why) => return broken(&flow, why),
    };
    let ticket = match context.node.limits.connection(&message.pod) {
        Ok(ticket) => ticket,
        Err(exceeded) => return flow.fail(FlowFlag::Overload, exceeded),
    };
    let guest = match message.guest {
        None => None,
        Some(guest) => {
            let local = guest.local.clone().map(|moved| observer.resume(moved, workload));
            let inner = local.as_ref().unwrap_or(&flow);
            let pod = match enrolled(pods, &guest.pod, &guest.pod_uid, workload).await {
                Ok(pod) => pod,
                Err(why) => {
                    broken(&flow, why.clone());
                    return broken(inner, why);
                }
            };
            match readmit(&context, &pod.workload, guest, inner).await {
                Ok(admitted) => {
                    let local = match local {
                        None => None,
                        Some(local) => match context.node.limits.connection(&pod.workload.uid) {
                            Ok(ticket) => Some(Box::new((local, ticket))),
                            Err(exceeded) => {
                                local.fail(FlowFlag::Overload, exceeded);
                                return flow.fail(FlowFlag::Overload, exceeded);
                            }
                        },
                    };
                    let proof = proof.map(|proof| Rc::new(Proof::from_moved(&proof)));
                    Some(Guest { pod, admitted, proof, local })
                }
                Err(ended) => {
                    inner.fail(ended.flag(), &ended);
                    return flow.fail(ended.flag(), ended);
                }
            }
        }
    };
    Standing { relay, flow, pod: owner, guest, span }.carry(&context).await;
    drop(ticket);
}

/// The pod as it is enrolled; one that the agent before enrolled last of all may take a moment. `pod_uid`: its
/// `metadata.uid`, for a name goes to the next pod of a set; empty if nobody has said it.
async fn enrolled(
    pods: &PodRegistry,
    name: &WorkloadUid,
    pod_uid: &str,
    known: impl Fn(&WorkloadUid) -> Option<Arc<Workload>>,
) -> Result<Arc<Pod>, String> {
    let mut is_another = false;
    for _ in 0..ENROLMENT_LOOKS {
        if let Some(pod) = known(name).and_then(|workload| pods.get(&workload)) {
            is_another = !pod_uid.is_empty() && *pod.workload.enrolment.pod_uid != *pod_uid;
            if !is_another {
                return Ok(pod);
            }
        }
        tokio::time::sleep(ENROLMENT_PAUSE).await;
    }
    Err(match is_another {
        true => format!("the pod {name} is another than the one whose connection it was"),
        false => format!("the pod {name} is not enrolled"),
    })
}

/// Judges again, by what this agent knows.
async fn readmit(
    context: &Context,
    pod: &Arc<Workload>,
    guest: GuestMessage,
    flow: &FlowHandle,
) -> Result<Admitted, Ended> {
    let visitor = crate::gate::Visitor {
        source: guest.source,
        peer: guest.peer,
        client: guest.client,
        destination: guest.destination,
        tunnel: None,
        server_name: guest.server_name,
    };
    let judged = context.gate.admit(pod, visitor).await;
    match judged.verdict {
        Ok((permit, admitted)) => {
            flow.verdict(warren_common::model::admin::Verdict::Allowed, permit.rule());
            Ok(admitted)
        }
        Err(denial) => {
            flow.evicted(&denial.rule(), &denial.policy());
            Err(Ended::Evicted(denial))
        }
    }
}

#[cfg(test)]
#[path = "standing_tests.rs"]
mod tests;
