//! DestinationRules.

use super::About;
use super::virtual_service::full_name_of;
use crate::index::Index;
use crate::objects::{DestinationRule, HttpRoute, Kind, RouteAction};
use crate::resolve::ResolveConfig;
use crate::resolve::traffic::is_ruled;
use std::collections::BTreeSet;
use std::sync::Arc;
use warren_common::model::ServiceName;
use warren_common::model::traffic::{PortPolicy, TlsMode, TrafficPolicy};

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
    let mut first = None;
    for (path, policy) in policies(rule) {
        not_applied(&path, policy, about);
        if *policy != TrafficPolicy::default() {
            first.get_or_insert(path);
        }
    }
    if let Some(path) = first
        && !held.is_empty()
        && !is_met(index, config, &held)
    {
        let text = format!(
            "it holds for requests alone so far, and no HTTP rules lead to {host}: it has no effect there yet"
        );
        let fix = "Attach an HTTPRoute to the Service, or write a VirtualService with `http` for its host";
        about.info("no-http-rules", path, text, Some(fix.to_owned()));
    }
}

/// What the rule says of the whole host and of each subset, with its path.
fn policies(rule: &DestinationRule) -> impl Iterator<Item = (String, &TrafficPolicy)> {
    let whole = rule.policy.iter().map(|policy| ("spec.trafficPolicy".to_owned(), policy));
    let subsets = rule.subsets.iter().enumerate();
    whole.chain(
        subsets.map(|(place, subset)| (format!("spec.subsets[{place}].trafficPolicy"), &subset.policy)),
    )
}

/// What agents do not apply.
fn not_applied(path: &str, policy: &TrafficPolicy, about: &mut About<'_>) {
    part(path, &policy.all, about);
    for (port, policy) in &policy.ports {
        // The place in the list is not kept.
        part(&format!("{path}.portLevelSettings[port {port}]"), policy, about);
    }
}

fn part(path: &str, policy: &PortPolicy, about: &mut About<'_>) {
    if let Some(tls) = &policy.tls
        && matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual)
    {
        let text = "TLS is not originated yet: where HTTP rules hold, requests are refused with 503; connections without \
                    HTTP rules are passed on as they are";
        let fix = "Have the client speak TLS itself, and leave this out";
        about.warning("not-applied", format!("{path}.tls"), text, Some(fix.to_owned()));
    }
}

/// Whether HTTP rules are there for requests to one of these services, or send requests of others to it.
fn is_met(index: &Index, config: &ResolveConfig, services: &[ServiceName]) -> bool {
    let sent_to = destinations(index);
    services.iter().any(|service| sent_to.contains(&service.hostname))
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
