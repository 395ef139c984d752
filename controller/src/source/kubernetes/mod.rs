//! A Kubernetes cluster as a source, followed live.
//!
//! ```text
//!   API server --feed (list, watch)--> raw text --kinds (convert)--> ledger --report--> gather --> batches
//!                                        one task per kind             |      waits for all kinds, once
//!                                                                      `--> problems, rejections
//! ```
//!
//! [`feed`] knows the protocol, [`kinds`] is the table of what is read, [`ledger`] is pure: who is known, who is gone,
//! who is rejected. Whole objects are held by nobody: each is converted when it arrives.

mod body;
mod definitions;
mod feed;
mod kinds;
mod ledger;
mod pace;
mod raw;
mod reflect;
mod rejections;
mod split;

pub use ledger::Rejected;
pub use rejections::{Rejection, Rejections};

use crate::kubernetes::Cluster;
use crate::source::{Change, SourceProblems};
use definitions::Definitions;
use feed::Streaming;
use kinds::rows;
use reflect::{Reflector, Report};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use warren_common::runtime::Readiness;

/// Reports between the kinds and the gathering of their first batch.
const REPORTS: usize = 256;

/// Ends the following when dropped.
#[derive(Debug)]
pub struct KubernetesHandle {
    _tasks: JoinSet<()>,
}

/// Starts following. The first batch holds everything there is of every kind that the cluster has, and waits until it
/// does: an agent that resumes would otherwise be told that what is missing is gone. What goes wrong is a problem in
/// `problems`; what is not there yet is named in `readiness`. Needs a tokio runtime.
pub fn watch(
    cluster: &Cluster,
    problems: &SourceProblems,
    rejections: &Rejections,
    readiness: &Readiness,
    batches: mpsc::Sender<Vec<Change>>,
) -> KubernetesHandle {
    let mut tasks = JoinSet::new();
    let streaming = Arc::new(Streaming::new(cluster.streams_lists()));
    let (reports, incoming) = mpsc::channel(REPORTS);
    let (definitions, defined) = watch::channel(Definitions::Unknown);
    let wanted = rows().filter_map(|row| row.definition()).collect();
    tasks.spawn(definitions::run(cluster.clone(), streaming.clone(), wanted, definitions, problems.clone()));
    for row in rows() {
        let reflector = Reflector {
            row,
            cluster: cluster.clone(),
            streaming: streaming.clone(),
            definitions: defined.clone(),
            reports: reports.clone(),
            problems: problems.clone(),
            rejections: rejections.clone(),
            first: Some(readiness.wait_for(&format!("the first list of {}", row.plural()))),
            version: 0,
        };
        tasks.spawn(reflector.run());
    }
    tasks.spawn(gather(rows().count(), incoming, batches));
    KubernetesHandle { _tasks: tasks }
}

/// Holds changes back until all kinds are complete, then passes them on as they come.
async fn gather(kinds: usize, mut reports: mpsc::Receiver<Report>, batches: mpsc::Sender<Vec<Change>>) {
    let (mut incomplete, mut first) = (kinds, Some(Vec::new()));
    while let Some(report) = reports.recv().await {
        let batch = match (report, &mut first) {
            (Report::Changes(changes), None) => changes,
            (Report::Changes(changes), Some(first)) => {
                first.extend(changes);
                continue;
            }
            (Report::Complete, held) => {
                incomplete = incomplete.saturating_sub(1);
                match held.take_if(|_| incomplete == 0) {
                    Some(all) => {
                        tracing::info!(objects = all.len(), "all of the cluster has been read");
                        all
                    }
                    None => continue,
                }
            }
        };
        if batches.send(batch).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{Key, Kind, Name};

    fn gone(name: &str) -> Change {
        Change::Delete(Key { kind: Kind::Pod, name: Name::new("n", name) })
    }

    #[tokio::test]
    async fn the_first_batch_waits_for_every_kind() {
        let (reports, incoming) = mpsc::channel(8);
        let (to, mut batches) = mpsc::channel(8);
        let gathering = tokio::spawn(gather(2, incoming, to));
        for report in [
            Report::Changes(vec![gone("a")]),
            Report::Complete,
            Report::Changes(vec![gone("b")]),
            Report::Complete,
            Report::Changes(vec![gone("c")]),
        ] {
            reports.send(report).await.unwrap();
        }
        drop(reports);
        gathering.await.unwrap();
        assert_eq!(batches.recv().await, Some(vec![gone("a"), gone("b")]));
        assert_eq!(batches.recv().await, Some(vec![gone("c")]));
        assert_eq!(batches.recv().await, None);
    }

    #[tokio::test]
    async fn an_empty_cluster_has_a_first_batch_too() {
        let (reports, incoming) = mpsc::channel(8);
        let (to, mut batches) = mpsc::channel(8);
        reports.send(Report::Complete).await.unwrap();
        drop(reports);
        gather(1, incoming, to).await;
        assert_eq!(batches.recv().await, Some(vec![]));
    }
}
