//! A connection that carries nothing.

use crate::observe::ByteCounters;
use std::future::pending;
use std::time::Duration;
use tokio::time::sleep;

/// So often within the time it is looked whether a byte has come: it ends that part of the time late at most.
const LOOKS: u32 = 8;

/// Ends when not a byte was carried for so long; with 0 never. Without it a connection costs no timer.
pub async fn idle(bytes: &ByteCounters, limit: Duration) {
    if limit.is_zero() {
        return pending().await;
    }
    let mut before = bytes.totals();
    let mut silent = 0;
    while silent < LOOKS {
        sleep(limit / LOOKS).await;
        let now = bytes.totals();
        silent = if now == before { silent + 1 } else { 0 };
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;
    use tokio::time::{Instant, timeout};

    const LIMIT: Duration = Duration::from_secs(8);

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_and_a_byte_in_time_does_not() {
        let (bytes, began) = (ByteCounters::default(), Instant::now());
        let talking = async {
            for _ in 0..10 {
                sleep(LIMIT - Duration::from_secs(2)).await;
                bytes.received.fetch_add(1, Ordering::Relaxed);
            }
            pending::<()>().await;
        };
        tokio::select! { () = idle(&bytes, LIMIT) => {}, () = talking => {} }
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(68) && took <= Duration::from_secs(69), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_it_never_ends() {
        let bytes = ByteCounters::default();
        let year = Duration::from_secs(365 * 86_400);
        assert!(timeout(year, idle(&bytes, Duration::ZERO)).await.is_err());
    }
}
