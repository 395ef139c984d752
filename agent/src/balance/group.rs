//! The endpoints of a service, port and subset for one client, in the order in which they are used.

use super::hash::{HashTable, hash_of};
use super::locality::{Order, Place};
use super::policy::Effective;
use crate::route::http::Split;
use crate::route::{Rank, rank};
use crate::store::Mesh;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use warren_common::model::traffic::{Balancer, HashKey, LocalityBalancing, Selector, SimpleBalancer, Warmup};
use warren_common::model::{Mode, Service, Workload};

/// An endpoint and the port to reach it at.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The workload.
    pub workload: Arc<Workload>,
    /// Its own port.
    pub port: u16,
}

/// The endpoints of a service, port and subset for one client. Never changes: made anew when the service, its endpoints or the
/// policy do.
#[derive(Debug)]
pub struct Group {
    pub(super) endpoints: Vec<Endpoint>,
    // The nearest first; none is empty.
    pub(super) levels: Vec<Level>,
    pub(super) way: Way,
    pub(super) warmup: Option<Warmup>,
    pub(super) min_health_percent: u8,
}

/// Endpoints that are used alike, unless there are shares.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) parts: Vec<Part>,
    // Of the parts.
    pub(super) shares: Split,
}

#[derive(Debug)]
pub(super) struct Part {
    pub(super) share: u32,
    // Indexes of endpoints.
    pub(super) members: Vec<u32>,
    // Of the members.
    pub(super) weights: Split,
    pub(super) is_even: bool,
    pub(super) table: Option<HashTable>,
}

/// How one is picked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Simple(SimpleBalancer),
    Hash(HashKey),
}

impl Group {
    /// The endpoints of `service` behind `port` for `client`, with the subset's labels, under the policy that is in force.
    ///
    /// Of readiness, hints and `internalTrafficPolicy` the same holds as without a policy: who terminates is there only when
    /// nobody is ready, and whoever is meant for others only when nobody is meant for this client.
    pub fn new(mesh: &Mesh, service: &Service, client: &Workload, port: u16, policy: &Effective) -> Self {
        let has = |labels: &Selector, workload: &Workload| {
            labels.iter().all(|(key, value)| workload.labels.get(key) == Some(value))
        };
        let members = mesh.endpoints(&service.key).filter(|workload| has(&policy.labels, workload));
        let ranked: Vec<_> = members
            .filter_map(|workload| {
                let (rank, port) = rank(service, client, port, workload)?;
                Some((rank, Endpoint { workload: Arc::clone(workload), port }))
            })
            .collect();
        let class = |rank: &Rank| (rank.terminating, rank.meant_for_others);
        let best = ranked.iter().map(|(rank, _)| class(rank)).min();
        let used: Vec<_> = ranked.into_iter().filter(|(rank, _)| Some(class(rank)) == best).collect();
        // Istio's own default: localities count where there is outlier detection.
        let default = LocalityBalancing { enabled: true, ..LocalityBalancing::default() };
        let balancer = policy.policy.balancer.as_ref();
        let setting = match balancer.and_then(|balancer| balancer.locality.as_ref()) {
            Some(setting) => Some(setting),
            None if service.steering.mode == Mode::Failover => None,
            None => Some(&default),
        };
        let here = &client.placement.locality;
        let order = setting.map(|setting| Order::new(setting, here, policy.policy.outliers.is_some()));
        let placed = used.into_iter().map(|(rank, endpoint)| match &order {
            None => (Place::Level(rank.distance), endpoint),
            Some(order) => (order.place(client, &endpoint.workload), endpoint),
        });
        let shares = match &order {
            Some(Order::Shares(parts)) => parts.iter().map(|(_, percent)| *percent).collect(),
            _ => vec![],
        };
        Self::of(placed.collect(), &shares, policy)
    }

    pub(super) fn of(placed: Vec<(Place, Endpoint)>, shares: &[u32], policy: &Effective) -> Self {
        let balancer = policy.policy.balancer.clone().unwrap_or_default();
        // By level, then by part: gaps between levels are closed.
        let mut levels: BTreeMap<usize, BTreeMap<usize, Vec<u32>>> = BTreeMap::new();
        let mut endpoints = Vec::with_capacity(placed.len());
        for (place, endpoint) in placed {
            let (level, part) = match place {
                Place::Level(level) => (level, 0),
                Place::Part(part) => (0, part),
                Place::Nowhere => continue,
            };
            levels.entry(level).or_default().entry(part).or_default().push(endpoints.len() as u32);
            endpoints.push(endpoint);
        }
        let level = |parts: BTreeMap<usize, Vec<u32>>| {
            let part = |(part, members): (usize, Vec<u32>)| {
                Part::new(shares.get(part).copied().unwrap_or(1), members, &endpoints, &balancer)
            };
            let parts: Vec<_> = parts.into_iter().map(part).collect();
            Level { shares: Split::new(parts.iter().map(|part| part.share)), parts }
        };
        let levels = levels.into_values().map(level).collect();
        let way = match balancer.hash {
            Some((key, _)) => Way::Hash(key),
            None => Way::Simple(balancer.simple),
        };
        let min_health_percent =
            policy.policy.outliers.as_ref().map_or(0, |outliers| outliers.min_health_percent);
        Self { endpoints, levels, way, warmup: balancer.warmup, min_health_percent }
    }

    /// Every endpoint that may be picked.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// `PASSTHROUGH`: the connection goes to the address that was dialled, if it is an endpoint's ([`Self::at`]). A service's
    /// own address leads to any endpoint, as it would without a proxy.
    pub fn is_passthrough(&self) -> bool {
        self.way == Way::Simple(SimpleBalancer::Passthrough)
    }

    /// The endpoint that has this address, if one does.
    pub fn at(&self, address: IpAddr) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.workload.addresses.contains(&address))
    }

    /// What requests are to be hashed by ([`hash_input`](super::hash_input)), if they are.
    pub fn hash_key(&self) -> Option<&HashKey> {
        match &self.way {
            Way::Hash(key) => Some(key),
            Way::Simple(_) => None,
        }
    }
}

impl Part {
    fn new(share: u32, members: Vec<u32>, endpoints: &[Endpoint], balancer: &Balancer) -> Self {
        let of = |member: &u32| endpoints.get(*member as usize);
        let weight = |member: &u32| of(member).map_or(1, Endpoint::weight);
        let weights: Vec<_> = members.iter().map(weight).collect();
        let table = balancer.hash.as_ref().map(|(_, kind)| {
            let named: Vec<_> = members
                .iter()
                .zip(&weights)
                .map(|(member, weight)| (of(member).map_or(0, Endpoint::hash), *weight))
                .collect();
            HashTable::new(*kind, &named)
        });
        let is_even = weights.windows(2).all(|pair| matches!(pair, [one, other] if one == other));
        Self { share, members, weights: Split::new(weights), is_even, table }
    }
}

impl Endpoint {
    pub(super) fn weight(&self) -> u32 {
        self.workload.placement.weight.max(1)
    }

    fn hash(&self) -> u64 {
        hash_of(format!("{}:{}", self.workload.uid, self.port).as_bytes())
    }
}
