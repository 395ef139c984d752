//! How fast what fails is tried again.

use std::time::Duration;
use warren_common::runtime::Backoff;

/// Short enough that a replica is not behind for long after the API server has been away.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(5) };

/// Waits that grow with every failure in a row.
#[derive(Debug, Default)]
pub(super) struct Pace {
    failures: u32,
}

impl Pace {
    /// Failures since the last success.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Something went well.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Something failed: waits.
    pub(super) async fn wait(&mut self) {
        let delay = BACKOFF.delay(self.failures, rand::random());
        self.failures = self.failures.saturating_add(1);
        tokio::time::sleep(delay).await;
    }
}
