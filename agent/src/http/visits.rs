//! A client's connection and the requests on it: when it has had none for too long, and when it is to end.

use super::limits::LAST_CALL;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How long a client's connection may stay.
#[derive(Clone, Debug)]
pub(crate) struct Stay {
    /// Without a request.
    pub idle: Duration,
    /// It ends in order, after the requests that are under way, when the sender is gone.
    pub open: watch::Receiver<()>,
}

/// The requests of one connection.
#[derive(Debug)]
pub(super) struct Visits {
    open: Cell<usize>,
    last: Cell<Instant>,
    leaving: Cell<bool>,
}

/// One request, until its response is out.
#[derive(Debug)]
pub(super) struct Visit(Rc<Visits>);

impl Visits {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self { open: Cell::new(0), last: Cell::new(Instant::now()), leaving: Cell::new(false) })
    }

    /// A request begins.
    pub(super) fn begin(self: &Rc<Self>) -> Visit {
        self.open.set(self.open.get() + 1);
        Visit(Rc::clone(self))
    }

    /// Whether a request is under way.
    pub(super) fn is_any(&self) -> bool {
        self.open.get() > 0
    }

    /// Whether the next response is to be the last.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// Completes when the connection should end: HTTP/2 has a word for that, which it gets at once; HTTP/1 tells its client with
    /// the next response, and ends without one a moment later.
    pub(super) async fn over(&self, mut stay: Stay, has_a_word: bool) {
        let leaving = async {
            // The sender is never used, only dropped.
            while stay.open.changed().await.is_ok() {}
            self.leaving.set(true);
            if !has_a_word {
                sleep(LAST_CALL).await;
            }
        };
        tokio::select! {
            () = self.none_for(stay.idle) => {}
            () = leaving => {}
        }
    }

    /// Completes after `pause`, at a moment without a request.
    pub(super) async fn rest(&self, pause: Duration) {
        loop {
            sleep(pause).await;
            if !self.is_any() && self.last.get().elapsed() >= pause {
                return;
            }
        }
    }

    /// Completes when there was no request for so long. One timer, which nothing resets: a request costs nothing.
    async fn none_for(&self, limit: Duration) {
        loop {
            let left = match self.open.get() {
                0 => limit.saturating_sub(self.last.get().elapsed()),
                _ => limit,
            };
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.last.set(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_from_the_end_of_the_last_request() {
        let visits = Visits::new();
        let (_open, open) = watch::channel(());
        let began = Instant::now();
        let talking = async {
            sleep(SECOND * 5).await;
            let long = visits.begin();
            sleep(SECOND).await;
            drop(visits.begin());
            sleep(SECOND * 30).await;
            drop(long);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = visits.over(Stay { idle: SECOND * 10, open }, false) => {}
            () = talking => {}
        }
        assert_eq!(began.elapsed(), SECOND * 46);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_to_leave_is_told_first() {
        for (has_a_word, expected) in [(true, Duration::ZERO), (false, LAST_CALL)] {
            let visits = Visits::new();
            let (opened, open) = watch::channel(());
            let mut over = std::pin::pin!(visits.over(Stay { idle: SECOND * 100, open }, has_a_word));
            assert!(tokio::time::timeout(SECOND, &mut over).await.is_err() && !visits.is_leaving());
            drop(opened);
            let began = Instant::now();
            over.await;
            assert!(visits.is_leaving());
            assert_eq!(began.elapsed(), expected);
        }
    }
}
