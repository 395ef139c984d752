//! Since when endpoints are there: slow start begins when one comes to a group that is in use already.

use std::collections::HashMap;
use std::time::{Duration, Instant};
use warren_common::model::WorkloadUid;

/// Since when the endpoints of one group are there. Who is there when it begins (the agent has just started, or the client has
/// its first request) is old, for nobody knows better. Who was not ready in between comes anew.
#[derive(Debug, Default)]
pub struct Ages {
    begun: bool,
    // None: old.
    known: HashMap<WorkloadUid, Option<Instant>>,
}

impl Ages {
    /// These are the endpoints now.
    pub fn are<'a>(&mut self, endpoints: impl Iterator<Item = &'a WorkloadUid>, now: Instant) {
        let came = self.begun.then_some(now);
        self.begun = true;
        let mut before = std::mem::take(&mut self.known);
        self.known = endpoints.map(|uid| (uid.clone(), before.remove(uid).unwrap_or(came))).collect();
    }

    /// For how long one is there; none: for long.
    pub fn of(&self, endpoint: &WorkloadUid, now: Instant) -> Option<Duration> {
        let since = (*self.known.get(endpoint)?)?;
        Some(now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_comes_later_is_new() {
        let uids =
            |names: &[&str]| -> Vec<_> { names.iter().map(|name| WorkloadUid((*name).into())).collect() };
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut ages = Ages::default();
        let ages_at = |ages: &Ages, seconds: u32| {
            let now = start + second * seconds;
            ["a", "b", "c"].map(|name| ages.of(&WorkloadUid(name.into()), now).map(|age| age.as_secs()))
        };
        for (at, endpoints, ages_then, ages_later) in [
            (0, &["a", "b"][..], [None, None, None], [None, None, None]),
            (10, &["a", "b", "c"], [None, None, Some(0)], [None, None, Some(5)]),
            // Again, and nothing changes.
            (20, &["a", "b", "c"], [None, None, Some(10)], [None, None, Some(15)]),
            (30, &["b", "c"], [None, None, Some(20)], [None, None, Some(25)]),
            (40, &["a", "b", "c"], [Some(0), None, Some(30)], [Some(5), None, Some(35)]),
        ] {
            ages.are(uids(endpoints).iter(), start + second * at);
            assert_eq!((ages_at(&ages, at), ages_at(&ages, at + 5)), (ages_then, ages_later), "{at}");
        }
    }
}
