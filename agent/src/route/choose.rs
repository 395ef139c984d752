//! Which endpoint of a service: one that has not failed lately first, then readiness, then whom the endpoint is meant for,
//! then how near it is, then weights and chance, or, with session affinity, the client.

use super::{Backend, Choice, RouteError};
use crate::store::Mesh;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use warren_common::model::traffic::Selector;
use warren_common::model::{Health, Mode, Scope, Service, Workload};

/// How many random endpoints of a large service are looked at before all are.
const SAMPLES: usize = 8;
/// Of services with at most so many endpoints all are looked at.
const FEW: usize = 16;

/// How good an endpoint is; the least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// It has failed lately.
    doubtful: bool,
    /// It terminates: as kube-proxy does, only when nobody is ready.
    pub(crate) terminating: bool,
    /// Its hints name other clients.
    pub(crate) meant_for_others: bool,
    /// Scopes that it does not share with the client.
    pub(crate) distance: usize,
}

const BEST: Rank = Rank { doubtful: false, terminating: false, meant_for_others: false, distance: 0 };

/// One choice to be made.
struct Chooser<'a> {
    service: &'a Service,
    client: &'a Workload,
    port: u16,
    subset: Option<&'a Selector>,
    choice: &'a Choice<'a>,
}

/// An endpoint of `backend` for `client`, and its port.
pub(super) fn endpoint<'a>(
    mesh: &'a Mesh,
    backend: &Backend<'_>,
    client: &Workload,
    choice: &Choice<'_>,
) -> Result<(&'a Arc<Workload>, u16), RouteError> {
    let Backend { service, port, subset, .. } = *backend;
    let chooser = Chooser { service, client, port, subset, choice };
    let affine = service.steering.affinity_s.is_some();
    let known = mesh.endpoints(&service.key).len();
    let found = if affine {
        chooser.last(mesh).or_else(|| chooser.own(mesh))
    } else {
        chooser.sample(mesh, known).or_else(|| chooser.scan(mesh))
    };
    found.ok_or_else(|| {
        let hostname = Arc::clone(&service.key.hostname);
        let is_local =
            service.steering.mode == Mode::Strict && service.steering.scopes.contains(&Scope::Node);
        match is_local {
            true => {
                RouteError::NoLocalEndpoint { service: hostname, port, node: Arc::clone(&client.node), known }
            }
            false => RouteError::NoHealthyEndpoint { service: hostname, port, known },
        }
    })
}

type Found<'a> = Option<(&'a Arc<Workload>, u16)>;

impl Chooser<'_> {
    /// The endpoint's rank and port; none if it may not be chosen.
    fn judge(&self, workload: &Workload) -> Option<(Rank, u16)> {
        let (judged, port) = rank(self.service, self.client, self.port, workload)?;
        if self.choice.avoid.contains(&workload.uid) {
            return None;
        }
        let has = |(key, value)| workload.labels.get(key) == Some(value);
        if !self.subset.is_none_or(|labels| labels.iter().all(has)) {
            return None;
        }
        let doubtful = self.choice.doubts.about(workload, port);
        Some((Rank { doubtful, ..judged }, port))
    }

    /// One of the best, if a few random looks find one: the choice among all of them would be no other.
    fn sample<'a>(&self, mesh: &'a Mesh, known: usize) -> Found<'a> {
        if known <= FEW {
            return None;
        }
        (0..SAMPLES).find_map(|n| {
            // Weyl sequence: successive samples are spread over all endpoints.
            let sample = self.choice.entropy.wrapping_add((n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let workload = mesh.endpoint_at(&self.service.key, (sample % known as u64) as usize)?;
            let (rank, port) = self.judge(workload)?;
            (rank == BEST && workload.placement.weight == 1).then_some((workload, port))
        })
    }

    /// One of the best of all, by weight.
    fn scan<'a>(&self, mesh: &'a Mesh) -> Found<'a> {
        let judged = || {
            let all = mesh.endpoints(&self.service.key);
            all.filter_map(|workload| Some((workload, self.judge(workload)?)))
        };
        let (mut best, mut total) = (None, 0_u64);
        for (workload, (rank, _)) in judged() {
            if best.is_none_or(|best| rank < best) {
                (best, total) = (Some(rank), 0);
            }
            if best == Some(rank) {
                total += weight(workload);
            }
        }
        let mut left = self.choice.entropy.checked_rem(total)?;
        judged().filter(|(_, (rank, _))| best == Some(*rank)).find_map(|(workload, (_, port))| {
            let weight = weight(workload);
            match left.checked_sub(weight) {
                Some(rest) => {
                    left = rest;
                    None
                }
                None => Some((workload, port)),
            }
        })
    }

    /// The endpoint that the client had last, while it is ready and answers.
    fn last<'a>(&self, mesh: &'a Mesh) -> Found<'a> {
        let workload = mesh.workload(self.choice.sticky?)?;
        let (rank, port) = self.judge(workload)?;
        (!rank.terminating && !rank.doubtful).then_some((workload, port))
    }

    /// Of the best ones the client's own: the highest hash of both names wins, so that nearly every client keeps
    /// its endpoint when others come or go.
    fn own<'a>(&self, mesh: &'a Mesh) -> Found<'a> {
        let judged = mesh.endpoints(&self.service.key).filter_map(|workload| {
            let (rank, port) = self.judge(workload)?;
            Some((rank, std::cmp::Reverse(self.affinity(workload)), workload, port))
        });
        let (_, _, workload, port) = judged.min_by_key(|(rank, affinity, ..)| (*rank, *affinity))?;
        Some((workload, port))
    }

    fn affinity(&self, workload: &Workload) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.client.uid, &workload.uid).hash(&mut hasher);
        hasher.finish()
    }
}

/// An endpoint's rank for a client of a service's port, and its own port; none if it may not be chosen. Whether it has failed is
/// not looked at.
pub(crate) fn rank(
    service: &Service,
    client: &Workload,
    port: u16,
    workload: &Workload,
) -> Option<(Rank, u16)> {
    let terminating = match workload.health {
        Health::Healthy => false,
        _ if service.publish_not_ready => false,
        Health::Terminating => true,
        Health::Unhealthy => return None,
    };
    let mapping = workload.services.get(&service.key)?.iter().find(|m| m.service_port == port)?;
    let scopes = &service.steering.scopes;
    let shared = scopes.iter().take_while(|scope| shares(**scope, client, workload)).count();
    let distance = match service.steering.mode {
        Mode::Strict if shared < scopes.len() => return None,
        Mode::Failover => scopes.len() - shared,
        Mode::Any | Mode::Strict | Mode::Passthrough => 0,
    };
    let meant_for_others =
        service.steering.mode != Mode::Strict && is_meant_for_others(service, client, workload);
    Some((Rank { doubtful: false, terminating, meant_for_others, distance }, mapping.target_port))
}

/// An endpoint without hints is for everybody.
fn is_meant_for_others(service: &Service, client: &Workload, workload: &Workload) -> bool {
    let Some(hints) = workload.placement.hints.get(&service.key) else { return false };
    match hints.nodes.is_empty() {
        false => !hints.nodes.contains(&client.node),
        true => !hints.zones.is_empty() && !hints.zones.contains(&client.placement.locality.zone),
    }
}

fn weight(workload: &Workload) -> u64 {
    u64::from(workload.placement.weight.max(1))
}

/// What is unknown of both is shared, so that a cluster without zones has one zone.
fn shares(scope: Scope, client: &Workload, endpoint: &Workload) -> bool {
    let (here, there) = (&client.placement.locality, &endpoint.placement.locality);
    let zone = || here.region == there.region && here.zone == there.zone;
    match scope {
        Scope::Network => client.placement.network == endpoint.placement.network,
        Scope::Region => here.region == there.region,
        Scope::Zone => zone(),
        Scope::Subzone => zone() && here.subzone == there.subzone,
        Scope::Node => !client.node.is_empty() && client.node == endpoint.node,
        Scope::Cluster => client.cluster == endpoint.cluster,
    }
}
