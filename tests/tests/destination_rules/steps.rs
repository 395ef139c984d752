//! What the suites share that look at connections: a server that says on which one it was asked, and its clients in `client`.
#![allow(dead_code, reason = "each suite uses its own part")]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use warren_tests::lab::{Lab, Proc};

const APP: &str = include_str!("app.py");
const CLIENT: &str = include_str!("client.py");

/// The server in a pod.
pub(crate) fn server(lab: &Lab, name: &str, port: &str) -> Result<Proc> {
    lab.pod(name).serve_python(APP, [name, port])
}

/// What is answered to a client, as in `["steps", "web", "/", "/"]`.
pub(crate) fn answers(lab: &Lab, args: &[&str]) -> Result<Vec<Value>> {
    let client = lab.pod("client").python(CLIENT).resolve_names();
    let told = client.args(args).within(Duration::from_secs(60)).json()?;
    told.as_array().cloned().context("no list of answers")
}

/// Request after request, until [`nothing_lost`].
pub(crate) fn load(lab: &Lab, host: &str) -> Result<Proc> {
    let client = lab.pod("client").python(CLIENT).resolve_names();
    let mut load = client.args(["load", host]).with_stdin().spawn()?;
    load.wait_for("begun", Duration::from_secs(20))?;
    Ok(load)
}

/// Ends a load, which must have been answered each time; its report.
pub(crate) fn nothing_lost(load: Proc) -> Result<Value> {
    let done = load.report(Duration::from_secs(30))?;
    ensure!(done["bad"] == 0 && done["good"].as_u64() > Some(0), "{done}");
    Ok(done)
}
