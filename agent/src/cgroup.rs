//! Where this process stands in the cgroup v2 hierarchy.

use std::path::{Path, PathBuf};

/// Why the agent's cgroup cannot be used.
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
        "no cgroup v2 hierarchy is mounted; mount one (mount -t cgroup2 none /sys/fs/cgroup) or boot with it"
    )]
    NotMounted,
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

/// This process's cgroup v2 directory.
///
/// # Errors
/// [`CgroupError`].
pub fn own(proc: &Path) -> Result<PathBuf, CgroupError> {
    let read = |name: &str| {
        let path = proc.join(name);
        std::fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })
    };
    let mount = mount_point(&read("self/mounts")?).ok_or(CgroupError::NotMounted)?;
    let cgroups = read("self/cgroup")?;
    let path = path_of(&cgroups).ok_or(CgroupError::NotMounted)?;
    Ok(mount.join(path.trim_start_matches('/')))
}

/// Refuses an agent whose cgroup contains the pods' cgroup.
///
/// # Errors
/// [`CgroupError::Above`].
pub fn not_above(agent: &Path, pods: &Path) -> Result<(), CgroupError> {
    if pods.starts_with(agent) {
        return Err(CgroupError::Above { agent: agent.to_owned(), pods: pods.to_owned() });
    }
    Ok(())
}

/// The mount point of the first cgroup v2 file system in a table of mounts (proc_pid_mounts(5)).
fn mount_point(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(point))
    })
}

/// The path in the unified hierarchy: the line that starts with `0::` (cgroups(7)).
fn path_of(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_and_unified_hosts_are_understood() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_point(hybrid).unwrap(), Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(
            mount_point("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n").unwrap(),
            Path::new("/sys/fs/cgroup")
        );
        assert_eq!(mount_point("proc /proc proc rw 0 0\n"), None);
        assert_eq!(path_of("1:cpu:/x\n0::/a/b\n"), Some("/a/b"));
    }

    #[test]
    fn an_agent_above_its_pods_is_refused() {
        assert!(not_above(Path::new("/c"), Path::new("/c/pods")).is_err());
        assert!(not_above(Path::new("/c/agent"), Path::new("/c/pods")).is_ok());
        assert!(not_above(Path::new("/c/pods/agent"), Path::new("/c/pods")).is_ok());
    }
}
