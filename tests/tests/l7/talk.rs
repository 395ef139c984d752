//! What the suites of L7 share: rules for the service `web` of the namespace `shop`, requests of the pod `client`, records.
#![allow(dead_code, reason = "each suite uses its own part")]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use warren_tests::lab::{Lab, Proc, marker, poll_until};

const APP: &str = include_str!("app.py");
pub(crate) const CLIENT: &str = include_str!("client.py");
/// A change of the configuration takes effect within a second; a busy machine may be slower.
pub(crate) const SOON: Duration = Duration::from_secs(20);

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
    lab.pod(name).serve_python(APP, [name, "8080"])
}

/// Puts rules in force: the `http` of a VirtualService for `web`.
pub(crate) fn rules(lab: &Lab, http: &Value) -> Result<()> {
    let spec = json!({ "hosts": ["web"], "http": http });
    lab.write_object("rules.yaml", "VirtualService", "shop/web", &spec)
}

/// The same, and waits until a rule that is named `name` answers with 299: the others are in force, too.
pub(crate) fn in_force(lab: &Lab, name: &str, http: &[Value]) -> Result<()> {
    let all = [&[marker(name)], http].concat();
    rules(lab, &json!(all))?;
    poll_until(&format!("the rules of {name}"), SOON, || {
        (status(lab, &format!("http://web/{name}"), &[]).ok()? == "299").then_some(())
    })
}

/// To a subset; to all of `web`, if it has no name.
pub(crate) fn to(subset: &str) -> Value {
    let mut destination = json!({ "host": "web", "port": { "number": 80 } });
    if !subset.is_empty() {
        destination["subset"] = json!(subset);
    }
    json!({ "destination": destination })
}

/// The same with a weight.
pub(crate) fn share(subset: &str, weight: usize) -> Value {
    let mut one = to(subset);
    one["weight"] = json!(weight);
    one
}

pub(crate) fn curl(lab: &Lab, url: &str, more: &[&str]) -> Result<String> {
    lab.pod("client").curl(more).arg(url).stdout()
}

pub(crate) fn status(lab: &Lab, url: &str, more: &[&str]) -> Result<String> {
    lab.pod("client").curl_status([more, &[url]].concat())
}

pub(crate) fn asked(lab: &Lab, url: &str, more: &[&str]) -> Result<Value> {
    let text = curl(lab, url, more)?;
    serde_json::from_str(&text).with_context(|| format!("{url}: {text:?}"))
}

/// What is answered to exactly these bytes.
pub(crate) fn raw(lab: &Lab, port: &str, text: &str) -> Result<String> {
    let client = lab.pod("client").python(CLIENT).resolve_names();
    let answer = client.args(["raw", "web", port, text]).json()?;
    Ok(answer["answer"].as_str().unwrap_or_default().to_owned())
}

/// The record of a request to this path.
pub(crate) fn record(lab: &Lab, path: &str) -> Result<Value> {
    record_that(lab, path, |_| true)
}

/// The record of the last one that fits.
pub(crate) fn record_that(lab: &Lab, path: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
    let is_it = |flow: &Value| flow["request"]["path"] == path && flow["state"] == "closed" && fits(flow);
    lab.node("n1").until_flow(&format!("of a request to {path}"), is_it)
}

/// Waits until a request to this path has gone to its endpoint.
pub(crate) fn under_way(lab: &Lab, path: &str) -> Result<Value> {
    let is_it = |flow: &Value| flow["request"]["path"] == path && flow["request"]["attempts"] == 1;
    lab.node("n1").until_flow(&format!("of the request to {path} that waits"), is_it)
}

/// Resident KiB of both agents.
pub(crate) fn agents_kib(lab: &Lab) -> Result<u64> {
    lab.nodes().iter().map(|node| node.agent().rss_kib()).sum()
}

/// Who is told apart by the header `x-user` has one endpoint, and both endpoints have users.
pub(crate) fn users_keep_their_endpoint(lab: &Lab, url: &str) -> Result<()> {
    let who = |user: usize| -> Result<String> {
        let seen = asked(lab, url, &["-H", &format!("x-user: {user}")])?;
        Ok(seen["who"].as_str().unwrap_or_default().to_owned())
    };
    let mut pods = BTreeSet::new();
    for user in 0..12 {
        let first = who(user)?;
        for _ in 0..3 {
            ensure!(who(user)? == first, "user {user} has two endpoints");
        }
        pods.insert(first);
    }
    ensure!(pods.len() == 2, "all users have the same endpoint");
    Ok(())
}

/// What is said after the switch comes back as it was said.
pub(crate) fn a_websocket_is_joined(lab: &Lab) -> Result<()> {
    let ask =
        r"GET /chat HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x01\x02frames";
    let answer = raw(lab, "80", ask)?;
    ensure!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    ensure!(answer.ends_with("\r\n\r\n\u{1}\u{2}frames"), "{answer}");
    Ok(())
}
