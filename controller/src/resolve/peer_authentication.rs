//! Which plaintext may enter a pod: mesh, namespace, workload and port in one answer.
//!
//! Each level may override the one before, and `UNSET` does not. At every level one object counts, the oldest;
//! ports are those of the object that selects the workload, and no other's.

use crate::index::Index;
use crate::objects::{Map, MtlsMode, Name, PeerAuthentication};
use crate::source::Problem;
use warren_common::model::{self, MtlsRule};

/// What holds for a workload of a namespace with these labels.
pub(super) fn peer_authentication(index: &Index, namespace: &str, labels: &Map) -> model::PeerAuthentication {
    combined(index, namespace, index.selecting_peer_authentication(namespace, labels))
}

/// The same where the object that selects the workload is known.
pub(super) fn combined(
    index: &Index,
    namespace: &str,
    selecting: Option<&PeerAuthentication>,
) -> model::PeerAuthentication {
    let levels =
        [index.mesh_peer_authentication(), index.namespace_peer_authentication(namespace), selecting];
    let all = levels.into_iter().flatten().filter_map(|policy| rule(policy, policy.mode)).next_back();
    let ports = selecting.into_iter().flat_map(|policy| {
        policy.ports.iter().filter_map(|(port, mode)| Some((*port, rule(policy, *mode)?)))
    });
    model::PeerAuthentication { all: all.unwrap_or_default(), ports: ports.collect() }
}

/// `None` where nothing is said.
fn rule(policy: &PeerAuthentication, mode: MtlsMode) -> Option<MtlsRule> {
    let strict = match mode {
        MtlsMode::Unset => return None,
        MtlsMode::Strict => true,
        // As in Istio's ambient mode: who can use mutual TLS, does.
        MtlsMode::Permissive | MtlsMode::Disable => false,
    };
    Some(MtlsRule { strict, rule: format!("PeerAuthentication {}", policy.name).into() })
}

/// What its author should know about an object that does not do what it seems to say.
pub(super) fn remarks(index: &Index, name: &Name) -> Vec<Problem> {
    let Some(policy) = index.peer_authentication(name) else { return Vec::new() };
    let mut reasons = Vec::new();
    let general = policy.selector.is_empty();
    if general
        && index.namespace_peer_authentication(&name.namespace).map(|oldest| &oldest.name) != Some(name)
    {
        reasons.push("has no effect: another one without a selector in this namespace counts (the oldest, then the first by its name)");
    }
    if !general && index.root_namespaces().contains(&name.namespace) {
        reasons.push("has no effect: in the root namespace only those without a selector count");
    }
    if policy.mode == MtlsMode::Disable || policy.ports.values().any(|mode| *mode == MtlsMode::Disable) {
        reasons.push("DISABLE works like PERMISSIVE: between enrolled pods mutual TLS is always used");
    }
    let place = format!("PeerAuthentication {name}");
    let problem = |reason: &str| Problem { place: place.clone(), line: None, reason: reason.to_owned() };
    reasons.into_iter().map(problem).collect()
}
