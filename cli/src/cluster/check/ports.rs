//! Which ports a NetworkPolicy lets in. Pure.

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Whether the policy lets anybody at all in on a TCP port. Who that is, is not looked at.
pub(super) fn admits(policy: &NetworkPolicy, port: u16) -> bool {
    let rules = policy.spec.iter().flat_map(|spec| spec.ingress.iter().flatten());
    rules.into_iter().any(|rule| match rule.ports.as_deref() {
        None | Some([]) => true,
        Some(ports) => ports.iter().any(|allowed| covers(allowed, port)),
    })
}

fn covers(allowed: &NetworkPolicyPort, port: u16) -> bool {
    if allowed.protocol.as_deref().unwrap_or("TCP") != "TCP" {
        return false;
    }
    let port = i32::from(port);
    match (&allowed.port, allowed.end_port) {
        (None, _) => true,
        (Some(IntOrString::Int(first)), Some(last)) => (*first..=last).contains(&port),
        (Some(IntOrString::Int(only)), None) => *only == port,
        // A container's port by name; none is named for the agent's.
        (Some(IntOrString::String(_)), _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rule_admits_its_ports() {
        for (ingress, expected) in [
            (json!(null), false),
            (json!([]), false),
            (json!([{}]), true),
            (json!([{"from": [{"podSelector": {}}]}]), true),
            (json!([{"ports": [{"port": 8080}]}]), false),
            (json!([{"ports": [{"port": 8080}]}, {"ports": [{"port": 15008}]}]), true),
            (json!([{"ports": [{"protocol": "UDP", "port": 15008}]}]), false),
            (json!([{"ports": [{"port": 15000, "endPort": 15100}]}]), true),
            (json!([{"ports": [{"port": "http"}]}]), false),
            (json!([{"ports": [{"protocol": "TCP"}]}]), true),
        ] {
            let policy = json!({"metadata": {}, "spec": {"podSelector": {}, "ingress": ingress}});
            let policy: NetworkPolicy = serde_json::from_value(policy).unwrap();
            assert_eq!(admits(&policy, 15008), expected, "{ingress}");
        }
    }
}
