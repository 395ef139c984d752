//! The same decisions, slowly and obviously: what the fast way is compared with.

use super::Connection;
use warren_common::model::{
    AuthorizationPolicy, Cidr, Identity, PolicyAction, PolicyMatch, PolicyName, PolicyScope, StringMatch,
    Workload,
};

/// Whether the connection may enter, and by which rule (policy and index) that was decided, if by one. Policies come in
/// any order; `enforce_dry_run` takes dry-run policies for real ones.
pub(super) fn judge(
    policies: &[AuthorizationPolicy],
    workload: &Workload,
    connection: &Connection<'_>,
    enforce_dry_run: bool,
) -> (bool, Option<(PolicyName, u32)>) {
    let mut applying: Vec<&AuthorizationPolicy> = policies
        .iter()
        .filter(|policy| enforce_dry_run || !policy.dry_run)
        .filter(|policy| applies(policy, workload))
        .filter(|policy| {
            let port = connection.destination.port();
            policy.only_ports.as_ref().is_none_or(|ports| ports.contains(&port))
        })
        .collect();
    applying.sort_by_key(|policy| policy.name.clone());
    let known = |name: &PolicyName| policies.iter().any(|policy| policy.name == *name);
    if !workload.authorization_policies.iter().all(known) {
        return (false, None);
    }
    let mtls = workload.peer_authentication.of_port(connection.destination.port());
    if connection.source.is_none() && mtls.strict {
        return (false, None);
    }
    let deciding = |action: PolicyAction| {
        applying.iter().filter(|policy| policy.action == action).find_map(|policy| {
            let rule = policy.rules.iter().find(|rule| {
                rule.clauses.iter().all(|clause| clause.iter().any(|one| holds(one, connection, action)))
            });
            rule.map(|rule| (policy.name.clone(), rule.index))
        })
    };
    if let Some(by) = deciding(PolicyAction::Deny) {
        return (false, Some(by));
    }
    if !applying.iter().any(|policy| policy.action == PolicyAction::Allow) {
        return (true, None);
    }
    match deciding(PolicyAction::Allow) {
        Some(by) => (true, Some(by)),
        None => (false, None),
    }
}

/// By its scope, or because the pod names it.
pub(super) fn applies(policy: &AuthorizationPolicy, workload: &Workload) -> bool {
    let by_scope = match policy.scope {
        PolicyScope::Global => true,
        PolicyScope::Namespace => *policy.name.namespace() == workload.namespace,
        PolicyScope::Workload => false,
    };
    by_scope || workload.authorization_policies.contains(&policy.name)
}

fn holds(one: &PolicyMatch, connection: &Connection<'_>, action: PolicyAction) -> bool {
    let part = |part: fn(&Identity) -> String| connection.source.map(part).unwrap_or_default();
    let principal = part(|identity| identity.to_string().trim_start_matches("spiffe://").to_owned());
    let namespace = part(|identity| identity.namespace().to_owned());
    let trust_domain = part(|identity| identity.trust_domain().to_owned());
    let account = part(|identity| format!("{}/{}", identity.namespace(), identity.service_account()));
    let port = connection.destination.port();

    fn each<T>(any: &[T], none: &[T], matches: impl Fn(&T) -> bool) -> bool {
        (any.is_empty() || any.iter().any(&matches)) && !none.iter().any(&matches)
    }
    let within = |ip: std::net::IpAddr| move |range: &Cidr| range.contains(ip);
    let names = match connection.server_name {
        Some(name) => each(&one.server_names, &one.not_server_names, |pattern| like(pattern, name)),
        None if one.server_names.is_empty() && one.not_server_names.is_empty() => true,
        None => action == PolicyAction::Deny,
    };
    names
        && each(&one.principals, &one.not_principals, |pattern| like(pattern, &principal))
        && each(&one.namespaces, &one.not_namespaces, |pattern| like(pattern, &namespace))
        && each(&one.trust_domains, &one.not_trust_domains, |pattern| like(pattern, &trust_domain))
        && each(&one.service_accounts, &one.not_service_accounts, |wanted| {
            account == format!("{}/{}", wanted.namespace, wanted.service_account)
        })
        && each(&one.source_ips, &one.not_source_ips, within(connection.peer))
        && each(&one.remote_ips, &one.not_remote_ips, within(connection.client))
        && each(&one.destination_ips, &one.not_destination_ips, within(connection.destination.ip()))
        && each(&one.destination_ports, &one.not_destination_ports, |wanted| *wanted == port)
}

/// Nothing is like what is not there.
fn like(pattern: &StringMatch, text: &str) -> bool {
    if text.is_empty() {
        return false;
    }
    match pattern {
        StringMatch::Exact(exact) => text == &**exact,
        StringMatch::Prefix(prefix) => text.starts_with(&**prefix),
        StringMatch::Suffix(suffix) => text.ends_with(&**suffix),
        StringMatch::Presence => true,
        StringMatch::Glob(glob) => {
            // Every way to cut the text into what the letters of the pattern stand for.
            fn cut(glob: &str, text: &str) -> bool {
                match glob.chars().next() {
                    None => text.is_empty(),
                    Some('*') => (0..=text.len()).any(|at| cut(&glob[1..], &text[at..])),
                    Some(letter) => text.starts_with(letter) && cut(&glob[1..], &text[1..]),
                }
            }
            cut(glob, text)
        }
    }
}
