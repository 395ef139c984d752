//! The CNI plugin: a pod is enrolled before its first process starts.
//!
//! It is the last of the node's chain of plugins, and asks the node's agent, which answers when the pod's capture is
//! in place. It decides by a file while no agent answers: pods of the mesh wait, others start.
//!
//! CNI specification 0.3.0 to 1.1.0 (github.com/containernetworking/cni, SPEC.md).

mod agent;
mod config;
pub mod conflist;
mod decide;
mod error;
pub mod frame;
mod plugin;
mod span;

pub use config::{Entry, PLUGIN};
pub use plugin::{Environment, Outcome, invoke};

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

/// A configuration holds the results of a whole chain; this is far beyond any.
const LONGEST_INPUT: u64 = 4 << 20;

/// Runs the plugin as the container runtime expects it: environment and standard input in, JSON and exit code out.
pub fn run() -> ExitCode {
    let environment = Environment::of_process();
    if environment.command.is_none() {
        eprintln!("warren-cni is started by the container runtime, with CNI_COMMAND in its environment");
    }
    let mut text = String::new();
    let read = match environment.command {
        Some(_) => std::io::stdin().lock().take(LONGEST_INPUT).read_to_string(&mut text),
        // By hand: there may be nobody to end the input.
        None => Ok(0),
    };
    let outcome = invoke(&environment, read.map(|_| text));
    let printed = std::io::stdout().lock().write_all(outcome.output.as_bytes());
    if outcome.success && printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
