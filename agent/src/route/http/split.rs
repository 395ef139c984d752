//! A choice by weight.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// Shares of a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    // Sums of the weights up to and with each; ascending.
    ends: Arc<[u64]>,
}

impl Split {
    /// Of weights relative to their sum.
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let mut sum = 0_u64;
        let end = |weight| {
            sum += u64::from(weight);
            sum
        };
        Self { ends: weights.into_iter().map(end).collect() }
    }

    /// The one that a random number falls on; none if nobody has a share.
    pub fn pick(&self, entropy: u64) -> Option<usize> {
        let sum = *self.ends.last()?;
        if sum == 0 {
            return None;
        }
        let place = below(sum, entropy);
        Some(self.ends.partition_point(|end| *end <= place))
    }

    /// The share of the one at `index`, from 0 to 1; 0 if nobody has a share.
    pub fn share(&self, index: usize) -> f64 {
        let end = |index: usize| self.ends.get(index).copied();
        let (Some(sum), Some(to)) = (self.ends.last().filter(|sum| **sum > 0), end(index)) else {
            return 0.0;
        };
        let from = index.checked_sub(1).and_then(end).unwrap_or(0);
        (to - from) as f64 / *sum as f64
    }

    /// The one of the `count`th request. Any successive requests are spread as the weights say, to within a few of them: the
    /// multiples of the golden ratio are as even as a sequence can be at every point.
    pub fn pick_nth(&self, count: u64) -> Option<usize> {
        self.pick(spread(count))
    }
}

/// Counts the choices of one split. By chance 10 % of 100 requests are 4 to 17; counted they are 10, whatever 100 successive
/// requests are looked at, and nearly so for every other of them, every third and so on: multiples of an irrational number are
/// irrational. The start is random, so that those who count for themselves (workers, nodes, pods) are not in step.
#[derive(Debug, Default)]
pub struct Turns {
    start: OnceLock<u64>,
    taken: AtomicU64,
}

impl Turns {
    /// The next one, for [`Split::pick_nth`]; `entropy` is a random number.
    pub fn next(&self, entropy: u64) -> u64 {
        let start = *self.start.get_or_init(|| entropy);
        start.wrapping_add(self.taken.fetch_add(1, Relaxed))
    }
}

/// The `count`th of a sequence of numbers that is evenly spread over all numbers wherever it is looked at (Weyl sequence of the
/// golden ratio).
pub fn spread(count: u64) -> u64 {
    count.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A random number of all, as one below `bound` (0 for 0). Scaled, not a remainder: nobody is favoured.
pub fn below(bound: u64, entropy: u64) -> u64 {
    ((u128::from(entropy) * u128::from(bound)) >> 64) as u64
}

/// Whether a request is one of `per_million`, by a random number.
pub fn is_drawn(per_million: u32, entropy: u64) -> bool {
    below(1_000_000, entropy) < u64::from(per_million)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nobody_without_a_share() {
        assert_eq!(Split::new([]).pick(7), None);
        assert_eq!(Split::new([0, 0]).pick(7), None);
        let split = Split::new([0, 3, 0, 1, 0]);
        for entropy in [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
            assert!(matches!(split.pick(entropy), Some(1 | 3)));
        }
        assert_eq!((split.pick(0), split.pick(u64::MAX)), (Some(1), Some(3)));
        assert_eq!([0, 1, 3, 4, 9].map(|index| split.share(index)), [0.0, 0.75, 0.25, 0.0, 0.0]);
        assert_eq!(Split::new([0]).share(0), 0.0);
        let (under, over) = (u64::MAX / 4 * 3, u64::MAX / 4 * 3 + 4);
        assert_eq!((split.pick(under), split.pick(over)), (Some(1), Some(3)), "three quarters");
    }

    #[test]
    fn a_million_is_all_and_none_is_none() {
        assert!([0, 1, u64::MAX].iter().all(|n| is_drawn(1_000_000, *n) && !is_drawn(0, *n)));
        let drawn = (0..1_000_000).filter(|n| is_drawn(1_000, spread(*n))).count();
        assert!((995..=1005).contains(&drawn), "{drawn}");
    }

    #[test]
    fn turns_are_counted_from_where_chance_began() {
        let turns = Turns::default();
        assert_eq!([7, 8, 9].map(|entropy| turns.next(entropy)), [7, 8, 9]);
        assert_eq!(turns.next(0), 10);
        let last = Turns::default();
        assert_eq!([last.next(u64::MAX), last.next(5)], [u64::MAX, 0]);
    }

    /// Who sends two kinds of requests in turn sends both everywhere, and in the shares of the weights.
    #[test]
    fn what_comes_in_turn_is_shared_out_too() {
        let split = Split::new([90, 10]);
        for every in 2..=5_u64 {
            for first in 0..every {
                let asked = (0..2000).map(|n| split.pick_nth(first + n * every));
                let few = asked.filter(|picked| *picked == Some(1)).count();
                assert!((180..=220).contains(&few), "{few} of 2000, every {every}th from {first}");
            }
        }
    }

    proptest! {
        /// No drift: after any number of requests from any start, every share is off by a few requests, not by a root of them.
        #[test]
        fn shares_are_even_at_every_point(
            weights in proptest::collection::vec(0_u32..1000, 1..6),
            start: u64,
            requests in 1_u64..20_000,
        ) {
            let split = Split::new(weights.iter().copied());
            let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            let mut counts = vec![0_u64; weights.len()];
            for n in 0..requests {
                match split.pick_nth(start.wrapping_add(n)) {
                    Some(index) => counts[index] += 1,
                    None => prop_assert_eq!(sum, 0),
                }
            }
            for (weight, count) in weights.iter().zip(counts) {
                let exact = requests as f64 * f64::from(*weight) / sum.max(1) as f64;
                prop_assert!((count as f64 - exact).abs() < 8.0, "{count} instead of {exact}");
            }
        }

        /// Random numbers: the share is the weight's, by chi-square-like bounds of five deviations.
        #[test]
        fn chance_is_fair(weights in proptest::collection::vec(1_u32..100, 2..5), seed: u64) {
            let split = Split::new(weights.iter().copied());
            let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            let (mut state, requests) = (seed, 20_000);
            let mut counts = vec![0_u32; weights.len()];
            for _ in 0..requests {
                // splitmix64
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                counts[split.pick(z ^ (z >> 31)).unwrap()] += 1;
            }
            for (weight, count) in weights.iter().zip(counts) {
                let share = f64::from(*weight) / sum;
                let deviation = (f64::from(requests) * share * (1.0 - share)).sqrt();
                prop_assert!((f64::from(count) - f64::from(requests) * share).abs() < 6.0 * deviation);
            }
        }
    }
}
