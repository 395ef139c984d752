//! What the pods of this node talk to: an agent that subscribes by interest asks the controller about an address when a
//! pod first dials it, and knows nothing of the rest of the mesh.
//!
//! ```text
//!   outbound: NotAsked --learn--> Ledger --demand--> xds: subscribe "/10.0.0.1" --> controller
//!                ^                                                                     |
//!                '------ store: who has it, or that nobody has <----- xds <-----------'
//! ```
//!
//! Invariant: an address that was never asked about is not taken for one outside the mesh. While the controller is away,
//! connections to such addresses fail; those to addresses that were asked about go on as before.

mod ledger;

#[cfg(test)]
mod tests;

pub use ledger::Demand;

use crate::store::Store;
use ledger::Ledger;
use parking_lot::RwLock;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

/// How long a connection waits for the controller's answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often unused addresses are looked for (whole seconds).
const SWEEP: Duration = Duration::from_secs(30);
/// Addresses followed at the same time. The controller allows ten times as many.
const LIMIT: usize = 20_000;

/// Why nothing is known of an address.
#[derive(Debug, thiserror::Error)]
#[error(
    "it is not known whether {address} is in the mesh, so nothing is sent there: {why} (this agent subscribes by \
     interest and asks about an address when it is first dialled)"
)]
pub struct Unlearned {
    address: IpAddr,
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
        }))
    }

    /// Whether the agent asks.
    pub fn asks(&self) -> bool {
        self.0.asks
    }

    /// A pod talks to this address, or is called from there: follow it. Waits for nothing.
    pub fn used(&self, address: IpAddr) {
        let (address, now) = (address.to_canonical(), self.now());
        if !self.0.asks || self.0.ledger.read().touch(address, now) {
            return;
        }
        self.0.ledger.write().follow(address, now);
        self.0.demanded.notify_one();
    }

    /// Follows an address and waits until the store knows who has it, or that nobody has.
    ///
    /// # Errors
    /// [`Unlearned`], after 5 s.
    pub async fn learn(&self, store: &Store, address: IpAddr) -> Result<(), Unlearned> {
        self.used(address);
        let mut changed = store.changed();
        let known = changed.wait_for(|_| store.guard().knows(address));
        match timeout_at(Instant::now() + DEADLINE, known).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Unlearned { address, why: self.why(address.to_canonical()) }),
        }
    }

    /// Waits until the controller is to be told something, and takes it.
    pub async fn demand(&self) -> Demand {
        loop {
            let demanded = self.0.demanded.notified();
            if self.0.ledger.read().has_demand() {
                return self.0.ledger.write().take();
            }
            let sweep = self.0.started + SWEEP * (self.now() / SWEEP.as_secs() as u32 + 1);
            tokio::select! {
                () = demanded => {}
                () = sleep_until(sweep) => self.0.ledger.write().leave_idle(self.now()),
            }
        }
    }

    /// These were followed by an earlier run of the agent.
    pub fn restore(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.0.ledger.write().restore(addresses, self.now());
    }

    /// The controller's answer about an address could not be used.
    pub fn refuse(&self, address: IpAddr, reason: &str) {
        self.0.ledger.write().refuse(address, reason.into());
    }

    /// The controller is there, or why it is not.
    pub fn away(&self, reason: Option<&str>) {
        *self.0.away.write() = reason.map(Into::into);
    }

    /// How many addresses are followed.
    pub fn followed(&self) -> usize {
        self.0.ledger.read().len()
    }

    fn why(&self, address: IpAddr) -> Why {
        if let Some(reason) = self.0.ledger.read().refusal(address) {
            return Why::Refused(reason);
        }
        self.0.away.read().clone().map_or(Why::Silent, Why::Away)
    }

    fn now(&self) -> u32 {
        self.0.started.elapsed().as_secs() as u32
    }
}
