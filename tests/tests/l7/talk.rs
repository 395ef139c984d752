//! What the suites of L7 share: rules for the service `web` of the namespace `shop`, requests of the pod `client`, records.
#![allow(dead_code, reason = "each suite uses its own part")]

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use warren_tests::lab::{Lab, Proc, poll_until};

const APP: &str = include_str!("app.py");
pub(crate) const CLIENT: &str = include_str!("client.py");
/// Debian's own: the gRPC library is a package of it.
pub(crate) const PYTHON: &str = "/usr/bin/python3";
/// A change of the configuration takes effect within a second; a busy machine may be slower.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// The versions of `web`.
pub(crate) const SUBSETS: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: web, namespace: shop }
spec:
  host: web
  subsets:
  - { name: v1, labels: { version: v1 } }
  - { name: v2, labels: { version: v2 } }
";

/// The suites' own server, on port 8080 of a pod.
pub(crate) fn server(lab: &Lab, name: &str) -> Result<Proc> {
    let mut server = lab.pod(name).command(PYTHON).args(["-c", APP, name, "8080"]).spawn()?;
    server.wait_for("ready", Duration::from_secs(20))?;
    Ok(server)
}

/// Puts rules in force: the `http` of a VirtualService for `web`.
pub(crate) fn rules(lab: &Lab, http: &Value) -> Result<()> {
    let object = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": { "name": "web", "namespace": "shop" },
        "spec": { "hosts": ["web"], "http": http },
    });
    lab.write_manifest("rules.yaml", &object.to_string())
}

/// The same, and waits until a rule that is named `marker` answers with 299: the others are in force, too.
pub(crate) fn in_force(lab: &Lab, marker: &str, http: &[Value]) -> Result<()> {
    let mut all = vec![json!({
        "match": [{ "uri": { "exact": format!("/{marker}") } }],
        "directResponse": { "status": 299 },
    })];
    all.extend_from_slice(http);
    rules(lab, &json!(all))?;
    poll_until(&format!("the rules of {marker}"), SOON, || {
        (status(lab, &format!("http://web/{marker}"), &[]).ok()? == "299").then_some(())
    })
}

pub(crate) fn to(subset: &str) -> Value {
    json!({ "destination": { "host": "web", "subset": subset, "port": { "number": 80 } } })
}

pub(crate) fn curl(lab: &Lab, url: &str, more: &[&str]) -> Result<String> {
    let command = lab.pod("client").command("curl").resolve_names();
    command.args(["-sS", "--max-time", "20", "--path-as-is"]).args(more).arg(url).stdout()
}

pub(crate) fn status(lab: &Lab, url: &str, more: &[&str]) -> Result<String> {
    let mut args = vec!["-o", "/dev/null", "-w", "%{http_code}"];
    args.extend_from_slice(more);
    curl(lab, url, &args)
}

pub(crate) fn asked(lab: &Lab, url: &str, more: &[&str]) -> Result<Value> {
    let text = curl(lab, url, more)?;
    serde_json::from_str(&text).with_context(|| format!("{url}: {text:?}"))
}

/// What is answered to exactly these bytes.
pub(crate) fn raw(lab: &Lab, port: &str, text: &str) -> Result<String> {
    let client = lab.pod("client").command(PYTHON).resolve_names();
    let answer = client.args(["-c", CLIENT, "raw", "web", port, text]).json()?;
    Ok(answer["answer"].as_str().unwrap_or_default().to_owned())
}

/// The record of a request to this path.
pub(crate) fn record(lab: &Lab, path: &str) -> Result<Value> {
    poll_until(&format!("the record of {path}"), SOON, || {
        let flows = lab.node("n1").admin("/v1/flows").ok()?;
        let is_it = |flow: &&Value| flow["request"]["path"] == path && flow["state"] == "closed";
        flows["flows"].as_array()?.iter().rev().find(is_it).cloned()
    })
}
