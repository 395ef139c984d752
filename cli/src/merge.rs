//! Events of several agents in the order in which they happened. Sans-IO: time is an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use time::OffsetDateTime;

/// How long an event waits for earlier ones of other agents: their ways here differ in length.
const PATIENCE: Duration = Duration::from_millis(250);

/// Events that wait for their turn.
#[derive(Debug)]
pub(crate) struct Merge<T> {
    /// By when it happened; the number keeps those apart that happened at once.
    waiting: BTreeMap<(OffsetDateTime, u64), (Instant, T)>,
    taken: u64,
    patience: Duration,
}

impl<T> Merge<T> {
    /// For events of `agents` agents; those of a single one come in order already.
    pub(crate) fn of(agents: usize) -> Self {
        let patience = if agents > 1 { PATIENCE } else { Duration::ZERO };
        Self { waiting: BTreeMap::new(), taken: 0, patience }
    }

    /// Takes an event that happened at `at` and arrived at `now`.
    pub(crate) fn push(&mut self, at: OffsetDateTime, event: T, now: Instant) {
        self.taken += 1;
        self.waiting.insert((at, self.taken), (now + self.patience, event));
    }

    /// The earliest event, once it has waited long enough.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<T> {
        let entry = self.waiting.first_entry()?;
        (entry.get().0 <= now).then(|| entry.remove().1)
    }

    /// When the next event has waited long enough.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(_, (due, _))| *due)
    }

    /// What still waits, in order.
    pub(crate) fn rest(self) -> impl Iterator<Item = T> {
        self.waiting.into_values().map(|(_, event)| event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millisecond: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::milliseconds(millisecond)
    }

    #[test]
    fn events_come_out_in_the_order_in_which_they_happened() {
        let start = Instant::now();
        let mut merge = Merge::of(2);
        merge.push(at(20), "b", start);
        merge.push(at(10), "a", start + Duration::from_millis(50));
        merge.push(at(20), "c", start + Duration::from_millis(50));
        assert_eq!(merge.pop(start + Duration::from_millis(260)), None);
        let later = merge.deadline().unwrap();
        assert_eq!(later, start + Duration::from_millis(300));
        assert_eq!([merge.pop(later), merge.pop(later), merge.pop(later)], [Some("a"), Some("b"), Some("c")]);
        assert_eq!(merge.deadline(), None);
    }

    #[test]
    fn one_agent_is_not_waited_for_and_nothing_is_lost_at_the_end() {
        let now = Instant::now();
        let mut alone = Merge::of(1);
        alone.push(at(5), 1, now);
        assert_eq!(alone.pop(now), Some(1));
        let mut several = Merge::of(3);
        several.push(at(9), 2, now);
        several.push(at(5), 1, now);
        assert_eq!(several.rest().collect::<Vec<_>>(), [1, 2]);
    }
}
