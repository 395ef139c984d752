//! Services, whoever gives them: Kubernetes, or a ServiceEntry. Of one host in one namespace Kubernetes' counts,
//! then the oldest ServiceEntry's.

use super::ResolveConfig;
use super::service::{Family, app_protocol, family, service};
use crate::index::Index;
use crate::objects::{EntryPort, Name, Resolution, Service, ServiceEntry, ServicePort};
use crate::source::Problem;
use std::collections::BTreeMap;
use warren_common::model::{self, Mode, PortMapping, ServiceName, ServiceOrigin, Steering};

/// Who gives a host its service.
enum Giver<'a> {
    Kubernetes(&'a Service),
    Entry(&'a ServiceEntry),
}

fn giver<'a>(index: &'a Index, config: &ResolveConfig, host: &ServiceName) -> Option<Giver<'a>> {
    match kubernetes_service(index, config, host) {
        Some(service) => Some(Giver::Kubernetes(service)),
        None => {
            let host = Name::new(host.namespace.clone(), host.hostname.clone());
            index.service_entry_of_host(&host).map(Giver::Entry)
        }
    }
}

fn kubernetes_service<'a>(
    index: &'a Index,
    config: &ResolveConfig,
    host: &ServiceName,
) -> Option<&'a Service> {
    let name = host.hostname.strip_suffix(&*config.cluster_domain)?.strip_suffix(".svc.")?;
    let name = name.strip_suffix(&*host.namespace)?.strip_suffix('.')?;
    index.service(&Name::new(host.namespace.clone(), name))
}

/// The service of a host.
pub(super) fn resolve(index: &Index, config: &ResolveConfig, host: &ServiceName) -> Option<model::Service> {
    match giver(index, config, host)? {
        Giver::Kubernetes(kubernetes) => Some(service(config, kubernetes)),
        Giver::Entry(entry) => Some(model::Service {
            name: host.hostname.clone(),
            key: host.clone(),
            addresses: entry.addresses.clone(),
            ports: entry.ports.iter().map(port).collect(),
            publish_not_ready: false,
            steering: Steering {
                mode: if entry.resolution == Resolution::None { Mode::Passthrough } else { Mode::Any },
                ..Steering::default()
            },
            origin: ServiceOrigin {
                external_name: None,
                exported_to: entry.exported_to.clone(),
                subject_alt_names: entry.subject_alt_names.clone(),
            },
        }),
    }
}

/// The families of a host's ports.
pub(super) fn families(index: &Index, config: &ResolveConfig, host: &ServiceName) -> BTreeMap<u16, Family> {
    match giver(index, config, host) {
        None => BTreeMap::new(),
        Some(Giver::Kubernetes(service)) => {
            let of =
                |port: &ServicePort| (port.port, family(port.port, port.app_protocol.as_deref(), &port.name));
            service.ports.iter().map(of).collect()
        }
        Some(Giver::Entry(entry)) => {
            let of = |port: &EntryPort| {
                let declared = port.protocol.as_deref().unwrap_or_default();
                (port.number, family(port.number, Some(declared), ""))
            };
            entry.ports.iter().map(of).collect()
        }
    }
}

fn port(port: &EntryPort) -> model::ServicePort {
    model::ServicePort {
        service_port: port.number,
        target_port: port.target.unwrap_or(port.number),
        target_port_name: None,
        // What is not said is not guessed from the port's name.
        app_protocol: app_protocol(Some(port.protocol.as_deref().unwrap_or_default()), ""),
    }
}

/// Those of `hosts` that the entry gives a service to.
pub(super) fn given<'a>(
    index: &'a Index,
    config: &'a ResolveConfig,
    entry: &'a ServiceEntry,
    hosts: &'a [std::sync::Arc<str>],
) -> impl Iterator<Item = ServiceName> + 'a {
    let names = hosts
        .iter()
        .map(|host| ServiceName { namespace: entry.name.namespace.clone(), hostname: host.clone() });
    names.filter(
        |host| matches!(giver(index, config, host), Some(Giver::Entry(other)) if other.name == entry.name),
    )
}

/// The ports of an entry as an endpoint serves them that may have ports of its own by their names.
pub(super) fn mappings<'a>(
    entry: &'a ServiceEntry,
    own: impl Fn(&str) -> Option<u16> + 'a,
) -> impl Iterator<Item = PortMapping> + 'a {
    entry.ports.iter().map(move |port| PortMapping {
        service_port: port.number,
        target_port: own(&port.name).or(port.target).unwrap_or(port.number),
    })
}

/// What the author of a ServiceEntry should know.
pub(super) fn remarks(index: &Index, config: &ResolveConfig, name: &Name) -> Vec<Problem> {
    let Some(entry) = index.service_entry(name) else { return Vec::new() };
    let mut reasons = Vec::new();
    let given: Vec<_> = given(index, config, entry, &entry.hosts).collect();
    let lost = entry.hosts.iter().filter(|host| !given.iter().any(|name| name.hostname == **host));
    reasons.extend(lost.map(|host| {
        format!("the host {host} has a Kubernetes Service or an older ServiceEntry in this namespace, which counts")
    }));
    if given.iter().any(|name| index.unseen(name).is_some()) {
        reasons.push(
            "without addresses, and without endpoints that have some, its connections cannot be told apart: no \
             address is allocated, as DNS is not captured; what the applications' own lookup finds is connected \
             to as it is. Give it spec.addresses"
                .to_owned(),
        );
    }
    if entry.hosts.len() > 1 && !entry.addresses.is_empty() {
        reasons.push("its hosts share spec.addresses: connections count for the first of them".to_owned());
    }
    reasons.extend(entry.ranges.iter().map(|range| {
        format!(
            "spec.addresses: the range {range} is not supported; single addresses are, and the rest applies"
        )
    }));
    let place = format!("ServiceEntry {name}");
    reasons.into_iter().map(|reason| Problem { place: place.clone(), line: None, reason }).collect()
}
