//! What Kubernetes said about tokens lately. Pure: time is an argument, and a token is known by its hash alone.

use super::authenticate::Caller;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A good token is not asked about again for this long: a pod that is deleted loses its rights at most so much later.
const GOOD: Duration = Duration::from_secs(30);
/// A bad one, for this long: a retry soon after its repair should succeed.
const BAD: Duration = Duration::from_secs(5);
/// While nobody can be asked, a token goes on being good for this long after it was.
const GRACE: Duration = Duration::from_secs(300);
/// Tokens remembered; a thousand agents have a thousand, and as many again after a rotation.
const MOST: usize = 10_000;

/// SHA-256 of a token.
pub(super) type Digest = [u8; 32];

/// The two clocks that count: ages, and what tokens are dated with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) instant: Instant,
    /// Unix seconds.
    pub(super) unix_s: u64,
}

/// What was said about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Whose it is, and when it ends (Unix seconds; 0 when it does not say).
    Good(Caller, u64),
    /// What is wrong with it.
    Bad(String),
}

/// The memory.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<Digest, (Instant, Verdict)>,
}

impl Cache {
    /// What can be said without asking.
    pub(super) fn fresh(&self, token: &Digest, now: Now) -> Option<Result<Caller, String>> {
        let (asked, verdict) = self.entries.get(token)?;
        let age = now.instant.saturating_duration_since(*asked);
        match verdict {
            Verdict::Good(caller, _) if age < GOOD && !verdict.has_ended(now) => Some(Ok(caller.clone())),
            Verdict::Bad(reason) if age < BAD => Some(Err(reason.clone())),
            _ => None,
        }
    }

    /// Who it was lately, when nobody can be asked.
    pub(super) fn lately(&self, token: &Digest, now: Now) -> Option<Caller> {
        let (asked, verdict) = self.entries.get(token)?;
        let age = now.instant.saturating_duration_since(*asked);
        match verdict {
            Verdict::Good(caller, _) if age < GRACE && !verdict.has_ended(now) => Some(caller.clone()),
            _ => None,
        }
    }

    /// Remembers an answer.
    pub(super) fn remember(&mut self, token: Digest, verdict: Verdict, now: Now) {
        if self.entries.len() >= MOST && !self.entries.contains_key(&token) {
            self.make_room(now);
        }
        self.entries.insert(token, (now.instant, verdict));
    }

    fn make_room(&mut self, now: Now) {
        self.entries.retain(|_, (asked, verdict)| {
            let age = now.instant.saturating_duration_since(*asked);
            match verdict {
                Verdict::Good(..) => age < GRACE && !verdict.has_ended(now),
                Verdict::Bad(_) => age < BAD,
            }
        });
        if self.entries.len() >= MOST {
            // A flood of bad tokens must not push out a good one.
            let rank = |(asked, verdict): &(Instant, Verdict)| (matches!(verdict, Verdict::Good(..)), *asked);
            let first = self.entries.iter().min_by_key(|(_, entry)| rank(entry)).map(|(token, _)| *token);
            first.and_then(|token| self.entries.remove(&token));
        }
    }
}

impl Verdict {
    fn has_ended(&self, now: Now) -> bool {
        matches!(self, Self::Good(_, end) if now.unix_s >= *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Name;

    fn caller() -> Caller {
        Caller { node: "n1".into(), service_account: Name::new("ns", "sa") }
    }

    #[test]
    fn answers_age() {
        let start = Instant::now();
        let good = |end| Verdict::Good(caller(), end);
        for (verdict, age_s, fresh, lately) in [
            (good(10_000), 0, Some(true), true),
            (good(10_000), 29, Some(true), true),
            (good(10_000), 30, None, true),
            (good(10_000), 299, None, true),
            (good(10_000), 300, None, false),
            (good(1_010), 9, Some(true), true),
            (good(1_010), 10, None, false),
            (good(0), 0, None, false),
            (Verdict::Bad("x".into()), 4, Some(false), false),
            (Verdict::Bad("x".into()), 5, None, false),
        ] {
            let mut cache = Cache::default();
            cache.remember([1; 32], verdict.clone(), Now { instant: start, unix_s: 1_000 });
            let now = Now { instant: start + Duration::from_secs(age_s), unix_s: 1_000 + age_s };
            assert_eq!(
                cache.fresh(&[1; 32], now).map(|answer| answer.is_ok()),
                fresh,
                "{verdict:?} after {age_s} s"
            );
            assert_eq!(cache.lately(&[1; 32], now).is_some(), lately, "{verdict:?} after {age_s} s");
            assert_eq!(cache.fresh(&[2; 32], now), None);
        }
    }

    #[test]
    fn a_flood_of_bad_tokens_is_bounded_and_spares_the_good() {
        let now = Now { instant: Instant::now(), unix_s: 0 };
        let mut cache = Cache::default();
        cache.remember([255; 32], Verdict::Good(caller(), 100), now);
        for number in 0..MOST as u32 + 10 {
            let mut token = [0; 32];
            token[..4].copy_from_slice(&number.to_be_bytes());
            cache.remember(token, Verdict::Bad(String::new()), now);
        }
        assert!(cache.entries.len() <= MOST);
        assert!(cache.fresh(&[255; 32], now).is_some());
    }
}
