//! DestinationRules.

use super::About;
use super::virtual_service::full_name_of;
use crate::index::Index;
use crate::objects::{DestinationRule, HttpRoute, Kind, RouteAction};
use crate::resolve::traffic::is_ruled;
use crate::resolve::{ResolveConfig, host};
use std::collections::BTreeSet;
use std::sync::Arc;
use warren_common::model::traffic::{HashKey, PortPolicy, TlsMode, TrafficPolicy};
use warren_common::model::{AppProtocol, ServiceName};

pub(super) fn check(index: &Index, config: &ResolveConfig, rule: &DestinationRule, about: &mut About<'_>) {
    let host = index.full_name(&rule.host, &rule.name.namespace);
    let held = index.services_held_by(&host);
    if held.is_empty() {
        let text = format!("no service has the name {host}: nothing follows this rule");
        about.warning("host-not-found", "spec.host", text, full_name_of(index, &host));
    }
    let others = index.destination_rules_of(&host).filter(|(pattern, _)| **pattern == *host);
    for other in others.flat_map(|(_, others)| others) {
        let together = other.name != rule.name
            && other.name.namespace == rule.name.namespace
            && other.exported_to == rule.exported_to
            && other.clients == rule.clients;
        let older = (other.created, &other.name.name) < (rule.created, &rule.name.name);
        if !(together && older) {
            continue;
        }
        for (place, subset) in rule.subsets.iter().enumerate() {
            if other.subsets.iter().any(|theirs| theirs.name == subset.name) {
                let text =
                    format!("the subset {} is that of the older DestinationRule {}", subset.name, other.name);
                about.warning("subset-conflict", format!("spec.subsets[{place}]"), text, None);
            }
        }
        if rule.policy.is_some() && other.policy.is_some() {
            let text = format!("the older DestinationRule {} for this host decides", other.name);
            about.warning("policy-conflict", "spec.trafficPolicy", text, None);
        }
    }
    let in_mesh = held.iter().any(|service| index.kubernetes_service_name(service).is_some());
    let mut first = None;
    for (path, policy) in policies(rule) {
        if in_mesh {
            mesh_tls_stays(&path, policy, about);
        }
        if is_of_requests(policy) {
            first.get_or_insert(path);
        }
    }
    if let Some(path) = first
        && !held.is_empty()
        && !is_met(index, config, &held)
    {
        let text = format!(
            "some of it is about requests alone; no port of {host} says that it is HTTP, and no HTTP rules lead there: that has no \
             effect"
        );
        let fix = "Say `appProtocol: http` (or http2, grpc) at the Service's port";
        about.info("no-http-rules", path, text, Some(fix.to_owned()));
    }
}

/// Whether a part of it means nothing where no requests are seen.
fn is_of_requests(policy: &TrafficPolicy) -> bool {
    let of_port = |policy: &PortPolicy| {
        let hash = policy.balancer.as_ref().and_then(|balancer| balancer.hash.as_ref());
        let pool = policy.pool.as_ref().is_some_and(|pool| {
            pool.max_pending_requests.is_some()
                || pool.max_requests.is_some()
                || pool.max_requests_per_connection.is_some()
                || pool.max_retries.is_some()
                || pool.http_idle_timeout_ms.is_some()
                || pool.max_concurrent_streams.is_some()
                || pool.upgrade_to_h2
                || pool.use_client_protocol
        });
        pool || hash.is_some_and(|(key, _)| *key != HashKey::SourceIp)
    };
    of_port(&policy.all)
        || policy.ports.values().any(of_port)
        || policy.retry_budget_percent.is_some()
        || policy.retry_budget_min.is_some()
}

/// What the rule says of the whole host and of each subset, with its path.
fn policies(rule: &DestinationRule) -> impl Iterator<Item = (String, &TrafficPolicy)> {
    let whole = rule.policy.iter().map(|policy| ("spec.trafficPolicy".to_owned(), policy));
    let subsets = rule.subsets.iter().enumerate();
    whole.chain(
        subsets.map(|(place, subset)| (format!("spec.subsets[{place}].trafficPolicy"), &subset.policy)),
    )
}

/// Says that pods of the mesh go on speaking its TLS with each other where the rule asks for none.
fn mesh_tls_stays(path: &str, policy: &TrafficPolicy, about: &mut About<'_>) {
    let mut part = |path: &str, policy: &PortPolicy| {
        if policy.tls.as_ref().is_some_and(|tls| tls.mode == TlsMode::Disable) {
            let text = "pods of the mesh go on proving to each other who they are, in TLS: it holds for endpoints outside of the \
                        mesh alone";
            about.info("mesh-tls-stays", format!("{path}.tls"), text, None);
        }
    };
    part(path, &policy.all);
    for (port, policy) in &policy.ports {
        // The place in the list is not kept.
        part(&format!("{path}.portLevelSettings[port {port}]"), policy);
    }
}

/// Whether requests to one of these services are seen: HTTP is declared, or HTTP rules are there for it, or send requests of others
/// to it.
fn is_met(index: &Index, config: &ResolveConfig, services: &[ServiceName]) -> bool {
    let sent_to = destinations(index);
    let is_declared = |service: &ServiceName| {
        let ports = host::resolve(index, config, service).map(|service| service.ports).unwrap_or_default();
        ports.iter().any(|port| port.app_protocol != AppProtocol::Unknown)
    };
    services.iter().any(is_declared)
        || services.iter().any(|service| sent_to.contains(&service.hostname))
        || services.iter().any(|service| is_ruled(index, config, service))
}

/// Full names of whatever HTTP rules of the mesh send requests to.
fn destinations(index: &Index) -> BTreeSet<Arc<str>> {
    let mut all = BTreeSet::new();
    let routes = index.routes().filter(|route| matches!(route.kind, Kind::HTTPRoute | Kind::GRPCRoute));
    for route in routes.filter(|route| route.services().next().is_some()) {
        let names = route.targets().filter_map(|to| to.service(&route.name.namespace));
        all.extend(names.map(|name| index.kubernetes_name(&name).hostname));
    }
    // Those without hosts are delegates.
    for service in index.virtual_services().filter(|one| one.is_of_mesh() || one.hosts.is_empty()) {
        for HttpRoute { action, mirrors, .. } in &service.http {
            let backends = match action {
                RouteAction::Forward(backends) => backends.as_slice(),
                _ => &[],
            };
            let targets = backends.iter().map(|to| &to.to).chain(mirrors.iter().map(|(to, _)| to));
            all.extend(targets.map(|to| index.full_name(&to.host, &service.name.namespace)));
        }
    }
    all
}
