//! How the demo talks: numbered headings, plain words, the command a person would type, its output, what it proves.

use std::fmt::Display;
use std::io::{self, Write as _};

use anyhow::{Result, bail};

use crate::terminal::Terminal;

/// The demo's voice. A closed pipe is an error like any other, not a panic.
#[derive(Debug)]
pub(crate) struct Story {
    terminal: Terminal,
    steps: u32,
    proven: u32,
}

impl Story {
    pub(crate) fn begin() -> Self {
        Self { terminal: Terminal::detect(), steps: 0, proven: 0 }
    }

    fn line(&self, text: &str) -> Result<()> {
        writeln!(io::stdout(), "{text}")?;
        Ok(())
    }

    /// A numbered heading.
    pub(crate) fn step(&mut self, title: &str) -> Result<()> {
        self.steps += 1;
        self.heading(&format!("{}. {title}", self.steps))
    }

    /// A heading without a number.
    pub(crate) fn heading(&self, title: &str) -> Result<()> {
        self.line(&format!("\n{}", self.terminal.bold(title)))
    }

    /// Plain words.
    pub(crate) fn say(&self, text: &str) -> Result<()> {
        text.lines().try_for_each(|line| self.line(&format!("   {line}")))
    }

    /// A command at a prompt: `client$ curl ...` in a pod, `n1# warren ...` on a node.
    pub(crate) fn typed(&self, prompt: &str, command: &str) -> Result<()> {
        self.line(&format!("   {} {}", self.terminal.dim(prompt), self.terminal.cyan(command)))
    }

    /// What a command printed.
    pub(crate) fn output(&self, text: &str) -> Result<()> {
        text.trim_end().lines().try_for_each(|line| self.line(format!("     {line}").trim_end()))
    }

    /// Says what was shown, if it holds; ends the demo with the evidence if it doesn't.
    pub(crate) fn prove(&mut self, claim: &str, holds: bool, evidence: impl Display) -> Result<()> {
        if !holds {
            self.line(&format!("   {} {claim}", self.terminal.cross()))?;
            bail!("step {}: this does not hold: {claim}\n{evidence}", self.steps);
        }
        self.proven += 1;
        self.line(&format!("   {} {claim}", self.terminal.tick()))
    }

    /// How many claims held.
    pub(crate) fn proven(&self) -> u32 {
        self.proven
    }
}
