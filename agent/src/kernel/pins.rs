//! The directory of pins: what an agent leaves behind for the next one.

use super::{KernelError, sys};
use aya::programs::links::FdLink;
use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
const BPFFS: &str = "/sys/fs/bpf";
const LINKS: &str = "links";
const PODS: &str = "pods";

/// Hashes of the sources that the embedded object was built from, in the format of `sha256sum`.
const HASHES: &str = include_str!("object/SOURCES.sha256");

/// The pin directory of an agent.
pub(super) struct Pins {
    root: PathBuf,
    abi: &'static str,
}

impl Pins {
    /// Makes sure that the directory exists on a bpffs.
    pub(super) fn open(root: &Path) -> Result<Self, KernelError> {
        ensure_bpffs(root)?;
        let pins =
            Self { root: root.to_owned(), abi: abi_hash().ok_or(KernelError::Missing("hash of the ABI"))? };
        for dir in [pins.maps(), pins.links(), pins.pods()] {
            fs::create_dir_all(&dir).map_err(KernelError::file("creating", &dir))?;
        }
        Ok(pins)
    }

    /// Maps of this object's ABI.
    pub(super) fn maps(&self) -> PathBuf {
        self.root.join(self.abi)
    }

    fn links(&self) -> PathBuf {
        self.root.join(LINKS)
    }

    fn pods(&self) -> PathBuf {
        self.root.join(PODS)
    }

    /// The link of a program on a cgroup. (A bpffs takes no name with a dot.)
    pub(super) fn link(&self, program: &str, cgroup: u64) -> PathBuf {
        self.links().join(format!("{program}-{cgroup:x}"))
    }

    /// The sk_lookup link of a pod.
    pub(super) fn pod(&self, cookie: u64) -> PathBuf {
        self.pods().join(format!("{cookie:x}"))
    }

    /// Map directories of objects with another ABI.
    pub(super) fn foreign_maps(&self) -> Result<Vec<PathBuf>, KernelError> {
        let ours = [self.maps(), self.links(), self.pods()];
        Ok(entries(&self.root)?.into_iter().filter(|it| !ours.contains(it)).collect())
    }

    /// Links on cgroups.
    pub(super) fn cgroup_links(&self) -> Result<Vec<PathBuf>, KernelError> {
        entries(&self.links())
    }

    /// Pods with a pinned sk_lookup link.
    pub(super) fn pod_links(&self) -> Result<Vec<(u64, PathBuf)>, KernelError> {
        let cookie = |it: &PathBuf| u64::from_str_radix(it.file_name()?.to_str()?, 16).ok();
        Ok(entries(&self.pods())?.into_iter().filter_map(|it| Some((cookie(&it)?, it))).collect())
    }
}

/// Puts `program` where `path` says: into the link that is pinned there, or into a new one from `attach`.
pub(super) fn update_or_pin(
    path: &Path,
    program: BorrowedFd<'_>,
    name: &'static str,
    attach: impl FnOnce() -> Result<FdLink, KernelError>,
) -> Result<(), KernelError> {
    if update(path, program, name)? {
        return Ok(());
    }
    let link = attach()?;
    link.pin(path).map_err(KernelError::attach(name))?;
    Ok(())
}

/// Puts `program` into the link that is pinned at `path`, if there is one; a link whose cgroup or namespace is gone is
/// removed. Whether it was done.
pub(super) fn update(path: &Path, program: BorrowedFd<'_>, name: &'static str) -> Result<bool, KernelError> {
    let Some(link) = open_link(path) else { return Ok(false) };
    match sys::link_update(link.as_fd(), program) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => remove_link(path).map(|()| false),
        Err(error) => Err(KernelError::attach(name)(error)),
    }
}

/// Whether what a pinned link was attached to is gone.
pub(super) fn is_dead(path: &Path) -> bool {
    open_link(path).is_some_and(|link| matches!(sys::link_is_alive(link.as_fd()), Ok(false)))
}

/// A pinned link, if there is one. aya keeps the descriptor of an `FdLink` to itself, so ask the kernel directly.
fn open_link(path: &Path) -> Option<OwnedFd> {
    sys::open_pin(path).ok()
}

/// Detaches a link and removes its pin: when this returns, its program runs no more.
pub(super) fn remove_link(path: &Path) -> Result<(), KernelError> {
    if let Some(link) = open_link(path) {
        // A link whose cgroup or namespace is gone is detached already; for any other, closing it will do.
        let _ = sys::link_detach(link.as_fd());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::file("removing", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes everything: first the links, so that no program runs while its maps go.
pub(super) fn uninstall(root: &Path) -> Result<(), KernelError> {
    for dir in [root.join(LINKS), root.join(PODS)].iter().filter(|it| it.exists()) {
        for link in entries(dir)? {
            remove_link(&link)?;
        }
    }
    remove_all(root)
}

/// Removes a directory of pins.
pub(super) fn remove_all(root: &Path) -> Result<(), KernelError> {
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::file("removing", root)(error))
        }
        _ => Ok(()),
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let read = fs::read_dir(dir).and_then(|dir| dir.map(|entry| Ok(entry?.path())).collect());
    read.map_err(KernelError::file("reading", dir))
}

/// The directory, or the nearest one above it that exists, must be on a bpffs; the usual place is mounted.
fn ensure_bpffs(path: &Path) -> Result<(), KernelError> {
    let on_bpffs = || {
        let existing = path.ancestors().find(|it| it.exists()).unwrap_or(Path::new("/"));
        sys::fs_magic(existing).is_ok_and(|magic| magic == BPF_FS_MAGIC)
    };
    if on_bpffs() {
        return Ok(());
    }
    if path.starts_with(BPFFS) {
        sys::mount_bpffs(Path::new(BPFFS))
            .map_err(KernelError::file("mounting a BPF file system at", BPFFS))?;
    }
    if on_bpffs() { Ok(()) } else { Err(KernelError::NotBpffs { path: path.to_owned() }) }
}

/// The first 16 digits of the ABI's hash.
pub(super) fn abi_hash() -> Option<&'static str> {
    HASHES.lines().find_map(|line| line.strip_suffix("  abi")?.get(..16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_object_names_its_abi() {
        assert!(abi_hash().unwrap().bytes().all(|it| it.is_ascii_hexdigit()));
    }

    #[test]
    fn a_directory_elsewhere_is_refused_with_a_hint() {
        let error = ensure_bpffs(&std::env::temp_dir().join("warren-no-bpffs")).unwrap_err();
        assert!(error.to_string().contains("mount -t bpf"), "{error}");
    }
}
