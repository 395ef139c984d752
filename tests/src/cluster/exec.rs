//! A program that runs in a pod while the test does something else.

use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::stdout;

/// A running program; dropping it ends it.
#[derive(Debug)]
pub struct Exec {
    child: Option<Child>,
    what: String,
}

impl Exec {
    pub(super) fn start(mut command: Command, what: &str) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().with_context(|| format!("cannot start {what}"))?;
        Ok(Self { child: Some(child), what: what.to_owned() })
    }

    /// Ends its input, which is the sign to stop, and reads the report that it prints then.
    pub fn report(mut self) -> Result<Value> {
        let child = self.child.take().context("it has ended")?;
        // Closes its input.
        let text = stdout(&self.what, &child.wait_with_output()?)?;
        let line = text.lines().last().with_context(|| format!("{}: no output", self.what))?;
        serde_json::from_str(line).with_context(|| format!("{}: not JSON: {line}", self.what))
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // An error means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
