//! Looks at the directory and reads what may have changed.

use super::{FileSet, ParseError, Unread, nevertheless, parse};
use crate::source::{Change, Problem};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Larger files are refused (bytes).
const MAX_FILE: u64 = 16 << 20;
/// Directories deeper than this are not entered; it ends symlink loops.
const MAX_DEPTH: usize = 16;
/// A file changed this recently may change again without its times showing it.
const SETTLE: Duration = Duration::from_secs(1);

/// What tells two states of a file apart without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// Long enough ago that the times can be trusted.
    settled: bool,
}

/// What a look at the directory found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) changes: Vec<Change>,
    /// Some files had to wait.
    pub(super) again: bool,
    /// Everything that is wrong now.
    pub(super) problems: Vec<Problem>,
}

/// The directory as it was last seen.
#[derive(Debug)]
pub(super) struct Scanner {
    root: PathBuf,
    files: FileSet,
    stamps: BTreeMap<String, Stamp>,
    /// What of each file is not read.
    unread: BTreeMap<String, Vec<Unread>>,
}

impl Scanner {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, files: FileSet::default(), stamps: BTreeMap::new(), unread: BTreeMap::new() }
    }

    /// What was wrong with the files when they were last read.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let unread = self.unread.iter().flat_map(|(file, all)| {
            all.iter().map(move |unread| Problem {
                place: file.clone(),
                line: Some(unread.line),
                reason: format!("{}: {unread}", unread.object),
            })
        });
        self.files.problems().into_iter().chain(unread).collect()
    }

    /// Reads new and changed files, forgets deleted ones. `busy` files are being written and wait, as do files
    /// that changed less than `quiet` ago: they may be half-written.
    ///
    /// # Errors
    /// When the root can't be listed: nothing changes then, so an unmounted volume deletes nothing.
    pub(super) fn scan(
        &mut self,
        now: SystemTime,
        quiet: Duration,
        busy: &dyn Fn(&Path) -> bool,
    ) -> std::io::Result<Scan> {
        let mut found = Listing::default();
        found.add(&self.root, MAX_DEPTH)?;
        let (mut changes, mut again) = (Vec::new(), false);
        let known: Vec<String> = self.files.paths().map(str::to_owned).collect();
        for path in &found.files {
            let name = self.name(path);
            if busy(path) || is_young(path, now, quiet) {
                again = true;
            } else {
                changes.extend(self.look(path, &name, now));
            }
        }
        for name in known {
            if !found.may_hold(&self.root.join(&name)) {
                self.stamps.remove(&name);
                self.unread.remove(&name);
                changes.extend(self.files.remove(&name));
            }
        }
        let closed = found.closed.iter().map(|(path, error)| Problem {
            place: self.name(path),
            line: None,
            reason: format!("can't be listed, what it held stays: {error}"),
        });
        let problems = self.problems().into_iter().chain(closed).collect();
        Ok(Scan { changes, again, problems })
    }

    fn name(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned()
    }

    fn look(&mut self, path: &Path, name: &str, now: SystemTime) -> Vec<Change> {
        let stamp = match fs::metadata(path) {
            Ok(metadata) => stamp(&metadata, now),
            // Deleted since it was listed: the next scan sees that.
            Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
            Err(error) => return self.files.update(name, Err(unreadable(&error))),
        };
        let seen = self.stamps.get(name);
        if seen.is_some_and(|seen| seen.settled && *seen == stamp) {
            return Vec::new();
        }
        self.stamps.insert(name.to_owned(), stamp);
        let text = match read(path) {
            Ok(text) => text,
            Err(error) => return self.files.update(name, Err(error)),
        };
        let parsed = match parse(&text) {
            Ok(parsed) => parsed,
            Err(error) => return self.files.refuse(name, error, nevertheless(&text)),
        };
        self.unread.insert(name.to_owned(), parsed.unread);
        self.files.update(name, Ok(parsed.objects))
    }
}

/// A time in the future says nothing.
fn is_young(path: &Path, now: SystemTime, quiet: Duration) -> bool {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    modified.and_then(|modified| now.duration_since(modified).ok()).is_some_and(|age| age < quiet)
}

fn stamp(metadata: &fs::Metadata, now: SystemTime) -> Stamp {
    let modified = metadata.modified().unwrap_or(now);
    Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        settled: now.duration_since(modified).is_ok_and(|age| age > SETTLE),
    }
}

fn read(path: &Path) -> Result<String, ParseError> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| unreadable(&error))?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(ParseError { line: 1, reason: format!("larger than {} MiB", MAX_FILE >> 20) });
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        ParseError { line, reason: "not UTF-8".to_owned() }
    })
}

fn unreadable(error: &std::io::Error) -> ParseError {
    ParseError { line: 1, reason: format!("can't be read: {error}") }
}

/// What is in the directory right now.
#[derive(Debug, Default)]
struct Listing {
    files: BTreeSet<PathBuf>,
    /// Directories that can't be listed: what is known of files below them stays.
    closed: BTreeMap<PathBuf, std::io::Error>,
}

impl Listing {
    fn may_hold(&self, path: &Path) -> bool {
        self.files.contains(path) || path.ancestors().any(|above| self.closed.contains_key(above))
    }

    /// Manifest files below `directory`. Hidden entries (editors' files, `..data` of mounted ConfigMaps) are
    /// left out; symlinks are followed.
    fn add(&mut self, directory: &Path, depth: usize) -> std::io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            let is_manifest = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() && depth > 0 => match self.add(&path, depth - 1) {
                    Ok(()) => {}
                    // Deleted meanwhile: it holds nothing.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => drop(self.closed.insert(path, error)),
                },
                Ok(metadata) if !metadata.is_file() || !is_manifest => {}
                Err(error) if !is_manifest || error.kind() == ErrorKind::NotFound => {}
                // An unreadable one too: `look` reports it.
                _ => {
                    self.files.insert(path);
                }
            }
        }
        Ok(())
    }
}
