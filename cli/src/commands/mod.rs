//! One file per command.

pub(crate) mod agent;
pub(crate) mod analyze;
pub(crate) mod ca;
pub(crate) mod certs;
pub(crate) mod check;
pub(crate) mod controller;
pub(crate) mod flows;
pub(crate) mod install;
pub(crate) mod policies;
pub(crate) mod routes;
pub(crate) mod services;
pub(crate) mod status;
pub(crate) mod uninstall;
pub(crate) mod version;
pub(crate) mod why;
pub(crate) mod workloads;

use crate::agents::Unreachable;
use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use std::io::Write;

/// What agents said, for programs, with those that said nothing.
#[derive(Serialize)]
struct Told<T: Serialize> {
    #[serde(flatten)]
    answer: T,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    unreachable: Vec<Unreachable>,
}

/// How an explanation is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Explained {
    /// For people
    Table,
    /// For people, leaving out nothing
    Wide,
    /// For programs, with everything there is
    Json,
    /// The same as YAML
    Yaml,
}

impl Explained {
    fn print(self, value: &impl Serialize, text: impl Fn(bool) -> String) -> Result<()> {
        match self {
            Self::Table => print(&text(false)),
            Self::Wide => print(&text(true)),
            Self::Json => print_json(value),
            Self::Yaml => print(&serde_saphyr::to_string(value)?),
        }
    }
}

/// `namespace/name` of a pod that may be named without its namespace.
fn qualified(pod: &str, namespace: &str) -> String {
    if pod.contains('/') { pod.to_owned() } else { format!("{namespace}/{pod}") }
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
