//! The loop: what lies there, what agents say, the next step.

use super::{Ca, CaError, Keeper, Shelf, directory, shares};
use crate::ca::now;
use crate::ca::rotation::{Phase, Progress, Share};
use crate::kubernetes::CallError;
use crate::observe::Metrics;
use crate::source::{Problem, SourceProblems};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use warren_common::model::TrustBundle;
use warren_common::runtime::DrainWatch;

/// How soon it is known what somebody wrote: a directory, a cluster.
const REFRESH: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));
const PLACE: &str = "certificate authority";
const SHARES_PLACE: &str = "ConfigMap warren-ca-progress";
/// What has not changed is said again after so long (seconds): while a rotation is under way, and else.
const SAY_AGAIN_S: (i64, i64) = (10, 30);

/// What the loop needs of others.
pub(crate) struct Following {
    /// Whether this replica leads.
    pub(crate) leads: Box<dyn Fn() -> bool + Send + Sync>,
    /// Whether `meshed` can be believed: the first configuration has been read.
    pub(crate) knows_nodes: Box<dyn Fn() -> bool + Send + Sync>,
    /// The nodes that have pods of the mesh.
    pub(crate) meshed: Box<dyn Fn() -> BTreeSet<String> + Send + Sync>,
    /// Tells every agent.
    pub(crate) tell: Box<dyn Fn(&TrustBundle) + Send + Sync>,
    pub(crate) problems: SourceProblems,
    pub(crate) metrics: Metrics,
}

impl Keeper {
    /// Keeps up with what is kept, and leads rotations, until the drain.
    pub(crate) async fn follow(self: Arc<Self>, others: Following, mut drain: DrainWatch) {
        let mut changed = self.current.subscribe();
        let mut ticks = tokio::time::interval(match &self.shelf {
            Shelf::Directory(_) => REFRESH.0,
            Shelf::Cluster(_) => REFRESH.1,
        });
        let mut said = None;
        loop {
            let ca = changed.borrow_and_update().clone();
            (others.tell)(&ca.trust);
            self.show(&ca, &others.metrics);
            tokio::select! {
                // The sender is ours.
                _ = changed.changed() => {}
                _ = ticks.tick() => {
                    let kept = self.refresh().await;
                    let led = match &kept {
                        Ok(()) => self.lead(&others, &mut said).await,
                        Err(_) => Ok(()),
                    };
                    let problem = |error: &CaError| format!("{error}; the last good CA stays in use");
                    let reason = kept.err().as_ref().map(problem).or_else(|| led.err().map(|error| error.to_string()));
                    report(&others.problems, PLACE, reason);
                }
                () = drain.started() => return,
            }
        }
    }

    fn show(&self, ca: &Ca, metrics: &Metrics) {
        let (root, signing) = ca.ages();
        metrics.ca_expiry(root.to, signing.to);
        metrics.ca_phase(ca.position.phase.as_str());
    }

    async fn refresh(&self) -> Result<(), CaError> {
        let _changing = self.changing.lock().await;
        let kept = self.shelf.read().await?;
        if let (Shelf::Directory(directory), Some(own), None) = (&self.shelf, &kept.own, &kept.plugged)
            && !directory::roots_are(directory, own)
        {
            tracing::warn!("root-cert.pem is not what it should be; repaired");
            directory::copy(directory, own)?;
            return self.adopt(self.shelf.read().await?, now());
        }
        self.adopt(kept, now())
    }

    async fn lead(&self, others: &Following, said: &mut Option<Share>) -> Result<(), CaError> {
        let shared = self.say(said).await;
        let leads = (others.leads)();
        let reason =
            shared.err().map(|error| format!("nodes of other replicas count as not connected: {error}"));
        report(&others.problems, SHARES_PLACE, reason);
        // What an operator plugged in every replica follows for itself: nothing of it is written.
        let is_its_own = self.current().plugged_in.is_some();
        if !(others.knows_nodes)() || !(leads || is_its_own) {
            return Ok(());
        }
        if self.current().kept.is_old {
            // In the form of an earlier version there is no place for a rotation.
            self.change(now(), |own| Ok(Some(own.clone()))).await?;
        }
        let is_steady = self.current().position.phase == Phase::Steady;
        let progress = match is_steady {
            true => Progress::default(),
            false => self.progress(&(others.meshed)()).await,
        };
        self.step(&progress, now()).await
    }

    /// Tells the other replicas what this one knows.
    async fn say(&self, said: &mut Option<Share>) -> Result<(), CallError> {
        let Shelf::Cluster(cluster) = &self.shelf else { return Ok(()) };
        let (share, is_steady) = (self.share(), self.current().position.phase == Phase::Steady);
        let age_s = if is_steady { SAY_AGAIN_S.1 } else { SAY_AGAIN_S.0 };
        let is_known = said.as_ref().is_some_and(|said| {
            let is_same = is_steady || Share { at: share.at, ..said.clone() } == share;
            is_same && share.at < said.at + age_s
        });
        if is_known {
            return Ok(());
        }
        shares::write(cluster, &share).await?;
        *said = Some(share);
        Ok(())
    }

    fn share(&self) -> Share {
        let trust = &self.current().trust;
        self.roster.share(&trust.id, &trust.signer, now().unix_timestamp())
    }

    /// How far all nodes are, as far as is known here.
    pub(crate) async fn progress(&self, meshed: &BTreeSet<String>) -> Progress {
        let own = self.share();
        let (bundle, signer) = (own.bundle.clone(), own.signer.clone());
        let shares = match &self.shelf {
            Shelf::Directory(_) => vec![own],
            // What this replica said itself may be older than what it knows.
            Shelf::Cluster(cluster) => match shares::read(cluster, own.at).await {
                Ok(shares) => shares,
                Err(error) => {
                    tracing::warn!(%error, "what other replicas say is not known");
                    vec![own]
                }
            },
        };
        Progress::gather(&shares, meshed, &bundle, &signer)
    }
}

fn report(problems: &SourceProblems, place: &str, reason: Option<String>) {
    let problem = reason.map(|reason| Problem { place: place.to_owned(), line: None, reason });
    problems.replace(place, problem.into_iter().collect());
}
