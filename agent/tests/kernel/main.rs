//! Capture, proven on the running kernel: pods as network namespaces and cgroups, applications as processes of their
//! own, the agent's kernel layer in this process. Needs root and BPF; says so aloud and passes without.
//!
//! Everything made here lives in namespaces of this process, except the cgroups, which are removed at the end.
#![allow(unsafe_code, reason = "namespaces, and sockets that the standard library can't make")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test")]
#![allow(unreachable_pub, missing_docs, reason = "a test is no library")]
#![expect(unused_crate_dependencies, reason = "dependencies of the library")]

mod agent;
mod app;
mod capture;
mod flood;
mod lab;
mod lifecycle;
mod names;
mod sys;

use lab::Lab;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{panic, process::ExitCode};

type Check = fn(&mut Lab);

/// In order: the later ones restart the agent.
const CHECKS: &[(&str, Check)] = &[
    ("destinations_are_remembered", capture::destinations_are_remembered),
    ("a_reused_socket_shows_its_new_destination", capture::a_reused_socket_shows_its_new_destination),
    ("a_pod_may_call_itself", capture::a_pod_may_call_itself),
    ("bound_devices_are_unbound_or_refused", capture::bound_devices_are_unbound_or_refused),
    ("mptcp_clients_are_captured", capture::mptcp_clients_are_captured),
    ("the_agents_own_sockets_are_not_captured", capture::the_agents_own_sockets_are_not_captured),
    ("exclusions_are_left_alone", capture::exclusions_are_left_alone),
    ("servers_see_the_true_client", names::servers_see_the_true_client),
    ("a_failed_connect_leaves_no_client_behind", names::a_failed_connect_leaves_no_client_behind),
    ("probes_pass_and_strangers_do_not", names::probes_pass_and_strangers_do_not),
    ("twenty_thousand_connects_lose_nothing", flood::twenty_thousand_connects_lose_nothing),
    ("a_new_agent_takes_over_under_load", flood::a_new_agent_takes_over_under_load),
    ("broken_pods_are_refused", lifecycle::broken_pods_are_refused),
    ("a_dead_agent_fails_closed_and_a_new_one_takes_over", lifecycle::a_dead_agent_fails_closed),
    ("another_abi_carries_pods_over", lifecycle::another_abi_carries_pods_over),
    ("dead_pods_are_forgotten", lifecycle::dead_pods_are_forgotten),
    ("fail_open_passes", lifecycle::fail_open_passes),
    ("released_pods_are_left_alone", lifecycle::released_pods_are_left_alone),
    ("uninstall_leaves_nothing", lifecycle::uninstall_leaves_nothing),
];

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(app::ROLE) {
        app::run();
        return ExitCode::SUCCESS;
    }
    if let Err(reason) = lab::available() {
        println!("SKIPPED, nothing was proven: {reason}");
        return ExitCode::SUCCESS;
    }
    let passed = AtomicUsize::new(0);
    let outcome = panic::catch_unwind(|| {
        let mut lab = Lab::new();
        for (name, check) in CHECKS {
            check(&mut lab);
            passed.fetch_add(1, Ordering::Relaxed);
            println!("ok {name}");
        }
    });
    // The checks share one lab and build upon each other: the first that fails is the last that runs.
    let (passed, failed) = (passed.into_inner(), usize::from(outcome.is_err()));
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {passed} passed; {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
