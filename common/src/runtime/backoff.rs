//! Exponential backoff with full jitter. Pure.

use std::time::Duration;

/// How long to wait between attempts: up to `base` doubled with every failure, at most `cap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The shortest wait, and the ceiling of the first.
    pub base: Duration,
    /// The longest wait.
    pub cap: Duration,
}

impl Backoff {
    /// The wait after failure number `attempt` (from 0), for a `random` in `0.0..1.0`.
    ///
    /// Full jitter: anything from `base` to the ceiling, so that a node's worth of agents that lost the same
    /// controller does not come back in step.
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let ceiling = 2u32.checked_pow(attempt).and_then(|factor| self.base.checked_mul(factor));
        let ceiling = ceiling.unwrap_or(self.cap).min(self.cap);
        ceiling.mul_f64(random.clamp(0.0, 1.0)).max(self.base.min(self.cap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(15) };

    #[test]
    fn grows_to_the_cap_and_never_below_the_base() {
        for (attempt, random, expected_ms) in [
            (0, 0.0, 100),
            (0, 1.0, 100),
            (1, 1.0, 200),
            (4, 0.5, 800),
            (7, 1.0, 12_800),
            (8, 1.0, 15_000),
            (31, 1.0, 15_000),
            (u32::MAX, 0.5, 7_500),
            (u32::MAX, 0.0, 100),
            (3, f64::NAN.max(0.0), 100),
        ] {
            let delay = BACKOFF.delay(attempt, random);
            assert_eq!(delay, Duration::from_millis(expected_ms), "attempt {attempt}, random {random}");
        }
    }
}
