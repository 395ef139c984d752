//! What an agent tells of connections, for tests that say "and the flow says why".

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::node::Node;
use super::poll::poll_until;

/// How long what is not there yet may take: a flow is closed when both agents have seen the end.
const SOON: Duration = Duration::from_secs(20);
/// How long whoever tries again waits for a flow each time.
const A_TRY: Duration = Duration::from_secs(3);

/// The flows of one agent that began after this watch was made.
#[derive(Debug)]
pub struct FlowWatch<'a> {
    node: &'a Node,
    after: u64,
}

impl Node {
    /// Watches the flows that begin from now on.
    pub fn watch_flows(&self) -> Result<FlowWatch<'_>> {
        let after = all(self)?.iter().filter_map(id).max().unwrap_or_default();
        Ok(FlowWatch { node: self, after })
    }

    /// The newest flow that fits, once there is one, whenever it began.
    pub fn until_flow(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = Vec::new();
        let found = poll_until(&format!("{}'s flow {what}", self.name()), SOON, || {
            last = all(self).ok()?;
            last.iter().rev().find(|flow| fits(flow)).cloned()
        });
        found.with_context(|| newest(self, &last))
    }
}

impl FlowWatch<'_> {
    /// All flows until now, open ones included.
    pub fn seen(&self) -> Result<Vec<Value>> {
        let mut flows = all(self.node)?;
        flows.retain(|flow| id(flow) > Some(self.after));
        Ok(flows)
    }

    /// Waits for a flow whose fields are as given: pairs of a JSON pointer and a value, as in
    /// `[("/direction", "inbound"), ("/flags", "DENY")]`. Numbers and null are written as in JSON.
    pub fn expect(&self, fields: &[(&str, &str)]) -> Result<Value> {
        self.wait_for(&format!("{fields:?}"), |flow| has(flow, fields))
    }

    /// The same for whoever asks again and again, until the flow is as given: none, if that does not come soon.
    pub fn try_expect(&self, fields: &[(&str, &str)]) -> Option<Value> {
        let find = || self.seen().ok()?.into_iter().find(|flow| has(flow, fields));
        poll_until("a flow", A_TRY, find).ok()
    }

    /// Waits for a flow that `is_it` accepts.
    pub fn wait_for(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
        let found =
            poll_until(&format!("a flow with {what}"), SOON, || self.seen().ok()?.into_iter().find(&is_it));
        found.with_context(|| newest(self.node, &self.seen().unwrap_or_default()))
    }

    /// Fails if there is any flow.
    pub fn expect_none(&self) -> Result<()> {
        match self.seen()?.first() {
            None => Ok(()),
            Some(flow) => bail!("{} has a flow: {flow}", self.node.name()),
        }
    }
}

/// The newest flows, for whoever has waited for another one in vain.
fn newest(node: &Node, flows: &[Value]) -> String {
    let newest: Vec<_> = flows.iter().rev().take(20).map(Value::to_string).collect();
    format!("{} has only {}:\n{}", node.name(), flows.len(), newest.join("\n"))
}

/// Whether its fields are as given.
fn has(flow: &Value, fields: &[(&str, &str)]) -> bool {
    fields.iter().all(|(pointer, wanted)| text(flow, pointer) == *wanted)
}

/// The value at a JSON pointer, as text.
fn text(flow: &Value, pointer: &str) -> String {
    match flow.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "null".to_owned(),
    }
}

fn id(flow: &Value) -> Option<u64> {
    flow["id"].as_u64()
}

fn all(node: &Node) -> Result<Vec<Value>> {
    let mut answer = node.admin("/v1/flows")?;
    match answer["flows"].take() {
        Value::Array(flows) => Ok(flows),
        other => bail!("no list of flows: {other}"),
    }
}
