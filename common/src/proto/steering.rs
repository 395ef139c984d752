//! How endpoints are chosen, to and from the wire.

use super::generated::warren::{self, ServiceExtension};
use super::generated::workload as wire;
use crate::model::{Hints, Locality, Mode, Scope, Service, ServiceOrigin, Steering};
use std::sync::Arc;
use wire::load_balancing::{HealthPolicy, Mode as WireMode, Scope as WireScope};

/// Nothing for a service of which any endpoint will do.
pub(super) fn load_balancing_to_wire(service: &Service) -> Option<wire::LoadBalancing> {
    let Steering { mode, scopes, .. } = &service.steering;
    let mode = match mode {
        Mode::Any => WireMode::UnspecifiedMode,
        Mode::Strict => WireMode::Strict,
        Mode::Failover => WireMode::Failover,
        Mode::Passthrough => WireMode::Passthrough,
    };
    let health_policy =
        if service.publish_not_ready { HealthPolicy::AllowAll } else { HealthPolicy::OnlyHealthy };
    let wire = wire::LoadBalancing {
        routing_preference: scopes.iter().map(|scope| scope_to_wire(*scope).into()).collect(),
        mode: mode.into(),
        health_policy: health_policy.into(),
    };
    (wire != wire::LoadBalancing::default()).then_some(wire)
}

pub(super) fn steering_from_wire(wire: &wire::LoadBalancing, extension: &ServiceExtension) -> Steering {
    Steering {
        mode: match wire.mode() {
            WireMode::UnspecifiedMode => Mode::Any,
            WireMode::Strict => Mode::Strict,
            WireMode::Failover => Mode::Failover,
            WireMode::Passthrough => Mode::Passthrough,
        },
        scopes: wire.routing_preference().filter_map(scope_from_wire).collect(),
        affinity_s: (extension.affinity_seconds > 0).then_some(extension.affinity_seconds),
    }
}

fn scope_to_wire(scope: Scope) -> WireScope {
    match scope {
        Scope::Network => WireScope::Network,
        Scope::Region => WireScope::Region,
        Scope::Zone => WireScope::Zone,
        Scope::Subzone => WireScope::Subzone,
        Scope::Node => WireScope::Node,
        Scope::Cluster => WireScope::Cluster,
    }
}

fn scope_from_wire(scope: WireScope) -> Option<Scope> {
    match scope {
        WireScope::UnspecifiedScope => None,
        WireScope::Network => Some(Scope::Network),
        WireScope::Region => Some(Scope::Region),
        WireScope::Zone => Some(Scope::Zone),
        WireScope::Subzone => Some(Scope::Subzone),
        WireScope::Node => Some(Scope::Node),
        WireScope::Cluster => Some(Scope::Cluster),
    }
}

/// Nothing for a service that the wire's own fields describe.
pub(super) fn service_extension(service: &Service) -> Option<ServiceExtension> {
    let origin = &service.origin;
    let extension = ServiceExtension {
        affinity_seconds: service.steering.affinity_s.unwrap_or_default(),
        external_name: origin.external_name.as_deref().unwrap_or_default().to_owned(),
        restricted: origin.exported_to.is_some(),
        exported_to: texts(origin.exported_to.as_deref().unwrap_or_default()),
    };
    (extension != ServiceExtension::default()).then_some(extension)
}

pub(super) fn origin_from_wire(extension: ServiceExtension) -> ServiceOrigin {
    ServiceOrigin {
        external_name: (!extension.external_name.is_empty()).then(|| extension.external_name.into()),
        exported_to: extension.restricted.then(|| shared(extension.exported_to)),
        subject_alt_names: Vec::new(),
    }
}

pub(super) fn hints_to_wire(hints: &Hints) -> warren::Hints {
    warren::Hints { zones: texts(&hints.zones), nodes: texts(&hints.nodes) }
}

pub(super) fn hints_from_wire(hints: warren::Hints) -> Hints {
    Hints { zones: shared(hints.zones), nodes: shared(hints.nodes) }
}

pub(super) fn locality_to_wire(locality: &Locality) -> Option<wire::Locality> {
    (*locality != Locality::default()).then(|| wire::Locality {
        region: locality.region.to_string(),
        zone: locality.zone.to_string(),
        subzone: locality.subzone.to_string(),
    })
}

pub(super) fn locality_from_wire(locality: Option<wire::Locality>) -> Locality {
    let wire::Locality { region, zone, subzone } = locality.unwrap_or_default();
    Locality { region: region.into(), zone: zone.into(), subzone: subzone.into() }
}

fn texts(list: &[Arc<str>]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn shared(list: Vec<String>) -> Vec<Arc<str>> {
    list.into_iter().map(Into::into).collect()
}
