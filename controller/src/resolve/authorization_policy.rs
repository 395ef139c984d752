//! AuthorizationPolicies as connections are judged by them, with what HTTP they name taken out.
//!
//! Nothing is parsed, so a field of HTTP holds for no connection that may be let in, and for every one that is to be
//! refused: an ALLOW rule that has one is left out, and of a DENY rule that field is. CUSTOM asks somebody whom nobody can
//! reach, so whatever it matches is refused, as Istio does with a provider that it does not know.

use super::ResolveConfig;
use crate::index::Index;
use crate::objects::{AuthorizationPolicy, Name, PolicyAction, PolicyPart, PolicyRule, PolicyTarget};
use crate::source::Problem;
use std::collections::BTreeSet;
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
    problems.extend(remarks(policy).map(|reason| Problem { place: place.clone(), line: None, reason }));
    let PolicyTarget::Workloads(labels) = &policy.target else { return None };
    let action = match policy.action {
        PolicyAction::Allow => model::PolicyAction::Allow,
        PolicyAction::Deny | PolicyAction::Custom => model::PolicyAction::Deny,
        PolicyAction::Audit => return None,
    };
    let rules = policy.rules.iter().zip(0..).filter(|(rule, _)| {
        action == model::PolicyAction::Deny || rule.parts().all(|part| part.http.is_empty())
    });
    Some(model::AuthorizationPolicy {
        name: PolicyName::new(&name.namespace, &name.name).ok()?,
        scope: match (labels.is_empty(), index.root_namespaces().contains(&name.namespace)) {
            (false, _) => PolicyScope::Workload,
            (true, true) => PolicyScope::Global,
            (true, false) => PolicyScope::Namespace,
        },
        action,
        dry_run: policy.dry_run,
        rules: rules.map(|(rule, index)| compiled(rule, index, config)).collect(),
    })
}

fn compiled(rule: &PolicyRule, index: u32, config: &ResolveConfig) -> model::PolicyRule {
    let one = |part: &PolicyPart| in_own_trust_domain(&part.connection, &config.trust_domain);
    let any = |parts: &[PolicyPart]| parts.iter().map(one).collect::<Vec<_>>();
    let clauses = [any(&rule.from), any(&rule.to)].into_iter();
    let clauses = clauses.chain(rule.when.iter().map(|part| vec![one(part)]));
    // What is absent or holds for everything constrains nothing.
    let constrains =
        |clause: &Vec<PolicyMatch>| !clause.is_empty() && !clause.contains(&PolicyMatch::default());
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
fn remarks(policy: &AuthorizationPolicy) -> impl Iterator<Item = String> {
    let attached = policy.target == PolicyTarget::Attached;
    let general = match policy.action {
        _ if attached => {
            Some("has no effect: targetRefs are of gateways and services, where nothing is judged")
        }
        PolicyAction::Audit => {
            Some("has no effect: AUDIT refuses nothing, and nobody collects what it marks")
        }
        PolicyAction::Custom => {
            Some("CUSTOM is not supported: its provider is not known, so what its rules match is denied")
        }
        PolicyAction::Allow | PolicyAction::Deny => None,
    };
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
    general.map(str::to_owned).into_iter().chain(http)
}

/// The first ones of a list that may be long.
fn listed(texts: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<_> = texts.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = if texts.len() > SHOWN { " ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}
