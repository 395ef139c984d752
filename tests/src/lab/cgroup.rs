//! Cgroups (version 2): one per pod, as a kubelet makes them, and one per kind of process of a node.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Where cgroup2 is mounted: its own place on hybrid systems, /sys/fs/cgroup on others.
pub(crate) fn root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&"cgroup2"))
        .and_then(|fields| fields.get(1).map(PathBuf::from))
        .context("no cgroup2 hierarchy is mounted")
}

/// Makes a cgroup and its parents.
pub(crate) fn create(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make the cgroup {}", path.display()))
}

/// Kills every process in the cgroup and below. Those that the kernel still tears down may be seen a moment longer.
pub(crate) fn kill(path: &Path) -> io::Result<()> {
    // cgroup.kill (Linux 5.14) leaves no race with fork; the floor of warren is 6.1.
    match fs::write(path.join("cgroup.kill"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether a live process is in the cgroup or below.
pub(crate) fn is_populated(path: &Path) -> bool {
    fs::read_to_string(path.join("cgroup.events")).is_ok_and(|events| events.contains("populated 1"))
}

/// Removes the cgroup and everything below; it must be empty of processes.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}
