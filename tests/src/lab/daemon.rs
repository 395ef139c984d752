//! The controller and the agents: started, killed, restarted, waited for.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::command::{Place, Proc};
use super::poll::poll_until;

/// How long a daemon may take to become ready in [`Daemon::start`].
const READY: Duration = Duration::from_secs(20);
/// How long a daemon may take to drain and end after SIGTERM.
const STOP: Duration = Duration::from_secs(30);

pub(crate) type Readiness = Box<dyn Fn() -> bool + Send + Sync>;

/// One of warren's daemons. All methods take `&self`, so that a test's threads can share it.
pub struct Daemon {
    place: Place,
    args: Vec<String>,
    log: PathBuf,
    is_ready: Readiness,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: Option<Proc>,
    extra: Vec<String>,
    wrapper: Vec<String>,
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Daemon({})", self.place.label())
    }
}

impl Daemon {
    pub(crate) fn new(place: Place, args: Vec<String>, log: PathBuf, is_ready: Readiness) -> Self {
        Self { place, args, log, is_ready, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Arguments for the next starts, after the usual ones.
    pub fn set_extra_args<S: Into<String>>(&self, args: impl IntoIterator<Item = S>) {
        self.state().extra = args.into_iter().map(Into::into).collect();
    }

    /// What the next starts are run by, as in `["setpriv", "--no-new-privs"]`; it must exec the daemon.
    pub fn set_wrapper<S: Into<String>>(&self, words: impl IntoIterator<Item = S>) {
        self.state().wrapper = words.into_iter().map(Into::into).collect();
    }

    /// Starts it without waiting until it is ready.
    pub fn spawn(&self) -> Result<()> {
        let mut state = self.state();
        if state.running.as_mut().is_some_and(Proc::is_running) {
            bail!("{} runs already", self.place.label());
        }
        let binary = super::warren_path();
        if !binary.exists() {
            bail!("no {}: build it (cargo build -p warren) or set WARREN_BIN", binary.display());
        }
        let level = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
        let command = match state.wrapper.split_first() {
            Some((wrapper, words)) => self.place.command(wrapper).args(words).arg(binary),
            None => self.place.command(binary),
        };
        let command = command.args(&self.args).args(&state.extra).env("RUST_LOG", level);
        state.running = Some(command.log_to(&self.log).spawn()?);
        Ok(())
    }

    /// Another one with the same arguments, but for those given here: pairs of a flag and its value.
    pub(crate) fn twin(
        &self,
        place: Place,
        log: PathBuf,
        changes: &[(&str, &str)],
        is_ready: Readiness,
    ) -> Self {
        let mut args = self.args.clone();
        for (flag, value) in changes {
            match args.iter().position(|arg| arg == flag) {
                Some(at) => args[at + 1] = (*value).to_owned(),
                None => args.extend([*flag, *value].map(str::to_owned)),
            }
        }
        Self::new(place, args, log, is_ready)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.state()
            .running
            .as_ref()
            .with_context(|| format!("{} doesn't run", self.place.label()))?
            .signal(signal)
    }

    /// Its cgroup's directory.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        self.place.cgroup()
    }

    /// Waits until its log has these words.
    pub fn wait_log(&self, words: &str, limit: Duration) -> Result<()> {
        let said = poll_until(&format!("{} to log {words:?}", self.place.label()), limit, || {
            fs::read_to_string(&self.log).is_ok_and(|log| log.contains(words)).then_some(())
        });
        said.with_context(|| self.log_tail(30))
    }

    /// Starts it and waits until it is ready.
    pub fn start(&self) -> Result<()> {
        self.spawn()?;
        self.wait_ready(READY)
    }

    /// Waits until it is ready; a daemon that ends instead is an error, with the end of its log.
    pub fn wait_ready(&self, limit: Duration) -> Result<()> {
        let what = format!("{} to be ready", self.place.label());
        let ended = poll_until(&what, limit, || {
            if !self.is_running() {
                return Some(true);
            }
            (self.is_ready)().then_some(false)
        });
        match ended {
            Ok(false) => Ok(()),
            Ok(true) => bail!("{} ended at its start:\n{}", self.place.label(), self.log_tail(30)),
            Err(error) => Err(error.context(self.log_tail(30))),
        }
    }

    /// Whether the process lives.
    pub fn is_running(&self) -> bool {
        self.state().running.as_mut().is_some_and(Proc::is_running)
    }

    /// Whether it says that it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_running() && (self.is_ready)()
    }

    /// The process id.
    pub fn pid(&self) -> Option<u32> {
        self.state().running.as_ref().map(Proc::id)
    }

    /// SIGKILL: no chance to clean up.
    pub fn kill(&self) {
        self.state().running = None;
    }

    /// SIGTERM, and waits until it has drained and ended.
    pub fn stop(&self) -> Result<()> {
        let Some(running) = self.state().running.take() else {
            return Ok(());
        };
        running.signal(libc::SIGTERM)?;
        running.wait(STOP).with_context(|| format!("{} doesn't stop", self.place.label()))?;
        Ok(())
    }

    /// Stops it orderly and starts it again.
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        self.start()
    }

    /// Where its log is.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let all: Vec<_> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// CPU seconds it has used (user and system), for the bench.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = self.proc_file("stat")?;
        // Fields after the command's closing parenthesis: utime and stime are the 12th and 13th.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>());
        let fields = fields.context("malformed /proc/PID/stat")?;
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
        // USER_HZ is 100 on every architecture that warren runs on.
        Ok((ticks(11).context("no utime")? + ticks(12).context("no stime")?) / 100.0)
    }

    /// Resident memory in KiB.
    pub fn rss_kib(&self) -> Result<u64> {
        let status = self.proc_file("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        line.split_whitespace().next().and_then(|field| field.parse().ok()).context("malformed VmRSS")
    }

    /// How many descriptors it has open.
    pub fn open_files(&self) -> Result<usize> {
        let pid = self.pid().with_context(|| format!("{} doesn't run", self.place.label()))?;
        Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
    }

    fn proc_file(&self, name: &str) -> Result<String> {
        let pid = self.pid().with_context(|| format!("{} doesn't run", self.place.label()))?;
        Ok(fs::read_to_string(format!("/proc/{pid}/{name}"))?)
    }
}
