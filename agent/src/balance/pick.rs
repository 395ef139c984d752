//! One endpoint for one try.

use super::group::{Endpoint, Group, Level, Part, Way};
use super::hash::mix;
use crate::route::http::{Split, below, spread};
use std::time::Duration;
use warren_common::model::WorkloadUid;
use warren_common::model::traffic::{SimpleBalancer, Warmup};

/// A level is whole as long as so many percent of it times its healthy share are 100 (Envoy's overprovisioning factor).
const OVERPROVISIONING: u64 = 140;
/// How many random endpoints are looked at before all are.
const SAMPLES: usize = 8;
/// Weights are multiplied by this before a share of them is taken.
const PRECISION: f64 = 1000.0;

/// One choice to be made.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// How many choices this worker has made of this group before: the turns of ROUND_ROBIN.
    pub turn: u64,
    /// A random number.
    pub entropy: u64,
    /// What the request is hashed by, if the group has a key and the request has it.
    pub hash: Option<u64>,
    /// Endpoints that have failed for this request: not again while there are others. With a hash they are, as in Istio.
    pub avoid: &'a [WorkloadUid],
}

/// What is known of endpoints now.
pub trait Health {
    /// How many are left out (outlier detection).
    fn out(&self) -> usize;
    /// Whether one is left out.
    fn is_out(&self, endpoint: &WorkloadUid) -> bool;
    /// Requests that it has to answer.
    fn active(&self, endpoint: &WorkloadUid) -> u32;
    /// For how long it has been there; none: for long.
    fn age(&self, endpoint: &WorkloadUid) -> Option<Duration>;
}

/// There is no endpoint, or all are left out (503, `UH`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("none of {known} endpoints can be used: outlier detection leaves {out} out")]
pub struct NoneLeft {
    /// How many there are.
    pub known: usize,
    /// How many of them are left out.
    pub out: usize,
}

/// Random numbers from one (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    fn below(&mut self, bound: u64) -> u64 {
        let entropy = self.next();
        below(bound, entropy)
    }

    fn is_below(&mut self, share: f64) -> bool {
        // 53 bits, a number from 0 to below 1.
        ((self.next() >> 11) as f64) < share * 9_007_199_254_740_992.0
    }
}

/// Who may be picked among the members of a part.
struct Picker<'g, 'a, H> {
    group: &'g Group,
    health: &'a H,
    avoid: &'a [WorkloadUid],
    // Everybody may: too few are healthy.
    panics: bool,
}

impl Group {
    /// The endpoint for one try.
    ///
    /// # Errors
    /// [`NoneLeft`].
    pub fn pick(&self, ask: &Ask<'_>, health: &impl Health) -> Result<&Endpoint, NoneLeft> {
        // The same hash goes to the same level and part as long as they stand as they do.
        let mut chance = Chance(ask.hash.unwrap_or(ask.entropy));
        let picked = self.level(&mut chance, health).and_then(|(level, panics)| {
            let avoid = if self.hash_key().is_some() { &[] } else { ask.avoid };
            let picker = Picker { group: self, health, avoid, panics };
            let part = picker.part(level, &mut chance)?;
            picker.pick(part, ask, &mut chance).or_else(|| {
                // All others have failed for this request, too.
                Picker { avoid: &[], ..picker }.pick(part, ask, &mut chance)
            })
        });
        picked.ok_or_else(|| NoneLeft { known: self.endpoints.len(), out: health.out() })
    }

    /// The level that this choice falls on, and whether too few of it are healthy.
    fn level(&self, chance: &mut Chance, health: &impl Health) -> Option<(&Level, bool)> {
        if health.out() == 0 {
            return self.levels.first().map(|level| (level, false));
        }
        let picker = Picker { group: self, health, avoid: &[], panics: false };
        let healthy: Vec<_> = self.levels.iter().map(|level| picker.healthy(level)).collect();
        let available = |(healthy, all): &(u64, u64)| (healthy * OVERPROVISIONING / (*all).max(1)).min(100);
        let sum: u64 = healthy.iter().map(available).sum();
        let panics = |(healthy, all): &(u64, u64)| {
            sum < 100 && healthy * 100 < u64::from(self.min_health_percent) * all
        };
        // In order, until the whole is given away; what there is of it, if that is less.
        let mut point = chance.below(sum.min(100));
        for (level, healthy) in self.levels.iter().zip(&healthy) {
            match point.checked_sub(available(healthy)) {
                Some(rest) if sum > 0 => point = rest,
                _ if sum > 0 || panics(healthy) => return Some((level, panics(healthy))),
                _ => {}
            }
        }
        None
    }
}

impl<'g, H: Health> Picker<'g, '_, H> {
    fn endpoint(&self, member: u32) -> Option<&'g Endpoint> {
        self.group.endpoints.get(member as usize)
    }

    fn may(&self, member: u32) -> bool {
        self.endpoint(member).is_some_and(|endpoint| {
            let uid = &endpoint.workload.uid;
            !self.avoid.contains(uid) && (self.panics || !self.health.is_out(uid))
        })
    }

    /// How many of a level are in use, and how many there are.
    fn healthy(&self, level: &Level) -> (u64, u64) {
        let members = || level.parts.iter().flat_map(|part| &part.members);
        let healthy = members().filter(|member| self.may(**member)).count();
        (healthy as u64, members().count() as u64)
    }

    /// The part that the choice falls on: by shares, as far as a part can bear its own.
    fn part<'l>(&self, level: &'l Level, chance: &mut Chance) -> Option<&'l Part> {
        if let [part] = &*level.parts {
            return Some(part);
        }
        if self.health.out() == 0 || self.panics {
            return level.parts.get(level.shares.pick(chance.next())?);
        }
        let bears = |part: &Part| {
            let healthy = part.members.iter().filter(|member| self.may(**member)).count() as u64;
            let available = (healthy * OVERPROVISIONING / (part.members.len() as u64).max(1)).min(100);
            u32::try_from(u64::from(part.share) * available).unwrap_or(u32::MAX)
        };
        level.parts.get(Split::new(level.parts.iter().map(bears)).pick(chance.next())?)
    }

    fn pick(&self, part: &Part, ask: &Ask<'_>, chance: &mut Chance) -> Option<&'g Endpoint> {
        let member = match (&self.group.way, &part.table, ask.hash) {
            (Way::Hash(_), Some(table), Some(hash)) => table
                .from(hash)
                .filter_map(|index| part.members.get(index as usize).copied())
                .find(|member| self.may(*member)),
            // Nothing to hash by: any.
            (Way::Hash(_), ..) | (Way::Simple(SimpleBalancer::Random | SimpleBalancer::Passthrough), ..) => {
                self.any(part, chance, |_| 1.0)
            }
            (Way::Simple(SimpleBalancer::RoundRobin), ..) => self.in_turn(part, ask.turn),
            (Way::Simple(SimpleBalancer::LeastRequest), ..) => self.less_busy(part, chance),
        };
        self.endpoint(member?)
    }

    /// Any of those that may, by weight.
    fn any(&self, part: &Part, chance: &mut Chance, share: impl Fn(u32) -> f64) -> Option<u32> {
        for _ in 0..SAMPLES {
            let member = *part.members.get(part.weights.pick(chance.next())?)?;
            if self.may(member) && chance.is_below(share(member)) {
                return Some(member);
            }
        }
        let (members, weights) = self.weighed(part, share);
        members.get(weights.pick(chance.next())?).copied()
    }

    /// Those that may, with their weights now.
    fn weighed(&self, part: &Part, share: impl Fn(u32) -> f64) -> (Vec<u32>, Split) {
        let members: Vec<_> = part.members.iter().copied().filter(|member| self.may(*member)).collect();
        let weight = |member: &u32| {
            let weight = self.endpoint(*member).map_or(1, Endpoint::weight);
            (f64::from(weight) * share(*member) * PRECISION).max(1.0) as u32
        };
        let weights = Split::new(members.iter().map(weight));
        (members, weights)
    }

    fn in_turn(&self, part: &Part, turn: u64) -> Option<u32> {
        let all_may = self.avoid.is_empty() && (self.panics || self.health.out() == 0);
        match (all_may && self.group.warmup.is_none(), part.is_even) {
            (true, true) => {
                let index = turn.checked_rem(part.members.len() as u64)?;
                part.members.get(index as usize).copied()
            }
            (true, false) => part.members.get(part.weights.pick(spread(turn))?).copied(),
            (false, _) => {
                let (members, weights) = self.weighed(part, |member| self.warmth(member));
                match part.is_even && self.group.warmup.is_none() {
                    true => members.get(turn.checked_rem(members.len() as u64)? as usize).copied(),
                    false => members.get(weights.pick(spread(turn))?).copied(),
                }
            }
        }
    }

    /// Of two the one that has less to do for its weight.
    fn less_busy(&self, part: &Part, chance: &mut Chance) -> Option<u32> {
        let mut any = || self.any(part, chance, |member| self.warmth(member));
        let first = any()?;
        // A few attempts to find another one: with a single endpoint there is none.
        let second = (0..4).find_map(|_| any().filter(|second| *second != first));
        let Some(second) = second else { return Some(first) };
        let load = |member: u32, other: u32| {
            let active = self.endpoint(member).map_or(0, |one| self.health.active(&one.workload.uid));
            u64::from(active) * u64::from(self.endpoint(other).map_or(1, Endpoint::weight))
        };
        Some(if load(second, first) < load(first, second) { second } else { first })
    }

    /// What part of its weight a new endpoint has.
    fn warmth(&self, member: u32) -> f64 {
        let Some(warmup) = &self.group.warmup else { return 1.0 };
        let age = self.endpoint(member).and_then(|endpoint| self.health.age(&endpoint.workload.uid));
        age.map_or(1.0, |age| warmth(warmup, age))
    }
}

/// max(minimum, (age/duration)^(1/aggression)).
pub(super) fn warmth(warmup: &Warmup, age: Duration) -> f64 {
    let duration = Duration::from_millis(warmup.duration_ms).as_secs_f64();
    if age.as_secs_f64() >= duration {
        return 1.0;
    }
    let aggression = if warmup.aggression > 0.0 { warmup.aggression } else { 1.0 };
    let grown = (age.as_secs_f64() / duration).powf(1.0 / aggression);
    grown.max(warmup.minimum_percent / 100.0).clamp(0.0, 1.0)
}
