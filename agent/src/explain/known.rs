//! What is known of endpoints beside the configuration: who has failed, who has how much to do.

use crate::balance::Health;
use crate::route::Failing;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use warren_common::model::{ServiceName, Workload, WorkloadUid};

/// What an agent knows of endpoints.
pub trait Known {
    /// Endpoints of a port and subset of a service, as counted for this client.
    fn seen(&self, client: &Workload, service: &ServiceName, port: u16, subset: Option<&Arc<str>>) -> Seen;
    /// Who has failed lately.
    fn failing(&self) -> Failing;
    /// The endpoint that the client had last.
    fn last(&self, client: &Workload, service: &ServiceName) -> Option<WorkloadUid>;
}

/// Nobody has sent anything yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

impl Known for Nothing {
    fn seen(&self, _: &Workload, _: &ServiceName, _: u16, _: Option<&Arc<str>>) -> Seen {
        Seen::default()
    }

    fn failing(&self) -> Failing {
        Failing::default()
    }

    fn last(&self, _: &Workload, _: &ServiceName) -> Option<WorkloadUid> {
        None
    }
}

/// Endpoints at one moment.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Those that outlier detection leaves out.
    pub out: BTreeSet<WorkloadUid>,
    /// Requests that each has to answer.
    pub active: BTreeMap<WorkloadUid, u32>,
    /// For how long each has been there.
    pub ages: BTreeMap<WorkloadUid, Duration>,
}

impl Health for Seen {
    fn out(&self) -> usize {
        self.out.len()
    }

    fn is_out(&self, endpoint: &WorkloadUid) -> bool {
        self.out.contains(endpoint)
    }

    fn active(&self, endpoint: &WorkloadUid) -> u32 {
        self.active.get(endpoint).copied().unwrap_or(0)
    }

    fn age(&self, endpoint: &WorkloadUid) -> Option<Duration> {
        self.ages.get(endpoint).copied()
    }
}
