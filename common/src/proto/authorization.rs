//! `istio.security.Authorization` to and from policies.
//!
//! On the wire a clause without matches always holds and a match without conditions is one that old readers skip; here it
//! is the other way round (see [`PolicyRule`]). Both ends settle that: what always holds is left out, and so is an ALLOW
//! rule that never matches.

use super::address::{invalid, ip_to_wire, port_number};
use super::error::WireError;
use super::generated::security as wire;
use super::generated::workload::Extension;
use crate::model::{
    AuthorizationPolicy, Cidr, PolicyAction, PolicyMatch, PolicyName, PolicyRule, PolicyScope,
    ServiceAccountMatch, StringMatch,
};
use prost::Message;
use std::net::IpAddr;
use wire::string_match::MatchType;

/// Type URL of policies on the wire; a policy's resource name is its `namespace/name`.
pub const AUTHORIZATION_TYPE_URL: &str = "type.googleapis.com/istio.security.Authorization";

/// Encodes a policy as the bytes of its message.
pub fn encode_authorization(policy: &AuthorizationPolicy) -> Vec<u8> {
    let common = ztunnel_form(policy);
    let exact = simplified(policy);
    let is_exact = common.rules != exact || policy.only_ports.is_some();
    wire::Authorization {
        name: policy.name.name().to_string(),
        namespace: policy.name.namespace().to_string(),
        scope: match policy.scope {
            PolicyScope::Global => wire::Scope::Global,
            PolicyScope::Namespace => wire::Scope::Namespace,
            PolicyScope::Workload => wire::Scope::WorkloadSelector,
        }
        .into(),
        action: match policy.action {
            PolicyAction::Allow => wire::Action::Allow,
            PolicyAction::Deny => wire::Action::Deny,
        }
        .into(),
        groups: common.rules.iter().map(rule_to_wire).collect(),
        dry_run: policy.dry_run,
        extensions: Vec::new(),
        exact_groups: if is_exact { exact.iter().map(rule_to_wire).collect() } else { Vec::new() },
        exact: is_exact,
        only_ports: policy.only_ports.iter().flatten().map(|port| u32::from(*port)).collect(),
        limited: policy.only_ports.is_some(),
    }
    .encode_to_vec()
}

/// Decodes and checks a policy.
///
/// # Errors
/// When the bytes are no message, or hold what is not understood: a policy is taken as a whole or not at all.
pub fn decode_authorization(bytes: &[u8]) -> Result<AuthorizationPolicy, WireError> {
    let wire = wire::Authorization::decode(bytes)?;
    let (scope, action) = (scope_from_wire(wire.scope)?, action_from_wire(wire.action)?);
    no_extensions(&wire.extensions)?;
    let groups = if wire.exact { wire.exact_groups } else { wire.groups };
    let rules = groups.into_iter().map(|group| rule_from_wire(group, action));
    Ok(AuthorizationPolicy {
        name: policy_name(&format!("{}/{}", wire.namespace, wire.name))?,
        scope,
        action,
        dry_run: wire.dry_run,
        only_ports: wire.limited.then(|| ports(&wire.only_ports)).transpose()?,
        rules: rules.filter_map(Result::transpose).collect::<Result<_, _>>()?,
    })
}

/// The scope of a policy that [`decode_authorization`] refuses, as far as it can be read.
pub fn scope_of_authorization(bytes: &[u8]) -> Option<PolicyScope> {
    let wire = wire::Authorization::decode(bytes).ok()?;
    scope_from_wire(wire.scope).ok()
}

/// What of a policy a reader sees who knows ztunnel's fields alone: it never permits more than the policy does. Of what
/// cannot be said, an ALLOW policy loses the alternative that needs it, a DENY policy the condition.
pub fn ztunnel_form(policy: &AuthorizationPolicy) -> AuthorizationPolicy {
    let alternative = |one: &PolicyMatch| match policy.action {
        PolicyAction::Allow => is_common(one).then(|| one.clone()),
        PolicyAction::Deny => Some(widened(one)),
    };
    let clause = |matches: &Vec<PolicyMatch>| matches.iter().filter_map(alternative).collect();
    let rule = |rule: &PolicyRule| PolicyRule {
        index: rule.index,
        clauses: rule.clauses.iter().map(clause).collect(),
    };
    let mut rules: Vec<_> = policy.rules.iter().map(rule).collect();
    if let Some(ports) = &policy.only_ports {
        let there = PolicyMatch { destination_ports: ports.clone(), ..PolicyMatch::default() };
        let clause = if ports.is_empty() { Vec::new() } else { vec![there] };
        rules.iter_mut().for_each(|rule| rule.clauses.push(clause.clone()));
    }
    let mut form = AuthorizationPolicy { rules, only_ports: None, ..policy.clone() };
    form.rules = simplified(&form);
    form
}

/// The rules without what always holds and without those that never match: what is left means the same on the wire.
fn simplified(policy: &AuthorizationPolicy) -> Vec<PolicyRule> {
    let always = |clause: &Vec<PolicyMatch>| clause.contains(&PolicyMatch::default());
    let never = |rule: &&PolicyRule| rule.clauses.iter().any(Vec::is_empty);
    let rule = |rule: &PolicyRule| PolicyRule {
        index: rule.index,
        clauses: rule.clauses.iter().filter(|clause| !always(clause)).cloned().collect(),
    };
    policy.rules.iter().filter(|rule| !never(rule)).map(rule).collect()
}

fn is_common(one: &PolicyMatch) -> bool {
    *one == widened(one)
}

/// Without the conditions that only our fields can say.
fn widened(one: &PolicyMatch) -> PolicyMatch {
    let sayable = |list: &[StringMatch]| !list.iter().any(|text| matches!(text, StringMatch::Glob(_)));
    // A positive list as a whole: without one of its values it would hold for less.
    let positive = |list: &[StringMatch]| if sayable(list) { list.to_vec() } else { Vec::new() };
    let negative = |list: &[StringMatch]| {
        list.iter().filter(|text| !matches!(text, StringMatch::Glob(_))).cloned().collect()
    };
    PolicyMatch {
        namespaces: positive(&one.namespaces),
        not_namespaces: negative(&one.not_namespaces),
        principals: positive(&one.principals),
        not_principals: negative(&one.not_principals),
        trust_domains: Vec::new(),
        not_trust_domains: Vec::new(),
        remote_ips: Vec::new(),
        not_remote_ips: Vec::new(),
        server_names: Vec::new(),
        not_server_names: Vec::new(),
        ..one.clone()
    }
}

fn rule_to_wire(rule: &PolicyRule) -> wire::Group {
    let clause =
        |matches: &Vec<PolicyMatch>| wire::Rules { matches: matches.iter().map(match_to_wire).collect() };
    wire::Group { rules: rule.clauses.iter().map(clause).collect(), index: rule.index }
}

/// Nothing for an ALLOW rule that never matches.
fn rule_from_wire(group: wire::Group, action: PolicyAction) -> Result<Option<PolicyRule>, WireError> {
    let mut clauses = Vec::with_capacity(group.rules.len());
    for clause in group.rules.into_iter().filter(|clause| !clause.matches.is_empty()) {
        let matches = clause.matches.into_iter().map(match_from_wire);
        let mut matches = matches.collect::<Result<Vec<_>, _>>()?;
        // Readers differ about a match without conditions; the meaning that permits less is taken.
        let is_any = |one: &PolicyMatch| *one == PolicyMatch::default();
        match action {
            PolicyAction::Deny if matches.iter().any(is_any) => continue,
            PolicyAction::Deny => {}
            PolicyAction::Allow => matches.retain(|one| !is_any(one)),
        }
        if matches.is_empty() {
            return Ok(None);
        }
        clauses.push(matches);
    }
    Ok(Some(PolicyRule { index: group.index, clauses }))
}

fn match_to_wire(one: &PolicyMatch) -> wire::Match {
    let texts = |list: &[StringMatch]| list.iter().map(text_to_wire).collect();
    let ranges = |list: &[Cidr]| list.iter().map(|range| range_to_wire(*range)).collect();
    let ports = |list: &[u16]| list.iter().map(|port| u32::from(*port)).collect();
    let accounts = |list: &[ServiceAccountMatch]| {
        let account = |account: &ServiceAccountMatch| wire::ServiceAccountMatch {
            namespace: account.namespace.to_string(),
            service_account: account.service_account.to_string(),
        };
        list.iter().map(account).collect()
    };
    wire::Match {
        namespaces: texts(&one.namespaces),
        not_namespaces: texts(&one.not_namespaces),
        principals: texts(&one.principals),
        not_principals: texts(&one.not_principals),
        source_ips: ranges(&one.source_ips),
        not_source_ips: ranges(&one.not_source_ips),
        destination_ips: ranges(&one.destination_ips),
        not_destination_ips: ranges(&one.not_destination_ips),
        destination_ports: ports(&one.destination_ports),
        not_destination_ports: ports(&one.not_destination_ports),
        service_accounts: accounts(&one.service_accounts),
        not_service_accounts: accounts(&one.not_service_accounts),
        extensions: Vec::new(),
        trust_domains: texts(&one.trust_domains),
        not_trust_domains: texts(&one.not_trust_domains),
        remote_ips: ranges(&one.remote_ips),
        not_remote_ips: ranges(&one.not_remote_ips),
        server_names: texts(&one.server_names),
        not_server_names: texts(&one.not_server_names),
    }
}

fn match_from_wire(wire: wire::Match) -> Result<PolicyMatch, WireError> {
    no_extensions(&wire.extensions)?;
    Ok(PolicyMatch {
        namespaces: texts(wire.namespaces)?,
        not_namespaces: texts(wire.not_namespaces)?,
        principals: texts(wire.principals)?,
        not_principals: texts(wire.not_principals)?,
        service_accounts: accounts(wire.service_accounts),
        not_service_accounts: accounts(wire.not_service_accounts),
        trust_domains: texts(wire.trust_domains)?,
        not_trust_domains: texts(wire.not_trust_domains)?,
        source_ips: ranges(&wire.source_ips)?,
        not_source_ips: ranges(&wire.not_source_ips)?,
        remote_ips: ranges(&wire.remote_ips)?,
        not_remote_ips: ranges(&wire.not_remote_ips)?,
        destination_ips: ranges(&wire.destination_ips)?,
        not_destination_ips: ranges(&wire.not_destination_ips)?,
        destination_ports: ports(&wire.destination_ports)?,
        not_destination_ports: ports(&wire.not_destination_ports)?,
        server_names: texts(wire.server_names)?,
        not_server_names: texts(wire.not_server_names)?,
    })
}

fn text_to_wire(text: &StringMatch) -> wire::StringMatch {
    let kind = match text {
        StringMatch::Exact(text) => MatchType::Exact(text.to_string()),
        StringMatch::Prefix(text) => MatchType::Prefix(text.to_string()),
        StringMatch::Suffix(text) => MatchType::Suffix(text.to_string()),
        StringMatch::Presence => MatchType::Presence(()),
        StringMatch::Glob(text) => MatchType::Glob(text.to_string()),
    };
    wire::StringMatch { match_type: Some(kind) }
}

fn texts(list: Vec<wire::StringMatch>) -> Result<Vec<StringMatch>, WireError> {
    let text = |wire: wire::StringMatch| {
        Ok(match wire.match_type.ok_or(WireError::Missing("match_type"))? {
            MatchType::Exact(text) => StringMatch::Exact(text.into()),
            MatchType::Prefix(text) => StringMatch::Prefix(text.into()),
            MatchType::Suffix(text) => StringMatch::Suffix(text.into()),
            MatchType::Presence(()) => StringMatch::Presence,
            MatchType::Glob(text) => StringMatch::Glob(text.into()),
        })
    };
    list.into_iter().map(text).collect()
}

fn range_to_wire(range: Cidr) -> wire::Address {
    wire::Address { address: ip_to_wire(range.address()), length: range.length().into() }
}

fn ranges(list: &[wire::Address]) -> Result<Vec<Cidr>, WireError> {
    let range = |wire: &wire::Address| {
        let v4 = <[u8; 4]>::try_from(wire.address.as_slice()).map(IpAddr::from).ok();
        let address = v4.or_else(|| <[u8; 16]>::try_from(wire.address.as_slice()).map(IpAddr::from).ok());
        let length = u8::try_from(wire.length).ok();
        address.zip(length).and_then(|(address, length)| Cidr::new(address, length).ok()).ok_or_else(|| {
            let found = format!("{} bytes with the prefix length {}", wire.address.len(), wire.length);
            invalid("address", &found, "a range of addresses")
        })
    };
    list.iter().map(range).collect()
}

fn ports(list: &[u32]) -> Result<Vec<u16>, WireError> {
    list.iter().map(|port| port_number(*port, "destination_ports")).collect()
}

fn accounts(list: Vec<wire::ServiceAccountMatch>) -> Vec<ServiceAccountMatch> {
    let account = |wire: wire::ServiceAccountMatch| ServiceAccountMatch {
        namespace: wire.namespace.into(),
        service_account: wire.service_account.into(),
    };
    list.into_iter().map(account).collect()
}

pub(super) fn policy_name(text: &str) -> Result<PolicyName, WireError> {
    text.parse().map_err(|_| invalid("name", text, "namespace/name of a policy"))
}

fn scope_from_wire(scope: i32) -> Result<PolicyScope, WireError> {
    match wire::Scope::try_from(scope) {
        Ok(wire::Scope::Global) => Ok(PolicyScope::Global),
        Ok(wire::Scope::Namespace) => Ok(PolicyScope::Namespace),
        Ok(wire::Scope::WorkloadSelector) => Ok(PolicyScope::Workload),
        Err(_) => Err(invalid("scope", &scope.to_string(), "a scope that this version knows")),
    }
}

fn action_from_wire(action: i32) -> Result<PolicyAction, WireError> {
    match wire::Action::try_from(action) {
        Ok(wire::Action::Allow) => Ok(PolicyAction::Allow),
        Ok(wire::Action::Deny) => Ok(PolicyAction::Deny),
        Err(_) => Err(invalid("action", &action.to_string(), "an action that this version knows")),
    }
}

/// What an extension says might narrow what is permitted.
fn no_extensions(extensions: &[Extension]) -> Result<(), WireError> {
    match extensions.first() {
        None => Ok(()),
        Some(extension) => {
            Err(invalid("extensions", &extension.name, "an extension that this version knows"))
        }
    }
}

#[cfg(test)]
#[path = "authorization_tests.rs"]
mod tests;
