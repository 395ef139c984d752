//! An agent is replaced by another one and nobody notices; and what happens when one of the two dies on the way.

#[path = "turmoil/mod.rs"]
mod turmoil;

use anyhow::{Context as _, Result, ensure};
use std::time::{Duration, Instant};
use turmoil::{SOON, at, must_be_clean, say, shop, stream, until_enrolled, until_reached};
use warren_tests::lab::{Daemon, Lab, Proc, poll_until};

const TAKEN: &str = "this agent serves the pods now";

/// Starts a successor and waits until it has taken over.
fn replace(lab: &Lab, name: &str) -> Result<Daemon> {
    let successor = lab.node("n1").another_agent(name, &[])?;
    successor.spawn()?;
    successor.wait_log(TAKEN, SOON)?;
    Ok(successor)
}

/// New connections all the time, every way a connection can go: out and in through tunnels, within the node, to and
/// from pods outside the mesh.
fn new_connections(lab: &Lab) -> Result<Vec<(String, Proc)>> {
    let ways = [
        ("client", "far"),
        ("far", "client"),
        ("client", "near"),
        ("client", "outside-far"),
        ("outside-far", "near"),
    ];
    ways.into_iter()
        .map(|(from, to)| {
            let flow = stream(&lab.pod(from), &at(&lab.pod(to), 9000), &["--reconnect-after", "3"])?;
            Ok((format!("{from} to {to}"), flow))
        })
        .collect()
}

fn echo_everywhere(lab: &Lab) -> Result<Vec<Proc>> {
    let names = ["client", "near", "far", "outside-far"];
    names.into_iter().map(|name| lab.pod(name).serve(["echo", "--port", "9000"])).collect()
}

#[test]
fn replaced_five_times_under_load_without_a_failed_connection() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let (node, _servers) = (lab.node("n1"), echo_everywhere(lab)?);
        until_enrolled(node, 2)?;
        until_reached(&lab.pod("client"), &at(&lab.pod("far"), 9000))?;
        let load = new_connections(lab)?;
        let mut serving: Option<Daemon> = None;
        for round in 1..=5 {
            let start = Instant::now();
            let successor = replace(lab, &round.to_string())?;
            println!("round {round}: taken over after {:?}", start.elapsed());
            let old = serving.as_ref().unwrap_or(node.agent());
            // Its connections are short: it has nothing to wait for.
            old.stop()?;
            let ended = std::fs::read_to_string(old.log_path())?;
            ensure!(ended.contains("drained; goodbye"), "{}", old.log_tail(20));
            // As a container's cgroup goes with it. The listeners opened in it live on.
            poll_until("the cgroup of the old agent to go", SOON, || std::fs::remove_dir(old.cgroup()).ok())?;
            until_enrolled(node, 2)?;
            serving = Some(successor);
        }
        for (way, flow) in load {
            let report = must_be_clean(flow, &way)?;
            println!("{way}: {report}");
        }
        let counters = node.kernel_counters()?;
        ensure!(counters["origin_missing"] == 0, "{counters:?}");
        ensure!(counters["connect_denied"] == 0 && counters["inbound_refused"] == 0, "{counters:?}");
        let (status, _) = node.readiness()?;
        ensure!(status == 200, "not ready: {status}");
        Ok(())
    });
}

#[test]
fn streams_of_shared_tunnels_stay_with_the_old_agent_until_its_drain_deadline() {
    // Streams of shared tunnels can't move.
    let shared = shop().agent_arg("--tunnel").agent_arg("shared");
    shared.agent_arg("--drain-deadline").agent_arg("3s").test(|lab| {
        lab.start_mesh()?;
        let (node, _servers) = (lab.node("n1"), echo_everywhere(lab)?);
        let (client, far) = (lab.pod("client"), lab.pod("far"));
        until_reached(&client, &at(&far, 9000))?;
        let through = stream(&client, &at(&far, 9000), &["--connections", "2"])?;
        let inwards = stream(&far, &at(&client, 9000), &["--connections", "2"])?;
        let patient = ["--keep-open", "--timeout-ms", "30000"];
        let watch = node.watch_flows()?;
        let cut =
            client.workload(["connect", "--to", &at(&far, 9000), "--send", "hello"]).args(patient).spawn()?;
        // It is the old agent's, and not one that came too late for it.
        watch.wait_for("an answer", |flow| {
            flow["state"] == "open" && flow["direction"] == "outbound" && flow["bytes_received"] == 5
        })?;
        let successor = replace(lab, "next")?;
        until_reached(&client, &at(&far, 9000))?;
        until_reached(&far, &at(&client, 9000))?;
        // Not one of the old agent's connections has broken.
        must_be_clean(through, "out of the pod")?;
        must_be_clean(inwards, "into the pod")?;
        let start = Instant::now();
        node.agent().stop()?;
        let took = start.elapsed();
        ensure!(took >= Duration::from_secs(3), "the connection was cut after {took:?}");
        let report = cut.wait(SOON)?.json()?;
        ensure!(report["error"] == "ECONNRESET", "at the deadline: {report}");
        until_reached(&client, &at(&far, 9000))?;
        ensure!(successor.is_ready());
        Ok(())
    });
}

/// A successor that never gets a configuration, so that it stays in the middle of the handover.
fn stuck(lab: &Lab, name: &str, more: &[(&str, &str)]) -> Result<Daemon> {
    let state = lab.dir().join(format!("nodes/n1/state-{name}"));
    std::fs::create_dir_all(&state)?;
    let state = state.display().to_string();
    let mut changes = vec![("--state-dir", state.as_str())];
    changes.extend(more);
    let successor = lab.node("n1").another_agent(name, &changes)?;
    successor.spawn()?;
    Ok(successor)
}

#[test]
fn a_successor_that_dies_half_way_changes_nothing() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let (node, _servers) = (lab.node("n1"), echo_everywhere(lab)?);
        until_enrolled(node, 2)?;
        until_reached(&lab.pod("client"), &at(&lab.pod("far"), 9000))?;
        let load = new_connections(lab)?;
        lab.controller().kill();
        let successor = stuck(lab, "dying", &[])?;
        node.agent().wait_log("handing over to a successor", SOON)?;
        successor.wait_log("warren agent started", SOON)?;
        successor.kill();
        node.agent().wait_log("has gone without taking them; going on", SOON)?;
        until_enrolled(node, 2)?;
        ensure!(node.readiness()?.0 == 200);
        lab.start_controller()?;
        let _successor = replace(lab, "good")?;
        node.agent().stop()?;
        for (way, flow) in load {
            must_be_clean(flow, &way)?;
        }
        Ok(())
    });
}

#[test]
fn a_predecessor_that_dies_half_way_leaves_its_listeners() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let (node, _servers) = (lab.node("n1"), echo_everywhere(lab)?);
        let (client, far) = (lab.pod("client"), lab.pod("far"));
        until_enrolled(node, 2)?;
        until_reached(&client, &at(&far, 9000))?;
        lab.controller().kill();
        let successor = stuck(lab, "heir", &[])?;
        successor.wait_log("warren agent started", SOON)?;
        node.agent().kill();
        // Nobody accepts now, and yet nobody is refused.
        let to = at(&far, 9000);
        let waiting =
            client.workload(["connect", "--to", &to, "--send", "hello", "--timeout-ms", "20000"]).spawn()?;
        lab.start_controller()?;
        let answer = waiting.wait(SOON)?.json()?;
        ensure!(answer["text"] == "hello", "{answer}");
        successor.wait_log(TAKEN, SOON)?;
        until_enrolled(node, 2)?;
        until_reached(&far, &at(&client, 9000))
    });
}

#[test]
fn a_predecessor_that_hangs_is_gone_on_without() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let (node, _servers) = (lab.node("n1"), echo_everywhere(lab)?);
        until_enrolled(node, 2)?;
        node.agent().signal(libc::SIGSTOP)?;
        let pid = node.agent().pid().context("no agent")?;
        poll_until("every thread of the agent to stop", SOON, || stopped(pid).ok()?.then_some(()))?;
        let ports = [("--metrics-address", "[::]:15120"), ("--readiness-address", "[::]:15121")];
        let successor = node.another_agent("alone", &ports)?;
        successor.spawn()?;
        successor.wait_log("starting without it", SOON)?;
        let pending = poll_until("the pods to be pending", SOON, || {
            let pods = node.admin("/v1/status").ok()?["pods"].clone();
            pods.as_array()?.iter().find_map(|pod| Some(pod["reason"].as_str()?.to_owned()))
        })?;
        ensure!(pending.contains("cannot listen on"), "{pending}");
        node.agent().kill();
        until_enrolled(node, 2)?;
        let answer = say(&lab.pod("client"), &at(&lab.pod("far"), 9000), "hello")?;
        ensure!(answer["text"] == "hello", "{answer}");
        ensure!(successor.is_running(), "{}", successor.log_tail(10));
        Ok(())
    });
}

/// Whether all threads of a process are stopped.
fn stopped(pid: u32) -> Result<bool> {
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = std::fs::read_to_string(thread?.path().join("status"))?;
        if !status.contains("State:\tT") {
            return Ok(false);
        }
    }
    Ok(true)
}

#[test]
fn an_agent_of_another_node_is_refused_with_the_reason() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let stranger = lab.node("n1").another_agent("stranger", &[("--node", "n7")])?;
        stranger.spawn()?;
        stranger.wait_log("it serves node n1, this agent was started for n7", SOON)?;
        poll_until("it to end", SOON, || (!stranger.is_running()).then_some(()))
            .with_context(|| stranger.log_tail(10))?;
        until_enrolled(lab.node("n1"), 2)
    });
}
