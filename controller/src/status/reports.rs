//! Which rejected objects their owners are told about, and when. Pure: time is an argument.

use crate::objects::{Kind, Name};
use crate::source::kubernetes::Rejection;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Kubernetes forgets events after an hour; what is still wrong is said again before.
const REPEAT: Duration = Duration::from_secs(30 * 60);
/// Events at once, and then one per `REFILL`.
const BURST: u32 = 20;
const REFILL: Duration = Duration::from_secs(2);

/// An event to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) rejection: Rejection,
    /// How often this has been said.
    pub(super) count: i32,
}

#[derive(Debug)]
struct Said {
    reason: String,
    uid: String,
    at: Instant,
    count: i32,
}

/// What has been said so far.
#[derive(Debug)]
pub(super) struct Reports {
    said: BTreeMap<(Kind, Name), Said>,
    budget: u32,
    refilled: Instant,
}

impl Reports {
    pub(super) fn new(now: Instant) -> Self {
        Self { said: BTreeMap::new(), budget: BURST, refilled: now }
    }

    /// What to say now about all that is rejected now. The rest of a flood comes later, or never if it is repaired.
    pub(super) fn due(&mut self, current: Vec<Rejection>, now: Instant) -> Vec<Report> {
        while self.budget < BURST && now.saturating_duration_since(self.refilled) >= REFILL {
            self.budget += 1;
            self.refilled += REFILL;
        }
        if self.budget == BURST {
            self.refilled = now;
        }
        let mut before = std::mem::take(&mut self.said);
        let mut reports = Vec::new();
        for rejection in current {
            let key = (rejection.kind, rejection.rejected.name.clone());
            let said = before.remove(&key);
            let same =
                |said: &Said| said.reason == rejection.rejected.reason && said.uid == rejection.rejected.uid;
            let said = said.filter(same);
            if let Some(said) = said.as_ref().filter(|said| now.saturating_duration_since(said.at) < REPEAT) {
                let Said { reason, uid, at, count } = said;
                let kept = Said { reason: reason.clone(), uid: uid.clone(), at: *at, count: *count };
                self.said.insert(key, kept);
                continue;
            }
            if self.budget == 0 {
                continue;
            }
            self.budget -= 1;
            let count = said.map_or(0, |said| said.count).saturating_add(1);
            let (reason, uid) = (rejection.rejected.reason.clone(), rejection.rejected.uid.clone());
            self.said.insert(key, Said { reason, uid, at: now, count });
            reports.push(Report { rejection, count });
        }
        reports
    }
}

/// What was said of things that end soon.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    said: BTreeMap<&'static str, (Instant, i32)>,
}

impl Alarms {
    /// How often it has been said with this time, if it is to be said now.
    pub(super) fn due(&mut self, what: &'static str, now: Instant) -> Option<i32> {
        let (at, count) = self.said.get(what).copied().unzip();
        if at.is_some_and(|at| now.saturating_duration_since(at) < REPEAT) {
            return None;
        }
        let count = count.unwrap_or(0_i32).saturating_add(1);
        self.said.insert(what, (now, count));
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::kubernetes::Rejected;

    fn rejection(name: &str, reason: &str) -> Rejection {
        let rejected = Rejected { name: Name::new("n", name), uid: "u".into(), reason: reason.into() };
        Rejection { api_version: "v1".into(), kind: Kind::Service, rejected }
    }

    fn names(reports: &[Report]) -> Vec<(String, i32)> {
        reports.iter().map(|r| (r.rejection.rejected.name.name.to_string(), r.count)).collect()
    }

    #[test]
    fn said_once_until_it_changes_or_is_forgotten() {
        let start = Instant::now();
        let mut reports = Reports::new(start);
        for (at_s, current, expected) in [
            (0, vec![("a", "x")], vec![("a", 1)]),
            (1, vec![("a", "x"), ("b", "x")], vec![("b", 1)]),
            (2, vec![("a", "y"), ("b", "x")], vec![("a", 1)]),
            (3, vec![("b", "x")], vec![]),
            (4, vec![("a", "y"), ("b", "x")], vec![("a", 1)]),
            (1800, vec![("a", "y"), ("b", "x")], vec![]),
            (1801, vec![("a", "y"), ("b", "x")], vec![("b", 2)]),
            (1804, vec![("a", "y"), ("b", "x")], vec![("a", 2)]),
        ] {
            let current = current.into_iter().map(|(name, reason)| rejection(name, reason)).collect();
            let due = reports.due(current, start + Duration::from_secs(at_s));
            let expected: Vec<_> =
                expected.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
            assert_eq!(names(&due), expected, "after {at_s} s");
        }
    }

    #[test]
    fn an_alarm_is_repeated_before_it_is_forgotten() {
        let start = Instant::now();
        let mut alarms = Alarms::default();
        for (at_s, what, expected) in
            [(0, "a", Some(1)), (1, "a", None), (1, "b", Some(1)), (1799, "a", None), (1800, "a", Some(2))]
        {
            assert_eq!(alarms.due(what, start + Duration::from_secs(at_s)), expected, "{what} at {at_s} s");
        }
    }

    #[test]
    fn a_flood_is_said_little_by_little() {
        let start = Instant::now();
        let mut reports = Reports::new(start);
        let flood = || (0..1000).map(|n| rejection(&format!("{n:04}"), "x")).collect::<Vec<_>>();
        assert_eq!(reports.due(flood(), start).len(), BURST as usize);
        assert_eq!(reports.due(flood(), start + Duration::from_secs(1)).len(), 0);
        assert_eq!(
            names(&reports.due(flood(), start + Duration::from_secs(4))),
            [("0020".into(), 1), ("0021".into(), 1)]
        );
        assert_eq!(reports.due(flood(), start + Duration::from_secs(3600)).len(), BURST as usize);
    }
}
