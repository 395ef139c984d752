//! Programs in a place of the lab: a pod, a node, the fabric.
//!
//! No parent-death signal: it would fire when the *thread* that started the program ends. The janitor kills whatever
//! is left in the lab's cgroups instead.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::netns::NetNs;
use super::poll::poll_until;
use crate::sys::{self, Setting};

/// Where programs run: a network namespace and a cgroup.
#[derive(Clone, Debug)]
pub struct Place(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    label: String,
    netns: NetNs,
    cgroup: PathBuf,
    hosts: Option<PathBuf>,
    logs: PathBuf,
    started: AtomicU32,
}

impl Place {
    pub(crate) fn new(
        label: &str,
        netns: &NetNs,
        cgroup: PathBuf,
        hosts: Option<PathBuf>,
        logs: &Path,
    ) -> Self {
        Self(Arc::new(Inner {
            label: label.to_owned(),
            netns: netns.clone(),
            cgroup,
            hosts,
            logs: logs.to_path_buf(),
            started: AtomicU32::new(0),
        }))
    }

    /// A program that will run here.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Cmd {
        let program = program.as_ref();
        let name = Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned();
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin")).stdin(Stdio::null());
        Cmd { place: self.clone(), command, name, resolve: false, limit: Duration::from_secs(30), log: None }
    }

    /// The lab's own test program, `warren-workload`.
    #[must_use]
    pub fn workload<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Cmd {
        self.command(super::helper_path()).args(args)
    }

    /// The network namespace.
    #[must_use]
    pub fn netns(&self) -> &NetNs {
        &self.0.netns
    }

    /// The cgroup's directory.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.0.cgroup
    }

    pub(crate) fn label(&self) -> &str {
        &self.0.label
    }
}

/// A program about to run.
#[derive(Debug)]
pub struct Cmd {
    place: Place,
    command: Command,
    name: String,
    resolve: bool,
    limit: Duration,
    log: Option<PathBuf>,
}

impl Cmd {
    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// The program gets a pipe as its input; see [`Proc::close_stdin`].
    #[must_use]
    pub fn with_stdin(mut self) -> Self {
        self.command.stdin(Stdio::piped());
        self
    }

    /// Service names resolve, as in the pod's namespace of a cluster. Only pods have names to resolve.
    #[must_use]
    pub fn resolve_names(mut self) -> Self {
        self.resolve = true;
        self
    }

    /// How long [`Self::run`] and what is made of it may take; 30 s if not said.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Both outputs go to the end of one file.
    pub(crate) fn log_to(mut self, path: &Path) -> Self {
        self.log = Some(path.to_path_buf());
        self
    }

    /// Starts the program; it ends with the returned value.
    pub fn spawn(mut self) -> Result<Proc> {
        let place = &self.place.0;
        let number = place.started.fetch_add(1, Ordering::Relaxed);
        let stem = format!("{}-{}-{number}", place.label, self.name);
        let label = format!("{} in {}", self.name, place.label);
        let (out, err) = match &self.log {
            Some(log) => (log.clone(), log.clone()),
            None => (place.logs.join(format!("{stem}.out")), place.logs.join(format!("{stem}.err"))),
        };
        self.command.stdout(append(&out)?).stderr(append(&err)?);
        let procs = place.cgroup.join("cgroup.procs");
        let cgroup =
            File::options().write(true).open(&procs).with_context(|| format!("no {}", procs.display()))?;
        let hosts = place.hosts.as_ref().filter(|_| self.resolve);
        let hosts = hosts.map(|path| CString::new(path.as_os_str().as_bytes())).transpose()?;
        let netns = place.netns.file();
        sys::start_in(&mut self.command, Setting { netns, cgroup: Some(Arc::new(cgroup)), hosts });
        let child = self.command.spawn().with_context(|| format!("cannot start {label}"))?;
        Ok(Proc { child, label, out, err })
    }

    /// Runs the program to its end, whatever that is.
    pub fn run(self) -> Result<Finished> {
        let limit = self.limit;
        self.spawn()?.wait(limit)
    }

    /// Runs the program, which must succeed, and takes its output.
    pub fn stdout(self) -> Result<String> {
        let done = self.run()?;
        if !done.status.success() {
            bail!("{done}");
        }
        Ok(done.stdout)
    }

    /// Runs the program, which must succeed, and reads the last line of its output as JSON.
    pub fn json(self) -> Result<Value> {
        let done = self.run()?;
        if !done.status.success() {
            bail!("{done}");
        }
        done.json()
    }
}

fn append(path: &Path) -> Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

/// A program that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    label: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its output.
    pub stdout: String,
    /// What it wrote to its error output.
    pub stderr: String,
}

impl Finished {
    /// The last line of the output, as JSON.
    pub fn json(&self) -> Result<Value> {
        let line = self.stdout.lines().last().with_context(|| format!("no output: {self}"))?;
        serde_json::from_str(line).with_context(|| format!("not JSON: {self}"))
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {}\n{}{}", self.label, self.status, self.stdout, self.stderr)
    }
}

/// A running program; dropping it kills it.
#[derive(Debug)]
pub struct Proc {
    child: Child,
    label: String,
    out: PathBuf,
    err: PathBuf,
}

impl Proc {
    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to its output until now.
    #[must_use]
    pub fn stdout_so_far(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for a whole line of output that contains `text`; a program that ends without it is an error.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<String> {
        let what = format!("{} to say {text:?}", self.label);
        let line = poll_until(&what, limit, || {
            let ended = !self.is_running();
            let output = self.stdout_so_far();
            let whole = output.rfind('\n').map_or("", |end| &output[..end]);
            let found = whole.lines().find(|line| line.contains(text)).map(str::to_owned);
            (found.is_some() || ended).then_some(found)
        })?;
        match line {
            Some(line) => Ok(line),
            None => {
                let status = self.child.wait()?;
                bail!("ended before it said {text:?}: {}", self.finished(status));
            }
        }
    }

    /// The pipe to its input, if it was started [`Cmd::with_stdin`].
    pub fn stdin(&mut self) -> Option<&mut ChildStdin> {
        self.child.stdin.as_mut()
    }

    /// Ends its input: the sign to stop, for the workloads that wait for one.
    pub fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    /// Ends its input and waits for the report that it prints then.
    pub fn report(mut self, limit: Duration) -> Result<Value> {
        self.close_stdin();
        let done = self.wait(limit)?;
        if !done.status.success() {
            bail!("{done}");
        }
        done.json()
    }

    /// Waits for its end.
    pub fn wait(mut self, limit: Duration) -> Result<Finished> {
        let what = format!("the end of {}", self.label);
        let ended = poll_until(&what, limit, || self.child.try_wait().ok().flatten());
        match ended {
            Ok(status) => Ok(self.finished(status)),
            Err(error) => {
                let (stdout, stderr) =
                    (self.stdout_so_far(), fs::read_to_string(&self.err).unwrap_or_default());
                Err(error.context(format!("{stdout}{stderr}")))
            }
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        sys::kill(self.child.id(), signal).with_context(|| format!("cannot signal {}", self.label))
    }

    fn finished(&self, status: ExitStatus) -> Finished {
        Finished {
            label: self.label.clone(),
            status,
            stdout: self.stdout_so_far(),
            stderr: fs::read_to_string(&self.err).unwrap_or_default(),
        }
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
