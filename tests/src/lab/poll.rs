//! Waiting for a condition with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Tries `attempt` until it yields a value; fails when `limit` is over, naming what was awaited.
pub fn poll_until<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = attempt() {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("waited {limit:?} for {what}");
        }
        #[allow(
            clippy::disallowed_methods,
            reason = "the one place that paces polling; it waits for a condition"
        )]
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
