//! One file per command.

pub(crate) mod agent;
pub(crate) mod certs;
pub(crate) mod check;
pub(crate) mod controller;
pub(crate) mod flows;
pub(crate) mod install;
pub(crate) mod services;
pub(crate) mod status;
pub(crate) mod uninstall;
pub(crate) mod version;
pub(crate) mod workloads;

use crate::args::{AdminArgs, Output};
use crate::client::{block_on, get};
use crate::render::Style;
use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Write;

/// Asks the agent for `target` and prints the answer.
fn show<T: DeserializeOwned + Serialize>(
    admin: &AdminArgs,
    target: &str,
    output: Output,
    render: impl FnOnce(&T, Style) -> String,
) -> Result<()> {
    let answer: T = block_on(get(&admin.admin_socket, target))??;
    match output {
        Output::Table => print(&render(&answer, Style::detect())),
        Output::Json => print_json(&answer),
    }
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn print_json(value: &impl Serialize) -> Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// One of a stream of answers.
fn print_line(value: &impl Serialize) -> Result<()> {
    print(&(serde_json::to_string(value)? + "\n"))
}
