//! How a running agent is.

use crate::client::{Agent, ClientError, get};
use crate::render::certs::trouble;
use crate::render::check::Finding;
use crate::render::remaining;
use std::path::Path;
use time::OffsetDateTime;
use warren_common::model::admin::{Certificates, PodState, Status};

/// Looks at the agent behind `socket`. That none runs is no fault of the node.
pub(super) async fn look(socket: &Path) -> Vec<Finding> {
    let agent = Agent::Socket(socket.to_owned());
    match get::<Status>(&agent, "/v1/status").await {
        Ok(status) => {
            let mut found =
                vec![Finding::good("agent", format!("{} answers on {}", status.node, socket.display()))];
            found.extend(judge(&status));
            found.push(match get::<Certificates>(&agent, "/v1/certs").await {
                Ok(certificates) => certificates_of(&certificates, OffsetDateTime::now_utc()),
                Err(error) => Finding::bad("certificates", error.to_string(), "look at the agent's log"),
            });
            found
        }
        Err(ClientError::NoSocket(path)) => {
            vec![Finding::skipped("agent", format!("none runs here ({} does not exist)", path.display()))]
        }
        Err(error) => {
            let said = error.to_string();
            let (what, todo) = said.split_once("\n  ").unwrap_or((&said, "look at the agent's log"));
            vec![Finding::bad("agent", what, todo)]
        }
    }
}

pub(super) fn judge(status: &Status) -> Vec<Finding> {
    let ready = if status.ready {
        Finding::good("readiness", "ready")
    } else {
        let waiting = format!("waiting for {}", status.waiting_for.join(", "));
        Finding::bad("readiness", waiting, "the lines below and the agent's log say what holds it up")
    };
    let controller = &status.controller;
    let session = if controller.connected {
        Finding::good("controller", format!("{} connected", controller.url))
    } else {
        let why = controller.last_error.as_deref().unwrap_or("not connected yet");
        let todo = "traffic goes on with the last configuration; is the controller running, and its port 15012 open?";
        Finding::bad("controller", format!("{}: {why}", controller.url), todo)
    };
    let pending: Vec<_> = status
        .pods
        .iter()
        .filter(|pod| pod.state == PodState::Pending)
        .map(|pod| {
            format!("{}/{} ({})", pod.namespace, pod.name, pod.reason.as_deref().unwrap_or("no reason given"))
        })
        .collect();
    let pods = if pending.is_empty() {
        Finding::good("pods", format!("all {} enrolled", status.pods.len()))
    } else {
        let todo = "their traffic is not captured yet; a pod that stays so for a minute is stuck: see the agent's log";
        Finding::bad("pods", format!("{} pending: {}", pending.len(), pending.join(", ")), todo)
    };
    vec![ready, session, pods]
}

pub(super) fn certificates_of(certificates: &Certificates, now: OffsetDateTime) -> Finding {
    let found = trouble(certificates, now);
    if found.is_empty() {
        let (ours, roots) = (certificates.certificates.len(), certificates.roots.len());
        let first = |ends: Vec<&str>| {
            ends.into_iter()
                .min()
                .map_or(String::new(), |end| format!(" (the first ends {})", remaining(Some(end), now)))
        };
        let leaves =
            first(certificates.certificates.iter().filter_map(|one| one.not_after.as_deref()).collect());
        let anchors = first(certificates.roots.iter().map(|root| root.not_after.as_str()).collect());
        let detail = format!("{ours} in good time{leaves}, {roots} trusted roots{anchors}");
        return Finding::good("certificates", detail);
    }
    let todo = if found.iter().any(|line| line.starts_with("root ")) {
        "`warren ca status` says how the CA is, `warren ca rotate --root` makes a new root (a plugged-in one: replace its files)"
    } else {
        "is the controller reachable, and is the pod's service account allowed? `warren certs` has the details"
    };
    Finding::bad("certificates", found.join("; "), todo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::check::Outcome;

    #[test]
    fn an_ill_agent_has_three_complaints() {
        let ill: Status = serde_json::from_str(
            r#"{"node":"n","version":"1","uptime_s":1,"ready":false,"waiting_for":["the first configuration"],
                "controller":{"url":"https://c","connected":false,"from_disk":false,"last_error":null,"rejected":0},
                "pods":[{"name":"p","namespace":"s","pod_uid":"u","state":"pending","reason":"no cgroup yet",
                         "netns_cookie":null}],
                "workloads":0,"services":0,"open_flows":0,"kernel":{},"tunnels":0}"#,
        )
        .unwrap();
        let found = judge(&ill);
        assert!(found.iter().all(|finding| finding.result == Outcome::Bad && finding.todo.is_some()));
        assert_eq!(found[2].detail, "1 pending: s/p (no cgroup yet)");
    }

    #[test]
    fn no_agent_is_no_fault() {
        let empty = tempfile::tempdir().unwrap();
        let found = crate::client::block_on(look(&empty.path().join("none.sock"))).unwrap();
        assert_eq!(found[0].result, Outcome::Skipped);
    }
}
