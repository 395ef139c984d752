//! Waiting for something that another process does.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often to look.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks again and again until there is an answer; the last failure is the reason when time is up.
pub(crate) fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match probe() {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() >= deadline => {
                bail!("waited {} s for {what}: {error:#}", limit.as_secs());
            }
            Err(_) => pause(),
        }
    }
}

fn pause() {
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that paces polling; it waits for a condition"
    )]
    std::thread::sleep(PAUSE);
}
