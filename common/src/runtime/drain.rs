//! Graceful shutdown: told once, everybody who holds a watch finishes, or the deadline ends them.
//!
//! ```text
//!   running --start()--> draining --all watches dropped--> done
//!                            \------- deadline ----------> forced
//! ```

use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Starts the drain and waits for it. Held by `main`.
#[derive(Debug)]
pub struct DrainTrigger {
    signal: watch::Sender<bool>,
    // The channel carries nothing: it closes when the last watch is dropped.
    all_gone: mpsc::Receiver<()>,
}

/// Held by everything that wants to finish before the process ends.
#[derive(Clone, Debug)]
pub struct DrainWatch {
    signal: watch::Receiver<bool>,
    _alive: mpsc::Sender<()>,
}

/// A trigger and its first watch.
pub fn drain() -> (DrainTrigger, DrainWatch) {
    let (signal, watch) = watch::channel(false);
    let (alive, all_gone) = mpsc::channel(1);
    (DrainTrigger { signal, all_gone }, DrainWatch { signal: watch, _alive: alive })
}

impl DrainTrigger {
    /// Tells every watch and waits until all are dropped, at most for `deadline`.
    /// Returns whether they all were.
    pub async fn start(mut self, deadline: Duration) -> bool {
        self.signal.send_replace(true);
        tokio::time::timeout(deadline, self.all_gone.recv()).await.is_ok()
    }
}

impl DrainWatch {
    /// Completes when the drain begins, also if it began before.
    pub async fn started(&mut self) {
        // An error means the trigger is gone: the process is ending anyway.
        let _ = self.signal.wait_for(|draining| *draining).await;
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        *self.signal.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_for_every_watch() {
        let (trigger, mut watch) = drain();
        let task = tokio::spawn(async move { watch.started().await });
        assert!(trigger.start(Duration::from_secs(1)).await);
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_at_the_deadline() {
        let (trigger, watch) = drain();
        assert!(!trigger.start(Duration::from_secs(1)).await);
        assert!(watch.is_draining());
    }
}
