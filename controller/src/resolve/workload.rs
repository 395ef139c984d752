//! Pods as workloads.

use super::enrolment::enrolment;
use super::locality::of_pod;
use super::peer_authentication::peer_authentication;
use super::{ResolveConfig, host, plaintext_policy};
use crate::index::Index;
use crate::objects::{Endpoint, EndpointSlice, Map, Pod, Service};
use crate::source::Problem;
use std::collections::BTreeMap;
use std::sync::Arc;
use warren_common::model::{
    Health, Hints, Identity, PeerAuthentication, Placement, PolicyName, PortMapping, ServiceName,
    TunnelProtocol, Workload, WorkloadKind, WorkloadUid,
};

/// None for a pod that has ended, one that is nowhere yet (neither node nor address), and one whose names form no
/// identity. A pod that has a node and no address is for its node: its agent must know it before it starts.
pub(super) fn workload(
    index: &Index,
    config: &ResolveConfig,
    pod: &Pod,
    problems: &mut Vec<Problem>,
) -> Option<Workload> {
    if (pod.addresses.is_empty() && pod.node.is_empty()) || !pod.is_live() {
        return None;
    }
    let identity = match Identity::new(&config.trust_domain, &pod.name.namespace, &pod.service_account) {
        Ok(identity) => identity,
        Err(error) => {
            let place = format!("Pod {}", pod.name);
            problems.push(Problem { place, line: None, reason: error.to_string() });
            return None;
        }
    };
    let enrolment = enrolment(index, pod, problems);
    let (kind, owner) = owner(pod);
    let (canonical_name, canonical_revision) = canonical(&pod.labels, &owner);
    let (services, hints) = services(index, config, pod);
    let mtls = peer_authentication(index, &pod.name.namespace, &pod.labels);
    Some(Workload {
        uid: WorkloadUid(config.workload_uid(&pod.name).into()),
        name: pod.name.name.clone(),
        namespace: pod.name.namespace.clone(),
        addresses: pod.addresses.clone(),
        identity,
        node: pod.node.clone(),
        host_network: pod.host_network,
        tunnel: if enrolment.enrolled { TunnelProtocol::Hbone } else { TunnelProtocol::None },
        health: match (pod.ready, pod.deleting) {
            (true, false) => Health::Healthy,
            (true, true) => Health::Terminating,
            // With the API server away for a minute all nodes fall silent at once, and nobody would be left.
            (false, false) if pod.unheard => Health::Terminating,
            (false, _) => Health::Unhealthy,
        },
        canonical_name,
        canonical_revision,
        owner,
        kind,
        cluster: config.cluster.clone(),
        services: services.into(),
        labels: pod.labels.clone().into(),
        enrolment,
        authorization_policies: policies(index, pod, &mtls),
        peer_authentication: mtls,
        placement: Placement {
            locality: of_pod(index, pod),
            // Without an address a name would be looked up.
            hostname: dns_name(config, pod).filter(|_| !pod.addresses.is_empty()),
            hints,
            ..Placement::default()
        },
    })
}

/// The policies that name it, and for agents that know nothing else the one that says what PeerAuthentications do.
fn policies(index: &Index, pod: &Pod, mtls: &PeerAuthentication) -> Vec<PolicyName> {
    let selecting = index.selecting_authorization_policies(&pod.name.namespace, &pod.labels);
    let named =
        selecting.filter_map(|policy| PolicyName::new(&policy.name.namespace, &policy.name.name).ok());
    let mut names: Vec<_> = named.collect();
    // Also where the service does not call it ready: it may be reached all the same.
    let services = index.slices_of(pod).into_iter().filter_map(|slice| slice.service.as_ref());
    for policy in services.flat_map(|service| index.attached_authorization_policies(service)) {
        let name = PolicyName::new(&policy.name.namespace, &policy.name.name).ok();
        names.extend(name.filter(|name| !names.contains(name)));
    }
    names.extend(plaintext_policy::of_pod(index, pod, mtls));
    names
}

/// The name that cluster DNS gives a pod with a hostname and a subdomain, as those of StatefulSets have.
fn dns_name(config: &ResolveConfig, pod: &Pod) -> Option<Arc<str>> {
    let (hostname, subdomain) = pod.hostname.as_ref()?;
    let (namespace, domain) = (&pod.name.namespace, &config.cluster_domain);
    Some(format!("{hostname}.{subdomain}.{namespace}.svc.{domain}").into())
}

/// Canonical name and revision.
pub(super) fn canonical(labels: &Map, owner: &Arc<str>) -> (Arc<str>, Arc<str>) {
    (
        label(labels, &["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"], owner),
        label(
            labels,
            &["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"],
            &"latest".into(),
        ),
    )
}

fn label(labels: &Map, keys: &[&str], default: &Arc<str>) -> Arc<str> {
    keys.iter().find_map(|key| labels.get(*key)).unwrap_or(default).clone()
}

/// What telemetry calls the workload. Kubernetes names a Deployment's ReplicaSet `<name>-<hash>` and a CronJob's
/// Job `<name>-<minutes since the epoch>`, so the names tell without looking the owners up.
fn owner(pod: &Pod) -> (WorkloadKind, Arc<str>) {
    let Some(owner) = &pod.owner else {
        return (WorkloadKind::Pod, pod.name.name.clone());
    };
    match &*owner.kind {
        "ReplicaSet" => {
            // The hash is also a label; without it, it is what a hash looks like (Kubernetes' safe alphabet).
            let hash = pod.labels.get("pod-template-hash").map(AsRef::as_ref);
            let is_hash = |suffix: &str| {
                hash == Some(suffix) || suffix.bytes().all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b))
            };
            let name =
                owner.name.rsplit_once('-').filter(|(name, suffix)| !name.is_empty() && is_hash(suffix));
            (WorkloadKind::Deployment, name.map_or_else(|| owner.name.clone(), |(name, _)| name.into()))
        }
        "Job" => {
            let is_minute = |suffix: &str| suffix.len() >= 8 && suffix.bytes().all(|b| b.is_ascii_digit());
            match owner.name.rsplit_once('-').filter(|(name, suffix)| !name.is_empty() && is_minute(suffix)) {
                Some((name, _)) => (WorkloadKind::CronJob, name.into()),
                None => (WorkloadKind::Job, owner.name.clone()),
            }
        }
        "CronJob" => (WorkloadKind::CronJob, owner.name.clone()),
        // StatefulSets, DaemonSets and custom controllers are long-lived like a Deployment; the wire has no more kinds.
        "Pod" | "Node" => (WorkloadKind::Pod, pod.name.name.clone()),
        _ => (WorkloadKind::Deployment, owner.name.clone()),
    }
}

type Served = (BTreeMap<ServiceName, Vec<PortMapping>>, BTreeMap<ServiceName, Hints>);

/// The services that the pod stands behind, and whom it is meant for there.
fn services(index: &Index, config: &ResolveConfig, pod: &Pod) -> Served {
    let (mut services, mut hints) = Served::default();
    for slice in index.slices_of(pod) {
        let Some(service) = slice.service.as_ref().and_then(|name| index.service(name)) else {
            continue;
        };
        let endpoint = slice.endpoints.iter().find(|endpoint| is_member(pod, service, slice, endpoint));
        let Some(endpoint) = endpoint.filter(|_| service.external_name.is_none()) else {
            continue;
        };
        let name = config.service_name(&service.name);
        let hint = Hints { zones: endpoint.for_zones.clone(), nodes: endpoint.for_nodes.clone() };
        if !hint.is_empty() {
            hints.insert(name.clone(), hint);
        }
        let ports: &mut Vec<_> = services.entry(name).or_default();
        ports.extend(mappings(service, slice));
        ports.sort_by_key(|mapping: &PortMapping| (mapping.service_port, mapping.target_port));
        ports.dedup_by_key(|mapping| mapping.service_port);
    }
    // Without an address it is nobody's endpoint.
    let selecting = index.selecting_service_entries(&pod.name.namespace, &pod.labels);
    for entry in selecting.filter(|_| !pod.addresses.is_empty()) {
        for name in host::given(index, config, entry, &entry.hosts) {
            services.insert(name, host::mappings(entry, |_| None).collect());
        }
    }
    (services, hints)
}

/// A slice's ports carry the numbers that named target ports have in the pods of that slice.
pub(super) fn mappings<'a>(
    service: &'a Service,
    slice: &'a EndpointSlice,
) -> impl Iterator<Item = PortMapping> + 'a {
    service.ports.iter().filter_map(|port| {
        let served = slice.ports.iter().find(|served| served.name == port.name)?;
        Some(PortMapping { service_port: port.port, target_port: served.port })
    })
}

/// Whether the endpoint is this pod, and the service may send it traffic.
///
/// A pod that is unready as a whole stays a member: its health keeps traffic away, and `publish_not_ready` or a
/// fall-back may still pick it. An endpoint that only this service calls unready is not a member, unless that is only what the pod
/// itself said a moment ago: after an outage of the API server all pods of a service may be ready before its slices say so of one.
fn is_member(pod: &Pod, service: &Service, slice: &EndpointSlice, endpoint: &Endpoint) -> bool {
    let is_this_pod = match &endpoint.pod {
        Some(name) => *name == pod.name,
        // A node's address is shared by all its host-network pods: only a reference tells them apart.
        None => !pod.host_network && endpoint.addresses.iter().any(|ip| pod.addresses.contains(ip)),
    };
    let usable = endpoint.ready || (endpoint.serving && endpoint.terminating);
    is_this_pod && (usable || service.publish_not_ready || slice.repeats_pods || !pod.is_healthy())
}
