//! The mounted cgroup v2 hierarchies, and where in them a process is.

use super::CgroupError;
use std::path::{Component, Path, PathBuf};

/// How deep a hierarchy is searched; the kubelet's deepest containers are at 6.
const MAX_DEPTH: usize = 12;

/// The cgroup v2 hierarchy as this process sees it: usually at one place, in a container perhaps at two.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    mounts: Vec<PathBuf>,
    proc: PathBuf,
}

impl Hierarchy {
    /// Reads the table of mounts of this process.
    ///
    /// # Errors
    /// [`CgroupError::Read`], [`CgroupError::NotMounted`].
    pub fn open(proc: &Path) -> Result<Self, CgroupError> {
        let path = proc.join("self/mounts");
        let table = std::fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })?;
        let mounts = mount_points(&table);
        if mounts.is_empty() {
            return Err(CgroupError::NotMounted);
        }
        Ok(Self { mounts, proc: proc.to_owned() })
    }

    #[cfg(test)]
    pub(super) fn of_parts(mounts: Vec<PathBuf>, proc: PathBuf) -> Self {
        Self { mounts, proc }
    }

    /// Where the hierarchy is mounted.
    pub(super) fn mounts(&self) -> &[PathBuf] {
        &self.mounts
    }

    /// procfs of the node.
    pub(super) fn proc(&self) -> &Path {
        &self.proc
    }

    /// This process's directory.
    ///
    /// # Errors
    /// [`CgroupError::NotFound`].
    pub fn own(&self) -> Result<PathBuf, CgroupError> {
        self.of(std::process::id()).ok_or_else(|| CgroupError::NotFound { mounts: self.mounts.clone() })
    }

    /// The directory of a process. Where it is seen at two mounts, the one with more of the hierarchy above it.
    pub(super) fn of(&self, pid: u32) -> Option<PathBuf> {
        let claim = std::fs::read_to_string(self.proc.join(pid.to_string()).join("cgroup")).ok()?;
        let relative = Path::new(path_of(&claim)?.trim_start_matches('/'));
        // `/../x` is relative to this process's cgroup namespace; joined to a mount it would leave the mount.
        let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        let found = self.mounts.iter().filter_map(|mount| {
            let simple = mount.join(relative);
            let dir = if plain && names(&simple, pid) { simple } else { search(mount, pid, MAX_DEPTH)? };
            let depth = dir.strip_prefix(mount).map_or(0, |below| below.components().count());
            Some((depth, dir))
        });
        found.max_by_key(|(depth, _)| *depth).map(|(_, dir)| dir)
    }
}

/// Whether the process is in exactly this cgroup.
pub(super) fn names(cgroup: &Path, pid: u32) -> bool {
    processes(cgroup).contains(&pid)
}

/// The processes of exactly this cgroup, as this process's pid namespace numbers them. None when it cannot be
/// read: a cgroup may go at any time, and a threaded one has no list.
pub(super) fn processes(cgroup: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// The cgroups directly below.
pub(super) fn children(cgroup: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(cgroup).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

fn search(dir: &Path, pid: u32, depth: usize) -> Option<PathBuf> {
    if names(dir, pid) {
        return Some(dir.to_owned());
    }
    if depth == 0 {
        return None;
    }
    children(dir).find_map(|child| search(&child, pid, depth - 1))
}

/// The mount points of cgroup v2 file systems in a table of mounts (proc_pid_mounts(5)), each once.
fn mount_points(mounts: &str) -> Vec<PathBuf> {
    let mut points = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        if let (Some(point), Some("cgroup2")) = (fields.next(), fields.next()) {
            let point = PathBuf::from(point);
            if !points.contains(&point) {
                points.push(point);
            }
        }
    }
    points
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
        assert_eq!(mount_points(hybrid), [Path::new("/sys/fs/cgroup/unified")]);
        let twice = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert_eq!(mount_points(twice), [Path::new("/sys/fs/cgroup")]);
        assert!(mount_points("proc /proc proc rw 0 0\n").is_empty());
        assert_eq!(path_of("1:cpu:/x\n0::/a/b\n"), Some("/a/b"));
    }

    /// What the kernel shows of the process `7`: its line in /proc/7/cgroup, and where it is.
    fn world(claim: &str, cgroup: &str) -> (tempfile::TempDir, Hierarchy) {
        let root = tempfile::tempdir().unwrap();
        let (proc, mount) = (root.path().join("proc"), root.path().join("cgroup"));
        std::fs::create_dir_all(proc.join("7")).unwrap();
        std::fs::write(proc.join("7/cgroup"), format!("1:cpu:/elsewhere\n0::{claim}\n")).unwrap();
        for dir in ["", "kubepods", "kubepods/pod1", "kubepods/pod1/c", "system"] {
            std::fs::create_dir_all(mount.join(dir)).unwrap();
            std::fs::write(mount.join(dir).join("cgroup.procs"), "1\n70\n").unwrap();
        }
        std::fs::write(mount.join(cgroup).join("cgroup.procs"), "70\n7\n").unwrap();
        let hierarchy = Hierarchy::of_parts(vec![mount], proc);
        (root, hierarchy)
    }

    #[test]
    fn a_path_is_believed_only_if_the_cgroup_names_the_process() {
        for claim in ["/kubepods/pod1/c", "/", "/../../pod1/c", "/kubepods", "/gone"] {
            let (root, hierarchy) = world(claim, "kubepods/pod1/c");
            assert_eq!(hierarchy.of(7).unwrap(), root.path().join("cgroup/kubepods/pod1/c"), "{claim}");
            assert_eq!(hierarchy.of(8), None);
        }
    }

    #[test]
    fn of_two_mounts_the_one_that_shows_more_is_taken() {
        let (root, hierarchy) = world("/", "kubepods/pod1/c");
        let node = root.path().join("cgroup");
        // The container's own view begins at its own cgroup.
        let own = node.join("kubepods/pod1/c");
        for mounts in [vec![own.clone(), node.clone()], vec![node, own.clone()]] {
            let both = Hierarchy::of_parts(mounts, hierarchy.proc().to_owned());
            assert_eq!(both.of(7).unwrap(), own);
        }
    }
}
