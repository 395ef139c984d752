//! Who has how much open. Pure: times are seconds of any clock that does not go back.

use super::{Limit, LimitsConfig};
use crate::hash::FastMap;
use std::collections::HashMap;
use std::net::IpAddr;
use warren_common::model::WorkloadUid;

/// What a pod asks the agent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A connection of an application, in either direction.
    Connection,
    /// A TLS handshake that somebody has begun with the pod.
    Handshake(IpAddr),
    /// An authenticated tunnel into the pod.
    Tunnel(IpAddr),
    /// A request of an application that is under way.
    Request,
    /// A byte of a request that is kept to be sent again.
    Kept,
    /// A byte that may come before anybody reads it.
    Unread,
}

/// Refusals of one pod that are told one by one, per second; all are counted.
const TOLD: u32 = 10;

/// More pods than a node runs.
const SWEEP: usize = 1024;

/// The books.
#[derive(Debug)]
pub(super) struct Ledger {
    config: LimitsConfig,
    node: Usage,
    pods: FastMap<WorkloadUid, PodUsage>,
    refused: HashMap<Limit, u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    connections: usize,
    handshakes: usize,
    tunnels: usize,
    requests: usize,
    kept: usize,
    unread: usize,
}

#[derive(Debug, Default)]
struct PodUsage {
    all: Usage,
    peers: HashMap<IpAddr, Usage>,
    told: (u64, u32),
}

impl PodUsage {
    /// Whether one more refusal should be told.
    fn tells(&mut self, now: u64) -> bool {
        if self.told.0 != now {
            self.told = (now, 0);
        }
        self.told.1 = self.told.1.saturating_add(1);
        self.told.1 <= TOLD
    }
}

impl Usage {
    fn of(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Connection => &mut self.connections,
            Kind::Handshake(_) => &mut self.handshakes,
            Kind::Tunnel(_) => &mut self.tunnels,
            Kind::Request => &mut self.requests,
            Kind::Kept => &mut self.kept,
            Kind::Unread => &mut self.unread,
        }
    }
}

impl Kind {
    fn peer(self) -> Option<IpAddr> {
        match self {
            Self::Connection | Self::Request | Self::Kept | Self::Unread => None,
            Self::Handshake(peer) | Self::Tunnel(peer) => Some(peer),
        }
    }
}

/// One too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Which limit.
    pub(super) limit: Limit,
    /// Whether this one should be told, or has been told often enough in this second.
    pub(super) tell: bool,
}

impl Ledger {
    pub(super) fn new(config: LimitsConfig) -> Self {
        Self { config, node: Usage::default(), pods: FastMap::default(), refused: HashMap::new() }
    }

    /// Counts what has happened; whether it should be told.
    pub(super) fn exceeded(&mut self, pod: &WorkloadUid, limit: Limit, now: u64) -> bool {
        *self.refused.entry(limit).or_default() += 1;
        self.usage(pod, now).is_none_or(|usage| usage.tells(now))
    }

    fn usage(&mut self, pod: &WorkloadUid, now: u64) -> Option<&mut PodUsage> {
        if !self.pods.contains_key(pod) {
            if self.pods.len() >= SWEEP {
                // Pods that were refused and never had anything; all others leave with the last that they give back.
                self.pods.retain(|_, usage| usage.all != Usage::default() || usage.told.0 == now);
            }
            self.pods.insert(pod.clone(), PodUsage::default());
        }
        self.pods.get_mut(pod)
    }

    /// Takes so many more in, or says which limit forbids that. The narrowest limit is named: who is told of the node's limit
    /// is not the one to blame.
    pub(super) fn take(
        &mut self,
        pod: &WorkloadUid,
        kind: Kind,
        amount: usize,
        now: u64,
    ) -> Result<(), Refused> {
        let of_node = *self.node.of(kind);
        let config = self.config;
        let Some(usage) = self.usage(pod, now) else { return Ok(()) };
        let of_peer = kind.peer().map(|peer| *usage.peers.entry(peer).or_default().of(kind));
        let of_pod = *usage.all.of(kind);
        let counts = [of_peer, Some(of_pod), Some(of_node)];
        let limit = Limit::of(kind).into_iter().zip(counts).find_map(|(limit, count)| {
            let limit = limit?;
            (count?.saturating_add(amount) > config.get(limit)).then_some(limit)
        });
        if let Some(limit) = limit {
            // Who is only not kept for a second try, or has a smaller window, is served all the same: nobody is told.
            let tell = !matches!(kind, Kind::Kept | Kind::Unread) && usage.tells(now);
            // An entry was made to look: nothing may stay of somebody who has nothing open.
            if let Some(peer) = kind.peer()
                && usage.peers.get(&peer) == Some(&Usage::default())
            {
                usage.peers.remove(&peer);
            }
            *self.refused.entry(limit).or_default() += 1;
            return Err(Refused { limit, tell });
        }
        if let Some(peer) = kind.peer() {
            *usage.peers.entry(peer).or_default().of(kind) += amount;
        }
        *usage.all.of(kind) += amount;
        *self.node.of(kind) += amount;
        Ok(())
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&mut self, pod: &WorkloadUid, kind: Kind, amount: usize) {
        let less = |count: &mut usize| *count = count.saturating_sub(amount);
        less(self.node.of(kind));
        let Some(usage) = self.pods.get_mut(pod) else { return };
        less(usage.all.of(kind));
        if let Some(peer) = kind.peer()
            && let Some(of_peer) = usage.peers.get_mut(&peer)
        {
            less(of_peer.of(kind));
            if *of_peer == Usage::default() {
                usage.peers.remove(&peer);
            }
        }
        if usage.all == Usage::default() {
            self.pods.remove(pod);
        }
    }

    /// Refusals so far, by limit.
    pub(super) fn refused(&self) -> Vec<(&'static str, u64)> {
        let count = |limit: Limit| self.refused.get(&limit).copied().unwrap_or_default();
        Limit::ALL.iter().map(|limit| (limit.as_str(), count(*limit))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pod(number: u8) -> WorkloadUid {
        WorkloadUid(format!("pod-{number}").into())
    }

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn small() -> LimitsConfig {
        LimitsConfig {
            connections_per_pod: 3,
            connections_per_node: 5,
            handshakes_per_peer: 2,
            handshakes_per_pod: 3,
            handshakes_per_node: 4,
            tunnels_per_peer: 1,
            tunnels_per_pod: 2,
            requests_per_pod: 2,
            requests_per_node: 3,
            kept_bytes_per_pod: 300,
            kept_bytes_per_node: 500,
            unread_bytes_per_pod: 300,
            unread_bytes_per_node: 500,
            ..LimitsConfig::DEFAULT
        }
    }

    fn limit(outcome: Result<(), Refused>) -> Option<&'static str> {
        outcome.err().map(|refused| refused.limit.as_str())
    }

    #[test]
    fn each_limit_is_named_and_one_more_than_it_is_refused() {
        let mut ledger = Ledger::new(small());
        let mut take = |number, kind| limit(ledger.take(&pod(number), kind, 1, 0));
        for _ in 0..3 {
            assert_eq!(take(1, Kind::Connection), None);
        }
        assert_eq!(take(1, Kind::Connection), Some("connections_per_pod"));
        assert_eq!([take(2, Kind::Connection), take(2, Kind::Connection)], [None, None]);
        assert_eq!(take(2, Kind::Connection), Some("connections_per_node"));
        let handshake = |last| Kind::Handshake(ip(last));
        assert_eq!([take(1, handshake(1)), take(1, handshake(1))], [None, None]);
        assert_eq!(take(1, handshake(1)), Some("handshakes_per_peer"));
        assert_eq!(take(1, handshake(2)), None, "one peer does not use up what others need");
        assert_eq!(take(1, handshake(3)), Some("handshakes_per_pod"));
        assert_eq!([take(2, handshake(1)), take(2, handshake(1))], [None, Some("handshakes_per_node")]);
        let tunnel = |last| Kind::Tunnel(ip(last));
        assert_eq!([take(1, tunnel(1)), take(1, tunnel(1))], [None, Some("tunnels_per_peer")]);
        assert_eq!([take(1, tunnel(2)), take(1, tunnel(3))], [None, Some("tunnels_per_pod")]);
        assert_eq!([take(1, Kind::Request), take(1, Kind::Request), take(2, Kind::Request)], [None; 3]);
        assert_eq!(take(1, Kind::Request), Some("requests_per_pod"));
        assert_eq!(take(2, Kind::Request), Some("requests_per_node"));
        let counted: u64 = ledger.refused().iter().map(|(_, count)| count).sum();
        assert_eq!(counted, 9);
    }

    #[test]
    fn bytes_are_counted_as_many_as_they_are() {
        for (kind, of_pod, of_node) in [
            (Kind::Kept, "kept_bytes_per_pod", "kept_bytes_per_node"),
            (Kind::Unread, "unread_bytes_per_pod", "unread_bytes_per_node"),
        ] {
            let mut ledger = Ledger::new(small());
            let mut take = |number, bytes| limit(ledger.take(&pod(number), kind, bytes, 0));
            assert_eq!([take(1, 200), take(1, 101), take(1, 100)], [None, Some(of_pod), None]);
            assert_eq!([take(2, 201), take(2, 200)], [Some(of_node), None]);
            ledger.give_back(&pod(1), kind, 200);
            assert_eq!(limit(ledger.take(&pod(1), kind, 200, 0)), None);
            assert!(ledger.take(&pod(1), kind, 500, 0).is_err_and(|refused| !refused.tell));
        }
    }

    #[test]
    fn a_flood_of_refusals_is_told_in_samples() {
        let mut ledger = Ledger::new(LimitsConfig { connections_per_pod: 0, ..small() });
        let mut told = |now| {
            let refusals = (0..1000).filter_map(|_| ledger.take(&pod(1), Kind::Connection, 1, now).err());
            refusals.filter(|refused| refused.tell).count()
        };
        assert_eq!([told(1), told(1), told(2)], [TOLD as usize, 0, TOLD as usize]);
        assert_eq!(ledger.refused()[0], ("connections_per_pod", 3000));
    }

    #[test]
    fn what_has_happened_is_counted_and_told_in_samples_too() {
        let mut ledger = Ledger::new(small());
        let told = (0..1000).filter(|_| ledger.exceeded(&pod(1), Limit::HeaderSize, 1)).count();
        assert_eq!(told, TOLD as usize);
        assert!(
            ledger.exceeded(&pod(2), Limit::HeaderSize, 1) && ledger.exceeded(&pod(1), Limit::HeaderSize, 2)
        );
        assert!(ledger.refused().contains(&("header_size", 1002)));
    }

    #[test]
    fn pods_that_never_had_anything_are_forgotten() {
        let mut ledger = Ledger::new(LimitsConfig { connections_per_node: 0, ..small() });
        for number in 0..3 * SWEEP {
            let pod = WorkloadUid(format!("pod-{number}").into());
            assert!(ledger.take(&pod, Kind::Connection, 1, number as u64).is_err());
        }
        assert!(ledger.pods.len() <= SWEEP);
    }

    proptest! {
        #[test]
        fn what_is_given_back_leaves_nothing(
            steps in prop::collection::vec((0_u8..3, 0_u8..5, 0_u8..3), 0..100),
        ) {
            let mut ledger = Ledger::new(small());
            let mut held = Vec::new();
            for (number, kind, peer) in steps {
                let kind = match kind {
                    0 => Kind::Connection,
                    1 => Kind::Handshake(ip(peer)),
                    2 => Kind::Tunnel(ip(peer)),
                    3 => Kind::Request,
                    _ => Kind::Kept,
                };
                let amount = if kind == Kind::Kept { usize::from(peer) * 100 } else { 1 };
                if ledger.take(&pod(number), kind, amount, 0).is_ok() {
                    held.push((pod(number), kind, amount));
                }
            }
            prop_assert_eq!(ledger.node.connections, held.iter().filter(|(_, k, _)| *k == Kind::Connection).count());
            prop_assert!(ledger.node.kept <= 500);
            for (pod, kind, amount) in held {
                ledger.give_back(&pod, kind, amount);
            }
            prop_assert_eq!(ledger.node, Usage::default());
            // A pod that was refused and holds nothing is forgotten at its next end.
            prop_assert!(ledger.pods.values().all(|usage| usage.all == Usage::default() && usage.peers.is_empty()));
        }
    }
}
