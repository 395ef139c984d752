//! Adds up what `cargo test` prints, so that many suites end in one line.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::ops::AddAssign;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::process::show;

/// What the suites came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Passed as far as libtest knows, but the test said that it can't run here.
    said_skipped: u64,
    /// Suites that this machine can't run.
    pub(crate) skipped_suites: u64,
    /// Commands that failed without a failed test: they didn't build, or died.
    broken: Vec<String>,
}

impl Summary {
    pub(crate) fn is_success(&self) -> bool {
        self.failed == 0 && self.broken.is_empty()
    }

    pub(crate) fn ran_nothing(&self) -> bool {
        self.passed + self.failed + self.ignored == 0 && self.broken.is_empty()
    }

    /// Counts something that is not libtest's.
    pub(crate) fn count(&mut self, what: &str, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.broken.push(what.to_owned());
        }
    }

    /// Reads one line of output; libtest's result lines count, others don't.
    fn read(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ") else {
            // A lab test that can't run here says so, since libtest has no word for it.
            if line.contains("SKIPPED: ") {
                self.said_skipped += 1;
            }
            return;
        };
        for part in counts.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(Ok(count)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.said_skipped += other.said_skipped;
        self.skipped_suites += other.skipped_suites;
        self.broken.extend(other.broken);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for broken in &self.broken {
            writeln!(out, "BROKEN: {broken}")?;
        }
        let failed = self.failed + self.broken.len() as u64;
        let passed = self.passed.saturating_sub(self.said_skipped);
        let skipped = self.ignored + self.said_skipped + self.skipped_suites;
        write!(out, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// Runs a `cargo test`, shows its output as it comes, and counts.
pub(crate) fn run_counted(command: &mut Command) -> Result<Summary> {
    let shown = show(command);
    eprintln!("+ {shown}");
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{shown}`"))?;
    let mut summary = Summary::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            println!("{line}");
            summary.read(&line);
        }
    }
    let status = child.wait()?;
    if !status.success() && summary.failed == 0 {
        summary.broken.push(format!("`{shown}` ({status})"));
    }
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_add_up() {
        let mut summary = Summary::default();
        summary.read(
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.1s",
        );
        summary.read("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        summary.read("test policy::passed ... ok");
        summary.read("test x ... SKIPPED: x: needs root");
        assert_eq!(summary.to_string(), "12 passed, 2 failed, 2 skipped");
        assert!(!summary.is_success());
    }

    #[test]
    fn a_suite_that_does_not_build_is_a_failure() {
        let summary = Summary { broken: vec!["x".to_owned()], ..Summary::default() };
        assert!(!summary.is_success());
        assert!(summary.to_string().ends_with("0 passed, 1 failed, 0 skipped"));
    }
}
