//! Servers and clients that say exactly what they saw, for tests. Clients print one line of JSON.
#![allow(clippy::print_stdout, reason = "the report on stdout is what these programs are for")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bulk;
mod connect;
mod dial;
mod errno;
mod hello;
mod hold;
mod load;
mod pattern;
mod serve;
mod storm;
mod stream;
mod web;

#[derive(Parser)]
#[command(name = "warren-workload", about = "Servers and clients for the lab's pods")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Do nothing until killed; holds a pod's namespace and cgroup
    Pause,
    /// Remove a lab's remains when the pipe on stdin closes
    #[command(hide = true)]
    Janitor,
    /// Make a lab and keep it until stdin closes; for the lab's self-test
    #[command(hide = true)]
    HoldLab,
    /// Serve one protocol on one or more ports
    Serve(serve::Options),
    /// One connection, in the style of one kind of program
    Connect(connect::Options),
    /// Many bytes both ways at once on many connections (server: `serve exchange`)
    Bulk(bulk::Options),
    /// Many quick connections (server: `serve token`)
    Storm(storm::Options),
    /// Idle connections until stdin closes, then one round trip each (server: `serve echo`)
    Hold(hold::Options),
    /// HTTP requests at a fixed rate, and how long each took (server: any HTTP/1.1)
    Load(load::Options),
    /// Answer requests with what was seen of them, as the echo servers of the Gateway API's conformance suite
    EchoRequests(web::echo::Options),
    /// Requests, and all that came back (server: `echo-requests`)
    Ask(web::ask::Options),
    /// Checked ping-pong until stdin closes (server: `serve echo`)
    Stream(stream::Options),
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Pause => loop {
            crate::sys::pause();
        },
        Command::Janitor => {
            return if crate::lab::janitor_process() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Command::HoldLab => crate::lab::hold(),
        Command::Serve(options) => serve::run(&options),
        Command::Connect(options) => connect::run(&options),
        Command::Bulk(options) => bulk::run(&options),
        Command::Storm(options) => storm::run(&options),
        Command::Hold(options) => hold::run(&options),
        Command::Load(options) => load::run(&options),
        Command::EchoRequests(options) => web::echo::run(&options),
        Command::Ask(options) => web::ask::run(&options),
        Command::Stream(options) => stream::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("warren-workload: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a report as one line.
fn report(value: &serde_json::Value) {
    println!("{value}");
}

/// A line for whoever reads along.
fn say(text: &str) {
    println!("{text}");
}

/// Waits until stdin closes.
fn wait_for_stdin() {
    let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
}
