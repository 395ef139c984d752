//! `warren check` of a cluster: what the API server knows, then what every agent says of itself.

use super::CheckArgs;
use super::agent::{certificates_of, judge};
use crate::agents::{Answers, Unreachable, find};
use crate::client::{Agent, get, saying};
use crate::cluster::{Cluster, check, controllers};
use crate::render::check::{Finding, Outcome};
use crate::render::remaining;
use anyhow::Result;
use std::collections::BTreeMap;
use time::OffsetDateTime;
use warren_common::model::admin::{CaStatus, Certificates, Status};

/// Everything that can be seen from here.
pub(super) async fn look(args: &CheckArgs) -> Result<Vec<Finding>> {
    let cluster = Cluster::connect(&args.ask.cluster).await?;
    let asked = saying("asking the API server", check::everything(&cluster, &args.namespace));
    let (installed, mut found) = asked.await?;
    if !installed {
        return Ok(found);
    }
    let asked = async {
        let agents = find(&args.ask, None, None).await?;
        let status = agents.ask::<Status>("/v1/status").await?;
        anyhow::Ok((status, agents.ask::<Certificates>("/v1/certs").await?))
    };
    match asked.await {
        Ok((status, certificates)) => {
            found.extend(reports(&status, &certificates, OffsetDateTime::now_utc()))
        }
        Err(error) => {
            let said = error.to_string();
            let (what, todo) = said.split_once("\n  ").unwrap_or((&said, "look at the agents' logs"));
            found.push(Finding::bad("agents' own reports", what, todo));
        }
    }
    let asked = async {
        let controller = Agent::Pod(Box::new(controllers(&cluster).await?));
        anyhow::Ok(get::<CaStatus>(&controller, "/v1/ca").await?)
    };
    found.push(match asked.await {
        Ok(status) => authority(&status, OffsetDateTime::now_utc()),
        Err(error) => {
            let said = error.to_string();
            let (what, _) = said.split_once('\n').unwrap_or((&said, ""));
            let todo = "asking needs the right to create pods/portforward in its namespace";
            Finding::warning("certificate authority", format!("could not be asked: {what}"), todo)
        }
    });
    Ok(found)
}

/// How long the CA lasts, and whether a rotation hangs.
fn authority(status: &CaStatus, now: OffsetDateTime) -> Finding {
    let name = "certificate authority";
    let ends = |at: &str| remaining(Some(at), now);
    let (root, signing) = (ends(&status.root_not_after), ends(&status.signing_not_after));
    if let Some(worst) = status.alarms.iter().find(|alarm| alarm.urgent).or(status.alarms.first()) {
        let what: Vec<_> = status.alarms.iter().map(|alarm| alarm.what.as_str()).collect();
        let new = if worst.urgent { Finding::bad } else { Finding::warning };
        return new(name, what.join(", "), worst.todo.clone());
    }
    let rotation = &status.rotation;
    let phase = if rotation.phase == "steady" {
        String::new()
    } else {
        format!("; a rotation is under way ({}; {} nodes behind)", rotation.phase, rotation.behind.len())
    };
    Finding::good(name, format!("root ends {root}, signing certificate {signing}{phase}"))
}

/// What the agents say: one line where all say the same and it is good, else one per node.
fn reports(
    status: &Answers<Status>,
    certificates: &Answers<Certificates>,
    now: OffsetDateTime,
) -> Vec<Finding> {
    let mut found = vec![versions(status)];
    let named = |node: &Option<String>| node.clone().unwrap_or_default();
    let mut of_nodes: Vec<(String, Finding)> = Vec::new();
    for (node, status) in &status.given {
        of_nodes.extend(judge(status).into_iter().map(|finding| (named(node), finding)));
        if let Some(problem) = &status.kubelet.problem {
            let todo = "say where it is with --kubelet-cgroup (warren install --agent-env WARREN_KUBELET_CGROUP=...)";
            let what = format!("probes are captured, and STRICT refuses them: {problem}");
            of_nodes.push((named(node), Finding::warning("probes", what, todo)));
        }
    }
    for (node, certificates) in &certificates.given {
        of_nodes.push((named(node), certificates_of(certificates, now)));
    }
    let mut good: BTreeMap<&'static str, usize> = BTreeMap::new();
    for (node, finding) in of_nodes {
        if finding.result == Outcome::Good {
            *good.entry(finding.name).or_default() += 1;
        } else {
            found.push(Finding { detail: format!("{node}: {}", finding.detail), ..finding });
        }
    }
    let asked = status.given.len();
    let well: Vec<_> = good.iter().filter(|(_, count)| **count == asked).map(|(name, _)| *name).collect();
    if !well.is_empty() {
        let detail = format!("{asked} asked; in order on all: {}", well.join(", "));
        found.push(Finding::good("agents' own reports", detail));
    }
    for Unreachable { node, error } in &status.unreachable {
        let (what, _) = error.split_once('\n').unwrap_or((error, ""));
        let todo = "is the agent ready, and does its pod serve the admin API on 127.0.0.1:15000?";
        found.push(Finding::bad("agents' own reports", format!("{node}: {what}"), todo));
    }
    found
}

fn versions(status: &Answers<Status>) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    let other = |(node, status): &(Option<String>, Status)| {
        (status.version != ours)
            .then(|| format!("{} on {}", status.version, node.as_deref().unwrap_or("this node")))
    };
    let others: Vec<_> = status.given.iter().filter_map(other).collect();
    if others.is_empty() {
        return Finding::good("versions", format!("all agents and this command are {ours}"));
    }
    let todo = "`warren install` brings the cluster to this command's version";
    Finding::warning("versions", format!("this command is {ours}, agents are {}", others.join(", ")), todo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_common::model::admin::CaAlarm;

    fn status(version: &str, ready: bool) -> Status {
        serde_json::from_value(serde_json::json!({
            "node": "n", "version": version, "uptime_s": 1, "ready": ready, "waiting_for": if ready { vec![] } else { vec!["pods"] },
            "controller": {"url": "https://c", "connected": true, "from_disk": false, "last_error": null, "rejected": 0},
            "pods": [], "workloads": 0, "services": 0, "open_flows": 0, "kernel": {}, "tunnels": 0}))
        .unwrap()
    }

    fn certificates() -> Certificates {
        serde_json::from_value(serde_json::json!({"certificates": [], "roots": []})).unwrap()
    }

    #[test]
    fn a_ca_that_ends_soon_is_trouble() {
        let mut status: CaStatus = serde_json::from_value(serde_json::json!({
            "root_not_after": "1980-01-01T00:00:00Z", "signing_not_after": "1971-01-01T00:00:00Z", "roots": [],
            "rotation": {"phase": "renewing", "kind": "signer", "since": "1970-01-01T00:00:00Z", "signer": "",
                         "nodes": 1, "with_roots": 1, "renewed": 0, "behind": ["n1: has older certificates"]},
            "revoked": []}))
        .unwrap();
        let found = authority(&status, OffsetDateTime::UNIX_EPOCH);
        assert!(
            found.result == Outcome::Good && found.detail.ends_with("(renewing; 1 nodes behind)"),
            "{found:?}"
        );
        let alarm = |what: &str, urgent| CaAlarm { what: what.to_owned(), todo: format!("{what}!"), urgent };
        status.alarms = vec![alarm("a", false)];
        assert_eq!(authority(&status, OffsetDateTime::UNIX_EPOCH).result, Outcome::Warning);
        status.alarms.push(alarm("b", true));
        let found = authority(&status, OffsetDateTime::UNIX_EPOCH);
        assert_eq!(
            (found.result, found.detail.as_str(), found.todo.as_deref()),
            (Outcome::Bad, "a, b", Some("b!"))
        );
    }

    #[test]
    fn what_is_good_everywhere_is_one_line_and_trouble_names_its_node() {
        let node = |name: &str| Some(name.to_owned());
        let said = Answers {
            given: vec![
                (node("n1"), status(env!("CARGO_PKG_VERSION"), true)),
                (node("n2"), status("0.0.1", false)),
            ],
            unreachable: vec![Unreachable { node: "n3".into(), error: "gone\n  hint".into() }],
        };
        let certificates = Answers {
            given: vec![(node("n1"), certificates()), (node("n2"), certificates())],
            unreachable: vec![],
        };
        let found = reports(&said, &certificates, OffsetDateTime::UNIX_EPOCH);
        let details: Vec<_> = found.iter().map(|finding| (finding.result, finding.detail.as_str())).collect();
        assert_eq!(details[0].0, Outcome::Warning);
        assert_eq!(details[1], (Outcome::Bad, "n2: waiting for pods"));
        assert_eq!(details[2], (Outcome::Good, "2 asked; in order on all: certificates, controller, pods"));
        assert_eq!(details[3], (Outcome::Bad, "n3: gone"));
    }
}
