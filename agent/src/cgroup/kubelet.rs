//! The kubelet's cgroup, whose connections to pods are probes.
//!
//! What is in that cgroup reaches pods around STRICT, so not every process that calls itself kubelet will do:
//!
//! * root's, in this process's pid namespace (the node's own: the agent's pod has `hostPID`), and not in a
//!   cgroup of a pod: a pod can name its process as it likes, but is not there;
//! * of several (another cluster on the same machine) those in the network namespace of process 1 count first, then
//!   the one whose cgroup is nearest to the pods' cgroup; a draw is refused;
//! * in a cgroup that has neither pods nor the agent below it, is not the root, and holds root's processes of the
//!   node only (a k3s has its containerd beside it): somebody else's connections must not pass for probes.

use super::contains;
use super::hierarchy::{Hierarchy, children, names, processes};
use std::path::{Path, PathBuf};

/// The kubelet by itself, and the programs that have it inside.
const NAMES: &[&str] = &["kubelet", "k3s-server", "k3s-agent", "kubelite"];

/// Why probes cannot be told from other connections.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KubeletError {
    /// No process qualifies.
    #[error(
        "no process of root in the node's pid namespace is called kubelet; does the agent's pod have hostPID: true?"
    )]
    None,
    /// More than one qualifies.
    #[error("the kubelet may be in {0} or in {1}")]
    Several(PathBuf, PathBuf),
    /// It has no cgroup of its own.
    #[error("the kubelet (process {pid}) is in {cgroup}, {why}; start it in a cgroup of its own")]
    Shared {
        /// The kubelet.
        pid: u32,
        /// Its cgroup.
        cgroup: PathBuf,
        /// Who else is there.
        why: String,
    },
}

/// A process that may be the kubelet.
#[derive(Clone, Debug)]
struct Candidate {
    pid: u32,
    cgroup: PathBuf,
    in_node_netns: bool,
}

impl Hierarchy {
    /// The kubelet's process and cgroup.
    ///
    /// # Errors
    /// [`KubeletError`].
    pub(super) fn kubelet(&self, pods: &Path, agent: &Path) -> Result<(u32, PathBuf), KubeletError> {
        let candidates: Vec<_> = self.candidates().filter(|it| !contains(pods, &it.cgroup)).collect();
        let Candidate { pid, cgroup, .. } = choose(candidates, pods)?;
        let shared = |why: String| Err(KubeletError::Shared { pid, cgroup: cgroup.clone(), why });
        if self.mounts().contains(&cgroup) {
            return shared("the root of all cgroups".to_owned());
        }
        for (other, whose) in [(pods, "the pods"), (agent, "this agent")] {
            if contains(&cgroup, other) {
                return shared(format!("and so are {whose}, in {}", other.display()));
            }
        }
        match self.stranger(&cgroup) {
            Some(stranger) => {
                shared(format!("and so is process {stranger}, which is not root's or not the node's"))
            }
            None => Ok((pid, cgroup)),
        }
    }

    /// Whether the process still is a kubelet in this cgroup.
    pub(super) fn is_kubelet(&self, pid: u32, cgroup: &Path) -> bool {
        names(cgroup, pid) && self.is_named(pid) && self.is_nodes(pid)
    }

    fn candidates(&self) -> impl Iterator<Item = Candidate> {
        let entries = std::fs::read_dir(self.proc()).into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| self.is_named(*pid) && self.is_nodes(*pid)).filter_map(|pid| {
            Some(Candidate { pid, cgroup: self.of(pid)?, in_node_netns: self.shares(pid, "1", "net") })
        })
    }

    fn is_named(&self, pid: u32) -> bool {
        NAMES.contains(&self.text(pid, "comm").trim_end())
    }

    /// Root's (by real and effective uid), in the node's pid namespace.
    fn is_nodes(&self, pid: u32) -> bool {
        let status = self.text(pid, "status");
        let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or("-");
        uids.split_whitespace().take(2).all(|uid| uid == "0") && self.shares(pid, "self", "pid")
    }

    /// Whether the process has this namespace in common with another; no where that may not be seen.
    fn shares(&self, pid: u32, with: &str, namespace: &str) -> bool {
        let of = |whose: &str| std::fs::read_link(self.proc().join(whose).join("ns").join(namespace)).ok();
        of(&pid.to_string()).is_some_and(|found| of(with).is_some_and(|other| other == found))
    }

    /// A process in the cgroup or below that is not root's or not the node's.
    fn stranger(&self, cgroup: &Path) -> Option<u32> {
        let here = processes(cgroup).into_iter();
        // A process that has ended meanwhile is nobody; zero is one of another pid namespace.
        let lives = |pid: &u32| *pid == 0 || self.proc().join(pid.to_string()).join("status").exists();
        let found = here.filter(lives).find(|pid| !self.is_nodes(*pid));
        found.or_else(|| children(cgroup).find_map(|child| self.stranger(&child)))
    }

    fn text(&self, pid: u32, file: &str) -> String {
        std::fs::read_to_string(self.proc().join(pid.to_string()).join(file)).unwrap_or_default()
    }
}

fn choose(mut candidates: Vec<Candidate>, pods: &Path) -> Result<Candidate, KubeletError> {
    let near = |it: &Candidate| {
        let common = it.cgroup.components().zip(pods.components()).take_while(|(a, b)| a == b).count();
        (it.in_node_netns, common)
    };
    candidates.sort_by_key(|it| std::cmp::Reverse(near(it)));
    let mut best = candidates.into_iter();
    let first = best.next().ok_or(KubeletError::None)?;
    match best.next() {
        Some(second) if near(&second) == near(&first) && second.cgroup != first.cgroup => {
            Err(KubeletError::Several(first.cgroup, second.cgroup))
        }
        _ => Ok(first),
    }
}

#[cfg(test)]
#[path = "kubelet_tests.rs"]
mod tests;
