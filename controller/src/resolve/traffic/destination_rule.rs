//! DestinationRules to policies: which one is in force for which client.

use super::{age, is_for, object_name};
use crate::index::Index;
use crate::objects::DestinationRule;
use std::collections::BTreeSet;
use std::sync::Arc;
use warren_common::model::ServiceName;
use warren_common::model::traffic::{Clients, ScopedPolicy, TrafficPolicy};

/// The policies for a service, in the order in which clients ask: those of the client's own namespace, those of the
/// service's, those of the root namespaces. The first namespace that has one decides; nothing is merged across, also where none
/// of those that are there selects the client.
pub(in crate::resolve) fn policies(index: &Index, service: &ServiceName) -> Vec<ScopedPolicy> {
    let all = in_order(index, service);
    let mut policies = Vec::new();
    let roots = index.root_namespaces();
    let namespaces: BTreeSet<&Arc<str>> = all.iter().map(|rule| &rule.name.namespace).collect();
    for own in namespaces {
        let is_of_step = |rule: &&DestinationRule| {
            let private = rule.exported_to.as_deref() == Some(std::slice::from_ref(own));
            rule.name.namespace == *own
                && is_for(rule.exported_to.as_ref(), own)
                && (private || !roots.contains(own))
        };
        let of_client: Vec<_> = all.iter().copied().filter(is_of_step).collect();
        // The most specific host.
        let Some(host) = of_client.first().map(|rule| index.full_name(&rule.host, own)) else { continue };
        let of_host = of_client.into_iter().filter(|rule| index.full_name(&rule.host, own) == host);
        let mut found = merged(of_host, |_| Some(vec![own.clone()]));
        if found.iter().all(|policy| !policy.clients.labels.is_empty()) {
            let clients = Clients { namespaces: Some(vec![own.clone()]), ..Clients::default() };
            let (policy, subsets) = (TrafficPolicy::default(), Vec::new());
            found.push(ScopedPolicy { clients, objects: Vec::new(), policy, subsets });
        }
        policies.extend(found);
    }
    let others = std::iter::once(&service.namespace).chain(&roots.0);
    let mut done: Vec<&Arc<str>> = Vec::new();
    for namespace in others {
        if done.contains(&namespace) {
            continue;
        }
        done.push(namespace);
        // With a selector, it is for clients of its own namespace alone.
        let of_namespace =
            all.iter().filter(|rule| rule.name.namespace == *namespace && rule.clients.is_none()).copied();
        policies.extend(merged(of_namespace, |rule| rule.exported_to.clone()));
    }
    without_repeats(policies)
}

/// Rules that hold the service's host: the most specific host first, those for some clients before those for all, then by
/// age.
fn in_order<'a>(index: &'a Index, service: &'a ServiceName) -> Vec<&'a DestinationRule> {
    let mut all = Vec::new();
    for (_, mut group) in index.destination_rules_of(&service.hostname) {
        group.sort_by_key(|rule| (rule.clients.is_none(), age(rule.created, &rule.name)));
        all.extend(group);
    }
    all
}

/// Rules of one namespace, one policy for each host, visibility and selector: several of those are one, the oldest's
/// words first.
fn merged<'a>(
    rules: impl Iterator<Item = &'a DestinationRule>,
    clients_of: impl Fn(&DestinationRule) -> Option<Vec<Arc<str>>>,
) -> Vec<ScopedPolicy> {
    let mut groups: Vec<(&DestinationRule, ScopedPolicy, bool)> = Vec::new();
    for rule in rules {
        let name = object_name("DestinationRule", &rule.name);
        let same = groups.iter_mut().find(|(first, ..)| {
            first.host == rule.host && first.exported_to == rule.exported_to && first.clients == rule.clients
        });
        let Some((_, policy, has_policy)) = same else {
            let clients =
                Clients { namespaces: clients_of(rule), labels: rule.clients.clone().unwrap_or_default() };
            let policy = ScopedPolicy {
                clients,
                objects: vec![name],
                policy: rule.policy.clone().unwrap_or_default(),
                subsets: rule.subsets.clone(),
            };
            groups.push((rule, policy, rule.policy.is_some()));
            continue;
        };
        policy.objects.push(name);
        if let (false, Some(own)) = (*has_policy, &rule.policy) {
            policy.policy = own.clone();
            *has_policy = true;
        }
        for subset in &rule.subsets {
            if !policy.subsets.iter().any(|earlier| earlier.name == subset.name) {
                policy.subsets.push(subset.clone());
            }
        }
    }
    groups.into_iter().map(|(_, policy, _)| policy).collect()
}

/// Without those that nobody gets to: for the same clients as an earlier one, or after one for all.
fn without_repeats(policies: Vec<ScopedPolicy>) -> Vec<ScopedPolicy> {
    let mut kept: Vec<ScopedPolicy> = Vec::with_capacity(policies.len());
    for policy in policies {
        let everybody = kept.iter().any(|earlier| earlier.clients == Clients::default());
        if !everybody && !kept.iter().any(|earlier| earlier.clients == policy.clients) {
            kept.push(policy);
        }
    }
    kept
}
