//! Names, addresses and paths of a cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::tool::output;
use crate::process::target_dir;

/// The cluster's name if nobody says another.
pub(crate) const DEFAULT_NAME: &str = "warren";

/// The control plane's address, on the bridge that the nodes hang on.
pub(crate) const CONTROL_PLANE: &str = "10.99.0.1";

/// Where the API server listens; reachable in the cluster's network namespaces.
pub(crate) const API: &str = "https://10.99.0.1:6443";

/// Cluster IPs.
pub(crate) const SERVICES: &str = "10.96.0.0/16";

/// The cluster IP of DNS.
pub(crate) const DNS: &str = "10.96.0.10";

/// One node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeName(u8);

/// All nodes.
pub(crate) const NODES: [NodeName; 2] = [NodeName(1), NodeName(2)];

impl NodeName {
    /// As the API server knows it: `node1`.
    pub(crate) fn name(self) -> String {
        format!("node{}", self.0)
    }

    /// Suffix of what is made for it on this machine: `n1`.
    pub(crate) fn short(self) -> String {
        format!("n{}", self.0)
    }

    pub(crate) fn address(self) -> String {
        format!("10.99.0.1{}", self.0)
    }

    /// Each node is in a zone of its own.
    pub(crate) fn zone(self) -> String {
        format!("zone{}", self.0)
    }

    /// The addresses of its pods.
    pub(crate) fn pods(self) -> String {
        format!("10.244.{}.0/24", self.0)
    }
}

/// Where everything of one cluster is.
#[derive(Debug)]
pub(crate) struct Layout {
    name: String,
    dir: PathBuf,
    run: PathBuf,
}

/// Names become parts of network namespaces, cgroups and paths.
pub(crate) fn valid_name(name: &str) -> Result<String, String> {
    let fits = (1..=20).contains(&name.len())
        && name.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit());
    if fits { Ok(name.to_owned()) } else { Err("a name is 1 to 20 lower-case letters and digits".to_owned()) }
}

impl Layout {
    pub(crate) fn new(name: &str) -> Self {
        let folder = if name == DEFAULT_NAME { "cluster".to_owned() } else { format!("cluster-{name}") };
        Self {
            name: name.to_owned(),
            dir: target_dir().join(folder),
            run: Path::new("/run/warren-cluster").join(name),
        }
    }

    /// How a command line names this cluster: nothing, or ` --name NAME`.
    pub(crate) fn name_argument(&self) -> String {
        if self.name == DEFAULT_NAME { String::new() } else { format!(" --name {}", self.name) }
    }

    /// The network namespace of the control plane.
    pub(crate) fn control_plane_netns(&self) -> String {
        format!("{}-cp", self.name)
    }

    /// The network namespace of a node.
    pub(crate) fn netns(&self, node: NodeName) -> String {
        format!("{}-{}", self.name, node.short())
    }

    /// The cgroup of everything on a node, below each hierarchy's root: `warren-n1`.
    pub(crate) fn cgroup(&self, node: NodeName) -> String {
        self.netns(node)
    }

    /// Keys and kubeconfigs.
    pub(crate) fn pki(&self) -> PathBuf {
        self.dir.join("pki")
    }

    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.pki().join(format!("{user}.kubeconfig"))
    }

    /// Data of the control plane.
    pub(crate) fn control_plane_dir(&self) -> PathBuf {
        self.dir.join("control-plane")
    }

    /// What a node keeps: its own /run, and what it changes in /etc, /opt and /var.
    pub(crate) fn node_dir(&self, node: NodeName) -> PathBuf {
        self.dir.join(node.name())
    }

    pub(crate) fn log(&self, daemon: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{daemon}.log"))
    }

    /// Where the record of a running daemon is. Not in the target directory: another checkout may have to end it.
    pub(crate) fn record(&self, daemon: &str) -> PathBuf {
        self.run.join(format!("{daemon}.stat"))
    }

    /// Records of all daemons that were started and not yet ended.
    pub(crate) fn records(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.run).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "stat"))
            .collect()
    }

    /// Which checkout's cluster this is, if there is one.
    fn owner(&self) -> Option<PathBuf> {
        fs::read_to_string(self.run.join("owner")).ok().map(|path| path.trim_end().into())
    }

    /// The directory of the cluster that runs: usually ours, but `down` also ends another checkout's.
    pub(crate) fn owned_dir(&self) -> PathBuf {
        self.owner().unwrap_or_else(|| self.dir.clone())
    }

    /// Another checkout's cluster is not ours to use.
    pub(crate) fn check_owner(&self) -> Result<()> {
        match self.owner() {
            Some(owner) if owner != self.dir => bail!(
                "a cluster named {} runs already and belongs to {}: end it with `cargo xtask cluster down`, or start \
                 another beside it with `--name`",
                self.name,
                owner.display()
            ),
            _ => Ok(()),
        }
    }

    pub(crate) fn create(&self) -> Result<()> {
        let dirs = [self.run.clone(), self.pki(), self.control_plane_dir(), self.dir.join("logs")];
        for dir in dirs.into_iter().chain(NODES.map(|node| self.node_dir(node))) {
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        fs::write(self.run.join("owner"), self.dir.display().to_string())
            .context("cannot write the owner's name")
    }

    /// Removes what [`Self::create`] made, but for keys and logs.
    pub(crate) fn remove(&self) -> Result<()> {
        let dir = self.owned_dir();
        let nodes = NODES.map(|node| dir.join(node.name()));
        for path in nodes.into_iter().chain([dir.join("control-plane"), self.run.clone()]) {
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Copies the logs of this run to where the next one doesn't overwrite them.
    pub(crate) fn keep_logs(&self) -> PathBuf {
        let (logs, kept) = (self.dir.join("logs"), self.dir.join("logs-of-failure"));
        let _ = fs::remove_dir_all(&kept);
        match output(Command::new("cp").arg("-a").arg(&logs).arg(&kept)) {
            Ok(_) => kept,
            Err(_) => logs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_paths() {
        for (name, valid) in [("warren", true), ("a1", true), ("", false), ("../x", false), ("A", false)] {
            assert_eq!(valid_name(name).is_ok(), valid, "{name}");
        }
    }

    #[test]
    fn nodes_have_names_and_addresses_of_their_own() {
        let layout = Layout::new(DEFAULT_NAME);
        let [first, second] = NODES;
        assert_eq!((layout.netns(first), first.address()), ("warren-n1".to_owned(), "10.99.0.11".to_owned()));
        assert_eq!((second.name(), second.pods()), ("node2".to_owned(), "10.244.2.0/24".to_owned()));
    }
}
