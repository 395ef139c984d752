//! Which addresses and services are followed, since when nobody used them, and what the controller is still to be told.
//! Pure: times are seconds since the agent's start.
//!
//! A service is used when an address is from which rules lead there, or when what goes there waits for it. So it is left
//! together with the last of those addresses, and some time after the rules have gone.

use crate::store::Sought;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What no connection has used for this long is not followed any more (seconds).
pub(super) const IDLE: u32 = 600;

/// The books of an agent that asks.
#[derive(Debug)]
pub(super) struct Ledger {
    followed: HashMap<Sought, Entry>,
    limit: usize,
    ask: BTreeSet<Sought>,
    leave: BTreeSet<Sought>,
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
    pub leave: Vec<Sought>,
    /// Followed from now on.
    pub ask: Vec<Sought>,
}

impl Ledger {
    /// Books that follow nothing yet, and at most `limit` addresses and services.
    pub(super) fn new(limit: usize) -> Self {
        Self { followed: HashMap::new(), limit, ask: BTreeSet::new(), leave: BTreeSet::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.followed.len()
    }

    /// Whether it is followed, and its answer can be used; then it is in use now.
    pub(super) fn touch(&self, sought: &Sought, now: u32) -> bool {
        let entry = self.followed.get(sought);
        entry.is_some_and(|entry| {
            // Most uses fall into one second: don't bounce the cache line.
            if entry.used.load(Ordering::Relaxed) != now {
                entry.used.store(now, Ordering::Relaxed);
            }
            entry.refused.is_none()
        })
    }

    /// Follows an address or a service. One whose answer could not be used is asked for again.
    pub(super) fn follow(&mut self, sought: Sought, now: u32) {
        if self.touch(&sought, now) {
            return;
        }
        if self.followed.len() >= self.limit && !self.followed.contains_key(&sought) {
            self.make_room();
        }
        self.ask_for(sought, now);
    }

    /// When any of these was last used; none: none of them is followed.
    pub(super) fn last_use(&self, all: impl IntoIterator<Item = Sought>) -> Option<u32> {
        all.into_iter().filter_map(|sought| self.followed.get(&sought)).map(Entry::used).max()
    }

    /// Whether it is followed; then it was in use at `used`, for something leads there that was.
    pub(super) fn keep(&self, sought: &Sought, used: u32) -> bool {
        let entry = self.followed.get(sought);
        entry.is_some_and(|entry| {
            entry.used.fetch_max(used, Ordering::Relaxed);
            true
        })
    }

    /// Follows that to which something leads that was used at `used`, while there is room: nothing is left for its sake.
    pub(super) fn lead(&mut self, sought: Sought, used: u32) {
        if !self.keep(&sought, used) && self.followed.len() < self.limit {
            self.ask_for(sought, used);
        }
    }

    fn ask_for(&mut self, sought: Sought, used: u32) {
        self.followed.insert(sought.clone(), Entry { used: used.into(), refused: None });
        self.ask.insert(sought);
    }

    /// Follows what an earlier run of the agent followed; the session knows already.
    pub(super) fn restore(&mut self, all: impl IntoIterator<Item = Sought>, now: u32) {
        let entries = all.into_iter().map(|sought| (sought, Entry { used: now.into(), refused: None }));
        self.followed.extend(entries);
    }

    /// The controller's answer could not be used.
    pub(super) fn refuse(&mut self, sought: &Sought, reason: Arc<str>) {
        if let Some(entry) = self.followed.get_mut(sought) {
            entry.refused = Some(reason);
        }
    }

    /// Why the answer could not be used.
    pub(super) fn refusal(&self, sought: &Sought) -> Option<Arc<str>> {
        self.followed.get(sought)?.refused.clone()
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
        self.followed.retain(|sought, entry| {
            let keep = keep(entry.used());
            // What was not asked for yet need not be left.
            if !keep && !ask.remove(sought) {
                leave.insert(sought.clone());
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

    use std::net::IpAddr;
    use warren_common::model::ServiceName;

    fn ip(last: u8) -> Sought {
        IpAddr::from([10, 0, 0, last]).into()
    }

    fn service(name: &str) -> Sought {
        ServiceName { namespace: "shop".into(), hostname: name.into() }.into()
    }

    fn demand(ledger: &mut Ledger) -> (Vec<Sought>, Vec<Sought>) {
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
        assert!(ledger.touch(&ip(2), IDLE) && !ledger.touch(&ip(3), IDLE));
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
        ledger.refuse(&ip(1), "malformed".into());
        assert_eq!(ledger.refusal(&ip(1)).as_deref(), Some("malformed"));
        ledger.follow(ip(1), 1);
        assert_eq!((ledger.refusal(&ip(1)), demand(&mut ledger)), (None, (vec![], vec![ip(1)])));
    }
    #[test]
    fn a_service_is_left_with_what_leads_there() {
        let (mut ledger, web, other) = (Ledger::new(10), ip(1), service("other"));
        let lead = |ledger: &mut Ledger| {
            let used = ledger.last_use([ip(9), ip(1)]);
            used.into_iter().for_each(|used| ledger.lead(service("other"), used));
            used
        };
        assert_eq!(lead(&mut ledger), None, "nobody dials what leads there");
        ledger.follow(web.clone(), 0);
        assert_eq!(lead(&mut ledger), Some(0));
        assert_eq!(demand(&mut ledger), (vec![], vec![web.clone(), other.clone()]));
        // Nobody dials it, and still it is in use.
        assert!(ledger.touch(&web, IDLE));
        assert_eq!(lead(&mut ledger), Some(IDLE));
        ledger.leave_idle(2 * IDLE - 1);
        assert!(!ledger.has_demand() && ledger.len() == 2);
        // A look into the past changes nothing.
        assert!(ledger.keep(&other, 1));
        lead(&mut ledger);
        ledger.leave_idle(2 * IDLE);
        assert_eq!(demand(&mut ledger), (vec![web.clone(), other.clone()], vec![]));

        // The rules have gone: it goes, the address stays.
        ledger.follow(web.clone(), 3 * IDLE);
        lead(&mut ledger);
        ledger.take();
        ledger.touch(&web, 4 * IDLE);
        ledger.leave_idle(4 * IDLE);
        assert_eq!(demand(&mut ledger), (vec![other], vec![]));
        assert_eq!(ledger.len(), 1);
    }

    #[test]
    fn where_rules_lead_is_followed_while_there_is_room_and_a_refusal_stands() {
        let mut ledger = Ledger::new(2);
        ledger.follow(ip(1), 0);
        ledger.lead(service("a"), 0);
        ledger.lead(service("b"), 0);
        assert_eq!(demand(&mut ledger), (vec![], vec![ip(1), service("a")]), "for b there is no room");
        // Not asked for again and again, only by who wants to go there.
        ledger.refuse(&service("a"), "malformed".into());
        ledger.lead(service("a"), 1);
        assert!(!ledger.has_demand() && ledger.refusal(&service("a")).is_some());
        ledger.follow(service("a"), 2);
        assert_eq!(demand(&mut ledger), (vec![], vec![service("a")]));
    }
}
