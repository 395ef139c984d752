//! Endpoints that have failed lately, as this node has seen it: others come first for a while. Pure: time is an argument.
//!
//! ```text
//!   well --failure--> avoided (2 s, 4 s, ... 32 s) --> on trial: one connection is let through, the others wait for it
//!    ^                    ^                                      |
//!    '---- success -------+--------------------------------------+---- failure: avoided for twice as long
//! ```
//!
//! It is a preference, never a verdict: where nobody else is left, those that fail are tried.

use crate::hash::FastMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use warren_common::model::Workload;

/// How long an endpoint is avoided after its first failure; twice as long after each further one.
const FIRST: Duration = Duration::from_secs(2);
const DOUBLINGS: u32 = 4;
/// How long a trial may take before another connection tries.
const TRIAL: Duration = Duration::from_secs(4);
/// So long after its time an endpoint's failures are forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Endpoints that are remembered; beyond them new failures are not.
const MAX_ENDPOINTS: usize = 4096;
/// A node is avoided when so many of its pods are silent.
const SILENT_PODS: usize = 2;

/// What of an endpoint fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The application at one port.
    Port(u16),
    /// All of the pod.
    Pod,
    /// The pod does not answer at all, and perhaps no pod of its node does.
    Silent,
}

/// This node's memory.
#[derive(Clone, Debug, Default)]
pub struct Failing {
    endpoints: FastMap<Arc<str>, Endpoint>,
    /// Silent pods by node.
    nodes: FastMap<Arc<str>, Vec<(Arc<str>, Instant)>>,
}

#[derive(Clone, Debug)]
struct Endpoint {
    /// By port; 0 is every port.
    ports: Vec<(u16, Record)>,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    times: u32,
    until: Instant,
}

/// A pod by its UID, so that its successor of the same name starts anew.
fn key(endpoint: &Workload) -> &Arc<str> {
    let uid = &endpoint.enrolment.pod_uid;
    if uid.is_empty() { &endpoint.uid.0 } else { uid }
}

impl Failing {
    /// Whether others are to be preferred to `endpoint` at `port`.
    pub fn is_avoided(&self, endpoint: &Workload, port: u16, now: Instant) -> bool {
        if self.endpoints.is_empty() {
            return false;
        }
        let current = |(of, record): &(u16, Record)| (*of == 0 || *of == port) && now < record.until;
        let itself = self.endpoints.get(key(endpoint)).is_some_and(|known| known.ports.iter().any(current));
        itself || self.is_silent(&endpoint.node, now)
    }

    fn is_silent(&self, node: &Arc<str>, now: Instant) -> bool {
        let silent = |pods: &Vec<(Arc<str>, Instant)>| pods.iter().filter(|(_, until)| now < *until).count();
        self.nodes.get(node).map(silent).unwrap_or_default() >= SILENT_PODS
    }

    /// `endpoint` was chosen: if this is a trial, others keep away until it is known how that went.
    pub fn chosen(&mut self, endpoint: &Workload, port: u16, now: Instant) {
        let Some(known) = self.endpoints.get_mut(key(endpoint)) else { return };
        for (of, record) in &mut known.ports {
            if (*of == 0 || *of == port) && record.until <= now {
                record.until = now + TRIAL;
            }
        }
    }

    /// A connection to `endpoint` has failed.
    pub fn failed(&mut self, endpoint: &Workload, extent: Extent, now: Instant) {
        if self.endpoints.len() >= MAX_ENDPOINTS {
            self.sweep(now);
        }
        let key = key(endpoint);
        if self.endpoints.len() >= MAX_ENDPOINTS && !self.endpoints.contains_key(key) {
            return;
        }
        let port = match extent {
            Extent::Port(port) => port,
            Extent::Pod | Extent::Silent => 0,
        };
        let known = self
            .endpoints
            .entry(Arc::clone(key))
            .or_insert_with(|| Endpoint { ports: Vec::with_capacity(1) });
        let index = known.ports.iter().position(|(of, _)| *of == port).unwrap_or_else(|| {
            known.ports.push((port, Record { times: 0, until: now }));
            known.ports.len() - 1
        });
        let Some((_, record)) = known.ports.get_mut(index) else { return };
        let until = now + FIRST * 2_u32.pow(record.times.min(DOUBLINGS));
        *record = Record { times: record.times.saturating_add(1), until };
        if extent == Extent::Silent {
            let pods = self.nodes.entry(Arc::clone(&endpoint.node)).or_default();
            pods.retain(|(pod, until)| pod != key && now < *until);
            pods.push((Arc::clone(key), until));
        }
    }

    /// A connection to `endpoint` at `port` stands.
    pub fn succeeded(&mut self, endpoint: &Workload, port: u16) {
        if self.endpoints.is_empty() {
            return;
        }
        let key = key(endpoint);
        if let Some(known) = self.endpoints.get_mut(key) {
            known.ports.retain(|(of, _)| *of != 0 && *of != port);
            if known.ports.is_empty() {
                self.endpoints.remove(key);
            }
        }
        // Whatever was wrong with its node is over.
        self.nodes.remove(&endpoint.node);
    }

    fn sweep(&mut self, now: Instant) {
        let lately = |until: &Instant| now < *until + FORGOTTEN;
        self.endpoints.retain(|_, known| known.ports.iter().any(|(_, record)| lately(&record.until)));
        self.nodes.retain(|_, pods| pods.iter().any(|(_, until)| now < *until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::testing::pod;

    fn at(name: &str, node: &str) -> Workload {
        Workload { node: node.into(), ..Workload::clone(&pod(name, name, &[], true)) }
    }

    #[test]
    fn who_fails_is_avoided_longer_each_time_and_forgiven_at_once() {
        let (a, now) = (at("a", "n1"), Instant::now());
        let mut failing = Failing::default();
        assert!(!failing.is_avoided(&a, 80, now));
        let mut at_now = now;
        let mut pauses = Vec::new();
        for _ in 0..7 {
            failing.failed(&a, Extent::Pod, at_now);
            let began = at_now;
            while failing.is_avoided(&a, 80, at_now) {
                at_now += Duration::from_secs(1);
            }
            pauses.push(at_now.duration_since(began).as_secs());
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 32, 32]);
        failing.failed(&a, Extent::Pod, at_now);
        failing.succeeded(&a, 80);
        assert!(!failing.is_avoided(&a, 80, at_now) && failing.endpoints.is_empty());
    }

    #[test]
    fn one_connection_tries_first() {
        let (a, now) = (at("a", "n1"), Instant::now());
        let mut failing = Failing::default();
        failing.failed(&a, Extent::Pod, now);
        let later = now + FIRST;
        assert!(!failing.is_avoided(&a, 80, later));
        failing.chosen(&a, 80, later);
        assert!(failing.is_avoided(&a, 80, later), "the others wait for it");
        assert!(!failing.is_avoided(&a, 80, later + TRIAL), "not for ever");
    }

    #[test]
    fn a_port_is_not_the_pod() {
        let (a, now) = (at("a", "n1"), Instant::now());
        let mut failing = Failing::default();
        failing.failed(&a, Extent::Port(80), now);
        assert!(failing.is_avoided(&a, 80, now) && !failing.is_avoided(&a, 81, now));
        failing.succeeded(&a, 81);
        assert!(failing.is_avoided(&a, 80, now), "another port says nothing of it");
        failing.failed(&a, Extent::Pod, now);
        assert!(failing.is_avoided(&a, 81, now));
    }

    #[test]
    fn two_silent_pods_make_a_silent_node_and_one_answer_ends_that() {
        let now = Instant::now();
        let [a, b, c, d] =
            [("a", "n1"), ("b", "n1"), ("c", "n1"), ("d", "n2")].map(|(pod, node)| at(pod, node));
        let mut failing = Failing::default();
        failing.failed(&a, Extent::Silent, now);
        failing.failed(&a, Extent::Silent, now);
        assert!(!failing.is_avoided(&c, 80, now), "a NetworkPolicy of one pod is not its node's fault");
        failing.failed(&b, Extent::Silent, now);
        assert!(failing.is_avoided(&c, 80, now) && !failing.is_avoided(&d, 80, now));
        failing.succeeded(&c, 80);
        assert!(!failing.is_avoided(&c, 80, now) && failing.is_avoided(&a, 80, now));
    }

    #[test]
    fn a_pod_made_anew_starts_anew() {
        let now = Instant::now();
        let mut failing = Failing::default();
        failing.failed(&pod("db-0", "u1", &[], true), Extent::Pod, now);
        assert!(failing.is_avoided(&pod("db-0", "u1", &[], true), 80, now));
        assert!(!failing.is_avoided(&pod("db-0", "u2", &[], true), 80, now));
    }

    #[test]
    fn memory_is_bounded() {
        let now = Instant::now();
        let mut failing = Failing::default();
        for number in 0..MAX_ENDPOINTS + 10 {
            failing.failed(&at(&number.to_string(), "n1"), Extent::Pod, now);
        }
        assert_eq!(failing.endpoints.len(), MAX_ENDPOINTS);
        failing.failed(&at("late", "n1"), Extent::Pod, now + FIRST + FORGOTTEN);
        assert_eq!(failing.endpoints.len(), 1);
    }
}
