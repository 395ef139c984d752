//! The founding document's three manifests.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use warren_tests::lab::{Lab, object, poll_until};

use crate::samples::{apply, text};
use crate::shares::{Counts, count};
use crate::{RULES, versions_of_reviews};

pub(crate) fn analyzed(lab: &Lab, files: &[&str]) -> Result<Vec<Value>> {
    let files = files
        .iter()
        .flat_map(|file| ["-f".into(), warren_tests::shared::directory().join(file).into_os_string()]);
    let done = lab.node("n1").warren(["analyze", "-o", "json"]).args(files).run()?;
    serde_json::from_str(&done.stdout).with_context(|| done.to_string())
}

pub(crate) fn the_virtual_service_is_taken_as_it_is(lab: &Lab) -> Result<()> {
    let founding = text("founding/1-virtualservice.yaml")?;
    // Alone it names subsets that nobody has defined.
    apply(lab, std::slice::from_ref(&founding))?;
    for user in ["jason", "other"] {
        let header = format!("end-user: {user}");
        let path = format!("/nobody-{user}");
        let url = format!("http://reviews:9080{path}");
        ensure!(lab.pod("client").curl_status(["-H", &header, &url])? == "503");
        let flow = lab.node("n1").until_flow("of its request", |flow| flow["request"]["path"] == *path)?;
        ensure!(flow["flags"] == "NC", "{flow}");
    }
    lab.until_problem(&["v2", "reviews"])?;
    lab.until_problem(&["v3", "reviews"])?;
    let remarks = analyzed(lab, &["founding/1-virtualservice.yaml"])?;
    ensure!(!remarks.is_empty(), "nothing is said about it");
    // With rules for its destination it does what it says.
    apply(lab, &[text(&format!("samples/bookinfo/{RULES}.yaml"))?, founding])?;
    versions_of_reviews(lab, "v2", "v3")
}

pub(crate) fn the_destination_rule_is_taken_as_it_is(lab: &Lab) -> Result<()> {
    let founding = text("founding/2-destinationrule.yaml")?;
    let remarks = analyzed(lab, &["founding/2-destinationrule.yaml"])?;
    ensure!(remarks.iter().all(|remark| remark["severity"] != "error"), "{remarks:?}");
    for subset in ["v1", "v2", "v3"] {
        let route = json!([{ "route": [{ "destination": { "host": "my-svc", "subset": subset } }] }]);
        let service = object("VirtualService", "my-svc", &json!({ "hosts": ["my-svc"], "http": route }));
        apply(lab, &[founding.clone(), service.to_string()])?;
        let seen = count(lab, "my-svc", None, 20)?;
        ensure!(seen == Counts::from([(subset.to_owned(), 20)]), "{subset}: {seen:?}");
        if subset == "v2" {
            in_turn(lab)?;
        }
    }
    Ok(())
}

/// Subset v2 is the one that says ROUND_ROBIN: its two pods take turns.
fn in_turn(lab: &Lab) -> Result<()> {
    let seen = lab.node("n1").watch_flows()?;
    count(lab, "my-svc", None, 20)?;
    let pods = poll_until("the records of 20 requests", Duration::from_secs(20), || {
        let flows = seen.seen().ok()?;
        let pod = |flow: &Value| flow["destination"]["pod"].as_str().map(str::to_owned);
        let pods: Vec<_> = flows.iter().filter(|flow| !flow["request"].is_null()).filter_map(pod).collect();
        (pods.len() == 20).then_some(pods)
    })?;
    ensure!(pods.windows(2).all(|pair| pair[0] != pair[1]), "{pods:?}");
    Ok(())
}

/// Gateways are not there yet: it is read, nothing fails for it, and nobody has to guess.
pub(crate) fn the_gateway_is_reported(lab: &Lab) -> Result<()> {
    apply(lab, &[text("founding/3-gateway.yaml")?])?;
    lab.until_problem(&["ext-host-gwy", "Gateway"])?;
    let remarks = analyzed(lab, &["founding/3-gateway.yaml"])?;
    ensure!(remarks.iter().any(|remark| remark.to_string().contains("ext-host-gwy")), "{remarks:?}");
    ensure!(remarks.iter().all(|remark| remark["severity"] != "error"), "{remarks:?}");
    Ok(())
}
