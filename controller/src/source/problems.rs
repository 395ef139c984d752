//! What is wrong with the configuration right now, for people, metrics and `warren check`.

use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file (relative to the manifest directory) or the object ("Pod shop/web-1").
    pub place: String,
    /// Line of the file, counted from 1, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// What is wrong, in a sentence.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.place, self.reason),
            None => write!(f, "{}: {}", self.place, self.reason),
        }
    }
}

/// The current problems, shared between those who find them and those who show them.
#[derive(Clone, Debug, Default)]
pub struct SourceProblems {
    by_origin: Arc<Mutex<BTreeMap<String, Vec<Problem>>>>,
}

impl SourceProblems {
    /// Replaces what `origin` (a source, or one object) had to report. New ones are logged once.
    pub fn replace(&self, origin: &str, problems: Vec<Problem>) {
        let mut by_origin = self.by_origin.lock();
        let before = by_origin.remove(origin).unwrap_or_default();
        for problem in problems.iter().filter(|problem| !before.contains(problem)) {
            tracing::warn!(place = %problem.place, line = problem.line, reason = %problem.reason, "bad configuration");
        }
        for problem in before.iter().filter(|problem| !problems.contains(problem)) {
            tracing::info!(place = %problem.place, line = problem.line, "configuration problem is gone");
        }
        if !problems.is_empty() {
            by_origin.insert(origin.to_owned(), problems);
        }
    }

    /// All of them, sorted.
    pub fn list(&self) -> Vec<Problem> {
        let mut all: Vec<_> = self.by_origin.lock().values().flatten().cloned().collect();
        all.sort();
        all
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.by_origin.lock().values().map(Vec::len).sum()
    }
}
