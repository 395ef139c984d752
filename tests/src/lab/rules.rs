//! The objects that suites write: what all of them have, and how a test sees that they are in force.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::poll::poll_until;
use super::{Lab, http};

/// Where the controller tells of itself.
const TELLS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15014);
/// A change is seen within a second; a busy machine may be slower.
const SOON: Duration = Duration::from_secs(20);

/// An object by its kind and its `namespace/name`.
#[must_use]
pub fn object(kind: &str, name: &str, spec: &Value) -> Value {
    let version = match kind {
        "VirtualService" | "DestinationRule" => "networking.istio.io/v1",
        "AuthorizationPolicy" => "security.istio.io/v1",
        _ => "gateway.networking.k8s.io/v1",
    };
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    json!({
        "apiVersion": version,
        "kind": kind,
        "metadata": { "name": name, "namespace": namespace },
        "spec": spec,
    })
}

/// A rule of a VirtualService that answers `/NAME` with 299: who sees that has the other rules, too.
#[must_use]
pub fn marker(name: &str) -> Value {
    json!({
        "match": [{ "uri": { "exact": format!("/{name}") } }],
        "directResponse": { "status": 299 },
    })
}

impl Lab {
    /// Writes a manifest of one [`object`].
    pub fn write_object(&self, file: &str, kind: &str, name: &str, spec: &Value) -> Result<()> {
        self.write_manifest(file, &object(kind, name, spec).to_string())
    }

    /// What the controller finds wrong with its configuration now.
    pub fn problems(&self) -> Result<Vec<Value>> {
        let (status, body) = http::get(self.ctl.netns(), TELLS, "/debug/problems")?;
        if status != 200 {
            bail!("problems of the controller: {status} {body}");
        }
        serde_json::from_str(&body).with_context(|| format!("not a list: {body}"))
    }

    /// Waits until the controller tells of one problem in these words.
    pub fn until_problem(&self, words: &[&str]) -> Result<()> {
        let mut last = Vec::new();
        let found = poll_until(&format!("{words:?} among the problems"), SOON, || {
            last = self.problems().ok()?;
            let is_it = |text: String| words.iter().all(|word| text.contains(word));
            last.iter().map(Value::to_string).any(is_it).then_some(())
        });
        found.with_context(|| format!("the problems: {last:?}"))
    }
}
