//! What must be true of the node before anything is loaded.

use super::{KernelConfig, KernelError, sys};
use std::{fs::File, os::unix::fs::MetadataExt as _, path::Path};

const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// A cgroup v2 directory that was found good.
pub(super) struct Cgroup {
    /// The open directory, to attach to.
    pub(super) dir: File,
    /// The cgroup's id: the directory's inode number.
    pub(super) id: u64,
}

/// The node's cgroups.
pub(super) struct Cgroups {
    pub(super) pods: Cgroup,
    pub(super) agent: Cgroup,
    pub(super) kubelet: Option<Cgroup>,
}

impl Cgroups {
    pub(super) fn open(config: &KernelConfig) -> Result<Self, KernelError> {
        Ok(Self {
            pods: Cgroup::open(&config.pods_cgroup)?,
            agent: Cgroup::open(&config.agent_cgroup)?,
            kubelet: config.kubelet_cgroup.as_deref().map(Cgroup::open).transpose()?,
        })
    }
}

impl Cgroup {
    pub(super) fn open(path: &Path) -> Result<Self, KernelError> {
        let dir = File::open(path).map_err(KernelError::file("opening cgroup", path))?;
        let metadata = dir.metadata().map_err(KernelError::file("reading cgroup", path))?;
        let magic = sys::fs_magic(path).map_err(KernelError::file("reading cgroup", path))?;
        if !metadata.is_dir() || magic != CGROUP2_MAGIC {
            return Err(KernelError::NotCgroup2 { path: path.to_owned() });
        }
        Ok(Self { dir, id: metadata.ino() })
    }
}

/// Refuses kernels below the floor.
pub(super) fn kernel_version() -> Result<(), KernelError> {
    let found = sys::kernel_release();
    if is_supported(&found) { Ok(()) } else { Err(KernelError::KernelTooOld { found }) }
}

/// Whether a release is 6.1 or later. What can't be read is given the benefit of the doubt: the verifier decides.
fn is_supported(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (6, 1),
        _ => true,
    }
}

/// Whether the kernel was built with MPTCP.
pub(super) fn has_mptcp() -> bool {
    Path::new("/proc/sys/net/mptcp").exists()
}

#[cfg(test)]
mod tests {
    use super::is_supported;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert!(is_supported("6.1.0-40-cloud-amd64") && is_supported("6.18.0") && is_supported("10.0"));
        assert!(!is_supported("5.15.0-1") && !is_supported("6.0.19") && !is_supported("4.18.0-553.el8"));
        assert!(is_supported("odd"));
    }
}
