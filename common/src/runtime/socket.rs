//! Unix sockets that only root can open, at paths that the node's agents share: the one that serves has them.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// The path of a bound socket. Dropping it removes the path, unless a successor has put its own in its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl SocketFile {
    /// Binds beside `path` with `bind`, restricts the socket to its owner, then renames: nobody ever meets an open
    /// door or no socket at all. Whoever had the path before keeps his socket, without a name. Missing directories are
    /// made, for the owner only.
    ///
    /// # Errors
    /// When directory or socket cannot be made.
    pub fn place<T>(path: &Path, bind: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<(T, Self)> {
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        // Two agents may start at once, and each has its own process id.
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = bind(&beside)?;
        fs::set_permissions(&beside, Permissions::from_mode(0o600))?;
        let inode = fs::symlink_metadata(&beside)?.ino();
        fs::rename(&beside, path)?;
        Ok((socket, Self { path: path.to_owned(), inode }))
    }
}

/// Listens on `path` for the owner alone, as [`SocketFile::place`] does.
///
/// # Errors
/// What the file system says.
pub fn bind_private(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    SocketFile::place(path, |path| UnixListener::bind(path))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            // Nothing is lost if it stays: the next agent replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn the_last_one_has_the_path_and_only_it_removes_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/agent.sock");
        let (_first, first_file) = SocketFile::place(&path, |path| UnixListener::bind(path)).unwrap();
        let (_second, second_file) = SocketFile::place(&path, |path| UnixListener::bind(path)).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, 0o600);
        drop(first_file);
        assert!(path.exists());
        drop(second_file);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }
}
