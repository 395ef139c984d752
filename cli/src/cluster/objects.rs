//! Every object that the controller reads, read once as it reads them. Nothing is written.

use super::unread::{Unread, unread};
use super::{Cluster, ClusterError};
use std::time::Duration;
use tokio::sync::mpsc;
use warren_common::runtime::Readiness;
use warren_controller::kubernetes;
use warren_controller::objects::Key;
use warren_controller::source::kubernetes::{Rejections, watch};
use warren_controller::source::{Change, SourceProblems};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a cluster holds.
pub(crate) struct Objects {
    /// The objects.
    pub(crate) changes: Vec<Change>,
    /// Objects that are not understood.
    pub(crate) refused: Vec<Refused>,
    /// Objects that are for a mesh and are not read.
    pub(crate) unread: Vec<Unread>,
}

/// An object that the controller rejects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) object: Key,
    pub(crate) why: String,
}

/// All of it.
///
/// # Errors
/// [`ClusterError::NotFound`], when a kind can't be read: what is missing would be taken for what is not there;
/// [`ClusterError::Api`], when the kinds that are not read can't be listed.
pub(crate) async fn objects(cluster: &Cluster) -> Result<Objects, ClusterError> {
    let (batches, mut first) = mpsc::channel(1);
    let (problems, rejections, readiness) =
        (SourceProblems::default(), Rejections::default(), Readiness::default());
    let source = kubernetes::Cluster::of(cluster.client.clone(), &cluster.namespace);
    let _following = watch(&source, &problems, &rejections, &readiness, batches);
    let Ok(Some(changes)) = tokio::time::timeout(PATIENCE, first.recv()).await else {
        let waiting = readiness.waiting_for().join(", ");
        let why: Vec<_> = problems.list().iter().map(|problem| format!("\n  {problem}")).collect();
        return Err(ClusterError::NotFound(format!(
            "the cluster could not be read within {} s: still waiting for {waiting}{}",
            PATIENCE.as_secs(),
            why.concat()
        )));
    };
    let refused = rejections.list().into_iter().map(|rejection| Refused {
        object: Key { kind: rejection.kind, name: rejection.rejected.name },
        why: rejection.rejected.reason,
    });
    Ok(Objects { changes, refused: refused.collect(), unread: unread(cluster).await? })
}
