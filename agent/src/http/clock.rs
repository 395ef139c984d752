//! How long a request may take.

use super::replay::Upload;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// A timeout of a request, or of a try, that runs from when it was made.
#[derive(Debug)]
pub(super) struct Clock {
    start: Instant,
    timeout: Duration,
    /// A body whose own time does not count, and how much of that there was before.
    upload: Option<(Upload, Duration)>,
}

impl Clock {
    /// Stands still while `upload` comes, if there is one: Envoy's timeouts begin when all of the request is there.
    pub(super) fn new(timeout: Duration, upload: Option<Upload>) -> Self {
        let upload = upload.map(|upload| {
            let before = upload.took().unwrap_or_default();
            (upload, before)
        });
        Self { start: Instant::now(), timeout, upload }
    }

    /// When it runs out, unless it stands still.
    pub(super) fn ends(&self) -> Option<Instant> {
        let stood = match &self.upload {
            Some((upload, before)) => upload.took()?.saturating_sub(*before),
            None => Duration::ZERO,
        };
        Some(self.start + self.timeout + stood)
    }

    /// Waits until it has run out.
    pub(super) async fn run_out(&self) {
        loop {
            match (self.ends(), &self.upload) {
                (Some(at), _) if at > Instant::now() => sleep_until(at).await,
                (None, Some((upload, _))) => upload.over().await,
                _ => return,
            }
        }
    }
}
