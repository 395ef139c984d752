//! The likely cause of a failure, as a colleague would name it.

use warren_common::model::admin::{Direction, Flow, Transport};

/// What most often lies behind a failure like this one.
pub(crate) fn hint(flow: &Flow) -> Option<String> {
    let error = flow.error.as_deref().unwrap_or_default().to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| error.contains(word));
    let tunnel = flow.transport == Transport::Hbone;
    let target = flow.destination.endpoint.or(flow.destination.address);
    let target = target.map_or_else(|| "the destination".to_owned(), |address| address.to_string());
    let text = match flow.flags.as_str() {
        "DENY" => match &flow.policy {
            Some(rule) => format!("the rule {rule} decided; who calls and which port is what it looked at"),
            None => "policies that allow something apply to this workload, and none of them allows this"
                .to_owned(),
        },
        "CONNECT" if tunnel && says(&["401", "denied", "rejected by policy"]) => {
            "a policy at the destination's node refused it; `warren flows --failed` there names the rule"
                .to_owned()
        }
        "CONNECT" if tunnel && says(&["timed out", "timeout", "deadline"]) => {
            "maybe a NetworkPolicy or firewall blocks port 15008 (HBONE) between the nodes".to_owned()
        }
        "CONNECT" if tunnel && says(&["refused"]) => {
            "nobody listens on port 15008 there: is the agent of that node running and the pod enrolled? \
             (`warren check` there)"
                .to_owned()
        }
        "CONNECT" if says(&["refused"]) => {
            format!(
                "nothing listens on {target}: is the application up, on that port, and not only on 127.0.0.1?"
            )
        }
        "CONNECT" if says(&["timed out", "timeout", "deadline"]) => {
            format!(
                "no answer from {target}: the pod may be gone, or a NetworkPolicy or firewall drops the packets"
            )
        }
        "CONNECT" if says(&["unreachable"]) => format!("this node has no route to {target}; look at the CNI"),
        "NETWORK_POLICY" => {
            "a NetworkPolicy blocks port 15008 (HBONE); allow it from the pods of the mesh".to_owned()
        }
        "TLS_FAILURE" => "the two sides don't trust each other's certificates, or a clock is wrong; \
                          compare `warren certs` on both nodes"
            .to_owned(),
        "H2_HANDSHAKE_FAILURE" => {
            "what answers on port 15008 does not speak HBONE, or that agent is just restarting".to_owned()
        }
        "IDENTITY_ERROR" if flow.direction == Direction::Outbound => {
            "no certificate for this pod yet (`warren certs`), or its address now belongs to another pod"
                .to_owned()
        }
        "IDENTITY_ERROR" => "the caller has no certificate of this mesh's trust domain".to_owned(),
        "UF" if flow.request.is_none() => {
            "its DestinationRule asks for TLS that the server does not give".to_owned()
        }
        "UH" => "no pod behind this service is ready; `warren services` shows its endpoints".to_owned(),
        "SI" => {
            "it carried nothing for as long as the agent's --idle-timeout, or its DestinationRule, allows"
                .to_owned()
        }
        "UO" => "a limit was reached; the metrics and the agent's log say which".to_owned(),
        _ => return None,
    };
    Some(text)
}
