//! When a certificate is renewed, and when a failed renewal is tried again. Pure: time and chance are arguments.

use crate::control::Backoff;
use std::time::{Duration, SystemTime};

/// Between two renewals of one identity, however short its certificates live.
const SHORTEST: Duration = Duration::from_millis(500);
const RETRY: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(15) };
/// So many tries at least fit into what is left of a certificate when its renewal is due.
const TRIES: u32 = 10;

/// When to renew a certificate that is valid from `from` (when it was issued, or its notBefore) until `not_after`:
/// at half of that, 10 % earlier to 10 % later for a `random` in `0.0..1.0`.
pub(super) fn renew_at(from: SystemTime, not_after: SystemTime, random: f64) -> SystemTime {
    let lifetime = not_after.duration_since(from).unwrap_or_default();
    let jitter = 0.9 + 0.2 * random.clamp(0.0, 1.0);
    from + lifetime.mul_f64(0.5 * jitter).max(SHORTEST)
}

/// When to renew because another certificate signs now: within `within`, each at a time of its own, so that the nodes of a
/// mesh don't ask all at once. Not at once either: another replica of the controller may still sign with the old one.
pub(super) fn renew_for_signer(now: SystemTime, within: Duration, random: f64) -> SystemTime {
    now + within.mul_f64(0.1 + 0.9 * random.clamp(0.0, 1.0)).max(SHORTEST)
}

/// How long to wait after failure number `attempt` (from 0). `left` is what remains of the certificate in use.
pub(super) fn retry_delay(attempt: u32, left: Option<Duration>, random: f64) -> Duration {
    let cap = left.map_or(RETRY.cap, |left| (left / TRIES).clamp(RETRY.base, RETRY.cap));
    Backoff { cap, ..RETRY }.delay(attempt, random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn renewed_at_half_life_give_or_take_a_tenth() {
        for (lifetime_ms, random, expected_ms) in [
            (100_000, 0.5, 50_000),
            (100_000, 0.0, 45_000),
            (100_000, 1.0, 55_000),
            (5_000, 0.5, 2_500),
            (100, 0.5, 500),
            (0, 0.5, 500),
        ] {
            let at = renew_at(UNIX_EPOCH, UNIX_EPOCH + Duration::from_millis(lifetime_ms), random);
            assert_eq!(
                at.duration_since(UNIX_EPOCH).unwrap().as_millis(),
                expected_ms,
                "{lifetime_ms} {random}"
            );
        }
    }

    #[test]
    fn an_expired_certificate_is_due_at_once() {
        let expired = UNIX_EPOCH + Duration::from_secs(5);
        assert!(
            renew_at(UNIX_EPOCH + Duration::from_secs(9), expired, 0.5)
                < UNIX_EPOCH + Duration::from_secs(10)
        );
    }

    #[test]
    fn another_signer_is_followed_in_time_and_not_by_all_at_once() {
        for (within_s, random, expected_ms) in
            [(300, 0.0, 30_000), (300, 1.0, 300_000), (1, 0.0, 500), (0, 1.0, 500)]
        {
            let at = renew_for_signer(UNIX_EPOCH, Duration::from_secs(within_s), random);
            assert_eq!(
                at.duration_since(UNIX_EPOCH).unwrap().as_millis(),
                expected_ms,
                "{within_s} {random}"
            );
        }
    }

    #[test]
    fn retries_fit_into_what_is_left() {
        let seconds = Duration::from_secs;
        for (attempt, left, expected) in [
            (0, None, Duration::from_millis(200)),
            (20, None, seconds(15)),
            (20, Some(seconds(3600)), seconds(15)),
            (20, Some(seconds(10)), seconds(1)),
            (20, Some(seconds(0)), Duration::from_millis(200)),
        ] {
            assert_eq!(retry_delay(attempt, left, 1.0), expected, "{attempt} {left:?}");
        }
    }
}
