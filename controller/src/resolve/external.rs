//! Workloads that are no pods: addresses that slices name, endpoints of ServiceEntries, WorkloadEntries. None of
//! them is in the mesh: they are reached as they are.

use super::locality::{of_node, of_parts};
use super::{ResolveConfig, host};
use crate::index::Index;
use crate::objects::{Endpoint, EntryAddress, EntryEndpoint, Name, Resolution, ServiceEntry};
use crate::source::Problem;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use warren_common::model::{
    Enrolment, Health, Hints, Identity, PeerAuthentication, Placement, PortMapping, ServiceName,
    TunnelProtocol, Workload, WorkloadKind, WorkloadUid,
};

type Services = BTreeMap<ServiceName, Vec<PortMapping>>;

/// An address in the slices of a service that is no pod's.
pub(super) fn endpoint(
    index: &Index,
    config: &ResolveConfig,
    service: &Name,
    ip: IpAddr,
    problems: &mut Vec<Problem>,
) -> Option<Workload> {
    let of_pod = index.pods_at(&ip).any(|pod| !pod.host_network && pod.is_live());
    let kubernetes = index.service(service).filter(|_| !of_pod)?;
    let mut ports = Vec::new();
    let mut found: Option<&Endpoint> = None;
    for slice in index.slices_of_service(service) {
        let here = slice.endpoints.iter().filter(|one| one.pod.is_none() && one.addresses.contains(&ip));
        for endpoint in here {
            ports.extend(super::workload::mappings(kubernetes, slice));
            // The readiest, should several slices name it.
            if found.is_none_or(|found| health(endpoint) < health(found)) {
                found = Some(endpoint);
            }
        }
    }
    let endpoint = found?;
    ports.sort_by_key(|mapping| (mapping.service_port, mapping.target_port));
    ports.dedup_by_key(|mapping| mapping.service_port);
    let key = config.service_name(service);
    let hints = Hints { zones: endpoint.for_zones.clone(), nodes: endpoint.for_nodes.clone() };
    let mut locality = of_node(index, &endpoint.node);
    if !endpoint.zone.is_empty() {
        locality.zone = endpoint.zone.clone();
    }
    let description = Description {
        uid: config.endpoint_uid(service, ip),
        name: Name::new(service.namespace.clone(), format!("{}-{ip}", service.name)),
        owner: service.name.clone(),
        address: EntryAddress::Ip(ip),
        node: endpoint.node.clone(),
        account: "default",
        health: health(endpoint),
        labels: BTreeMap::new(),
        services: [(key.clone(), ports)].into(),
        placement: Placement {
            locality,
            hints: (!hints.is_empty()).then_some((key, hints)).into_iter().collect(),
            ..Placement::default()
        },
    };
    description.workload(config, problems)
}

fn health(endpoint: &Endpoint) -> Health {
    match (endpoint.ready, endpoint.serving && endpoint.terminating) {
        (true, _) => Health::Healthy,
        (false, true) => Health::Terminating,
        (false, false) => Health::Unhealthy,
    }
}

/// An endpoint that a ServiceEntry lists.
pub(super) fn listed(
    index: &Index,
    config: &ResolveConfig,
    name: &Name,
    address: &EntryAddress,
    problems: &mut Vec<Problem>,
) -> Option<Workload> {
    let entry = index.service_entry(name)?;
    let (endpoint, hosts) = entry.listed().into_iter().find(|(endpoint, _)| endpoint.address == *address)?;
    let mut services = Services::new();
    for host in host::given(index, config, entry, &hosts) {
        services.insert(host, ports(entry, &endpoint));
    }
    let uid = config.listed_uid(name, address);
    described(config, uid, name, &endpoint, services, problems)
}

/// A WorkloadEntry.
pub(super) fn workload_entry(
    index: &Index,
    config: &ResolveConfig,
    name: &Name,
    problems: &mut Vec<Problem>,
) -> Option<Workload> {
    let endpoint = &index.workload_entry(name)?.endpoint;
    let mut services = Services::new();
    for entry in index.selecting_service_entries(&name.namespace, &endpoint.labels) {
        if matches!(endpoint.address, EntryAddress::Name(_)) && entry.resolution != Resolution::Dns {
            let place = format!("WorkloadEntry {name}");
            let reason =
                format!("its address is a name, which ServiceEntry {} with STATIC cannot use", entry.name);
            problems.push(Problem { place, line: None, reason });
            continue;
        }
        for host in host::given(index, config, entry, &entry.hosts) {
            services.insert(host, ports(entry, endpoint));
        }
    }
    described(config, config.workload_entry_uid(name), name, endpoint, services, problems)
}

fn ports(entry: &ServiceEntry, endpoint: &EntryEndpoint) -> Vec<PortMapping> {
    host::mappings(entry, |name| endpoint.ports.get(name).copied()).collect()
}

fn described(
    config: &ResolveConfig,
    uid: String,
    name: &Name,
    endpoint: &EntryEndpoint,
    services: Services,
    problems: &mut Vec<Problem>,
) -> Option<Workload> {
    let description = Description {
        uid,
        name: name.clone(),
        owner: name.name.clone(),
        address: endpoint.address.clone(),
        node: Arc::default(),
        account: &endpoint.service_account,
        health: Health::Healthy,
        labels: endpoint.labels.clone(),
        services,
        placement: Placement {
            network: endpoint.network.clone(),
            locality: of_parts(&endpoint.locality),
            weight: endpoint.weight,
            ..Placement::default()
        },
    };
    description.workload(config, problems)
}

/// What tells one such workload from another.
struct Description<'a> {
    uid: String,
    name: Name,
    owner: Arc<str>,
    address: EntryAddress,
    node: Arc<str>,
    account: &'a str,
    health: Health,
    labels: crate::objects::Map,
    services: Services,
    placement: Placement,
}

impl Description<'_> {
    fn workload(self, config: &ResolveConfig, problems: &mut Vec<Problem>) -> Option<Workload> {
        let Name { namespace, name } = self.name;
        let identity = match Identity::new(&config.trust_domain, &namespace, self.account) {
            Ok(identity) => identity,
            Err(error) => {
                problems.push(Problem { place: self.uid, line: None, reason: error.to_string() });
                return None;
            }
        };
        let (addresses, hostname) = match self.address {
            EntryAddress::Ip(ip) => (vec![ip], None),
            EntryAddress::Name(name) => (Vec::new(), Some(name)),
        };
        let canonical = super::workload::canonical(&self.labels, &self.owner);
        Some(Workload {
            uid: WorkloadUid(self.uid.into()),
            name,
            namespace,
            addresses,
            identity,
            node: self.node,
            host_network: false,
            tunnel: TunnelProtocol::None,
            health: self.health,
            owner: self.owner,
            kind: WorkloadKind::Pod,
            canonical_name: canonical.0,
            canonical_revision: canonical.1,
            cluster: config.cluster.clone(),
            services: self.services.into(),
            labels: self.labels.into(),
            enrolment: Enrolment::default(),
            peer_authentication: PeerAuthentication::default(),
            authorization_policies: Vec::new(),
            placement: Placement { hostname, ..self.placement },
        })
    }
}
