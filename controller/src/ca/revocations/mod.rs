//! Identities that nobody may use any more: no certificates are issued for them, and agents let them neither in nor
//! be entered.
//!
//! The list lies beside the root that agents trust: in the CA's directory, or in the root's ConfigMap. Every replica
//! reads it again every two seconds, and any of them may change it, provided that nobody else has meanwhile.

mod file;
pub(crate) mod map;

use crate::kubernetes::{CallError, Cluster};
use crate::source::{Problem, SourceProblems};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use warren_common::model::Identity;
use warren_common::runtime::DrainWatch;

/// How soon a replica knows what another was told.
const REFRESH: Duration = Duration::from_secs(2);
/// Of this part's problems.
const PLACE: &str = "revocations";
/// Somebody else wrote first: so often it is tried again.
const ATTEMPTS: usize = 5;

/// Why the list can't be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// The file.
    #[error("{}: {error}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// What is there is not a JSON list of identities.
    #[error("{place} is not a JSON list of SPIFFE IDs: {reason}")]
    Malformed {
        /// Where.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// The API server.
    #[error("the ConfigMap warren-ca-root: {0}")]
    Call(#[from] CallError),
}

/// Where the list is kept.
#[derive(Debug)]
enum Keep {
    Directory(PathBuf),
    Cluster(Cluster),
}

/// The list, shared by all who ask.
#[derive(Debug)]
pub struct Revocations {
    keep: Keep,
    current: watch::Sender<Arc<BTreeSet<Identity>>>,
    changing: Mutex<()>,
}

impl Revocations {
    /// The list of a directory.
    ///
    /// # Errors
    /// When there is one that can't be read: without it, somebody would be let in.
    pub fn in_directory(directory: PathBuf) -> Result<Self, RevocationError> {
        let revoked = file::read(&directory)?;
        Ok(Self::new(Keep::Directory(directory), revoked))
    }

    /// The list of a cluster.
    ///
    /// # Errors
    /// As above.
    pub(crate) async fn in_cluster(cluster: &Cluster) -> Result<Self, RevocationError> {
        let revoked = map::read(cluster).await?.unwrap_or_default();
        Ok(Self::new(Keep::Cluster(cluster.clone()), revoked))
    }

    fn new(keep: Keep, revoked: BTreeSet<Identity>) -> Self {
        let current = watch::Sender::new(Arc::new(revoked));
        Self { keep, current, changing: Mutex::default() }
    }

    /// All of them.
    pub fn list(&self) -> Arc<BTreeSet<Identity>> {
        self.current.borrow().clone()
    }

    /// Whether nobody may use `identity`.
    pub fn contains(&self, identity: &Identity) -> bool {
        self.current.borrow().contains(identity)
    }

    /// Revokes an identity, or takes that back. Tells whether that changed anything.
    ///
    /// # Errors
    /// When the list can't be written; it is as before then.
    pub async fn set(&self, identity: &Identity, revoked: bool) -> Result<bool, RevocationError> {
        let _changing = self.changing.lock().await;
        let mut attempts = 0;
        loop {
            let before = self.read().await?;
            let mut list = (*before).clone();
            let changed = if revoked { list.insert(identity.clone()) } else { list.remove(identity) };
            let written = match &self.keep {
                _ if !changed => Ok(()),
                Keep::Directory(directory) => file::write(directory, &list),
                Keep::Cluster(cluster) => map::write(cluster, &before, &list).await.map_err(Into::into),
            };
            attempts += 1;
            match written {
                Err(RevocationError::Call(CallError::Conflict)) if attempts < ATTEMPTS => continue,
                Err(error) => return Err(error),
                Ok(()) => {}
            }
            self.adopt(list);
            return Ok(changed);
        }
    }

    /// Keeps up with what is kept, and tells every list, until the drain.
    pub(crate) async fn follow(
        self: Arc<Self>,
        tell: impl Fn(&BTreeSet<Identity>) + Send,
        problems: SourceProblems,
        mut drain: DrainWatch,
    ) {
        let mut changed = self.current.subscribe();
        let mut ticks = tokio::time::interval(REFRESH);
        loop {
            let list = changed.borrow_and_update().clone();
            tell(&list);
            tokio::select! {
                // The sender is ours.
                _ = changed.changed() => {}
                _ = ticks.tick() => {
                    let refreshed = self.refresh().await;
                    let problem = |error: RevocationError| {
                        Problem { place: PLACE.to_owned(), line: None, reason: format!("{error}; the last good list holds") }
                    };
                    problems.replace(PLACE, refreshed.err().map(problem).into_iter().collect());
                }
                () = drain.started() => return,
            }
        }
    }

    async fn refresh(&self) -> Result<(), RevocationError> {
        let _changing = self.changing.lock().await;
        let list = self.read().await?;
        self.adopt((*list).clone());
        Ok(())
    }

    /// What is kept; what is known where somebody deleted it.
    async fn read(&self) -> Result<Arc<BTreeSet<Identity>>, RevocationError> {
        let kept = match &self.keep {
            Keep::Directory(directory) => Some(file::read(directory)?),
            Keep::Cluster(cluster) => map::read(cluster).await?,
        };
        Ok(kept.map_or_else(|| self.list(), Arc::new))
    }

    fn adopt(&self, list: BTreeSet<Identity>) {
        self.current.send_if_modified(|current| {
            let changed = **current != list;
            if changed {
                tracing::info!(revoked = list.len(), "the list of revoked identities changed");
                *current = Arc::new(list);
            }
            changed
        });
    }
}

/// A list as it is kept.
pub(crate) fn encode(list: &BTreeSet<Identity>) -> String {
    // Identities are text: writing them can't fail.
    serde_json::to_string(list).unwrap_or_default()
}

fn decode(place: &str, text: &str) -> Result<BTreeSet<Identity>, RevocationError> {
    let malformed = |error: serde_json::Error| RevocationError::Malformed {
        place: place.to_owned(),
        reason: error.to_string(),
    };
    serde_json::from_str(text).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> Identity {
        Identity::new("cluster.local", "shop", name).unwrap()
    }

    #[tokio::test]
    async fn a_list_outlives_its_controller_and_is_never_guessed() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Revocations::in_directory(directory.path().join("ca"));
        let list = open().unwrap();
        assert!(!list.contains(&id("a")) && !list.set(&id("a"), false).await.unwrap());
        assert!(list.set(&id("a"), true).await.unwrap() && list.set(&id("b"), true).await.unwrap());
        assert!(!list.set(&id("a"), true).await.unwrap());
        assert!(list.contains(&id("a")));
        let again = open().unwrap();
        assert_eq!(again.list(), list.list());
        assert!(again.set(&id("a"), false).await.unwrap());
        // The first one follows.
        list.refresh().await.unwrap();
        assert_eq!(*list.list(), BTreeSet::from([id("b")]));
        let path = directory.path().join("ca/revoked.json");
        for bad in ["", "{}", "[\"shop/b\"]", "[1]"] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(open(), Err(RevocationError::Malformed { .. })), "{bad}");
            assert!(list.refresh().await.is_err());
            assert!(list.contains(&id("b")), "the last good list holds");
        }
        assert_eq!(std::fs::read_dir(directory.path().join("ca")).unwrap().count(), 1);
    }
}
