//! One worker's gate: judges who arrives at a pod, and judges again who is inside when what they were judged by changes.
//!
//! ```text
//!   arrival --admit--> Permit, Admitted (a place inside until it is dropped)
//!                                  ^
//!   snapshot changes ---> of which pods are the policies others now? ---> judge again ---> evicted: the story resets
//! ```
//!
//! A pod's policies are put together once per change, not per connection ([`Effective`]); a change that leaves them as
//! they are costs a few comparisons of pointers per pod with connections, and nothing per connection. Judging again goes in
//! batches, between which the worker's other connections go on.
//!
//! What is read from the snapshot is all there is to judge by: policies, PeerAuthentication, which policies select the pod,
//! and revoked identities ([`Policies::revoke`](crate::policy::Policies::revoke)). Whatever else should end open
//! connections belongs there. Trust is the exception, for it is not judged but verified, once per tunnel: who came through
//! a tunnel whose peer is trusted no longer is evicted ([`Gate::evict`]).

mod inside;

#[cfg(test)]
mod tests;

use crate::policy::{Connection, Decision, Denial, Permit};
use crate::store::Store;
use inside::{Inside, Stale};
use std::cell::RefCell;
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use warren_common::model::{Identity, Workload};

/// So many connections are judged before others get their turn.
const BATCH: usize = 256;
/// A pod may name a policy a moment before the policy comes, or still name one that has gone: who wants to enter waits so
/// long for the two to agree, and who is inside stays so long.
const PATIENCE: Duration = Duration::from_millis(500);

/// Who has arrived, with all that can be judged.
#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    /// Who connects, proven; None for plaintext.
    pub source: Option<Identity>,
    /// The connection's direct peer.
    pub peer: IpAddr,
    /// The client's address.
    pub client: IpAddr,
    /// The pod's address and port.
    pub destination: SocketAddr,
    /// The tunnel that it came through, if through one.
    pub tunnel: Option<TunnelId>,
    /// The server name in the client's own TLS, once somebody had to look ([`Judged::wants_server_name`]).
    pub server_name: Option<Arc<str>>,
}

/// A tunnel, unique at its gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TunnelId(u64);

impl Visitor {
    fn connection(&self) -> Connection<'_> {
        let Self { source, peer, client, destination, tunnel: _, server_name } = self;
        Connection {
            source: source.as_ref(),
            peer: *peer,
            client: *client,
            destination: *destination,
            server_name: server_name.as_deref(),
        }
    }
}

/// What was decided about an arrival.
#[derive(Debug)]
pub(crate) struct Judged {
    /// Leave to enter, and a place inside; or why not.
    pub verdict: Result<(Permit, Admitted), Denial>,
    /// What the dry-run policies would have made of it, if there are any.
    pub dry_run: Option<Arc<str>>,
    /// The verdict is a refusal only because the visitor's server name is not known: find out, and ask again.
    pub wants_server_name: bool,
}

/// One worker's gate. Cloning gives another handle to it.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    store: Arc<Store>,
    inside: Rc<RefCell<Inside>>,
}

/// A place inside; dropping it leaves.
#[derive(Debug)]
#[must_use = "who leaves is not judged again"]
pub(crate) struct Admitted {
    inside: Rc<RefCell<Inside>>,
    pod: Arc<str>,
    place: u64,
    evicted: oneshot::Receiver<Denial>,
}

impl Gate {
    /// A gate with nobody inside. Must be called on the worker.
    pub(crate) fn start(store: Arc<Store>) -> Self {
        let gate = Self { store, inside: Rc::default() };
        tokio::task::spawn_local(gate.clone().keep_judging());
        gate
    }

    /// Judges an arrival at `pod` (the pod as it was enrolled: the mesh may know it better), and lets it in if it may
    /// enter. Waits a moment where a policy is lacking.
    pub(crate) async fn admit(&self, pod: &Arc<Workload>, visitor: Visitor) -> Judged {
        let judged = self.admit_now(pod, visitor.clone());
        if !judged.verdict.as_ref().is_err_and(Denial::may_settle) {
            return judged;
        }
        let mut changed = self.store.changed();
        let settled = async {
            loop {
                let judged = self.admit_now(pod, visitor.clone());
                let may_settle = judged.verdict.as_ref().is_err_and(Denial::may_settle);
                if !may_settle || changed.changed().await.is_err() {
                    return judged;
                }
            }
        };
        timeout(PATIENCE, settled).await.unwrap_or(judged)
    }

    fn admit_now(&self, pod: &Arc<Workload>, visitor: Visitor) -> Judged {
        let mesh = self.store.guard();
        let mut inside = self.inside.borrow_mut();
        let (Decision { verdict, dry_run }, wants_server_name) =
            inside.judge(&mesh, pod, &visitor.connection());
        let verdict = verdict.map(|permit| {
            let uid = &pod.enrolment.pod_uid;
            let (place, evicted) = inside.take_place(uid, visitor);
            (permit, Admitted { inside: Rc::clone(&self.inside), pod: Arc::clone(uid), place, evicted })
        });
        Judged { verdict, dry_run, wants_server_name }
    }

    /// A new tunnel.
    pub(crate) fn tunnel(&self) -> TunnelId {
        TunnelId(self.inside.borrow_mut().next_number())
    }

    /// Evicts from the pod of this `metadata.uid` everybody who came through `tunnel`; how many that were.
    pub(crate) fn evict(&self, pod: &Arc<str>, tunnel: TunnelId, denial: &Denial) -> usize {
        self.inside.borrow_mut().evict(pod, tunnel, denial)
    }

    async fn keep_judging(self) {
        let mut changed = self.store.changed();
        let mut patient_until: Option<Instant> = None;
        loop {
            let patience = async {
                match patient_until {
                    Some(until) => sleep_until(until).await,
                    None => pending().await,
                }
            };
            let is_over = tokio::select! {
                more = changed.changed() => match more {
                    Ok(()) => false,
                    Err(_) => return,
                },
                () = patience => true,
            };
            let Stale { pods, unsettled } = self.inside.borrow_mut().refresh(&self.store.guard(), is_over);
            patient_until = unsettled.then(|| patient_until.unwrap_or_else(|| Instant::now() + PATIENCE));
            for pod in pods {
                self.judge_again(&pod).await;
            }
        }
    }

    /// Everybody inside `pod`, who may have left meanwhile.
    async fn judge_again(&self, pod: &Arc<str>) {
        let places = self.inside.borrow().places(pod);
        let mut evicted = 0;
        for batch in places.chunks(BATCH) {
            evicted += self.inside.borrow_mut().judge_again(pod, batch);
            tokio::task::yield_now().await;
        }
        tracing::debug!(%pod, connections = places.len(), evicted, "judged again");
    }
}

impl Admitted {
    /// The pod and who was let in, while they still may be.
    pub(crate) fn visit(&self) -> Option<(Arc<Workload>, Visitor)> {
        self.inside.borrow().visit(&self.pod, self.place)
    }

    /// Works until it is done, or until whoever was admitted may stay no longer; then `Err` says why, and the work is
    /// dropped as it stands.
    pub(crate) async fn hold<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Denial> {
        tokio::select! {
            biased;
            Ok(denial) = &mut self.evicted => Err(denial),
            done = work => Ok(done),
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.inside.borrow_mut().leave(&self.pod, self.place);
    }
}
