//! Which addresses are followed, since when nobody used them, and what the controller is still to be told. Pure: times
//! are seconds since the agent's start.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// An address that no connection has used for this long is not followed any more (seconds).
pub(super) const IDLE: u32 = 600;

/// The books of an agent that asks.
#[derive(Debug)]
pub(super) struct Ledger {
    followed: HashMap<IpAddr, Entry>,
    limit: usize,
    ask: BTreeSet<IpAddr>,
    leave: BTreeSet<IpAddr>,
}

#[derive(Debug, Default)]
struct Entry {
    used: AtomicU32,
    /// Why the controller's answer could not be used.
    refused: Option<Arc<str>>,
}

/// What the controller is to be told: first what to leave, then what to follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Not followed any more.
    pub leave: Vec<IpAddr>,
    /// Followed from now on.
    pub ask: Vec<IpAddr>,
}

impl Ledger {
    /// Books that follow nothing yet, and at most `limit` addresses.
    pub(super) fn new(limit: usize) -> Self {
        Self { followed: HashMap::new(), limit, ask: BTreeSet::new(), leave: BTreeSet::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.followed.len()
    }

    /// Whether the address is followed; then it is in use now.
    pub(super) fn touch(&self, ip: IpAddr, now: u32) -> bool {
        let entry = self.followed.get(&ip);
        entry.is_some_and(|entry| {
            // Most uses fall into one second: don't bounce the cache line.
            if entry.used.load(Ordering::Relaxed) != now {
                entry.used.store(now, Ordering::Relaxed);
            }
            entry.refused.is_none()
        })
    }

    /// Follows an address. One whose answer could not be used is asked for again.
    pub(super) fn follow(&mut self, ip: IpAddr, now: u32) {
        if self.touch(ip, now) {
            return;
        }
        if self.followed.len() >= self.limit && !self.followed.contains_key(&ip) {
            self.make_room();
        }
        self.followed.insert(ip, Entry { used: now.into(), refused: None });
        self.ask.insert(ip);
    }

    /// Follows what an earlier run of the agent followed; the session knows already.
    pub(super) fn restore(&mut self, ips: impl IntoIterator<Item = IpAddr>, now: u32) {
        self.followed.extend(ips.into_iter().map(|ip| (ip, Entry { used: now.into(), refused: None })));
    }

    /// The controller's answer about an address could not be used.
    pub(super) fn refuse(&mut self, ip: IpAddr, reason: Arc<str>) {
        if let Some(entry) = self.followed.get_mut(&ip) {
            entry.refused = Some(reason);
        }
    }

    /// Why the answer about an address could not be used.
    pub(super) fn refusal(&self, ip: IpAddr) -> Option<Arc<str>> {
        self.followed.get(&ip)?.refused.clone()
    }

    /// Leaves what nobody has used for long.
    pub(super) fn leave_idle(&mut self, now: u32) {
        self.leave_unless(|used| now.saturating_sub(used) < IDLE);
    }

    /// Takes what the controller is to be told.
    pub(super) fn take(&mut self) -> Demand {
        Demand {
            leave: std::mem::take(&mut self.leave).into_iter().collect(),
            ask: std::mem::take(&mut self.ask).into_iter().collect(),
        }
    }

    pub(super) fn has_demand(&self) -> bool {
        !self.ask.is_empty() || !self.leave.is_empty()
    }

    /// Leaves the tenth that was used longest ago.
    fn make_room(&mut self) {
        let mut uses: Vec<u32> = self.followed.values().map(Entry::used).collect();
        let tenth = uses.len() / 10;
        let (_, oldest, _) = uses.select_nth_unstable(tenth);
        let oldest = *oldest;
        let mut room = tenth + 1;
        self.leave_unless(|used| {
            let leave = used <= oldest && room > 0;
            room -= usize::from(leave);
            !leave
        });
    }

    fn leave_unless(&mut self, mut keep: impl FnMut(u32) -> bool) {
        let (ask, leave) = (&mut self.ask, &mut self.leave);
        self.followed.retain(|ip, entry| {
            let keep = keep(entry.used());
            // What was not asked for yet need not be left.
            if !keep && !ask.remove(ip) {
                leave.insert(*ip);
            }
            keep
        });
    }
}

impl Entry {
    fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn demand(ledger: &mut Ledger) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let Demand { leave, ask } = ledger.take();
        (leave, ask)
    }

    #[test]
    fn an_address_is_asked_for_once_and_left_when_it_idles() {
        let mut ledger = Ledger::new(10);
        ledger.follow(ip(1), 0);
        ledger.follow(ip(2), 0);
        ledger.follow(ip(1), 1);
        assert_eq!(demand(&mut ledger), (vec![], vec![ip(1), ip(2)]));
        assert!(ledger.touch(ip(2), IDLE) && !ledger.touch(ip(3), IDLE));
        ledger.leave_idle(IDLE);
        assert!(!ledger.has_demand(), "used one second after the start");
        ledger.leave_idle(IDLE + 1);
        assert_eq!(demand(&mut ledger), (vec![ip(1)], vec![]));
        ledger.follow(ip(1), IDLE + 2);
        assert_eq!(demand(&mut ledger), (vec![], vec![ip(1)]));
    }

    #[test]
    fn left_and_asked_for_again_before_anybody_was_told_is_said_in_that_order() {
        let mut ledger = Ledger::new(10);
        ledger.restore([ip(1)], 0);
        ledger.leave_idle(IDLE);
        ledger.follow(ip(1), IDLE);
        assert_eq!(demand(&mut ledger), (vec![ip(1)], vec![ip(1)]));
        // Never asked for: nothing to leave.
        ledger.follow(ip(2), IDLE);
        ledger.leave_idle(3 * IDLE);
        assert_eq!(demand(&mut ledger), (vec![ip(1)], vec![]));
    }

    #[test]
    fn under_pressure_the_longest_unused_go() {
        let mut ledger = Ledger::new(20);
        for last in 0..20 {
            ledger.follow(ip(last), u32::from(last));
        }
        ledger.take();
        ledger.follow(ip(100), 100);
        assert_eq!(demand(&mut ledger), (vec![ip(0), ip(1), ip(2)], vec![ip(100)]));
        assert_eq!(ledger.len(), 18);
        // All of one age: still room is made, and not by leaving all.
        let mut ledger = Ledger::new(20);
        (0..21).for_each(|last| ledger.follow(ip(last), 0));
        assert_eq!(ledger.len(), 18);
    }

    #[test]
    fn a_refused_answer_is_asked_for_again_by_the_next_connection() {
        let mut ledger = Ledger::new(10);
        ledger.follow(ip(1), 0);
        ledger.take();
        ledger.refuse(ip(1), "malformed".into());
        assert_eq!(ledger.refusal(ip(1)).as_deref(), Some("malformed"));
        ledger.follow(ip(1), 1);
        assert_eq!((ledger.refusal(ip(1)), demand(&mut ledger)), (None, (vec![], vec![ip(1)])));
    }
}
