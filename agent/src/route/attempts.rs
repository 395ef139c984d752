//! Whether a connection that failed on its way is tried again: where, and when. Pure: time is an argument.
//!
//! ```text
//!            failed, nothing consumed                  nobody else is left
//!   attempt ------------------------> another endpoint -------------------> one round for those that only were spared,
//!      ^                                                                     or that should be there in a moment
//!      '------------------------------------------------------------------------------'
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};
use warren_common::model::{Workload, WorkloadUid};

/// How long a target that should be in the mesh may be missing: labels travel to two nodes at different times.
const SETTLE: Duration = Duration::from_secs(4);
/// Pauses while it settles.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// Endpoints of one service that are tried in one round.
const ENDPOINTS: usize = 6;

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody else would say anything else: a rule, an own certificate.
    Final,
    /// It was refused, and would be again. Not a byte of the application was consumed.
    Refused,
    /// The same, and it may go well in a moment: one of two nodes does not know yet what the other knows.
    Unsettled,
    /// No answer in time; its node may be gone.
    Silent,
    /// The pod is about to go and lets in only who has no other.
    Leaving,
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Try at once.
    Now,
    /// Try after a pause.
    After(Duration),
    /// It has failed.
    GiveUp,
}

/// How long the steps of one attempt may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a TCP connection.
    pub connect: Duration,
    /// For the TLS handshake with another agent.
    pub tls: Duration,
    /// For the answer to a stream, the far agent's connection to its application included.
    pub answer: Duration,
    /// There are others to try.
    pub has_alternatives: bool,
    /// It is less than this agent's own: who is late may be in time for others.
    pub is_shortened: bool,
}

impl Patience {
    /// For whom nobody else can be tried.
    const ALL: Self = Self {
        connect: Duration::from_secs(10),
        tls: Duration::from_secs(10),
        answer: Duration::from_secs(15),
        has_alternatives: false,
        is_shortened: false,
    };
    /// While there are others: a lost SYN is sent again after 1 s, and nobody should wait for a node that is gone.
    const SHORT: Self = Self {
        connect: Duration::from_secs(2),
        tls: Duration::from_secs(3),
        answer: Duration::from_secs(3),
        has_alternatives: true,
        is_shortened: false,
    };

    /// With a limit of its own for connecting, on this node and on the other: shorter or longer than what would be patient.
    pub fn limited_to(self, connect: Duration) -> Self {
        let is_shortened = self.is_shortened || connect < self.connect.max(self.answer);
        Self { connect, answer: connect, is_shortened, ..self }
    }
}

/// The attempts of one connection.
#[derive(Debug)]
pub struct Attempts {
    began: Instant,
    pause: Duration,
    /// In this round.
    failed: Vec<WorkloadUid>,
    /// Somebody of this round may be there in a moment.
    unsettled: bool,
    /// Somebody of this round would have answered if nobody else could be asked, or with more time.
    spared: bool,
    /// There is nobody else: all patience is theirs.
    insists: bool,
    silent_nodes: Vec<Arc<str>>,
}

impl Attempts {
    /// None yet.
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            pause: FIRST_PAUSE,
            failed: Vec::new(),
            unsettled: false,
            spared: false,
            insists: false,
            silent_nodes: Vec::new(),
        }
    }

    /// Endpoints that are not to be tried now.
    pub fn failed(&self) -> &[WorkloadUid] {
        &self.failed
    }

    /// Nodes of which a pod did not answer: who is elsewhere comes first.
    pub fn silent_nodes(&self) -> &[Arc<str>] {
        &self.silent_nodes
    }

    /// For the next attempt at a service with so many endpoints; 0 or 1 when there is no choice.
    pub fn patience(&self, endpoints: usize) -> Patience {
        let is_last = self.failed.len() + 1 >= endpoints.min(ENDPOINTS);
        if self.insists || is_last { Patience::ALL } else { Patience::SHORT }
    }

    /// An attempt has failed; `endpoint` is whom a service's choice fell on, if there was a choice.
    pub fn failed_at(
        &mut self,
        endpoint: Option<&Workload>,
        patience: Patience,
        failure: Failure,
        now: Instant,
    ) -> Step {
        self.unsettled |= failure == Failure::Unsettled;
        match endpoint {
            _ if failure == Failure::Final => Step::GiveUp,
            Some(endpoint) => {
                self.failed.push(endpoint.uid.clone());
                self.spared |=
                    matches!(failure, Failure::Leaving | Failure::Silent) && patience.has_alternatives;
                if failure == Failure::Silent && !self.silent_nodes.contains(&endpoint.node) {
                    self.silent_nodes.push(Arc::clone(&endpoint.node));
                }
                // All patience is spent once, not at each of them.
                let is_spent = self.insists && failure == Failure::Silent;
                if self.failed.len() < ENDPOINTS && !is_spent { Step::Now } else { self.nobody_else(now) }
            }
            None => self.nobody_else(now),
        }
    }

    /// All that could be tried has failed.
    pub fn nobody_else(&mut self, now: Instant) -> Step {
        let step = if self.spared && !self.insists {
            self.insists = true;
            Step::Now
        } else if self.unsettled && now.duration_since(self.began) < SETTLE {
            let pause = self.pause;
            self.pause = (pause * 2).min(LONGEST_PAUSE);
            Step::After(pause)
        } else {
            return Step::GiveUp;
        };
        self.failed.clear();
        self.unsettled = false;
        self.spared = false;
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::testing::pod;

    fn at(name: &str, node: &str) -> Workload {
        Workload { node: node.into(), ..Workload::clone(&pod(name, name, &[], true)) }
    }

    fn started() -> (Attempts, Instant) {
        let now = Instant::now();
        (Attempts::new(now), now)
    }

    /// A failure at a service of many endpoints.
    fn fail(attempts: &mut Attempts, endpoint: Option<&Workload>, failure: Failure, now: Instant) -> Step {
        let patience = attempts.patience(100);
        attempts.failed_at(endpoint, patience, failure, now)
    }

    #[test]
    fn whoever_refuses_is_passed_over_at_once_and_not_asked_twice() {
        let (mut attempts, now) = started();
        assert_eq!(attempts.nobody_else(now), Step::GiveUp, "nobody was there from the beginning");
        for name in ["a", "b"] {
            assert_eq!(fail(&mut attempts, Some(&at(name, "n1")), Failure::Refused, now), Step::Now);
        }
        assert_eq!(attempts.failed().len(), 2);
        assert_eq!(attempts.nobody_else(now), Step::GiveUp);
        assert_eq!(fail(&mut started().0, Some(&at("a", "n1")), Failure::Final, now), Step::GiveUp);
    }

    #[test]
    fn who_should_be_there_is_tried_again_until_that_is_too_late() {
        let (mut attempts, now) = started();
        let (mut at_now, mut rounds) = (now, 0);
        loop {
            // A pod that was dialled by its own address.
            match fail(&mut attempts, None, Failure::Unsettled, at_now) {
                Step::After(pause) => at_now += pause,
                Step::Now => panic!("without a pause"),
                Step::GiveUp => break,
            }
            rounds += 1;
        }
        let took = at_now.duration_since(now);
        assert!(took >= SETTLE && took < SETTLE + LONGEST_PAUSE && rounds < 30, "{rounds} in {took:?}");
        // Others come first, and then all of them again.
        let (mut attempts, now) = started();
        assert_eq!(fail(&mut attempts, Some(&at("a", "n1")), Failure::Unsettled, now), Step::Now);
        assert_eq!(fail(&mut attempts, Some(&at("b", "n1")), Failure::Refused, now), Step::Now);
        assert_eq!(attempts.nobody_else(now), Step::After(FIRST_PAUSE));
        assert!(attempts.failed().is_empty());
        assert_eq!(fail(&mut attempts, Some(&at("b", "n1")), Failure::Refused, now), Step::Now);
        assert_eq!(attempts.nobody_else(now), Step::GiveUp, "nothing of the second round settles");
    }

    #[test]
    fn who_only_was_spared_is_insisted_on_once_when_there_is_nobody_else() {
        for failure in [Failure::Leaving, Failure::Silent] {
            let (mut attempts, now) = started();
            assert!(attempts.patience(3).has_alternatives);
            assert_eq!(fail(&mut attempts, Some(&at("a", "n1")), failure, now), Step::Now);
            assert_eq!(attempts.nobody_else(now), Step::Now);
            assert_eq!(attempts.patience(3), Patience::ALL);
            let step = fail(&mut attempts, Some(&at("a", "n1")), failure, now);
            assert!(step == Step::GiveUp || attempts.nobody_else(now) == Step::GiveUp);
        }
    }

    #[test]
    fn patience_is_short_only_while_there_are_others() {
        let (mut attempts, now) = started();
        assert_eq!([0, 1].map(|endpoints| attempts.patience(endpoints)), [Patience::ALL; 2]);
        assert_eq!(attempts.patience(2), Patience::SHORT);
        fail(&mut attempts, Some(&at("a", "n1")), Failure::Silent, now);
        assert_eq!(attempts.patience(2), Patience::ALL);
        assert_eq!(attempts.patience(1000), Patience::SHORT);
    }

    #[test]
    fn no_connection_tries_a_large_service_to_its_end() {
        let (mut attempts, now) = started();
        let mut tried = 0;
        while fail(&mut attempts, Some(&at(&tried.to_string(), "n1")), Failure::Refused, now) == Step::Now {
            tried += 1;
        }
        assert_eq!(tried + 1, ENDPOINTS);
        assert_eq!(attempts.silent_nodes().len(), 0);
    }

    #[test]
    fn a_silent_node_is_remembered_once() {
        let (mut attempts, now) = started();
        for name in ["a", "b"] {
            fail(&mut attempts, Some(&at(name, "n7")), Failure::Silent, now);
        }
        assert_eq!(attempts.silent_nodes(), [Arc::from("n7")]);
    }
}
