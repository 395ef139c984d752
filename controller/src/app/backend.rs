//! Where objects, the CA and trust in callers come from: a directory, or a cluster.

use super::{AppError, Config, Source};
use crate::ca::revocations::Revocations;
use crate::ca::{Authenticator, Keeper, KeyFile, KeyFileConfig, TokenReviews};
use crate::index::Index;
use crate::kubernetes::Cluster;
use crate::observe::Metrics;
use crate::source::kubernetes::{self, KubernetesHandle, Rejections};
use crate::source::manifests::{self, ManifestsHandle};
use crate::source::{Change, Problem, SourceProblems};
use crate::status::{Status, StatusTask};
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use warren_common::runtime::{Backoff, DrainWatch, Readiness};

/// Between attempts to get at the CA.
const CA_BACKOFF: Backoff = Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(15) };
const CA_PLACE: &str = "certificate authority";

/// What can be had without asking anybody.
pub(super) enum Backend {
    Manifests {
        keeper: Arc<Keeper>,
        revocations: Revocations,
        tokens: KeyFileConfig,
        source: ManifestsHandle,
    },
    Kubernetes {
        cluster: Cluster,
        batches: mpsc::Sender<Vec<Change>>,
    },
}

/// All of it at work.
pub(super) struct Running {
    pub(super) keeper: Arc<Keeper>,
    pub(super) revocations: Arc<Revocations>,
    pub(super) authenticator: Authenticator,
    /// Follows the source until it is dropped.
    pub(super) _source: SourceHandle,
    /// What is written back to the cluster, if there is one.
    pub(super) status: Option<StatusTask>,
}

/// Ends the source when dropped.
pub(super) enum SourceHandle {
    Manifests(#[expect(dead_code, reason = "held for its drop")] ManifestsHandle),
    Kubernetes(#[expect(dead_code, reason = "held for its drop")] KubernetesHandle),
}

/// What running parts share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) problems: SourceProblems,
    pub(super) readiness: Readiness,
    pub(super) metrics: Metrics,
    pub(super) index: Arc<RwLock<Index>>,
}

impl Backend {
    /// Does everything that can fail for good. Needs a tokio runtime.
    pub(super) async fn prepare(
        config: &Config,
        problems: &SourceProblems,
        batches: mpsc::Sender<Vec<Change>>,
    ) -> Result<Self, AppError> {
        match &config.source {
            Source::Manifests { manifests, ca_directory, jwks, issuer } => {
                let (trust_domain, ca) = (&config.resolve.trust_domain, &config.ca);
                let keeper =
                    Keeper::in_directory(ca_directory.clone(), trust_domain, ca.rotation, ca.lifetime)
                        .await?;
                let revocations = Revocations::in_directory(ca_directory.clone())?;
                let source = manifests::watch(manifests.clone(), problems.clone(), batches)?;
                let tokens = KeyFileConfig {
                    jwks: jwks.clone(),
                    audience: config.audience.clone(),
                    issuer: issuer.clone(),
                };
                Ok(Self::Manifests { keeper: Arc::new(keeper), revocations, tokens, source })
            }
            Source::Kubernetes(kubernetes) => {
                Ok(Self::Kubernetes { cluster: Cluster::connect(kubernetes).await?, batches })
            }
        }
    }

    /// Sets everything to work; waits for what a cluster has not got ready yet.
    pub(super) async fn start(self, config: &Config, shared: &Shared, drain: &DrainWatch) -> Running {
        match self {
            Self::Manifests { keeper, revocations, tokens, source } => {
                let keys = KeyFile::new(tokens);
                if let Err(error) = keys.check().await {
                    tracing::warn!(%error, "agents can't get in until this is repaired");
                }
                Running {
                    keeper,
                    revocations: Arc::new(revocations),
                    authenticator: Authenticator::Keys(keys),
                    _source: SourceHandle::Manifests(source),
                    status: None,
                }
            }
            Self::Kubernetes { cluster, batches } => {
                let rejections = Rejections::default();
                let Shared { problems, readiness, .. } = shared;
                let source = kubernetes::watch(&cluster, problems, &rejections, readiness, batches);
                let (trust_domain, ca) = (&config.resolve.trust_domain, &config.ca);
                let open = || Keeper::in_cluster(&cluster, trust_domain, ca.rotation, ca.lifetime);
                let keeper = Arc::new(patiently(shared, open).await);
                let revocations = Arc::new(patiently(shared, || Revocations::in_cluster(&cluster)).await);
                let status = Status {
                    cluster: cluster.clone(),
                    keeper: keeper.clone(),
                    revocations: revocations.clone(),
                    rejections,
                    problems: problems.clone(),
                    metrics: shared.metrics.clone(),
                    index: shared.index.clone(),
                    resolve: config.resolve.clone(),
                };
                let reviews = TokenReviews::new(cluster, config.audience.clone(), shared.index.clone());
                Running {
                    keeper,
                    revocations,
                    authenticator: Authenticator::Reviews(reviews),
                    _source: SourceHandle::Kubernetes(source),
                    status: Some(status.spawn(drain.clone())),
                }
            }
        }
    }
}

/// A part of the cluster's CA, however long it takes.
async fn patiently<T, E: std::fmt::Display, F: Future<Output = Result<T, E>>>(
    shared: &Shared,
    attempt: impl Fn() -> F,
) -> T {
    let _waiting = shared.readiness.wait_for("the CA");
    let mut failures = 0;
    loop {
        let error = match attempt().await {
            Ok(value) => {
                shared.problems.replace(CA_PLACE, Vec::new());
                return value;
            }
            Err(error) => error,
        };
        let problem = Problem { place: CA_PLACE.to_owned(), line: None, reason: error.to_string() };
        shared.problems.replace(CA_PLACE, vec![problem]);
        tokio::time::sleep(CA_BACKOFF.delay(failures, rand::random())).await;
        failures += 1;
    }
}
