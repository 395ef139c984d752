//! Whether a connection gets a tunnel of its own. Pure: time is an argument.
//!
//! A tunnel of its own costs a TLS handshake (some hundred microseconds of CPU at each end) and outlives the agent;
//! a stream of a shared one costs a tenth and ends with it. What is rare may as well last: each pod has a small budget of
//! tunnels per destination, [`BURST`] at once and [`PER_SECOND`] afterwards. Connections that are kept (databases,
//! queues, watches) come from it; a client that connects for every request has used it up in a moment and shares. So
//! handshakes cost at most a few ten-thousandths of a core per pair of pods, whatever an application does.

use std::collections::HashMap;
use std::time::{Duration, Instant};
use warren_common::model::WorkloadUid;

/// Tunnels at once.
const BURST: f64 = 64.0;
/// Tunnels per second.
const PER_SECOND: f64 = 1.0;
/// Pairs of pods that are remembered.
const MAX_PAIRS: usize = 16_384;

/// Who connects to whom, at which port.
pub(super) type Pair = (WorkloadUid, WorkloadUid, u16);

/// What is left of each pair's budget.
#[derive(Debug, Default)]
pub struct Frequency {
    pairs: HashMap<Pair, (f64, Instant)>,
}

impl Frequency {
    /// Takes one from the pair's budget, if it has one left.
    pub fn spend(&mut self, pair: &Pair, now: Instant) -> bool {
        if self.pairs.len() >= MAX_PAIRS && !self.pairs.contains_key(pair) {
            self.sweep(now);
            if self.pairs.len() >= MAX_PAIRS {
                return false;
            }
        }
        let (left, at) = self.pairs.entry(pair.clone()).or_insert((BURST, now));
        *left = refilled(*left, now.saturating_duration_since(*at));
        *at = now;
        let enough = *left >= 1.0;
        if enough {
            *left -= 1.0;
        }
        enough
    }

    /// Forgets pairs whose budget is whole again: they are as if never seen.
    fn sweep(&mut self, now: Instant) {
        self.pairs.retain(|_, (left, at)| refilled(*left, now.saturating_duration_since(*at)) < BURST);
    }
}

fn refilled(left: f64, after: Duration) -> f64 {
    (left + after.as_secs_f64() * PER_SECOND).min(BURST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: u64) -> Pair {
        (WorkloadUid("a".into()), WorkloadUid(name.to_string().into()), 80)
    }

    #[test]
    fn what_is_rare_gets_one_and_what_is_frequent_shares() {
        let (mut frequency, start) = (Frequency::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let given = (0..1000).filter(|_| frequency.spend(&pair(1), at(0))).count();
        assert_eq!(given, BURST as usize);
        assert!(frequency.spend(&pair(2), at(0)), "others have their own");
        assert!(frequency.spend(&pair(1), at(1)) && !frequency.spend(&pair(1), at(1)));
        let given = (0..1000).filter(|_| frequency.spend(&pair(1), at(100_000))).count();
        assert_eq!(given, BURST as usize);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut frequency, start) = (Frequency::default(), Instant::now());
        for name in 0..MAX_PAIRS as u64 {
            assert!(frequency.spend(&pair(name), start));
        }
        assert!(!frequency.spend(&pair(u64::MAX), start), "nothing can be forgotten: it shares");
        assert!(frequency.spend(&pair(u64::MAX), start + Duration::from_secs(2)));
        assert_eq!(frequency.pairs.len(), 1);
    }
}
