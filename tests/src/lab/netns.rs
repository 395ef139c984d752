//! Named network namespaces, as iproute2 keeps them (`ip netns exec NAME ...` works for a person who looks).

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};

use crate::sys;

const RUN: &str = "/run/netns";

/// A network namespace of the lab; cloning clones the handle.
#[derive(Clone, Debug)]
pub struct NetNs {
    name: String,
    file: Arc<File>,
}

/// Where iproute2 looks for the name.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(RUN).join(name)
}

/// Makes /run/netns a shared mount, as `ip netns add` does, so that a name is one mount everywhere.
pub(crate) fn prepare() -> Result<()> {
    let run = Path::new(RUN);
    fs::create_dir_all(run).context("cannot make /run/netns")?;
    // Two labs may start at once; iproute2 takes the same lock.
    let lock = File::open(run).context("cannot open /run/netns")?;
    lock.lock().context("cannot lock /run/netns")?;
    let none = Path::new("none");
    let shared = libc::MS_SHARED | libc::MS_REC;
    if sys::mount(none, run, "none", shared).is_ok() {
        return Ok(());
    }
    sys::mount(run, run, "none", libc::MS_BIND | libc::MS_REC).context("cannot bind /run/netns")?;
    sys::mount(none, run, "none", shared).context("cannot share /run/netns")
}

/// Makes namespaces, each with `settings` (file below /proc/sys/net, value) applied. One thread makes them all.
pub(crate) fn create(names: &[String], settings: &[(&str, &str)]) -> Result<Vec<NetNs>> {
    std::thread::scope(|scope| {
        let make = || names.iter().map(|name| create_here(name, settings)).collect();
        scope.spawn(make).join().map_err(|_| anyhow!("the thread that makes namespaces panicked"))?
    })
}

fn create_here(name: &str, settings: &[(&str, &str)]) -> Result<NetNs> {
    let doing = || format!("cannot make the network namespace {name}");
    let target = path(name);
    File::create_new(&target).with_context(doing)?;
    sys::unshare_netns().with_context(doing)?;
    sys::mount(Path::new("/proc/thread-self/ns/net"), &target, "none", libc::MS_BIND).with_context(doing)?;
    for (key, value) in settings {
        // /proc/sys/net shows the namespace of the thread that opens it.
        match fs::write(Path::new("/proc/sys/net").join(key), value) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot set net/{key} in {name}"));
            }
            _ => {}
        }
    }
    let file = File::open(&target).with_context(doing)?;
    Ok(NetNs { name: name.to_owned(), file: Arc::new(file) })
}

/// Forgets a name; the namespace itself goes with its last process or socket.
pub(crate) fn remove(name: &str) -> io::Result<()> {
    let target = path(name);
    match sys::unmount(&target) {
        // Not a mount point: the maker died between two steps.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    fs::remove_file(target)
}

impl NetNs {
    /// The name under which `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// A descriptor number for programs that take a namespace by `/proc/<pid>/fd/<n>`.
    #[must_use]
    pub fn raw_fd(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Runs `work` on a thread inside the namespace; sockets it opens stay there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = || sys::enter_netns(&self.file).map(|()| work());
            let done =
                scope.spawn(inside).join().map_err(|_| anyhow!("the thread in {} panicked", self.name))?;
            done.with_context(|| format!("cannot enter {}", self.name))
        })
    }
}
