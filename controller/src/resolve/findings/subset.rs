//! Whether who follows a VirtualService sees the subset that it sends to.

use super::virtual_service::{failure, severity};
use super::{About, Severity};
use crate::index::Index;
use crate::objects::{DestinationRule, Target, VirtualService};
use crate::resolve::traffic::policies;
use std::collections::BTreeSet;
use std::sync::Arc;
use warren_common::model::ServiceName;
use warren_common::model::traffic::ScopedPolicy;

/// Stands for every namespace of which nothing is said.
const OTHERS: &str = "";

pub(super) fn check(
    index: &Index,
    of: &VirtualService,
    to: &Target,
    service: Option<&ServiceName>,
    path: &str,
    about: &mut About<'_>,
) {
    let Some(subset) = &to.subset else { return };
    let full = index.full_name(&to.host, &of.name.namespace);
    let service = service.cloned().or_else(|| index.services_named(&full).into_iter().next());
    let host = service.as_ref().map_or(&full, |service| &service.hostname);
    let path = format!("{path}.subset");
    let rules = index.destination_rules_of(host).flat_map(|(_, rules)| rules);
    let having: Vec<_> = rules.filter(|rule| has(&rule.subsets, subset)).collect();
    let (Some(first), Some(service)) = (having.first(), &service) else {
        let text = format!("no DestinationRule for {host} has a subset {subset}; {}", failure(&path));
        return about.add(severity(&path), "subset-not-found", path, text, None);
    };
    let policies = policies(index, service);
    let clients = clients(index, of, service, &having);
    let blind: Vec<_> =
        clients.iter().filter(|namespace| !is_seen(&policies, namespace, subset)).map(|it| &**it).collect();
    if blind.is_empty() {
        return;
    }
    let named =
        |namespace: &&str| if *namespace == OTHERS { "others".to_owned() } else { (*namespace).to_owned() };
    let whose = blind.iter().map(named).collect::<Vec<_>>().join(", ");
    let text = format!(
        "clients in {whose} do not see the subset {subset} of the DestinationRule {}: {}; {}",
        first.name,
        reason(first, service, &blind),
        failure(&path)
    );
    let severity = if blind.len() == clients.len() { severity(&path) } else { Severity::Warning };
    about.add(severity, "subset-not-visible", path, text, None);
}

fn reason(rule: &DestinationRule, service: &ServiceName, blind: &[&str]) -> &'static str {
    let is_kept = |namespace: &&str| {
        rule.exported_to.as_ref().is_some_and(|all| !all.iter().any(|one| **one == **namespace))
    };
    if blind.iter().any(is_kept) {
        "its exportTo leaves them out"
    } else if rule.clients.is_some() {
        "with a workloadSelector it is for clients of its own namespace"
    } else if rule.name.namespace != service.namespace {
        "it is neither in their namespace, nor in the service's, nor in a root namespace"
    } else {
        "another DestinationRule decides for them"
    }
}

/// Namespaces of clients that follow the VirtualService, as far as they may differ.
fn clients(
    index: &Index,
    of: &VirtualService,
    service: &ServiceName,
    having: &[&DestinationRule],
) -> BTreeSet<Arc<str>> {
    // A delegate's rules are for whom those are that leave them to it.
    let roots: Vec<_> = index.delegating_to(&of.name).collect();
    let followed = if of.hosts.is_empty() { roots } else { vec![of] };
    let mut all = BTreeSet::new();
    for one in followed {
        match &one.exported_to {
            Some(namespaces) => all.extend(namespaces.iter().cloned()),
            None => {
                all.extend([OTHERS.into(), one.name.namespace.clone(), service.namespace.clone()]);
                all.extend(having.iter().map(|rule| rule.name.namespace.clone()));
            }
        }
    }
    all
}

/// Whether clients of a namespace, some of them at least, find the subset in the policy that is theirs.
fn is_seen(policies: &[ScopedPolicy], namespace: &str, subset: &str) -> bool {
    let theirs = policies.iter().filter(|policy| {
        let namespaces = policy.clients.namespaces.as_ref();
        namespaces.is_none_or(|all| all.iter().any(|one| **one == *namespace))
    });
    for policy in theirs {
        if has(&policy.subsets, subset) {
            return true;
        }
        // It is for all of them, so none looks further.
        if policy.clients.labels.is_empty() {
            return false;
        }
    }
    false
}

fn has(subsets: &[warren_common::model::traffic::Subset], name: &str) -> bool {
    subsets.iter().any(|subset| *subset.name == *name)
}
