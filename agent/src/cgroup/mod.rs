//! Where this process, the pods and the kubelet stand in the cgroup v2 hierarchy.
//!
//! The agent runs in a container: `/proc/self/cgroup` may be relative to a cgroup namespace of its own, and the
//! node's hierarchy is a hostPath, on a hybrid node below the first version's. So a path is believed only when the
//! directory's `cgroup.procs` names the process; otherwise the hierarchy is searched for the directory that does.

mod follow;
mod hierarchy;
mod kubelet;
mod pods;

pub use follow::{KubeletCgroup, Source, follow};
pub use hierarchy::Hierarchy;
pub use kubelet::KubeletError;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why a cgroup cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file of procfs cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no cgroup v2 hierarchy.
    #[error(
        "no cgroup v2 hierarchy is mounted; mount one (mount -t cgroup2 none /sys/fs/cgroup), boot with it, or give the agent's pod the node's /sys/fs/cgroup as a hostPath"
    )]
    NotMounted,
    /// No directory of the mounted hierarchies names this process.
    #[error(
        "no cgroup below {mounts:?} contains this process; give the agent's pod the node's /sys/fs/cgroup as a hostPath"
    )]
    NotFound {
        /// Where it was looked for.
        mounts: Vec<PathBuf>,
    },
    /// The agent is in no pod, and none of the usual places exists.
    #[error("the pods' cgroup is in none of {tried:?}; name it with --pods-cgroup")]
    NoPods {
        /// Where it was looked for.
        tried: Vec<PathBuf>,
    },
    /// The agent's cgroup contains the pods' one.
    #[error(
        "the agent runs in the cgroup {agent}, which is above the pods' cgroup {pods}: its own connections could not be told from theirs; start it in a cgroup of its own"
    )]
    Above {
        /// The agent's.
        agent: PathBuf,
        /// The pods'.
        pods: PathBuf,
    },
}

/// Refuses an agent whose cgroup contains the pods' cgroup.
///
/// # Errors
/// [`CgroupError::Above`].
pub fn not_above(agent: &Path, pods: &Path) -> Result<(), CgroupError> {
    if contains(agent, pods) {
        return Err(CgroupError::Above { agent: agent.to_owned(), pods: pods.to_owned() });
    }
    Ok(())
}

/// Whether `inner` is `outer` or below it, also when they are seen through different mounts: a cgroup's inode
/// number is its id.
fn contains(outer: &Path, inner: &Path) -> bool {
    let id = id(outer);
    inner.ancestors().any(|it| it == outer || id.is_some() && self::id(it) == id)
}

/// The cgroup's id; the number names it as long as it lives, and no other cgroup after it.
fn id(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_above_its_pods_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let [agent, pods, below] = ["agent", "pods", "pods/agent"].map(|name| root.path().join(name));
        for dir in [&agent, &below] {
            std::fs::create_dir_all(dir).unwrap();
        }
        assert!(not_above(root.path(), &pods).is_err());
        assert!(not_above(&agent, &pods).is_ok());
        assert!(not_above(&below, &pods).is_ok());
        // The same directory by another path.
        assert!(not_above(&root.path().join("pods/.."), &pods).is_err());
    }
}
