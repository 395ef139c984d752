//! AuthorizationPolicies as connections are judged by them, with what HTTP they name taken out.
//!
//! Nothing is parsed, so a field of HTTP holds for no connection that may be let in, and for every one that is to be
//! refused: an ALLOW rule that has one is left out, and of a DENY rule that field is. CUSTOM asks somebody whom nobody can
//! reach, so whatever it matches is refused, as Istio does with a provider that it does not know.

use super::ResolveConfig;
use super::workload::mappings;
use crate::index::Index;
use crate::objects::{AuthorizationPolicy, Name, PolicyAction, PolicyPart, PolicyRule, PolicyTarget};
use crate::source::Problem;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use warren_common::model::{self, PolicyMatch, PolicyName, PolicyScope, StringMatch};

/// The trust domain that stands for the mesh's own in principals, whatever that is called.
const OWN_TRUST_DOMAIN: &str = "cluster.local";

/// None for one that no connection is judged by.
pub(super) fn policy(
    index: &Index,
    config: &ResolveConfig,
    name: &Name,
    problems: &mut Vec<Problem>,
) -> Option<model::AuthorizationPolicy> {
    let policy = index.authorization_policy(name)?;
    let place = format!("AuthorizationPolicy {name}");
    problems.extend(remarks(index, policy).map(|reason| Problem {
        place: place.clone(),
        line: None,
        reason,
    }));
    if !policy.judges() {
        return None;
    }
    let action = match policy.action {
        PolicyAction::Allow => model::PolicyAction::Allow,
        PolicyAction::Deny | PolicyAction::Custom | PolicyAction::Audit => model::PolicyAction::Deny,
    };
    let rules = policy.rules.iter().zip(0..).filter(|(rule, _)| {
        action == model::PolicyAction::Deny || rule.parts().all(|part| part.http.is_empty())
    });
    let (scope, ports) = match &policy.target {
        PolicyTarget::Attached { .. } => (PolicyScope::Workload, Some(Ports::of(index, policy))),
        PolicyTarget::Workloads(labels) if !labels.is_empty() => (PolicyScope::Workload, None),
        PolicyTarget::Workloads(_) if index.root_namespaces().contains(&name.namespace) => {
            (PolicyScope::Global, None)
        }
        PolicyTarget::Workloads(_) => (PolicyScope::Namespace, None),
    };
    Some(model::AuthorizationPolicy {
        name: PolicyName::new(&name.namespace, &name.name).ok()?,
        scope,
        action,
        dry_run: policy.dry_run,
        only_ports: ports.as_ref().map(Ports::all),
        rules: rules.map(|(rule, index)| compiled(rule, index, config, ports.as_ref())).collect(),
    })
}

/// Where the ports of a policy's services lead to: such a policy names a service's ports, connections have a workload's.
struct Ports(BTreeMap<u16, BTreeSet<u16>>);

impl Ports {
    fn of(index: &Index, policy: &AuthorizationPolicy) -> Self {
        let mut ports: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for name in policy.services() {
            let Some(service) = index.service(&name) else { continue };
            for mapping in index.slices_of_service(&name).flat_map(|slice| mappings(service, slice)) {
                ports.entry(mapping.service_port).or_default().insert(mapping.target_port);
            }
        }
        Self(ports)
    }

    /// All that they lead to.
    fn all(&self) -> Vec<u16> {
        self.0.values().flatten().copied().collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn targets(&self, ports: &[u16]) -> Vec<u16> {
        let targets = ports.iter().filter_map(|port| self.0.get(port)).flatten();
        targets.copied().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The same of a workload's ports. None: it holds for no connection.
    fn translated(&self, one: PolicyMatch) -> Option<PolicyMatch> {
        let destination_ports = self.targets(&one.destination_ports);
        let is_lost = destination_ports.is_empty() && !one.destination_ports.is_empty();
        let not_destination_ports = self.targets(&one.not_destination_ports);
        (!is_lost).then_some(PolicyMatch { destination_ports, not_destination_ports, ..one })
    }
}

fn compiled(
    rule: &PolicyRule,
    index: u32,
    config: &ResolveConfig,
    ports: Option<&Ports>,
) -> model::PolicyRule {
    let one = |part: &PolicyPart| {
        let one = in_own_trust_domain(&part.connection, &config.trust_domain);
        match ports {
            Some(ports) => ports.translated(one),
            None => Some(one),
        }
    };
    let parts = [rule.from.as_slice(), rule.to.as_slice()].into_iter();
    // What is absent constrains nothing.
    let parts = parts.chain(rule.when.iter().map(std::slice::from_ref)).filter(|parts| !parts.is_empty());
    let clauses = parts.map(|parts| parts.iter().filter_map(one).collect::<Vec<_>>());
    // Nor does what holds for everything. A clause of which nothing is left never holds.
    let constrains = |clause: &Vec<PolicyMatch>| !clause.contains(&PolicyMatch::default());
    model::PolicyRule { index, clauses: clauses.filter(constrains).collect() }
}

fn in_own_trust_domain(one: &PolicyMatch, own: &str) -> PolicyMatch {
    let renamed = |list: &[StringMatch]| list.iter().map(|text| in_own(text, own)).collect();
    PolicyMatch {
        principals: renamed(&one.principals),
        not_principals: renamed(&one.not_principals),
        ..one.clone()
    }
}

fn in_own(text: &StringMatch, own: &str) -> StringMatch {
    let renamed = |text: &Arc<str>| match text.strip_prefix(OWN_TRUST_DOMAIN) {
        Some(path) if path.starts_with('/') => format!("{own}{path}").into(),
        _ => text.clone(),
    };
    match text {
        StringMatch::Exact(text) => StringMatch::Exact(renamed(text)),
        StringMatch::Prefix(text) => StringMatch::Prefix(renamed(text)),
        other => other.clone(),
    }
}

/// What its author should know about a policy that does not do what it seems to say.
fn remarks<'a>(index: &Index, policy: &'a AuthorizationPolicy) -> impl Iterator<Item = String> + use<'a> {
    let general = match policy.action {
        _ if policy.unread.is_some() => None,
        PolicyAction::Audit => {
            Some("has no effect: AUDIT refuses nothing, and nobody collects what it marks".to_owned())
        }
        PolicyAction::Custom => Some(
            "CUSTOM is not supported: its provider is not known, so what its rules match is denied"
                .to_owned(),
        ),
        PolicyAction::Allow | PolicyAction::Deny => None,
    };
    let unread = policy.unread.as_ref().map(|why| {
        format!("is not understood and never was ({why}): nobody may enter the pods that it may be for")
    });
    let others = match &policy.target {
        PolicyTarget::Attached { others, .. } if !others.is_empty() => {
            let others = listed(&others.iter().collect::<Vec<_>>());
            Some(format!("has no effect on {others}: only at services' pods connections are judged"))
        }
        _ => None,
    };
    let absent = policy.services().filter(|service| index.service(service).is_none());
    let absent: Vec<_> = absent.map(|service| service.to_string()).collect();
    let absent = (!absent.is_empty()).then(|| {
        format!(
            "is attached to services that are not there, and for nobody until they are: {}",
            listed(&absent)
        )
    });
    let rules = || policy.rules.iter().zip(0..);
    let with_http = rules().filter(|(rule, _)| rule.parts().any(|part| !part.http.is_empty()));
    let numbers: Vec<String> = with_http.map(|(_, index): (_, u32)| index.to_string()).collect();
    let fields: BTreeSet<_> =
        rules().flat_map(|(rule, _)| rule.parts()).flat_map(|part| &part.http).copied().collect();
    let http = (policy.judges() && !fields.is_empty()).then(|| {
        let (numbers, fields) = (listed(&numbers), listed(&fields.into_iter().collect::<Vec<_>>()));
        let effect = match policy.action {
            PolicyAction::Allow => "these rules are left out, and what only they would allow is denied",
            _ => "there these are left out, and everything that matches the rest of the rule is denied",
        };
        format!(
            "rules {numbers} have {fields}, which are of HTTP, and requests are not looked into: {effect}"
        )
    });
    [unread, general, others, absent, http].into_iter().flatten()
}

/// The first ones of a list that may be long.
fn listed(texts: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<_> = texts.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = if texts.len() > SHOWN { " ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}
