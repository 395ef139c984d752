//! The kubelet may be restarted into a cgroup of the same name or of another: look again, and tell.

use super::{Hierarchy, KubeletError, id};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;

/// How often the kubelet's cgroup is looked at: for so long the probes of a restarted kubelet are captured.
const LOOK: Duration = Duration::from_secs(1);

/// Who says which cgroup is the kubelet's.
#[derive(Clone, Debug)]
pub enum Source {
    /// A person, by a flag.
    Given(PathBuf),
    /// The node's processes.
    Detected {
        /// Where to look.
        hierarchy: Hierarchy,
        /// The cgroup above all pods.
        pods: PathBuf,
        /// This agent's.
        agent: PathBuf,
    },
}

/// The kubelet's cgroup at some time: two are equal only if it is the same cgroup, not just the same path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeletCgroup {
    /// Its directory.
    pub path: PathBuf,
    id: u64,
    /// The kubelet, where it was detected.
    pid: Option<u32>,
}

/// What is known of it.
type Known = Result<KubeletCgroup, KubeletError>;

impl Source {
    /// Looks. Cheap as long as it stays as it was in `before`.
    ///
    /// # Errors
    /// [`KubeletError`]: probes cannot be told from other connections.
    pub fn look(&self, before: Option<&KubeletCgroup>) -> Known {
        match self {
            Self::Given(path) => KubeletCgroup::of(path, None).ok_or(KubeletError::None),
            Self::Detected { hierarchy, pods, agent } => {
                let same = |it: &&KubeletCgroup| {
                    id(&it.path) == Some(it.id)
                        && it.pid.is_some_and(|pid| hierarchy.is_kubelet(pid, &it.path))
                };
                if let Some(same) = before.filter(same) {
                    return Ok(same.clone());
                }
                let (pid, path) = hierarchy.kubelet(pods, agent)?;
                KubeletCgroup::of(&path, Some(pid)).ok_or(KubeletError::None)
            }
        }
    }
}

impl KubeletCgroup {
    fn of(path: &Path, pid: Option<u32>) -> Option<Self> {
        Some(Self { path: path.to_owned(), id: id(path)?, pid })
    }
}

/// Looks every second for as long as somebody holds a receiver, and calls `moved` for each cgroup that is not the
/// one before. What is not found is logged once and stays as it is in the kernel: the next kubelet replaces it.
pub async fn follow(source: Source, known: watch::Sender<Known>, moved: impl Fn(&Path)) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = known.closed() => return,
        }
        let before = known.borrow().clone().ok();
        let looked = tokio::task::spawn_blocking({
            let source = source.clone();
            move || source.look(before.as_ref())
        });
        let Ok(now) = looked.await else { return };
        let before = known.borrow().clone();
        if before == now {
            continue;
        }
        match &now {
            Ok(cgroup) if before.as_ref().map(|it| it.id) != Ok(cgroup.id) => moved(&cgroup.path),
            Ok(_) => {}
            Err(reason) => {
                tracing::warn!(%reason, "the kubelet's cgroup is not known now; new probes are captured");
            }
        }
        drop(known.send_replace(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_made_anew_under_the_same_path_is_another() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("kubelet.service");
        let source = Source::Given(path.clone());
        assert_eq!(source.look(None), Err(KubeletError::None));
        std::fs::create_dir(&path).unwrap();
        let first = source.look(None).unwrap();
        assert_eq!(source.look(Some(&first)).unwrap(), first);
        // Kept, so that the next directory cannot get its inode.
        std::fs::rename(&path, root.path().join("old")).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_ne!(source.look(Some(&first)).unwrap(), first);
    }
}
