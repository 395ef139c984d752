//! `warren`: the agent, the controller and the commands that show what they do.

mod agents;
mod args;
mod client;
mod cluster;
mod commands;
mod files;
mod install;
mod merge;
mod offline;
mod render;
mod sketch;

use args::{Cli, Command};
use std::io;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    if is_plugin() {
        return warren_cni::run();
    }
    match run(Cli::from_command_line()) {
        Ok(code) => code,
        // The reader went away (`warren flows | head`): it has what it wanted.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("warren: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The container runtime starts the plugin by the name of its file.
fn is_plugin() -> bool {
    let name = std::env::args_os().next();
    name.is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == warren_cni::PLUGIN))
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Agent(args) => commands::agent::run(args)?,
        Command::Cni => return Ok(warren_cni::run()),
        Command::Controller(args) => commands::controller::run(args)?,
        Command::Install(args) => commands::install::run(&args)?,
        Command::Uninstall(args) => commands::uninstall::run(&args)?,
        Command::Status(args) => return commands::status::run(&args),
        Command::Flows(args) => return commands::flows::run(&args),
        Command::Workloads(args) => return commands::workloads::run(&args),
        Command::Services(args) => return commands::services::run(&args),
        Command::Policies(args) => return commands::policies::run(&args),
        Command::Routes(args) => return commands::routes::run(&args),
        Command::Why(args) => return commands::why::run(&args),
        Command::Ca(args) => return commands::ca::run(&args),
        Command::Certs(args) => return commands::certs::run(&args),
        Command::Analyze(args) => return commands::analyze::run(&args),
        Command::Check(args) => return commands::check::run(&args),
        Command::Version(args) => commands::version::run(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        io.or_else(|| cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind))
    };
    error.chain().any(|cause| kind(cause) == Some(io::ErrorKind::BrokenPipe))
}
