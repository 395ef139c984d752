//! Keeps the lease, and tells those who write whether they may.

use super::lease::{DURATION, Election, Record, Step};
use crate::kubernetes::{CallError, Cluster};
use crate::source::{Problem, SourceProblems};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use warren_common::runtime::DrainWatch;

const NAME: &str = "warren-controller";
/// Of this part's problems.
const PLACE: &str = "Lease warren-controller";
const RENEW: Duration = Duration::from_secs(5);
/// After a failure: there must be room for some before the leader gives up.
const RETRY: Duration = Duration::from_secs(2);

/// Whether this replica writes. To be asked before every write.
#[derive(Clone, Debug)]
pub(super) struct Leadership(watch::Receiver<Option<Instant>>);

impl Leadership {
    /// Whether it does right now.
    pub(super) fn holds(&self) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() < until)
    }
}

/// Keeps the lease until the drain, then gives it back.
pub(super) struct Leader {
    cluster: Cluster,
    problems: SourceProblems,
    election: Election,
    until: watch::Sender<Option<Instant>>,
}

impl Leader {
    pub(super) fn new(cluster: Cluster, problems: SourceProblems) -> (Self, Leadership) {
        let (until, receiver) = watch::channel(None);
        let election = Election::new(cluster.instance().clone());
        (Self { cluster, problems, election, until }, Leadership(receiver))
    }

    pub(super) async fn run(mut self, mut drain: DrainWatch) {
        loop {
            let result = tokio::select! {
                result = self.round() => result,
                () = drain.started() => break,
            };
            self.until.send_replace(self.election.until());
            let pause = match &result {
                Ok(()) => RENEW,
                Err(_) => RETRY,
            };
            self.problems.replace(PLACE, result.as_ref().err().map(problem).into_iter().collect());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = drain.started() => break,
            }
        }
        self.give_back().await;
    }

    async fn round(&mut self) -> Result<(), CallError> {
        let begun = Instant::now();
        let lease = self.read().await?;
        let record = lease.as_ref().map(record);
        let written = match self.election.observe(record.as_ref(), begun) {
            Step::Wait => return Ok(()),
            Step::Create => {
                let lease = Lease { metadata: named(), spec: Some(self.spec(None, 0, true)) };
                self.cluster.create(Some(self.cluster.namespace()), &lease).await.map(drop)
            }
            Step::Write { transitions, taken } => {
                let mut lease = lease.unwrap_or_default();
                lease.spec = Some(self.spec(lease.spec.take(), transitions, taken));
                self.cluster.replace(self.cluster.namespace(), NAME, &lease).await.map(drop)
            }
        };
        match written {
            Ok(()) => self.election.accepted(begun),
            Err(CallError::Conflict) => self.election.overtaken(),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// So that another replica need not wait. Nobody is told when this fails: they wait, then.
    async fn give_back(mut self) {
        let held = self.election.until().is_some_and(|until| Instant::now() < until);
        self.election.overtaken();
        self.until.send_replace(None);
        if !held {
            return;
        }
        let Ok(Some(mut lease)) = self.read().await else { return };
        if record(&lease).holder == **self.cluster.instance() {
            let transitions = record(&lease).transitions;
            let mut spec = self.spec(lease.spec.take(), transitions, false);
            spec.holder_identity = Some(String::new());
            lease.spec = Some(spec);
            match self.cluster.replace(self.cluster.namespace(), NAME, &lease).await {
                Ok(_) => tracing::info!("lease given back"),
                Err(error) => tracing::info!(%error, "lease not given back; it runs out by itself"),
            }
        }
    }

    async fn read(&self) -> Result<Option<Lease>, CallError> {
        match self.cluster.get(self.cluster.namespace(), NAME).await {
            Ok(lease) => Ok(Some(lease)),
            Err(CallError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn spec(&self, before: Option<LeaseSpec>, transitions: i32, taken: bool) -> LeaseSpec {
        let before = before.unwrap_or_default();
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.cluster.instance().to_string()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            lease_transitions: Some(transitions),
            acquire_time: if taken { Some(now.clone()) } else { before.acquire_time },
            renew_time: Some(now),
            ..before
        }
    }
}

fn named() -> ObjectMeta {
    ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.as_ref();
    Record {
        holder: spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default(),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        transitions: spec.and_then(|spec| spec.lease_transitions).unwrap_or_default(),
    }
}

fn problem(error: &CallError) -> Problem {
    let reason = format!("this replica can't lead, so it writes neither the root nor events: {error}");
    Problem { place: PLACE.to_owned(), line: None, reason }
}
