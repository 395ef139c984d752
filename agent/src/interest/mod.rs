//! What the pods of this node talk to: an agent that subscribes by interest asks the controller about an address when a
//! pod first dials it, and about the services to which the rules lead that are in force there. It knows nothing of the rest
//! of the mesh.
//!
//! ```text
//!   outbound: NotAsked --learn--> Ledger --demand--> xds: subscribe "/10.0.0.1", "shop/web.shop.svc.cluster.local"
//!                ^                  ^                                          |
//!                |                 lead: where rules lead                      v
//!                |                  |                                      controller
//!                '------ store: what it is, or that nothing is <----- xds <----'
//! ```
//!
//! Whoever is led to a service that is not known yet waits for it, as who dials an address does: rules may be newer than the
//! connection that they are for, and the service may have been left meanwhile.
//!
//! Invariant: an address that was never asked about is not taken for one outside the mesh. While the controller is away,
//! connections to such addresses fail; those to addresses that were asked about go on as before.

mod lead;
mod ledger;

#[cfg(test)]
mod tests;

pub use ledger::Demand;

use crate::store::{Mesh, Sought, Store};
use lead::{dialled, elsewhere};
use ledger::Ledger;
use parking_lot::RwLock;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

/// How long a connection or request waits for the controller's answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often it is looked for what nobody uses (whole seconds).
const SWEEP: Duration = Duration::from_secs(30);
/// Addresses and services followed at the same time. The controller allows ten times as many.
const LIMIT: usize = 20_000;

/// Why nothing is known of an address or a service.
#[derive(Debug, thiserror::Error)]
#[error(
    "it is not known whether {sought} is in the mesh, so nothing is sent there: {why} (this agent subscribes by \
     interest and asks about an address when it is first dialled, and about a service when rules first lead there)"
)]
pub struct Unlearned {
    sought: Sought,
    why: Why,
}

#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("the controller is away: {0}")]
    Away(Arc<str>),
    #[error("the controller's answer cannot be used: {0}")]
    Refused(Arc<str>),
    #[error("the controller has not answered within {} s", DEADLINE.as_secs())]
    Silent,
}

/// A handle to what is followed; clones share it.
#[derive(Clone, Debug)]
pub struct Interest(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// False: everything is subscribed to, and there is nothing to ask.
    asks: bool,
    started: Instant,
    ledger: RwLock<Ledger>,
    away: RwLock<Option<Arc<str>>>,
    demanded: Notify,
    refused: Notify,
}

impl Interest {
    /// Of an agent that subscribes to everything.
    pub fn everything() -> Self {
        Self::new(false)
    }

    /// Of an agent that asks.
    pub fn asking() -> Self {
        Self::new(true)
    }

    fn new(asks: bool) -> Self {
        Self(Arc::new(Shared {
            asks,
            started: Instant::now(),
            ledger: RwLock::new(Ledger::new(LIMIT)),
            away: RwLock::new(Some("no session yet".into())),
            demanded: Notify::new(),
            refused: Notify::new(),
        }))
    }

    /// Whether the agent asks.
    pub fn asks(&self) -> bool {
        self.0.asks
    }

    /// A pod talks to this address, or is called from there: follow it. Waits for nothing.
    pub fn used(&self, address: IpAddr) {
        self.follow(&address.into());
    }

    fn follow(&self, sought: &Sought) {
        if !self.0.asks {
            return;
        }
        let now = self.now();
        if self.0.ledger.read().touch(sought, now) {
            return;
        }
        self.0.ledger.write().follow(sought.clone(), now);
        self.0.demanded.notify_one();
    }

    /// Follows an address or a service and waits until the store knows what it is, or that there is none.
    ///
    /// # Errors
    /// [`Unlearned`]: after 5 s, or as soon as the answer is one that cannot be used.
    pub async fn learn(&self, store: &Store, sought: impl Into<Sought>) -> Result<(), Unlearned> {
        let sought = sought.into();
        self.follow(&sought);
        let mut changed = store.changed();
        let answered = async {
            tokio::select! {
                biased;
                known = changed.wait_for(|_| store.guard().tells(&sought)) => known.is_ok(),
                () = self.refused(&sought) => false,
            }
        };
        let is_known = timeout_at(Instant::now() + DEADLINE, answered).await.unwrap_or(false);
        if is_known { Ok(()) } else { Err(self.unlearned(sought)) }
    }

    /// Waits until an answer about it could not be used.
    async fn refused(&self, sought: &Sought) {
        loop {
            let mut refused = pin!(self.0.refused.notified());
            refused.as_mut().enable();
            if self.0.ledger.read().refusal(sought).is_some() {
                return;
            }
            refused.await;
        }
    }

    /// Why something is not known yet that was asked about.
    pub fn unlearned(&self, sought: Sought) -> Unlearned {
        let why = self.why(&sought);
        Unlearned { sought, why }
    }

    /// Follows the services to which rules lead from followed addresses, and for as long as those are followed. Said when the
    /// mesh has changed; waits for nothing.
    pub fn lead(&self, mesh: &Mesh) {
        if !self.0.asks {
            return;
        }
        // Before anybody has to wait: few services are here, and most say nothing of others.
        let ways: Vec<(Vec<_>, Vec<_>)> = mesh
            .services()
            .filter_map(|service| {
                let to = elsewhere(service, mesh.traffic(&service.key)?);
                let to: Vec<_> = to.map(|name| Sought::from(name.clone())).collect();
                (!to.is_empty()).then(|| (dialled(mesh, service).collect(), to))
            })
            .collect();
        let mut missing = Vec::new();
        {
            let ledger = self.0.ledger.read();
            for (from, to) in ways {
                let Some(used) = ledger.last_use(from) else { continue };
                let unknown = to.into_iter().filter(|sought| !ledger.keep(sought, used));
                missing.extend(unknown.map(|sought| (sought, used)));
            }
        }
        if missing.is_empty() {
            return;
        }
        let mut ledger = self.0.ledger.write();
        missing.into_iter().for_each(|(sought, used)| ledger.lead(sought, used));
        drop(ledger);
        self.0.demanded.notify_one();
    }

    /// Waits until the controller is to be told something, and takes it.
    pub async fn demand(&self, store: &Store) -> Demand {
        loop {
            let demanded = self.0.demanded.notified();
            if self.0.ledger.read().has_demand() {
                return self.0.ledger.write().take();
            }
            let sweep = self.0.started + SWEEP * (self.now() / SWEEP.as_secs() as u32 + 1);
            tokio::select! {
                () = demanded => {}
                () = sleep_until(sweep) => {
                    self.lead(&store.guard());
                    self.0.ledger.write().leave_idle(self.now());
                }
            }
        }
    }

    /// These were followed by an earlier run of the agent.
    pub fn restore(&self, all: impl IntoIterator<Item = Sought>) {
        self.0.ledger.write().restore(all, self.now());
    }

    /// The controller's answer about this could not be used.
    pub fn refuse(&self, sought: &Sought, reason: &str) {
        self.0.ledger.write().refuse(sought, reason.into());
        self.0.refused.notify_waiters();
    }

    /// The controller is there, or why it is not.
    pub fn away(&self, reason: Option<&str>) {
        *self.0.away.write() = reason.map(Into::into);
    }

    /// How many addresses and services are followed.
    pub fn followed(&self) -> usize {
        self.0.ledger.read().len()
    }

    fn why(&self, sought: &Sought) -> Why {
        if let Some(reason) = self.0.ledger.read().refusal(sought) {
            return Why::Refused(reason);
        }
        self.0.away.read().clone().map_or(Why::Silent, Why::Away)
    }

    fn now(&self) -> u32 {
        self.0.started.elapsed().as_secs() as u32
    }
}
