//! How much may be open to a service, port and subset, of one client pod: counted, and refused beyond the limits.

use super::policy::RetryBudget;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use warren_common::model::traffic::ConnectionPool;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connections (`maxConnections`).
    Connection,
    /// Requests that wait for a connection (`http1MaxPendingRequests`).
    Pending,
    /// Active requests (`http2MaxRequests`), also those that wait for a connection.
    Request,
    /// Retries at a time (`maxRetries`, `retryBudget`).
    Retry,
}

/// The limit is reached: 503 (`UO`), never tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("circuit breaker: {limit} {} at a time are allowed", kind.text())]
pub struct Overflow {
    /// Of what.
    pub kind: Kind,
    /// How many are allowed.
    pub limit: u32,
}

/// The limits, and what is open. Its clones, and what it becomes with other limits, count together: a pod's connections are on
/// several workers.
#[derive(Clone, Debug, Default)]
pub struct Circuit {
    limits: Limits,
    counts: Arc<[AtomicU32; 4]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    connections: Option<u32>,
    pending: Option<u32>,
    requests: Option<u32>,
    retries: Option<u32>,
    budget: Option<RetryBudget>,
}

/// A place; dropped, it is free again.
#[derive(Debug)]
pub struct Slot {
    kind: Kind,
    counts: Arc<[AtomicU32; 4]>,
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Self::Connection => "connections",
            Self::Pending => "waiting requests",
            Self::Request => "requests",
            Self::Retry => "retries",
        }
    }
}

impl Circuit {
    /// A circuit with nothing open.
    pub fn new(pool: Option<&ConnectionPool>, budget: Option<RetryBudget>) -> Self {
        Self { limits: Limits::new(pool, budget), counts: Arc::default() }
    }

    /// The same circuit with other limits: what is open stays, also beyond them.
    pub fn with_limits(&self, pool: Option<&ConnectionPool>, budget: Option<RetryBudget>) -> Self {
        Self { limits: Limits::new(pool, budget), counts: Arc::clone(&self.counts) }
    }

    /// A place for one more.
    ///
    /// # Errors
    /// [`Overflow`].
    pub fn take(&self, kind: Kind) -> Result<Slot, Overflow> {
        let limit = match kind {
            Kind::Connection => self.limits.connections,
            Kind::Pending => self.limits.pending,
            Kind::Request => self.limits.requests,
            Kind::Retry => self.retries(),
        };
        let limit = limit.unwrap_or(u32::MAX);
        let more = |open: u32| (open < limit).then_some(open.wrapping_add(1));
        match self.count(kind).fetch_update(Relaxed, Relaxed, more) {
            Ok(_) => Ok(Slot { kind, counts: Arc::clone(&self.counts) }),
            Err(_) => Err(Overflow { kind, limit }),
        }
    }

    /// How many are open.
    pub fn open(&self, kind: Kind) -> u32 {
        self.count(kind).load(Relaxed)
    }

    /// A budget replaces the fixed number.
    fn retries(&self) -> Option<u32> {
        let Some(budget) = self.limits.budget else { return self.limits.retries };
        let active = u64::from(self.open(Kind::Request));
        let share = u32::try_from(active * u64::from(budget.percent) / 100).unwrap_or(u32::MAX);
        Some(share.max(budget.min))
    }

    fn count(&self, kind: Kind) -> &AtomicU32 {
        count(&self.counts, kind)
    }
}

fn count(counts: &[AtomicU32; 4], kind: Kind) -> &AtomicU32 {
    let [connections, pending, requests, retries] = counts;
    match kind {
        Kind::Connection => connections,
        Kind::Pending => pending,
        Kind::Request => requests,
        Kind::Retry => retries,
    }
}

impl Limits {
    fn new(pool: Option<&ConnectionPool>, budget: Option<RetryBudget>) -> Self {
        Self {
            connections: pool.and_then(|pool| pool.max_connections),
            pending: pool.and_then(|pool| pool.max_pending_requests),
            requests: pool.and_then(|pool| pool.max_requests),
            retries: pool.and_then(|pool| pool.max_retries),
            budget,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        count(&self.counts, self.kind).fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(max: u32) -> ConnectionPool {
        ConnectionPool {
            max_connections: Some(max),
            max_pending_requests: Some(max),
            max_requests: Some(max),
            max_retries: Some(max),
            ..ConnectionPool::default()
        }
    }

    #[test]
    fn each_kind_has_its_own_limit() {
        for kind in [Kind::Connection, Kind::Pending, Kind::Request, Kind::Retry] {
            let circuit = Circuit::new(Some(&pool(2)), None);
            let slots = [circuit.take(kind).unwrap(), circuit.clone().take(kind).unwrap()];
            let refused = circuit.take(kind).unwrap_err();
            assert_eq!(refused, Overflow { kind, limit: 2 });
            assert!(refused.to_string().starts_with("circuit breaker: 2 "));
            drop(slots);
            assert_eq!(circuit.open(kind), 0);
            assert!(circuit.take(kind).is_ok());
        }
        let free = Circuit::new(None, None);
        let slots: Vec<_> = (0..10_000).map(|_| free.take(Kind::Request).unwrap()).collect();
        assert_eq!(free.open(Kind::Request), 10_000);
        drop(slots);
    }

    #[test]
    fn other_limits_keep_what_is_open() {
        let circuit = Circuit::new(Some(&pool(3)), None);
        let slots: Vec<_> = (0..3).map(|_| circuit.take(Kind::Request).unwrap()).collect();
        let narrower = circuit.with_limits(Some(&pool(2)), None);
        assert_eq!(narrower.open(Kind::Request), 3);
        drop(slots);
        let _one = circuit.take(Kind::Request).unwrap();
        let _two = narrower.take(Kind::Request).unwrap();
        assert!(narrower.take(Kind::Request).is_err());
    }

    #[test]
    fn budgets_follow_what_is_active() {
        let circuit = Circuit::new(Some(&pool(1000)), Some(RetryBudget { percent: 20, min: 3 }));
        let retries = |circuit: &Circuit| {
            let mut taken = vec![];
            while let Ok(slot) = circuit.take(Kind::Retry) {
                taken.push(slot);
            }
            taken.len()
        };
        assert_eq!(retries(&circuit), 3);
        let _active: Vec<_> = (0..100).map(|_| circuit.take(Kind::Request).unwrap()).collect();
        // They are among the active ones, and count once.
        let _waiting: Vec<_> = (0..10).map(|_| circuit.take(Kind::Pending).unwrap()).collect();
        assert_eq!(retries(&circuit), 20);
    }
}
