//! THE STORY of a change: source -> index -> resolve -> push.

use crate::index::{Index, ResourceKey};
use crate::observe::Metrics;
use crate::push::{publish::Published, resource};
use crate::resolve::{ResolveConfig, Resolved, resolve};
use crate::source::{Change, SourceProblems};
use parking_lot::RwLock;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use warren_common::runtime::DrainWatch;

/// How changes are gathered before they are pushed.
#[derive(Clone, Debug)]
pub struct PipelineConfig {
    /// A batch ends when this long nothing more came.
    pub quiet: Duration,
    /// ... or when this long has passed since its first change.
    pub at_most: Duration,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self { quiet: Duration::from_millis(10), at_most: Duration::from_millis(200) }
    }
}

/// The one writer of the index and of what is published.
pub(crate) struct Pipeline {
    pub(crate) config: PipelineConfig,
    pub(crate) resolve: ResolveConfig,
    pub(crate) batches: mpsc::Receiver<Vec<Change>>,
    pub(crate) index: Arc<RwLock<Index>>,
    pub(crate) published: Arc<Published>,
    pub(crate) problems: SourceProblems,
    pub(crate) metrics: Metrics,
}

impl Pipeline {
    /// Runs until the drain or until the source ends. `first` is dropped when the first batch is published.
    pub(crate) async fn run<T>(mut self, first: T, mut drain: DrainWatch) {
        let mut first = Some(first);
        loop {
            let batch = tokio::select! {
                batch = self.gather() => batch,
                () = drain.started() => return,
            };
            let Some(batch) = batch else { return };
            let keys = self.index(&batch);
            self.publish(&keys);
            drop(first.take());
        }
    }

    async fn gather(&mut self) -> Option<Vec<Change>> {
        let mut batch = self.batches.recv().await?;
        let latest = Instant::now() + self.config.at_most;
        while let Ok(Some(more)) =
            timeout_at(latest.min(Instant::now() + self.config.quiet), self.batches.recv()).await
        {
            batch.extend(more);
        }
        Some(batch)
    }

    fn index(&self, batch: &[Change]) -> BTreeSet<ResourceKey> {
        let mut index = self.index.write();
        batch.iter().flat_map(|change| index.apply(change)).collect()
    }

    fn publish(&self, keys: &BTreeSet<ResourceKey>) {
        let resolved: Vec<Resolved> = {
            let index = self.index.read();
            keys.iter().map(|key| resolve(&index, &self.resolve, key)).collect()
        };
        let mut batch = Vec::with_capacity(resolved.len());
        for Resolved { type_url, name, resource: resolved, problems } in resolved {
            // A policy and a service may have the same name.
            self.problems.replace(&format!("{type_url} {name}"), problems);
            match resolved.as_ref().map(resource).transpose() {
                Ok(resource) => batch.push((type_url, name, resource)),
                // The last good version stays.
                Err(error) => tracing::error!(%name, %error, "resource can't be encoded"),
            }
        }
        let changed = self.published.apply(batch);
        let (pods, services) = self.index.read().len();
        self.metrics.indexed(pods, services);
        tracing::debug!(changed, pods, services, "configuration published");
    }
}
