//! From a pod's UID to its network namespace, by its cgroup.
//!
//! A wrong pairing would give a pod another pod's identity, so every step is checked: the namespace must
//! belong to a process that is still in the pod's cgroup after the namespace was opened, must not be the
//! node's own, and must hold the pod's addresses (the manager checks those, and that no other pod has it).

use crate::accept::Netns;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How deep below the pods' cgroup a pod's cgroup may be: `kubepods.slice/kubepods-besteffort.slice/...`.
const MAX_DEPTH: usize = 4;

/// Why a pod's network namespace is not known (yet).
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// No cgroup has the pod's UID.
    #[error("no cgroup of pod {uid} below {root}; its container has not started, or --pods-cgroup is wrong")]
    NoCgroup {
        /// The pod's UID.
        uid: String,
        /// Where it was looked for.
        root: PathBuf,
    },
    /// The cgroup has no process.
    #[error("the cgroup {0} has no process yet")]
    NoProcess(PathBuf),
    /// The namespaces of its processes may not be opened.
    #[error(
        "the network namespace of the pod's processes may not be opened; the agent needs hostPID and CAP_SYS_PTRACE"
    )]
    Denied,
    /// The pod's processes live in the node's own network namespace.
    #[error("the pod's processes are in the node's network namespace; hostNetwork pods cannot be enrolled")]
    HostNetwork,
    /// Files could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// What was read.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Finds the network namespaces that a pod's processes live in. Behind a trait so that the manager can be
/// tested without cgroups.
pub trait Discovery: Send + Sync + 'static {
    /// The candidates, most common first. More than one when a process of the pod has a namespace of its own.
    ///
    /// # Errors
    /// [`DiscoverError`].
    fn namespaces(&self, pod_uid: &str) -> Result<Vec<Arc<Netns>>, DiscoverError>;

    /// Whether the pod's cgroup is still there.
    fn exists(&self, pod_uid: &str) -> bool;

    /// Whether the network namespace is no pod's.
    fn is_node(&self, netns: &Netns) -> bool;
}

/// [`Discovery`] by cgroup v2 and procfs.
#[derive(Clone, Debug)]
pub struct ProcDiscovery {
    pods_cgroup: PathBuf,
    proc: PathBuf,
    /// The agent's and, as far as it may be seen, the node's: the agent's pod has one of its own.
    not_pods: Vec<u64>,
}

impl ProcDiscovery {
    /// Looks below `pods_cgroup`, a directory of the cgroup v2 file system.
    ///
    /// # Errors
    /// When this process's own network namespace cannot be opened.
    pub fn new(pods_cgroup: PathBuf, proc: PathBuf) -> io::Result<Self> {
        let inode = |of: &str| Ok::<_, io::Error>(Netns::open(&proc.join(of).join("ns/net"))?.inode());
        let mut not_pods = vec![inode("self")?];
        match inode("1") {
            Ok(node) => not_pods.push(node),
            // A pod's addresses are looked for in whatever namespace is found, so this is a second look at most.
            Err(error) => tracing::debug!(%error, "the node's network namespace may not be seen"),
        }
        Ok(Self { pods_cgroup, proc, not_pods })
    }

    fn cgroup_of(&self, pod_uid: &str) -> Option<PathBuf> {
        find_pod_cgroup(&self.pods_cgroup, pod_uid, MAX_DEPTH)
    }

    /// Opens the process's namespace and makes sure that it still is the pod's process: between reading the
    /// pid and opening the file it may have ended and its number may have been given to another.
    fn open_checked(&self, pid: &str, cgroup: &Path) -> io::Result<Option<Netns>> {
        let netns = Netns::open(&self.proc.join(pid).join("ns/net"))?;
        let still_there = processes_below(cgroup).is_ok_and(|pids| pids.iter().any(|p| p == pid));
        Ok(still_there.then_some(netns))
    }
}

impl Discovery for ProcDiscovery {
    fn namespaces(&self, pod_uid: &str) -> Result<Vec<Arc<Netns>>, DiscoverError> {
        let no_cgroup =
            || DiscoverError::NoCgroup { uid: pod_uid.to_owned(), root: self.pods_cgroup.clone() };
        let cgroup = self.cgroup_of(pod_uid).ok_or_else(no_cgroup)?;
        let pids = processes_below(&cgroup)
            .map_err(|source| DiscoverError::Read { path: cgroup.clone(), source })?;
        let mut found: HashMap<u64, (usize, Arc<Netns>)> = HashMap::new();
        let mut denied = false;
        for pid in &pids {
            match self.open_checked(pid, &cgroup) {
                Ok(Some(netns)) => found.entry(netns.inode()).or_insert_with(|| (0, Arc::new(netns))).0 += 1,
                Ok(None) => {}
                // It has ended meanwhile, for any other reason.
                Err(error) => denied |= error.kind() == io::ErrorKind::PermissionDenied,
            }
        }
        if found.is_empty() && denied {
            return Err(DiscoverError::Denied);
        }
        if found.is_empty() {
            return Err(DiscoverError::NoProcess(cgroup));
        }
        found.retain(|inode, _| !self.not_pods.contains(inode));
        if found.is_empty() {
            return Err(DiscoverError::HostNetwork);
        }
        let mut candidates: Vec<_> = found.into_values().collect();
        candidates.sort_by_key(|(processes, netns)| (std::cmp::Reverse(*processes), netns.inode()));
        Ok(candidates.into_iter().map(|(_, netns)| netns).collect())
    }

    fn exists(&self, pod_uid: &str) -> bool {
        self.cgroup_of(pod_uid).is_some()
    }

    fn is_node(&self, netns: &Netns) -> bool {
        self.not_pods.contains(&netns.inode())
    }
}

fn find_pod_cgroup(dir: &Path, pod_uid: &str, depth: usize) -> Option<PathBuf> {
    let children: Vec<PathBuf> = std::fs::read_dir(dir)
        .ok()?
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect();
    let named =
        |path: &&PathBuf| path.file_name().and_then(|n| n.to_str()).is_some_and(|n| is_cgroup_of(n, pod_uid));
    if let Some(found) = children.iter().find(named) {
        return Some(found.clone());
    }
    if depth <= 1 {
        return None;
    }
    children.iter().find_map(|child| find_pod_cgroup(child, pod_uid, depth - 1))
}

/// `pod<uid>` (cgroupfs driver) or `...-pod<uid with underscores>.slice` (systemd driver), as the kubelet
/// names them.
fn is_cgroup_of(name: &str, pod_uid: &str) -> bool {
    if let Some(uid) = name.strip_prefix("pod") {
        return uid == pod_uid;
    }
    name.strip_suffix(".slice")
        .and_then(|slice| slice.rsplit_once("-pod"))
        .is_some_and(|(_, uid)| uid == pod_uid.replace('-', "_"))
}

fn processes_below(cgroup: &Path) -> io::Result<Vec<String>> {
    let mut pids: Vec<String> =
        std::fs::read_to_string(cgroup.join("cgroup.procs"))?.lines().map(str::to_owned).collect();
    for entry in std::fs::read_dir(cgroup)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // A container may end while we look.
            pids.extend(processes_below(&entry.path()).unwrap_or_default());
        }
    }
    Ok(pids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_cgroup_drivers_are_understood() {
        let uid = "3f1c0a5e-1111-2222-3333-444455556666";
        assert!(is_cgroup_of("pod3f1c0a5e-1111-2222-3333-444455556666", uid));
        assert!(is_cgroup_of("kubepods-besteffort-pod3f1c0a5e_1111_2222_3333_444455556666.slice", uid));
        assert!(!is_cgroup_of("pod3f1c0a5e-1111-2222-3333-44445555666", uid));
        assert!(!is_cgroup_of("kubepods-besteffort.slice", uid));
    }

    #[test]
    fn a_pod_cgroup_is_found_at_any_depth() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("kubepods/burstable/podabc/container");
        std::fs::create_dir_all(&path).unwrap();
        assert_eq!(find_pod_cgroup(root.path(), "abc", MAX_DEPTH).unwrap(), path.parent().unwrap());
        assert_eq!(find_pod_cgroup(root.path(), "ab", MAX_DEPTH), None);
    }

    #[test]
    fn processes_of_the_node_are_no_pod() {
        let root = tempfile::tempdir().unwrap();
        let pod = root.path().join("pod1");
        std::fs::create_dir_all(&pod).unwrap();
        std::fs::write(pod.join("cgroup.procs"), format!("{}\n", std::process::id())).unwrap();
        let discovery = ProcDiscovery::new(root.path().to_owned(), "/proc".into()).unwrap();
        assert!(matches!(discovery.namespaces("1"), Err(DiscoverError::HostNetwork)));
        std::fs::write(pod.join("cgroup.procs"), "").unwrap();
        assert!(matches!(discovery.namespaces("1"), Err(DiscoverError::NoProcess(_))));
        assert!(matches!(discovery.namespaces("2"), Err(DiscoverError::NoCgroup { .. })));
    }
}
