//! Rules for services that no connection shows: nobody dials an address of theirs, so nothing follows the rules.

use super::About;
use crate::index::{Index, Unseen};
use crate::objects::DestinationRule;
use warren_common::model::ServiceName;

const CODE: &str = "nothing-dialled";

/// A host of a VirtualService; `held`: its services.
pub(super) fn virtual_service(index: &Index, held: &[ServiceName], path: &str, about: &mut About<'_>) {
    if let Some((why, fix)) = why(index, held) {
        let text = format!("{why}: nothing follows these rules for its sake");
        about.warning(CODE, path, text, Some(fix));
    }
}

/// The host of a DestinationRule; `held`: its services.
pub(super) fn destination_rule(
    index: &Index,
    held: &[ServiceName],
    rule: &DestinationRule,
    about: &mut About<'_>,
) {
    if let Some((why, fix)) = why(index, held)
        && !held.iter().any(|service| index.is_sent_to(service))
    {
        let text =
            format!("{why}, and no rules send there what was meant for others: nothing follows this rule");
        about.warning(CODE, "spec.host", text, Some(fix));
    }
    let chooses = rule.policy.as_ref().is_some_and(|policy| {
        let mut all = std::iter::once(&policy.all).chain(policy.ports.values());
        all.any(|policy| policy.balancer.is_some() || policy.outliers.is_some())
    });
    if chooses && !held.is_empty() && held.iter().all(|service| index.is_headless(service)) {
        let text = "the Service is headless, and its clients dial one of its pods: loadBalancer and outlierDetection choose only for what \
                    rules of others send there, and for a subset that the dialled pod is not of";
        about.info("client-chooses", "spec.trafficPolicy", text, None);
    }
}

/// Why nothing shows any of these services, and what to do about it.
fn why(index: &Index, held: &[ServiceName]) -> Option<(String, String)> {
    let unseen: Option<Vec<_>> = held.iter().map(|service| index.unseen(service)).collect();
    let (ServiceName { hostname: host, .. }, unseen) = held.iter().zip(unseen?).next()?;
    Some(match unseen {
        Unseen::Alias(of) => {
            let fix = format!(
                "Write them for {of}; if no Service has that name, with a ServiceEntry that has its addresses in spec.addresses"
            );
            (
                format!("the Service {host} is an ExternalName, and its clients dial what they find as {of}"),
                fix,
            )
        }
        Unseen::Entry(entry) => {
            let name = &entry.name;
            let text = format!(
                "the ServiceEntry {name} gives {host} no address, and its clients dial what they find by its name"
            );
            (text, format!("Give the ServiceEntry {name} the addresses that are dialled, in spec.addresses"))
        }
    })
}
