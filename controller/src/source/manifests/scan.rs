//! Looks at the directory and reads what may have changed.

use super::{FileSet, ParseError, parse};
use crate::source::Change;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
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

/// The directory as it was last seen.
#[derive(Debug)]
pub(super) struct Scanner {
    root: PathBuf,
    files: FileSet,
    stamps: BTreeMap<String, Stamp>,
    ignored: BTreeSet<String>,
}

impl Scanner {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, files: FileSet::default(), stamps: BTreeMap::new(), ignored: BTreeSet::new() }
    }

    pub(super) fn files(&self) -> &FileSet {
        &self.files
    }

    /// Reads new and changed files, forgets deleted ones. `busy` files are being written and wait.
    ///
    /// # Errors
    /// When a directory can't be listed: nothing changes then, so an unmounted volume deletes nothing.
    pub(super) fn scan(&mut self, now: SystemTime, busy: &dyn Fn(&Path) -> bool) -> std::io::Result<Vec<Change>> {
        let mut found = BTreeSet::new();
        list(&self.root, MAX_DEPTH, &mut found)?;
        let mut changes = Vec::new();
        let known: Vec<String> = self.files.paths().map(str::to_owned).collect();
        for path in &found {
            let name = self.name(path);
            if !busy(path) {
                changes.extend(self.look(path, &name, now));
            }
        }
        for name in known {
            if !found.contains(&self.root.join(&name)) {
                self.stamps.remove(&name);
                changes.extend(self.files.remove(&name));
            }
        }
        Ok(changes)
    }

    fn name(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned()
    }

    fn look(&mut self, path: &Path, name: &str, now: SystemTime) -> Vec<Change> {
        let stamp = match fs::metadata(path) {
            Ok(metadata) => stamp(&metadata, now),
            // Deleted since it was listed: the next scan sees that.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => return self.files.update(name, Err(unreadable(&error))),
        };
        let seen = self.stamps.get(name);
        if seen.is_some_and(|seen| seen.settled && *seen == stamp) {
            return Vec::new();
        }
        self.stamps.insert(name.to_owned(), stamp);
        let parsed = read(path).and_then(|text| parse(&text));
        let parsed = parsed.map(|parsed| {
            for kind in parsed.ignored {
                if self.ignored.insert(format!("{name} {kind}")) {
                    tracing::info!(file = name, %kind, "objects of this kind are not read yet");
                }
            }
            parsed.objects
        });
        self.files.update(name, parsed)
    }
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

/// Manifest files below `directory`. Hidden entries (editors' files, `..data` of mounted ConfigMaps) are left
/// out; symlinks are followed.
fn list(directory: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let is_manifest = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() && depth > 0 => match list(&path, depth - 1, found) {
                // A directory deleted meanwhile holds nothing.
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            },
            Ok(metadata) if metadata.is_file() && is_manifest => drop(found.insert(path)),
            // Unreadable: `look` reports it.
            Err(error) if is_manifest && error.kind() != std::io::ErrorKind::NotFound => drop(found.insert(path)),
            _ => {}
        }
    }
    Ok(())
}
