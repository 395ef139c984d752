//! DestinationRules.

use super::About;
use super::virtual_service::full_name_of;
use crate::index::Index;
use crate::objects::DestinationRule;

pub(super) fn check(index: &Index, rule: &DestinationRule, about: &mut About<'_>) {
    let host = index.full_name(&rule.host, &rule.name.namespace);
    if index.services_held_by(&host).is_empty() {
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
}
