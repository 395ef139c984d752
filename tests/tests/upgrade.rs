//! The agents of both nodes are replaced again and again, and no connection that stands notices.

mod turmoil;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};
use turmoil::{SOON, at, must_be_clean, shop, stream, until_enrolled, until_reached};
use warren_tests::lab::{Daemon, Lab, LabBuilder, Node, Pod, Proc, poll_until};

const TAKEN: &str = "this agent serves the pods now";
const ECHO: u16 = 9000;
const EXCHANGE: u16 = 9001;
/// Of every way, so many connections are at work and so many are idle.
const BUSY: usize = 3;
const IDLE: usize = 20;

/// Every way that can be handed over: a tunnel of its own across nodes, within the node, to and from pods outside.
const WAYS: [(&str, &str); 5] = [
    ("client", "far"),
    ("far", "client"),
    ("client", "near"),
    ("client", "outside-far"),
    ("outside-far", "near"),
];

fn lasting() -> LabBuilder {
    shop().agent_arg("--tunnel").agent_arg("dedicated")
}

fn servers(lab: &Lab) -> Result<Vec<Proc>> {
    let mut servers = Vec::new();
    for name in ["client", "near", "far", "outside-far"] {
        for (mode, port) in [("echo", ECHO), ("exchange", EXCHANGE)] {
            servers.push(lab.pod(name).serve([mode, "--port", &port.to_string()])?);
        }
    }
    Ok(servers)
}

/// One node's agents, of which the last one serves.
struct Line<'a> {
    node: &'a Node,
    successors: Vec<Daemon>,
}

impl<'a> Line<'a> {
    fn new(node: &'a Node) -> Self {
        Self { node, successors: Vec::new() }
    }

    fn serving(&self) -> &Daemon {
        self.successors.last().unwrap_or(self.node.agent())
    }

    /// Replaces the agent that serves.
    fn upgrade(&mut self) -> Result<()> {
        let name = format!("u{}", self.successors.len());
        let successor = self.node.another_agent(&name, &[])?;
        successor.spawn()?;
        successor.wait_log(TAKEN, SOON)?;
        let old = self.serving();
        // What stands moves, and it has nothing to wait for.
        old.stop()?;
        let ended = std::fs::read_to_string(old.log_path())?;
        ensure!(ended.contains("drained; goodbye"), "{}", old.log_tail(20));
        self.successors.push(successor);
        Ok(())
    }
}

fn open_flows(node: &Node) -> Result<Vec<Value>> {
    let flows = node.admin("/v1/flows")?["flows"].clone();
    let flows = flows.as_array().context("no flows")?.clone();
    Ok(flows.into_iter().filter(|flow| flow["state"] == "open").collect())
}

/// How many flows a node's agent has of that many connections of every way: one for each end in a pod of the mesh here.
fn flows_of_ways(lab: &Lab, node: &Node, connections: usize) -> usize {
    let ends = WAYS.into_iter().flat_map(|(from, to)| [lab.pod(from), lab.pod(to)]);
    ends.filter(|pod| pod.node() == node.name() && pod.namespace() == "shop").count() * connections
}

/// Waits until exactly so many flows are open: what has been closed is so at both ends only a moment later.
fn until_open(node: &Node, count: usize) -> Result<Vec<Value>> {
    let mut last = Vec::new();
    let open = poll_until(&format!("{count} open flows of {}", node.name()), SOON, || {
        last = open_flows(node).ok()?;
        (last.len() == count).then(|| last.clone())
    });
    open.with_context(|| format!("{} flows: {last:#?}", last.len()))
}

/// Waits until no byte has moved for a second: every buffer on the way is full, or has nothing to carry.
fn until_still(lab: &Lab) -> Result<()> {
    let moved = || -> Result<u64> {
        let flows = [open_flows(lab.node("n1"))?, open_flows(lab.node("n2"))?].concat();
        Ok(flows
            .iter()
            .flat_map(|flow| [&flow["bytes_sent"], &flow["bytes_received"]])
            .filter_map(Value::as_u64)
            .sum())
    };
    let (mut last, mut since) = (moved()?, Instant::now());
    poll_until("every buffer to be full", SOON, || {
        let now = moved().ok()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (last > 0 && since.elapsed() > Duration::from_secs(1)).then_some(())
    })
}

/// `(open sockets, connections opened)` of a node's agent.
fn counts(node: &Node, line: &Line<'_>) -> Result<(u64, u64)> {
    let text =
        node.command("curl").args(["-sS", "--max-time", "5", "http://127.0.0.1:15020/metrics"]).stdout()?;
    let sum = |name: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    ensure!(!text.is_empty(), "{}", line.serving().log_tail(5));
    Ok((sum("istio_tcp_sockets_open") as u64, sum("istio_tcp_connections_opened_total") as u64))
}

fn suspend(process: &Proc) -> Result<()> {
    process.signal(libc::SIGSTOP)
}

fn go_on(process: &Proc) -> Result<()> {
    process.signal(libc::SIGCONT)
}

/// A large exchange; it stops in the middle while one of its ends is suspended.
fn exchange(from: &Pod, to: &Pod, port: u16) -> Result<Proc> {
    let arguments = ["bulk", "--to", &at(to, port), "--bytes", "25000000", "--timeout-ms", "120000"];
    from.workload(arguments).spawn()
}

#[test]
fn ten_upgrades_of_both_nodes_under_streams_that_count_every_byte() {
    lasting().test(|lab| {
        lab.start_mesh()?;
        let (n1, n2) = (lab.node("n1"), lab.node("n2"));
        let _servers = servers(lab)?;
        let pod = |name| lab.pod(name);
        until_enrolled(n1, 2)?;
        until_enrolled(n2, 1)?;
        for (from, to) in WAYS {
            until_reached(&pod(from), &at(&pod(to), ECHO))?;
        }
        let streams = WAYS.map(|(from, to)| {
            let more = ["--connections", &BUSY.to_string(), "--size", "3000", "--timeout-ms", "30000"];
            stream(&pod(from), &at(&pod(to), ECHO), &more).map(|one| (format!("{from} to {to}"), one))
        });
        let streams = streams.into_iter().collect::<Result<Vec<_>>>()?;
        // Idle ones: each must still carry a message at the end.
        let mut idle = Vec::new();
        for (from, to) in WAYS {
            let hold = ["hold", "--to", &at(&pod(to), ECHO), "--count", &IDLE.to_string()];
            let mut one = pod(from).workload(hold).with_stdin().spawn()?;
            one.wait_for("open", SOON)?;
            idle.push((format!("idle {from} to {to}"), one));
        }
        let mut lines = [Line::new(n1), Line::new(n2)];
        let all = [n1, n2].map(|node| flows_of_ways(lab, node, BUSY + IDLE));
        println!("open flows before: {all:?}");
        for (node, count) in [n1, n2].into_iter().zip(all) {
            until_open(node, count)?;
        }
        for round in 1..=10 {
            for line in &mut lines {
                let start = Instant::now();
                line.upgrade().with_context(|| format!("round {round}"))?;
                println!("round {round}, {}: {:?}", line.node.name(), start.elapsed());
            }
        }
        for (line, count) in lines.iter().zip(all) {
            let open = until_open(line.node, count)?;
            let (mut sockets, mut opened) = (0, 0);
            let counted = poll_until("all sockets to be counted", SOON, || {
                (sockets, opened) = counts(line.node, line).ok()?;
                (sockets == count as u64).then_some(())
            });
            counted.with_context(|| format!("{sockets} open, {count} before"))?;
            ensure!(opened == 0, "{opened} connections opened in this agent, and all were before");
            let moved = open.iter().find(|flow| flow["transport"] == "hbone").context("no tunnel")?;
            ensure!(moved["source"]["identity"].is_string() && moved["verdict"] == "allowed", "{moved:#}");
            ensure!(moved["duration_ms"].as_f64() > Some(5000.0), "it began before: {moved:#}");
        }
        for (way, flow) in streams {
            let report = must_be_clean(flow, &way)?;
            ensure!(report["connects"] == BUSY, "{way} was opened again: {report}");
            println!("{way}: {report}");
        }
        for (way, held) in idle {
            let report = held.report(SOON)?;
            ensure!(report["ok"] == true, "{way}: {report}");
        }
        Ok(())
    });
}

#[test]
fn what_is_blocked_or_half_closed_goes_on() {
    lasting().test(|lab| {
        lab.start_mesh()?;
        let _servers = servers(lab)?;
        let pod = |name| lab.pod(name);
        for (from, to) in WAYS {
            until_reached(&pod(from), &at(&pod(to), ECHO))?;
        }
        // Clients that do not read, and servers that do not: both directions are full.
        let mut blocked = Vec::new();
        for ((from, to), port) in WAYS.into_iter().zip(9101_u16..) {
            let slow = pod(to).serve(["exchange", "--port", &port.to_string()])?;
            let stalled = exchange(&pod(from), &pod(to), EXCHANGE)?;
            let pushing = exchange(&pod(from), &pod(to), port)?;
            blocked.push((format!("{from} to {to}"), slow, stalled, pushing));
        }
        // Half-closed: the client has said all, the server is asleep.
        let digests = WAYS.into_iter().zip(9201_u16..).map(|((from, to), port)| {
            let server = pod(to).serve(["half-close", "--port", &port.to_string()])?;
            let to = at(&pod(to), port);
            until_answered(&pod(from), &to)?;
            suspend(&server)?;
            let patient = ["--timeout-ms", "120000"];
            let client =
                pod(from).workload(["connect", "--to", &to, "--send", "half"]).args(patient).spawn()?;
            Ok((server, client))
        });
        let digests = digests.collect::<Result<Vec<_>>>()?;
        for (_, slow, stalled, _) in &blocked {
            suspend(slow)?;
            suspend(stalled)?;
        }
        until_still(lab)?;
        let mut lines = [Line::new(lab.node("n1")), Line::new(lab.node("n2"))];
        for _ in 0..2 {
            lines.iter_mut().try_for_each(Line::upgrade)?;
        }
        for (server, _) in &digests {
            go_on(server)?;
        }
        for (_, slow, stalled, _) in &blocked {
            go_on(slow)?;
            go_on(stalled)?;
        }
        // And once more while they run.
        lines.iter_mut().try_for_each(Line::upgrade)?;
        for (way, _slow, stalled, pushing) in blocked {
            for one in [stalled, pushing] {
                let report = one.wait(Duration::from_secs(120))?.json()?;
                ensure!(report["ok"] == true, "{way}: {report}");
            }
        }
        for (_server, client) in digests {
            let report = client.wait(SOON)?.json()?;
            ensure!(report["ok"] == true, "half-closed: {report}");
        }
        Ok(())
    });
}

fn until_answered(from: &Pod, to: &str) -> Result<()> {
    poll_until(&format!("{} to reach {to}", from.name()), SOON, || {
        let answer = from.workload(["connect", "--to", to, "--send", "half"]).json().ok()?;
        (answer["ok"] == true).then_some(())
    })
}

#[test]
fn a_policy_after_the_upgrade_evicts_what_was_moved() {
    lasting().test(|lab| {
        lab.start_mesh()?;
        let _servers = servers(lab)?;
        let (client, far, near) = (lab.pod("client"), lab.pod("far"), lab.pod("near"));
        let patient = ["--keep-open", "--timeout-ms", "60000"];
        let mut held = Vec::new();
        for to in [&far, &near] {
            until_reached(&client, &at(to, ECHO))?;
            held.push(client.workload(["connect", "--to", &at(to, ECHO), "--send", "hello"]).args(patient).spawn()?);
        }
        let mut lines = [Line::new(lab.node("n1")), Line::new(lab.node("n2"))];
        for node in ["n1", "n2"] {
            lab.node(node).until_flow("open", |flow| flow["state"] == "open" && flow["direction"] == "inbound")?;
        }
        lines.iter_mut().try_for_each(Line::upgrade)?;
        lab.write_manifest(
            "deny.yaml",
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: nobody, namespace: shop}\n\
             spec:\n  selector: {matchLabels: {app: web}}\n  action: DENY\n  rules: [{}]\n",
        )?;
        for one in held {
            let report = one.wait(SOON)?.json()?;
            ensure!(report["error"] == "ECONNRESET", "{report}");
        }
        for node in ["n1", "n2"] {
            lab.node(node).until_flow("that was evicted", |flow| {
                flow["direction"] == "inbound"
                    && flow["flags"] == "DENY"
                    && flow["policy"].as_str().is_some_and(|rule| rule.contains("shop/nobody"))
            })?;
        }
        Ok(())
    });
}

#[test]
fn a_successor_that_is_killed_takes_down_what_it_had_and_nothing_else() {
    lasting().test(|lab| {
        lab.start_mesh()?;
        let _servers = servers(lab)?;
        let (node, client) = (lab.node("n1"), lab.pod("client"));
        let far = at(&lab.pod("far"), ECHO);
        until_reached(&client, &far)?;
        let mut held = client.workload(["hold", "--to", &far, "--count", "300"]).with_stdin().spawn()?;
        held.wait_for("open", SOON)?;
        let successor = node.another_agent("killed", &[])?;
        successor.spawn()?;
        successor.wait_log(TAKEN, SOON)?;
        // In the middle of it, or just after: each connection is lost or lives, and none hangs.
        successor.kill();
        let next = node.another_agent("next", &[])?;
        poll_until("somebody to serve again", SOON, || {
            if !next.is_running() {
                next.spawn().ok()?;
            }
            std::fs::read_to_string(next.log_path()).ok()?.contains("warren agent started").then_some(())
        })
        .with_context(|| next.log_tail(20))?;
        until_reached(&client, &far)?;
        let report = held.report(Duration::from_secs(30))?;
        println!("held: {report}");
        // At the other node nobody waits for what is gone.
        poll_until("no connection to be left at the other node", SOON, || {
            open_flows(lab.node("n2")).ok()?.is_empty().then_some(())
        })
    });
}

/// The successor never enrols it: its flows are none of its business, and go on with the old agent as long as that lives.
#[test]
fn what_a_released_pod_has_open_stays_with_the_agent_that_has_it() {
    lasting().test(|lab| {
        lab.start_mesh()?;
        let _servers = servers(lab)?;
        let (node, client) = (lab.node("n1"), lab.pod("client"));
        let far = at(&lab.pod("far"), ECHO);
        until_enrolled(node, 2)?;
        until_reached(&client, &far)?;
        let released = stream(&client, &far, &["--connections", "1", "--timeout-ms", "30000"])?;
        let moving = stream(&lab.pod("near"), &far, &["--timeout-ms", "30000"])?;
        lab.label_pod("client", "warren.dev/mesh", Some("disabled"))?;
        until_enrolled(node, 1)?;
        let successor = node.another_agent("u0", &[])?;
        successor.spawn()?;
        successor.wait_log(TAKEN, SOON)?;
        // The other one's has moved: whoever was to go has gone.
        node.until_flow("open, of near", |flow| {
            flow["state"] == "open" && flow["direction"] == "outbound" && flow["source"]["pod"] == "near"
        })?;
        // A flow that waits for its pod in the successor is reset within three seconds and carries nothing meanwhile.
        let before = Instant::now();
        poll_until("four seconds to pass", SOON, || {
            (before.elapsed() > Duration::from_secs(4)).then_some(())
        })?;
        let report = must_be_clean(released, "of the released pod")?;
        ensure!(report["connects"] == 1, "it was opened again: {report}");
        must_be_clean(moving, "of the other pod")?;
        Ok(())
    });
}
