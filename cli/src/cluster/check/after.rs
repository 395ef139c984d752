//! How warren's own parts are. Pure.

use super::facts::{Facts, Problem};
use super::some;
use crate::cluster::pods;
use crate::render::check::Finding;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use std::collections::BTreeSet;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![controller(facts), agents(facts)];
    found.extend(images(facts));
    if let Some(problems) = &facts.problems {
        found.push(configuration(problems));
    }
    found
}

fn of_warren<'a>(facts: &'a Facts, name: &'a str) -> impl Iterator<Item = &'a Pod> {
    facts.pods.iter().filter(move |pod| {
        let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get("app.kubernetes.io/name"));
        pod.metadata.namespace.as_deref() == Some(&facts.namespace)
            && label.is_some_and(|label| label == name)
    })
}

fn controller(facts: &Facts) -> Finding {
    let name = "controller";
    let Some(deployment) = facts.controller() else {
        return Finding::bad(name, "its Deployment is not there", "`warren install` makes it again");
    };
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1).max(0) as usize;
    let (ready, sick): (Vec<_>, Vec<_>) =
        of_warren(facts, "warren-controller").partition(|pod| pods::is_ready(pod));
    let detail = format!("{} of {wanted} replicas ready", ready.len());
    if ready.len() >= wanted && wanted > 0 {
        return Finding::good(name, detail);
    }
    let why: Vec<_> = sick.into_iter().map(pods::described).collect();
    let detail = if why.is_empty() { detail } else { format!("{detail}; {}", some(&why)) };
    let todo =
        "traffic goes on without it, but new pods get no identity; `kubectl logs` of the pod says more";
    if ready.is_empty() { Finding::bad(name, detail, todo) } else { Finding::warning(name, detail, todo) }
}

fn agents(facts: &Facts) -> Finding {
    let name = "agents";
    let Some(set) = facts.agents() else {
        return Finding::bad(name, "their DaemonSet is not there", "`warren install` makes it again");
    };
    let wanted = set.status.as_ref().map_or(0, |status| status.desired_number_scheduled);
    let (ready, sick): (Vec<_>, Vec<_>) =
        of_warren(facts, "warren-agent").partition(|pod| pods::is_ready(pod));
    let served: BTreeSet<_> = ready.iter().map(|pod| pods::node(pod)).collect();
    // While one replaces another, a node has two; one that serves is enough.
    let sick: Vec<_> =
        sick.into_iter().filter(|pod| !served.contains(pods::node(pod))).map(pods::described).collect();
    let detail = format!("ready on {} of {wanted} nodes", served.len());
    if sick.is_empty() && i32::try_from(served.len()).is_ok_and(|served| served >= wanted) {
        return Finding::good(name, detail);
    }
    let detail = if sick.is_empty() { detail } else { format!("{detail}; {}", some(&sick)) };
    let todo = "enrolled pods of such a node cannot open connections, new ones wait; `kubectl logs` of the pod says more";
    Finding::bad(name, detail, todo)
}

/// Controller, agents and this command of one version, and images that can be pulled again.
fn images(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let image = |spec: Option<&PodSpec>| {
        spec.and_then(|spec| spec.containers.first()).and_then(|it| it.image.clone())
    };
    let controller = facts.controller().and_then(|it| image(it.spec.as_ref()?.template.spec.as_ref()));
    let agent = facts.agents().and_then(|it| image(it.spec.as_ref()?.template.spec.as_ref()));
    if let (Some(controller), Some(agent)) = (&controller, &agent) {
        if controller == agent {
            found.push(Finding::good("image", agent.as_str()));
        } else {
            let todo = "`warren install` brings both to one version; until then the newer may say what the older does not know";
            found.push(Finding::warning("image", format!("controller {controller}, agents {agent}"), todo));
        }
    }
    let floating = agent.iter().chain(&controller).find(|image| image.ends_with(":latest") || tagless(image));
    if let Some(image) = floating {
        let todo = "name a version or a digest: nodes that start later would get another one";
        found.push(Finding::warning("image tag", format!("{image} may be another image tomorrow"), todo));
    }
    found
}

fn tagless(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or(image);
    !name.contains(':') && !image.contains('@')
}

fn configuration(problems: &Result<Vec<Problem>, String>) -> Finding {
    let name = "configuration";
    match problems {
        Ok(problems) if problems.is_empty() => Finding::good(name, "nothing is rejected"),
        Ok(problems) => {
            let line = |problem: &Problem| {
                let line = problem.line.map_or_else(String::new, |line| format!(":{line}"));
                format!("{}{line}: {}", problem.place, problem.reason)
            };
            let told: Vec<_> = problems.iter().map(line).collect();
            let todo =
                "repair these objects; their last good version is in force, everything else is applied";
            Finding::bad(name, format!("{} rejected: {}", problems.len(), some(&told)), todo)
        }
        Err(why) => {
            let (why, _) = why.split_once('\n').unwrap_or((why, ""));
            let todo = "asking needs the right to get services/proxy; the controller's log says the same";
            Finding::warning(name, format!("the controller could not be asked: {why}"), todo)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::check::Outcome;
    use serde_json::json;

    fn pod(app: &str, name: &str, node: &str, ready: bool) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "warren-system", "labels": {"app.kubernetes.io/name": app}},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
                       "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "restartCount": 2, "ready": ready,
                           "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}}))
        .unwrap()
    }

    fn facts(pods: Vec<Pod>) -> Facts {
        let template = |image: &str| json!({"spec": {"containers": [{"name": "c", "image": image}]}});
        Facts {
            namespace: "warren-system".into(),
            pods,
            deployments: vec![
                serde_json::from_value(json!({
                "metadata": {"name": "warren-controller", "namespace": "warren-system"},
                "spec": {"replicas": 2, "selector": {}, "template": template("warren:1")}}))
                .unwrap(),
            ],
            daemon_sets: vec![
                serde_json::from_value(json!({
                "metadata": {"name": "warren-agent", "namespace": "warren-system"},
                "spec": {"selector": {}, "template": template("warren:1")},
                "status": {"desiredNumberScheduled": 2, "currentNumberScheduled": 2, "numberMisscheduled": 0,
                           "numberReady": 2}}))
                .unwrap(),
            ],
            ..Facts::default()
        }
    }

    #[test]
    fn all_is_well_when_every_node_has_a_ready_agent() {
        let facts = facts(vec![
            pod("warren-controller", "c1", "n1", true),
            pod("warren-controller", "c2", "n2", true),
            pod("warren-agent", "a1", "n1", true),
            pod("warren-agent", "a2", "n2", true),
            // The successor of a2 is not ready yet.
            pod("warren-agent", "a3", "n2", false),
        ]);
        let found = findings(&facts);
        assert!(found.iter().all(|finding| finding.result == Outcome::Good), "{found:?}");
    }

    #[test]
    fn a_node_without_a_ready_agent_is_named_with_the_reason() {
        let facts = facts(vec![
            pod("warren-controller", "c1", "n1", true),
            pod("warren-agent", "a1", "n1", true),
            pod("warren-agent", "a2", "n2", false),
        ]);
        let found = agents(&facts);
        assert_eq!(found.result, Outcome::Bad);
        assert_eq!(found.detail, "ready on 1 of 2 nodes; a2 on n2: c: CrashLoopBackOff, 2 restarts");
        assert_eq!(controller(&facts).result, Outcome::Warning);
        assert_eq!(controller(&Facts::default()).result, Outcome::Bad);
    }

    #[test]
    fn rejected_configuration_is_told() {
        let problem =
            Problem { place: "PeerAuthentication shop/x".into(), line: None, reason: "no mode".into() };
        let found = configuration(&Ok(vec![problem]));
        assert_eq!(found.detail, "1 rejected: PeerAuthentication shop/x: no mode");
        assert_eq!(configuration(&Ok(vec![])).result, Outcome::Good);
        assert_eq!(configuration(&Err("no\n  x".into())).result, Outcome::Warning);
    }

    #[test]
    fn tags_that_float_are_seen() {
        for (image, floating) in [
            ("warren", true),
            ("r.example:5000/warren", true),
            ("warren:1", false),
            ("warren@sha256:0", false),
        ] {
            assert_eq!(tagless(image), floating, "{image}");
        }
    }
}
