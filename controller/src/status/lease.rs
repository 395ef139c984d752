//! Who of the replicas writes (Lease, coordination.k8s.io/v1). Pure: time is an argument.
//!
//! ```text
//!   Follower --nobody holds it, or the holder's record stood still for 15 s--> write --accepted--> Leader
//!      ^                                                                         ^--- every 5 s ------'
//!      `---- somebody else wrote; or 10 s since our last accepted write ------------------------------'
//! ```
//!
//! Clocks of replicas are never compared: a holder is dead when its record did not change for 15 s of *our* time. A
//! leader stops 5 s before anybody may think so.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// A record that stands still for so long is nobody's.
pub(super) const DURATION: Duration = Duration::from_secs(15);
/// A leader that could not write for so long is none any more.
const DEADLINE: Duration = Duration::from_secs(10);

/// The lease as the API server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Empty when it was given back.
    pub(super) holder: String,
    /// Changes with every write.
    pub(super) version: String,
    /// How often the holder changed.
    pub(super) transitions: i32,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Somebody else leads.
    Wait,
    /// Make the lease; there is none.
    Create,
    /// Write ourselves into it, on top of the version that was seen.
    Write {
        /// To write.
        transitions: i32,
        /// It was not ours before.
        taken: bool,
    },
}

/// One replica's view.
#[derive(Debug)]
pub(super) struct Election {
    me: Arc<str>,
    /// The latest version, and when it was seen first.
    seen: Option<(String, Instant)>,
    until: Option<Instant>,
}

impl Election {
    pub(super) fn new(me: Arc<str>) -> Self {
        Self { me, seen: None, until: None }
    }

    /// The lease was read.
    pub(super) fn observe(&mut self, record: Option<&Record>, now: Instant) -> Step {
        let Some(record) = record else {
            self.seen = None;
            return Step::Create;
        };
        let since = match &self.seen {
            Some((version, since)) if *version == record.version => *since,
            _ => {
                self.seen = Some((record.version.clone(), now));
                now
            }
        };
        if *record.holder == *self.me {
            return Step::Write { transitions: record.transitions, taken: false };
        }
        self.until = None;
        if record.holder.is_empty() || now.saturating_duration_since(since) >= DURATION {
            return Step::Write { transitions: record.transitions.saturating_add(1), taken: true };
        }
        Step::Wait
    }

    /// Our write, begun at `begun`, was accepted. From its beginning on, not its end: the answer may have been slow.
    pub(super) fn accepted(&mut self, begun: Instant) {
        self.until = Some(begun + DEADLINE);
    }

    /// Somebody else wrote first.
    pub(super) fn overtaken(&mut self) {
        self.until = None;
    }

    /// Until when this replica leads, if it does.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The API server and some replicas, in simulated time.
    struct World {
        now: Instant,
        lease: Option<Record>,
        writes: u32,
        replicas: Vec<Election>,
        /// Cut off from the API server.
        cut: Vec<bool>,
    }

    impl World {
        fn new(replicas: &[&str]) -> Self {
            let elections = replicas.iter().map(|name| Election::new((*name).into())).collect();
            Self {
                now: Instant::now(),
                lease: None,
                writes: 0,
                replicas: elections,
                cut: vec![false; replicas.len()],
            }
        }

        fn write(&mut self, who: usize, read: Option<&Record>, transitions: i32) {
            if self.lease.as_ref().map(|l| &l.version) != read.map(|r| &r.version) {
                return self.replicas[who].overtaken();
            }
            self.writes += 1;
            let holder = self.replicas[who].me.to_string();
            self.lease = Some(Record { holder, version: self.writes.to_string(), transitions });
            self.replicas[who].accepted(self.now);
        }

        /// All read before any writes: the worst interleaving.
        fn round(&mut self) {
            let read = self.lease.clone();
            let awake: Vec<_> = (0..self.replicas.len()).filter(|who| !self.cut[*who]).collect();
            let steps: Vec<_> =
                awake.iter().map(|who| self.replicas[*who].observe(read.as_ref(), self.now)).collect();
            for (who, step) in awake.into_iter().zip(steps) {
                match step {
                    Step::Wait => {}
                    Step::Create => self.write(who, None, 0),
                    Step::Write { transitions, .. } => self.write(who, read.as_ref(), transitions),
                }
            }
        }

        fn leaders(&self) -> Vec<usize> {
            let leads = |who: &usize| self.replicas[*who].until().is_some_and(|until| self.now < until);
            (0..self.replicas.len()).filter(leads).collect()
        }

        fn pass(&mut self, seconds: u64) {
            for second in 0..seconds {
                self.now += Duration::from_secs(1);
                if second % 5 == 4 {
                    self.round();
                }
                assert!(self.leaders().len() <= 1, "two leaders");
            }
        }
    }

    #[test]
    fn one_of_many_leads_and_goes_on() {
        let mut world = World::new(&["a", "b", "c"]);
        world.round();
        let first = world.leaders();
        assert_eq!(first.len(), 1);
        world.pass(120);
        assert_eq!(world.leaders(), first);
        assert_eq!(world.lease.as_ref().unwrap().transitions, 0);
    }

    #[test]
    fn a_leader_that_is_cut_off_stops_before_another_starts() {
        let mut world = World::new(&["a", "b"]);
        world.round();
        assert_eq!(world.leaders(), [0]);
        world.cut[0] = true;
        world.pass(9);
        assert_eq!(world.leaders(), [0]);
        world.pass(1);
        assert_eq!(world.leaders(), [] as [usize; 0]);
        world.pass(15);
        assert_eq!(world.leaders(), [1]);
        assert_eq!(world.lease.as_ref().unwrap().transitions, 1);
        // It comes back, sees the other, and follows.
        world.cut[0] = false;
        world.pass(30);
        assert_eq!(world.leaders(), [1]);
    }

    #[test]
    fn what_was_given_back_is_taken_at_once() {
        let mut world = World::new(&["a", "b"]);
        world.round();
        world.cut[0] = true;
        world.replicas[0].overtaken();
        let record = Record { holder: String::new(), version: "released".into(), transitions: 3 };
        world.lease = Some(record);
        world.round();
        assert_eq!(world.leaders(), [1]);
        assert_eq!(world.lease.as_ref().unwrap().transitions, 4);
    }

    #[test]
    fn a_restarted_holder_goes_on_and_a_deleted_lease_is_made_anew() {
        let mut world = World::new(&["a", "b"]);
        world.round();
        world.replicas[0] = Election::new("a".into());
        assert_eq!(world.leaders(), [] as [usize; 0]);
        world.round();
        assert_eq!(world.leaders(), [0]);
        world.lease = None;
        world.pass(5);
        assert_eq!(world.leaders().len(), 1);
    }

    #[test]
    fn a_foreign_record_ends_leadership_at_once() {
        let now = Instant::now();
        let mut election = Election::new("a".into());
        election.accepted(now);
        let theirs = Record { holder: "b".into(), version: "9".into(), transitions: 1 };
        assert_eq!(election.observe(Some(&theirs), now), Step::Wait);
        assert_eq!(election.until(), None);
        let later = now + DURATION - Duration::from_millis(1);
        assert_eq!(election.observe(Some(&theirs), later), Step::Wait);
        let step = Step::Write { transitions: 2, taken: true };
        assert_eq!(election.observe(Some(&theirs), now + DURATION), step);
    }
}
