//! What is written back to the cluster, by one replica at a time: the roots for agents, and events about objects that
//! are rejected and about a CA that ends soon, and what became of the Gateway API's routes. [`lease`], [`reports`] and
//! `routes::merge` are pure.

mod events;
mod leader;
mod lease;
mod reports;
mod root;
mod routes;

use crate::ca::revocations::Revocations;
use crate::ca::{self, Keeper};
use crate::index::Index;
use crate::kubernetes::{CallError, Cluster};
use crate::observe::Metrics;
use crate::resolve::ResolveConfig;
use crate::source::kubernetes::Rejections;
use crate::source::{Problem, SourceProblems};
use leader::{Leader, Leadership};
use parking_lot::RwLock;
use reports::{Alarms, Reports};
use routes::RouteStatus;
pub(crate) use routes::list as list_routes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use warren_common::runtime::DrainWatch;

/// How soon what somebody changed is repaired, and what is rejected is said.
const ROUND: Duration = Duration::from_secs(1);
/// The ConfigMap is looked at every so many rounds.
const ROOT_ROUNDS: u64 = 5;
const ROOT_PLACE: &str = "ConfigMap warren-ca-root";
const EVENTS_PLACE: &str = "events";
const ROUTES_PLACE: &str = "status of routes";

/// Writes as long as this replica leads.
pub(crate) struct Status {
    pub(crate) cluster: Cluster,
    /// Knows the trust anchors, and what ends soon.
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) rejections: Rejections,
    pub(crate) problems: SourceProblems,
    pub(crate) metrics: Metrics,
    pub(crate) index: Arc<RwLock<Index>>,
    pub(crate) resolve: ResolveConfig,
}

/// The tasks; they end with the drain.
pub(crate) struct StatusTask {
    leadership: Leadership,
    leader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl StatusTask {
    /// Whether this replica leads, asked again and again.
    pub(crate) fn leads(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let leadership = self.leadership.clone();
        move || leadership.holds()
    }

    /// Waits until the lease has been given back.
    pub(crate) async fn ended(self) {
        let _ = (self.leader.await, self.writer.await);
    }
}

impl Status {
    /// Starts. Needs a tokio runtime.
    pub(crate) fn spawn(self, drain: DrainWatch) -> StatusTask {
        let (leader, leadership) = Leader::new(self.cluster.clone(), self.problems.clone());
        StatusTask {
            leadership: leadership.clone(),
            leader: tokio::spawn(leader.run(drain.clone())),
            writer: tokio::spawn(self.run(leadership, drain)),
        }
    }

    async fn run(self, leadership: Leadership, mut drain: DrainWatch) {
        let mut ticks = tokio::time::interval(ROUND);
        let mut term = None;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = drain.started() => return,
            }
            let leads = leadership.holds();
            if leads != term.is_some() {
                tracing::info!(leads, instance = %self.cluster.instance(), "leadership changed");
                self.metrics.leads(leads);
                self.report(ROOT_PLACE, None);
                self.report(EVENTS_PLACE, None);
                self.report(ROUTES_PLACE, None);
                // A new leader says everything again; what was said is counted up.
                term = leads.then(|| {
                    let routes = RouteStatus::new(self.index.clone(), self.resolve.clone());
                    (0, Reports::new(Instant::now()), Alarms::default(), routes)
                });
            }
            if let Some((round, reports, alarms, routes)) = &mut term {
                self.warn(alarms, &leadership).await;
                self.write(*round, reports, &leadership).await;
                let written = routes.write(&self.cluster, || leadership.holds()).await;
                let reason = |error| format!("their authors are not told what became of them: {error}");
                self.report(ROUTES_PLACE, written.err().map(reason));
                *round += 1;
            }
        }
    }

    async fn write(&self, round: u64, reports: &mut Reports, leadership: &Leadership) {
        if round.is_multiple_of(ROOT_ROUNDS) {
            let result =
                root::ensure(&self.cluster, &self.keeper.current().roots_pem(), &self.revocations).await;
            self.report(ROOT_PLACE, result.err().map(|error| format!("agents may lack the root: {error}")));
        }
        for report in reports.due(self.rejections.list(), Instant::now()) {
            if !leadership.holds() {
                return;
            }
            match events::write(&self.cluster, &report).await {
                Ok(()) => self.report(EVENTS_PLACE, None),
                Err(error @ CallError::Forbidden(_)) => {
                    self.report(
                        EVENTS_PLACE,
                        Some(format!("owners of rejected objects are not told: {error}")),
                    );
                }
                // It is in the problems all the same.
                Err(error) => tracing::debug!(%error, "event not written"),
            }
        }
    }

    /// Says what of the CA ends soon.
    async fn warn(&self, alarms: &mut Alarms, leadership: &Leadership) {
        for alarm in self.keeper.current().alarms(ca::now().unix_timestamp()) {
            let Some(count) = alarms.due(alarm.what, Instant::now()).filter(|_| leadership.holds()) else {
                continue;
            };
            tracing::warn!(what = alarm.text, todo = alarm.todo, "the CA ends soon");
            if let Err(error) = events::write_alarm(&self.cluster, &alarm, count).await {
                tracing::debug!(%error, "event not written");
            }
        }
    }

    fn report(&self, place: &str, reason: Option<String>) {
        let problem = reason.map(|reason| Problem { place: place.to_owned(), line: None, reason });
        self.problems.replace(place, problem.into_iter().collect());
    }
}
