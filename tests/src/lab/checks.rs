//! Several checks in one lab: a lab costs a second, most checks cost milliseconds.

use std::io::Write as _;
use std::time::Instant;

use anyhow::{Result, bail};

use super::Lab;

/// One named claim. Checks of a list run in order and must not depend on each other.
pub type Check = (&'static str, fn(&Lab) -> Result<()>);

/// Runs all checks, also after one has failed, and fails with every failure. `WARREN_CHECK=word` runs only those
/// whose names contain the word.
pub fn run_checks(lab: &Lab, checks: &[Check]) -> Result<()> {
    let only = std::env::var("WARREN_CHECK").unwrap_or_default();
    let mut failures = Vec::new();
    for (name, check) in checks.iter().filter(|(name, _)| name.contains(&only)) {
        let start = Instant::now();
        let outcome = check(lab);
        let seconds = start.elapsed().as_secs_f64();
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        // Past libtest's capture: a list of what was proven belongs into every report.
        let _ = writeln!(std::io::stdout(), "    {word} {name} ({seconds:.1} s)");
        if let Err(error) = outcome {
            failures.push(format!("{name}: {error:#}"));
        }
    }
    if !failures.is_empty() {
        bail!("{} checks failed\n{}", failures.len(), failures.join("\n"));
    }
    Ok(())
}

/// `checks![a, b]`: functions with their names.
#[macro_export]
macro_rules! checks {
    ($($check:path),+ $(,)?) => {
        &[$((stringify!($check), $check as fn(&$crate::lab::Lab) -> anyhow::Result<()>)),+]
    };
}
