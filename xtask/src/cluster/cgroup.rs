//! The nodes' cgroups, in every hierarchy that this machine has (version 2 alone, or version 1 with it).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::layout::{Layout, NodeName};
use super::wait::until;

/// Parts of a node beside its pods that want a cgroup of their own: probes are recognised by the kubelet's.
pub(crate) const PARTS: [&str; 2] = ["kubelet", "runtime"];

/// Where hierarchies are mounted.
struct Mounts {
    version1: Vec<PathBuf>,
    version2: Option<PathBuf>,
}

fn mounts() -> Result<Mounts> {
    Ok(parse(&fs::read_to_string("/proc/self/mounts").context("cannot read the list of mounts")?))
}

fn parse(text: &str) -> Mounts {
    let mut mounts = Mounts { version1: Vec::new(), version2: None };
    for line in text.lines() {
        let mut fields = line.split(' ').skip(1);
        match (fields.next(), fields.next()) {
            (Some(path), Some("cgroup2")) => mounts.version2 = Some(path.into()),
            (Some(path), Some("cgroup")) => mounts.version1.push(path.into()),
            _ => {}
        }
    }
    mounts
}

/// The cgroup2 directory of one part of a node.
pub(crate) fn of_part(layout: &Layout, node: NodeName, part: &str) -> Result<PathBuf> {
    let root = mounts()?.version2.context("no cgroup2 hierarchy is mounted")?;
    Ok(root.join(layout.cgroup(node)).join(part))
}

/// Makes a node's cgroups.
pub(crate) fn create(layout: &Layout, node: NodeName) -> Result<()> {
    let mounts = mounts()?;
    for root in &mounts.version1 {
        make(&root.join(layout.cgroup(node)))?;
    }
    let root = mounts.version2.context("no cgroup2 hierarchy is mounted")?;
    let own = root.join(layout.cgroup(node));
    make(&own)?;
    enable_controllers(&root, &own)?;
    for part in PARTS {
        make(&own.join(part))?;
    }
    Ok(())
}

fn make(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make the cgroup {}", path.display()))
}

/// On version 2 alone the kubelet needs the controllers below its root; beside version 1 there are none to give.
fn enable_controllers(root: &Path, own: &Path) -> Result<()> {
    let there = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    for controller in ["cpu", "cpuset", "io", "memory", "pids"] {
        if there.split_whitespace().any(|name| name == controller) {
            for folder in [root, own] {
                let file = folder.join("cgroup.subtree_control");
                fs::write(&file, format!("+{controller}"))
                    .with_context(|| format!("cannot enable {controller} in {}", file.display()))?;
            }
        }
    }
    Ok(())
}

/// Removes a node's cgroups, whose processes have been killed but may not all be gone yet.
pub(crate) fn remove(layout: &Layout, node: NodeName) -> Result<()> {
    let mounts = mounts()?;
    for root in mounts.version1.iter().chain(&mounts.version2) {
        let path = root.join(layout.cgroup(node));
        until("cgroups to become empty", Duration::from_secs(20), || remove_tree(&path))?;
    }
    Ok(())
}

fn remove_tree(path: &Path) -> Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path).with_context(|| format!("cannot remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found() {
        let mounts = parse(
            "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 \
             /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
        );
        assert_eq!(mounts.version1, [PathBuf::from("/sys/fs/cgroup/cpu")]);
        assert_eq!(mounts.version2, Some("/sys/fs/cgroup/unified".into()));
    }
}
