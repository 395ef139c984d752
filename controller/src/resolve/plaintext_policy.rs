//! PeerAuthentications as policies that deny who has no identity: what a ztunnel is told, which knows nothing else. Names
//! are istiod's. Our own agents are told by the workload's extension, and skip these.

use super::peer_authentication::combined;
use crate::index::Index;
use crate::objects::{Name, Pod};
use warren_common::model::{
    AuthorizationPolicy, CONVERTED_PREFIX, PeerAuthentication, PolicyAction, PolicyMatch, PolicyName,
    PolicyRule, PolicyScope, STATIC_STRICT, StringMatch,
};

/// Where the policy for all stands that no object stands for, should there be no root namespace.
const DEFAULT_ROOT: &str = "warren-system";

/// The policy that a pod names.
pub(super) fn of_pod(index: &Index, pod: &Pod, mtls: &PeerAuthentication) -> Option<PolicyName> {
    let (strict, lax) = ports(mtls);
    if mtls.all.strict && lax.is_empty() {
        return strict_name(index);
    }
    if !mtls.all.strict && strict.is_empty() {
        return None;
    }
    let selecting = index.selecting_peer_authentication(&pod.name.namespace, &pod.labels);
    // A name that is too long with the prefix: refusing more is all that can be said then.
    selecting.and_then(|policy| converted(&policy.name)).or_else(|| strict_name(index))
}

/// The policy that refuses all plaintext.
pub(super) fn strict(index: &Index) -> Option<AuthorizationPolicy> {
    let rules = vec![PolicyRule { index: 0, clauses: vec![vec![plaintext()]] }];
    index.has_peer_authentications().then_some(policy(strict_name(index)?, rules))
}

/// The policy of a PeerAuthentication with ports of its own.
pub(super) fn of_ports(index: &Index, name: &Name) -> Option<AuthorizationPolicy> {
    let object = index.peer_authentication(name).filter(|object| !object.selector.is_empty())?;
    if index.root_namespaces().contains(&name.namespace) {
        return None;
    }
    let mtls = combined(index, &name.namespace, Some(object));
    let (strict, lax) = ports(&mtls);
    let condition = match (mtls.all.strict, strict.is_empty(), lax.is_empty()) {
        (true, _, false) => PolicyMatch { not_destination_ports: lax, ..PolicyMatch::default() },
        (false, false, _) => PolicyMatch { destination_ports: strict, ..PolicyMatch::default() },
        // All of it or nothing: no pod names it.
        _ => return None,
    };
    let clauses = vec![vec![plaintext()], vec![condition]];
    Some(policy(converted(name)?, vec![PolicyRule { index: 0, clauses }]))
}

/// The ports that differ from the rest or might: those that take mutual TLS only, and the others.
fn ports(mtls: &PeerAuthentication) -> (Vec<u16>, Vec<u16>) {
    let (strict, lax): (Vec<_>, Vec<_>) = mtls.ports.iter().partition(|(_, rule)| rule.strict);
    let numbers = |ports: Vec<(&u16, _)>| ports.into_iter().map(|(port, _)| *port).collect();
    (numbers(strict), numbers(lax))
}

fn plaintext() -> PolicyMatch {
    PolicyMatch { not_principals: vec![StringMatch::Presence], ..PolicyMatch::default() }
}

fn policy(name: PolicyName, rules: Vec<PolicyRule>) -> AuthorizationPolicy {
    AuthorizationPolicy {
        name,
        scope: PolicyScope::Workload,
        action: PolicyAction::Deny,
        dry_run: false,
        only_ports: None,
        rules,
    }
}

fn converted(name: &Name) -> Option<PolicyName> {
    PolicyName::new(&name.namespace, &format!("{CONVERTED_PREFIX}{}", name.name)).ok()
}

/// None only if no name can be made at all.
pub(super) fn strict_name(index: &Index) -> Option<PolicyName> {
    let roots = index.root_namespaces().0.iter().map(AsRef::as_ref);
    roots.chain([DEFAULT_ROOT]).find_map(|root| PolicyName::new(root, STATIC_STRICT).ok())
}
