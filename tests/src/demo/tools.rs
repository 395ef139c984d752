//! Steps 5 and 6: who talked to whom, and with which certificates.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::scene::Scene;

/// The flow table names both identities.
pub(crate) fn flows(scene: &mut Scene<'_>) -> Result<()> {
    scene.story.step("Who talks to whom")?;
    let client = scene.ask_far("client", "for=the-flow-table")?;
    let flow = scene.flow_from("n1", &client)?;
    scene.warren("n1", &["flows", "--pod", "client", "--last", "5"])?;
    scene.story.say("The same with identities (-o json has everything):")?;
    scene.warren("n1", &["flows", "--pod", "client", "--last", "1", "-o", "wide"])?;
    let identity = |end: &str| flow[end]["identity"].as_str().unwrap_or("none").to_owned();
    let (from, to) = (identity("source"), identity("destination"));
    let holds = flow["transport"] == "hbone"
        && flow["verdict"] == "allowed"
        && from.ends_with("/ns/shop/sa/client")
        && to.ends_with("/ns/shop/sa/web");
    let claim = "client to web-2: a tunnel, allowed, both ends known by certificate";
    scene.story.prove(claim, holds, &flow)
}

/// Each node has the keys of its own pods and no others.
pub(crate) fn certificates(scene: &mut Scene<'_>) -> Result<()> {
    scene.story.step("The certificates")?;
    for (node, expected) in [("n1", &["client", "web"][..]), ("n2", &["web"][..])] {
        scene.warren(node, &["certs"])?;
        let found = scene.lab.node(node).admin("/v1/certs")?;
        let certificates = found["certificates"].as_array().context("no certificates")?;
        let is_ready = |certificate: &Value| certificate["state"] == "ready";
        let mut accounts: Vec<_> =
            certificates.iter().filter_map(|one| one["identity"].as_str()?.rsplit('/').next()).collect();
        accounts.sort_unstable();
        let holds = certificates.iter().all(is_ready) && accounts == expected;
        let claim = format!("{node} has certificates for the service accounts of its own pods, no others");
        scene.story.prove(&claim, holds, &found)?;
    }
    Ok(())
}
