//! The thread that follows the directory.
//!
//! ```text
//!   wait for an event --event--> wait until it is quiet (debounce) --> scan --> send the batch
//!      |---- rescan interval (safety net: lost events, network file systems) ----^
//!      `---- debounce, while files are young or being written -------------------^
//! ```

use super::scan::{Scan, Scanner};
use crate::source::{Change, Problem, SourceProblems};
use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind};
use notify::{RecursiveMode, Watcher};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc as async_mpsc;

/// A file that is open for writing waits at most this long for its writer to close it.
const WRITER_PATIENCE: Duration = Duration::from_secs(2);
/// With waiting files, scans come no faster than this.
const SHORTEST_WAIT: Duration = Duration::from_millis(5);
/// Scans that wait for files which change all the time, before the first batch goes out without them.
const FIRST_SCANS: u32 = 20;
/// Origin of this source's problems.
const ORIGIN: &str = "manifests";

/// Where the manifests are and how eagerly they are followed.
#[derive(Clone, Debug)]
pub struct ManifestsConfig {
    /// The directory; `*.yaml`, `*.yml` and `*.json` in it and below are read.
    pub directory: PathBuf,
    /// Quiet time after an event before files are read.
    pub debounce: Duration,
    /// How often everything is looked at without an event.
    pub rescan: Duration,
}

impl ManifestsConfig {
    /// Follows `directory`: 50 ms debounce, a look every 10 s.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, debounce: Duration::from_millis(50), rescan: Duration::from_secs(10) }
    }
}

/// Why the directory can't be followed at all.
#[derive(Debug, thiserror::Error)]
pub enum ManifestsError {
    /// It can't be listed.
    #[error("the manifest directory {} can't be read: {error}", .directory.display())]
    Unreadable {
        /// The directory.
        directory: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// No thread.
    #[error("can't start the thread that reads manifests: {0}")]
    Thread(std::io::Error),
}

/// Ends the thread when dropped.
#[derive(Debug)]
pub struct ManifestsHandle {
    wake: Sender<Wake>,
}

impl Drop for ManifestsHandle {
    fn drop(&mut self) {
        let _ = self.wake.send(Wake::Stop);
    }
}

#[derive(Debug)]
enum Wake {
    Event(notify::Result<notify::Event>),
    Stop,
}

/// Starts following. The first batch holds everything there is, even when that is nothing.
///
/// # Errors
/// When the directory can't be listed. What goes wrong later is a problem in `problems`, and nothing changes.
pub fn watch(
    config: ManifestsConfig,
    problems: SourceProblems,
    batches: async_mpsc::Sender<Vec<Change>>,
) -> Result<ManifestsHandle, ManifestsError> {
    let unreadable = |error| ManifestsError::Unreadable { directory: config.directory.clone(), error };
    let directory = config.directory.canonicalize().map_err(unreadable)?;
    std::fs::read_dir(&directory).map_err(unreadable)?;
    let (wake, events) = channel();
    let to_us = wake.clone();
    let mut watcher = notify::recommended_watcher(move |event| drop(to_us.send(Wake::Event(event))));
    // Watching starts before the first scan, so nothing falls between.
    let watching = watcher.as_mut().map_err(|e| e.to_string());
    let watching =
        watching.and_then(|w| w.watch(&directory, RecursiveMode::Recursive).map_err(|e| e.to_string()));
    if let Err(error) = watching {
        tracing::warn!(%error, rescan = ?config.rescan, "no file events here; changes are seen at the next look");
    }
    let follower =
        Follower { scanner: Scanner::new(directory), config, problems, batches, writing: HashMap::new() };
    let thread = std::thread::Builder::new().name("manifests".to_owned());
    let run = move || {
        follower.run(&events);
        drop(watcher);
    };
    thread.spawn(run).map_err(ManifestsError::Thread)?;
    Ok(ManifestsHandle { wake })
}

struct Follower {
    config: ManifestsConfig,
    scanner: Scanner,
    problems: SourceProblems,
    batches: async_mpsc::Sender<Vec<Change>>,
    /// Files that somebody has open for writing, since when.
    writing: HashMap<PathBuf, Instant>,
}

impl Follower {
    fn run(mut self, events: &Receiver<Wake>) {
        // The first batch is sent even when empty, and not before everything has been read: agents that resume
        // would drop what is missing in it.
        let mut first = Some(Vec::new());
        let mut patience = FIRST_SCANS;
        loop {
            let Scan { changes, again, .. } = self.scan();
            patience = patience.saturating_sub(1);
            let batch = match first.take() {
                Some(mut gathered) => {
                    gathered.extend(changes);
                    if again && patience > 0 {
                        first = Some(gathered);
                        None
                    } else {
                        Some(gathered)
                    }
                }
                None => Some(changes).filter(|changes| !changes.is_empty()),
            };
            if batch.is_some_and(|batch| self.batches.blocking_send(batch).is_err())
                || !self.wait(events, again)
            {
                return;
            }
        }
    }

    fn scan(&mut self) -> Scan {
        let now = Instant::now();
        self.writing.retain(|_, since| now.duration_since(*since) < WRITER_PATIENCE);
        let busy = |path: &Path| self.writing.contains_key(path);
        let result = self.scanner.scan(SystemTime::now(), self.config.debounce, &busy);
        let scan = result.unwrap_or_else(|error| {
            let place = self.config.directory.display().to_string();
            let mut problems = self.scanner.problems();
            problems.push(Problem {
                place,
                line: None,
                reason: format!("can't be listed, nothing changes: {error}"),
            });
            Scan { problems, ..Scan::default() }
        });
        self.problems.replace(ORIGIN, scan.problems.clone());
        scan
    }

    /// Returns when it is time to scan: false when it is time to end.
    fn wait(&mut self, events: &Receiver<Wake>, soon: bool) -> bool {
        let mut timeout = if soon { self.config.debounce.max(SHORTEST_WAIT) } else { self.config.rescan };
        // Never quiet: a scan is due all the same.
        let mut due = None;
        loop {
            match events.recv_timeout(timeout) {
                Ok(Wake::Event(event)) => {
                    if self.note(event) {
                        let now = Instant::now();
                        let due = *due.get_or_insert(now + 10 * self.config.debounce);
                        timeout = self.config.debounce.min(due.saturating_duration_since(now));
                    }
                }
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => return true,
            }
        }
    }

    /// Keeps track of writers; says whether a scan is due. Our own reading causes events that mean nothing.
    fn note(&mut self, event: notify::Result<notify::Event>) -> bool {
        let Ok(event) = event else { return true };
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                self.writing.retain(|path, _| !event.paths.contains(path));
                true
            }
            EventKind::Access(_) => false,
            EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_)) => {
                let regular = |path: &&PathBuf| path.symlink_metadata().is_ok_and(|m| m.is_file());
                let now = Instant::now();
                self.writing.extend(event.paths.iter().filter(regular).map(|path| (path.clone(), now)));
                true
            }
            EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => {
                self.writing.retain(|path, _| !event.paths.contains(path));
                true
            }
            _ => true,
        }
    }
}
