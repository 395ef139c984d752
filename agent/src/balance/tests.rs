//! Choices of endpoints (reference 4.4, 4.5), with what is known of them made up.

use super::group::Group;
use super::locality::{Order, Place};
use super::pick::warmth;
use super::*;
use crate::store::{Mesh, MeshChange};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use warren_common::model::traffic::{
    Balancer, HashKey, HashRing, LocalityBalancing, LocalityShare, Outliers, RegionFailover, SimpleBalancer,
    Warmup,
};
use warren_common::model::{
    AppProtocol, Enrolment, Identity, Labels, PeerAuthentication, Placement, PortMapping, Service,
    ServiceName, ServiceOrigin, ServicePort, Steering, TunnelProtocol, Workload, WorkloadKind, WorkloadUid,
};

mod choice;
mod near;

/// What is known of endpoints, by name.
#[derive(Default)]
struct Known {
    out: HashSet<String>,
    active: HashMap<String, u32>,
    ages: HashMap<String, Duration>,
}

impl Known {
    fn out(names: &[&str]) -> Self {
        Self { out: names.iter().map(|name| (*name).to_owned()).collect(), ..Self::default() }
    }
}

impl Health for Known {
    fn out(&self) -> usize {
        self.out.len()
    }

    fn is_out(&self, endpoint: &WorkloadUid) -> bool {
        self.out.contains(&*endpoint.0)
    }

    fn active(&self, endpoint: &WorkloadUid) -> u32 {
        self.active.get(&*endpoint.0).copied().unwrap_or(0)
    }

    fn age(&self, endpoint: &WorkloadUid) -> Option<Duration> {
        self.ages.get(&*endpoint.0).copied()
    }
}

fn service_name() -> ServiceName {
    ServiceName { namespace: "shop".into(), hostname: "web.shop.svc".into() }
}

fn service() -> Service {
    Service {
        name: "web".into(),
        key: service_name(),
        addresses: vec![],
        ports: vec![ServicePort {
            service_port: 80,
            target_port: 8080,
            target_port_name: None,
            app_protocol: AppProtocol::Http11,
        }],
        publish_not_ready: false,
        steering: Steering::default(),
        origin: ServiceOrigin::default(),
    }
}

fn workload(name: &str) -> Workload {
    let ports = vec![PortMapping { service_port: 80, target_port: 8080 }];
    Workload {
        uid: WorkloadUid(name.into()),
        name: name.into(),
        namespace: "shop".into(),
        addresses: vec![],
        identity: Identity::new("cluster.local", "shop", "web").unwrap(),
        node: "n1".into(),
        host_network: false,
        tunnel: TunnelProtocol::Hbone,
        health: warren_common::model::Health::Healthy,
        owner: "web".into(),
        kind: WorkloadKind::Deployment,
        canonical_name: "web".into(),
        canonical_revision: "latest".into(),
        cluster: "Kubernetes".into(),
        services: Arc::new(BTreeMap::from([(service_name(), ports)])),
        labels: Arc::default(),
        enrolment: Enrolment::default(),
        peer_authentication: PeerAuthentication::default(),
        authorization_policies: vec![],
        placement: Placement::default(),
    }
}

fn weighted(name: &str, weight: u32) -> Workload {
    let placement = Placement { weight, ..Placement::default() };
    Workload { placement, ..workload(name) }
}

fn at(name: &str, locality: &str) -> Workload {
    let mut workload = workload(name);
    let mut parts = locality.split('/').map(Arc::from);
    let there = &mut workload.placement.locality;
    for part in [&mut there.region, &mut there.zone, &mut there.subzone] {
        *part = parts.next().unwrap_or_default();
    }
    workload
}

fn with_labels(name: &str, labels: &[(&str, &str)]) -> Workload {
    let labels: Labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    Workload { labels: Arc::new(labels), ..workload(name) }
}

fn simple(simple: SimpleBalancer) -> Balancer {
    Balancer { simple, ..Balancer::default() }
}

fn outliers() -> Outliers {
    Outliers {
        consecutive_5xx: 5,
        consecutive_gateway: 0,
        consecutive_local: None,
        interval_ms: 10_000,
        base_ejection_ms: 30_000,
        max_ejection_percent: 100,
        min_health_percent: 0,
    }
}

fn policy(balancer: Balancer, outliers: Option<Outliers>) -> Effective {
    let mut effective = Effective::default();
    effective.policy.balancer = Some(balancer);
    effective.policy.outliers = outliers;
    effective
}

fn group_for(client: &Workload, service: &Service, workloads: Vec<Workload>, policy: &Effective) -> Group {
    let mut mesh = Mesh::default();
    mesh.apply([MeshChange::Service(Arc::new(service.clone()))]);
    mesh.apply(workloads.into_iter().map(|workload| MeshChange::Workload(Arc::new(workload))));
    Group::new(&mesh, service, client, 80, policy)
}

fn group(workloads: Vec<Workload>, balancer: Balancer) -> Group {
    group_for(&workload("client"), &service(), workloads, &policy(balancer, None))
}

fn ask(n: u64) -> Ask<'static> {
    // Numbers that are nothing like turns.
    Ask { turn: n, entropy: n.wrapping_mul(0xd134_2543_de82_ef95).rotate_left(17), hash: None, avoid: &[] }
}

fn picked(group: &Group, ask: &Ask<'_>, known: &Known) -> String {
    group.pick(ask, known).unwrap().workload.name.to_string()
}

/// The percent of choices that fall on each.
fn shares(group: &Group, known: &Known) -> Vec<(String, f64)> {
    let mut counts = BTreeMap::new();
    for n in 0..10_000 {
        *counts.entry(picked(group, &ask(n), known)).or_insert(0) += 1;
    }
    counts.into_iter().map(|(name, count)| (name, f64::from(count) / 100.0)).collect()
}

fn assert_shares(group: &Group, known: &Known, expected: &[(&str, f64)], what: &str) {
    let shares = shares(group, known);
    let is_near = |((name, share), (wanted, percent)): (&(String, f64), &(&str, f64))| {
        name == wanted && (share - percent).abs() < 1.5
    };
    assert!(shares.len() == expected.len() && shares.iter().zip(expected).all(is_near), "{what}: {shares:?}");
}
