//! Cleans up after a lab, however the lab's owner ended.
//!
//! A child process in a session of its own reads the handle of everything the lab makes, before it is made. When
//! the pipe closes (dropped, panicked, killed, Ctrl-C: the kernel closes it) the janitor removes them all.

use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::poll::poll_until;
use super::{cgroup, netns};
use crate::sys;

/// Something to remove at the end.
#[derive(Clone, Debug)]
pub(crate) enum Handle {
    NetNs(String),
    Cgroup(PathBuf),
    Mount(PathBuf),
    Dir(PathBuf),
}

impl Handle {
    fn to_line(&self) -> String {
        match self {
            Self::NetNs(name) => format!("netns {name}\n"),
            Self::Cgroup(path) => format!("cgroup {}\n", path.display()),
            Self::Mount(path) => format!("mount {}\n", path.display()),
            Self::Dir(path) => format!("dir {}\n", path.display()),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ')?;
        match kind {
            "netns" => Some(Self::NetNs(rest.to_owned())),
            "cgroup" => Some(Self::Cgroup(rest.into())),
            "mount" => Some(Self::Mount(rest.into())),
            "dir" => Some(Self::Dir(rest.into())),
            _ => None,
        }
    }

    fn remove(&self) -> io::Result<()> {
        match self {
            Self::NetNs(name) => netns::remove(name),
            Self::Cgroup(path) => cgroup::kill(path).and_then(|()| cgroup::remove(path)),
            Self::Mount(path) => match sys::unmount(path) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Ok(()),
                other => other,
            },
            Self::Dir(path) => match fs::remove_dir_all(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            },
        }
    }

    /// Processes first, then what they held: mounts before the directories that contain them.
    fn order(&self) -> u8 {
        match self {
            Self::Cgroup(_) => 0,
            Self::NetNs(_) => 1,
            Self::Mount(_) => 2,
            Self::Dir(_) => 3,
        }
    }
}

/// The lab's end of the pipe.
#[derive(Debug)]
pub(crate) struct Janitor {
    child: Child,
}

impl Janitor {
    /// Starts the janitor process (`helper janitor`).
    pub(crate) fn hire(helper: &Path) -> Result<Self> {
        let mut command = Command::new(helper);
        command.arg("janitor").stdin(Stdio::piped()).stdout(Stdio::null());
        sys::own_session(&mut command);
        let child = command.spawn().with_context(|| format!("cannot start {}", helper.display()))?;
        Ok(Self { child })
    }

    /// Tells of something that is about to be made.
    pub(crate) fn will_remove(&self, handle: &Handle) -> Result<()> {
        let mut pipe = self.child.stdin.as_ref().context("the janitor is gone")?;
        pipe.write_all(handle.to_line().as_bytes()).context("the janitor is gone")
    }

    /// Has everything removed, and waits for it.
    pub(crate) fn finish(&mut self) -> Result<()> {
        if self.child.stdin.take().is_none() {
            return Ok(());
        }
        let status = poll_until("the lab's janitor", Duration::from_secs(90), || {
            self.child.try_wait().ok().flatten()
        })?;
        if !status.success() {
            bail!("the janitor could not remove everything (see above)");
        }
        Ok(())
    }
}

impl Drop for Janitor {
    /// A lab that failed halfway up is removed too.
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            eprintln!("lab: {error:#}");
        }
    }
}

/// The janitor process: collects handles until the pipe closes, then removes them. False when something stayed.
pub(crate) fn work() -> bool {
    sys::ignore_job_signals();
    let lines = io::stdin().lock().lines().map_while(Result::ok);
    let mut handles: Vec<_> = lines.filter_map(|line| Handle::parse(&line)).collect();
    handles.sort_by_key(Handle::order);
    kill_all(&handles);
    let mut clean = true;
    for handle in &handles {
        let mut last = None;
        // A namespace or mount may be busy for a moment after its last process died.
        let gone = poll_until("removal", Duration::from_secs(3), || {
            last = handle.remove().err();
            last.is_none().then_some(())
        });
        if gone.is_err() {
            clean = false;
            let reason = last.map(|error| error.to_string()).unwrap_or_default();
            eprintln!("lab: could not remove {}: {reason}", handle.to_line().trim());
        }
    }
    clean
}

fn kill_all(handles: &[Handle]) {
    let cgroups = handles.iter().filter_map(|handle| match handle {
        Handle::Cgroup(path) => Some(path),
        _ => None,
    });
    for path in cgroups {
        // Again and again: the owner may still run, and start something after the first kill.
        let empty = poll_until("processes", Duration::from_secs(10), || {
            if let Err(error) = cgroup::kill(path) {
                eprintln!("lab: could not kill the processes of {}: {error}", path.display());
            }
            (!cgroup::is_populated(path)).then_some(())
        });
        if let Err(error) = empty {
            eprintln!("lab: {error:#} of {} to end", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_survive_the_pipe() {
        for handle in
            [Handle::NetNs("w1-a".to_owned()), Handle::Cgroup("/a b".into()), Handle::Dir("/d".into())]
        {
            let line = handle.to_line();
            let back = Handle::parse(line.trim_end()).expect("parses");
            assert_eq!(back.to_line(), line);
        }
    }
}
