//! Limits: what is one too many is refused at once and said so, and one pod's excess is nobody else's.

mod turmoil;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use turmoil::{SOON, at, must_be_clean, shop, stream, until_enrolled, until_reached, until_status};
use warren_tests::lab::{Lab, Pod, poll_until};

fn refusals(lab: &Lab, node: &str, limit: &str) -> Result<f64> {
    lab.node(node).metric("warren_limit_refusals_total", &[&format!("limit=\"{limit}\"")])
}

#[test]
fn a_pod_with_too_many_connections_is_refused_more_and_the_others_are_not() {
    shop().agent_arg("--max-connections-per-pod").agent_arg("20").test(|lab| {
        lab.start_mesh()?;
        let (client, near, far, node) = (lab.pod("client"), lab.pod("near"), lab.pod("far"), lab.node("n1"));
        let _servers = [far.serve(["echo", "--port", "9000"])?, near.serve(["echo", "--port", "9000"])?];
        until_enrolled(node, 2)?;
        until_reached(&client, &at(&far, 9000))?;
        until_reached(&near, &at(&far, 9000))?;
        // What was closed may still be counted for a moment.
        for node in lab.nodes() {
            until_status(node, "no open flow", |status| status["open_flows"] == 0)?;
        }
        // As many as the server's pod may have too.
        let mut held =
            client.workload(["hold", "--to", &at(&far, 9000), "--count", "30"]).with_stdin().spawn()?;
        let line = held.wait_for("\"open\"", SOON)?;
        ensure!(line.contains("\"open\":20") && line.contains("\"failed\":10"), "{line}");
        ensure!(refusals(lab, "n1", "connections_per_pod")? >= 10.0, "not counted");
        let flow = node.until_flow("that names the limit", |flow| flow["flags"] == "UO")?;
        let error = flow["error"].as_str().unwrap_or_default();
        ensure!(
            error.contains("too many connections of this pod") && error.contains("--max-connections-per-pod"),
            "{flow}"
        );
        ensure!(flow["source"]["pod"] == "client", "{flow}");
        // Another pod of the node is not concerned, only who calls the full one.
        until_reached(&near, &at(&near, 9000))?;
        let report = held.report(SOON)?;
        ensure!(report["open"] == 20, "{report}");
        // What was given back can be had again.
        until_reached(&client, &at(&far, 9000))
    });
}

/// Whoever says nothing for longer than the agent bears with is ended, at both ends; who talks is not.
#[test]
fn connections_that_carry_nothing_end_where_that_is_wanted() {
    shop().agent_arg("--idle-timeout").agent_arg("5").test(|lab| {
        lab.start_mesh()?;
        let (client, near, far, node) = (lab.pod("client"), lab.pod("near"), lab.pod("far"), lab.node("n1"));
        let stranger = lab.pod("outside-near");
        let _servers = [far.serve(["echo", "--port", "9000"])?, near.serve(["echo", "--port", "9000"])?];
        let _source = far.serve(["source", "--port", "9001", "--bytes", "100000000"])?;
        until_enrolled(node, 2)?;
        until_reached(&client, &at(&far, 9000))?;
        let talking = stream(&client, &at(&far, 9000), &[])?;
        for (from, to) in [(&client, &far), (&client, &near), (&stranger, &far)] {
            let began = Instant::now();
            let mut held =
                from.workload(["hold", "--to", &at(to, 9000), "--count", "3"]).with_stdin().spawn()?;
            held.wait_for("\"open\":3", SOON)?;
            // Both agents count the same silence; whichever is first ends it for both.
            let ended = |flow: &&Value| {
                flow["flags"] == "SI"
                    && flow["source"]["pod"] == from.name()
                    && flow["destination"]["pod"] == to.name()
                    && flow["error"].as_str().is_some_and(|error| error.contains("--idle-timeout"))
            };
            poll_until("all three to end for their silence", SOON, || {
                let mut clients = BTreeSet::new();
                for node in lab.nodes() {
                    let flows = node.admin("/v1/flows").ok()?;
                    let silent = flows["flows"].as_array()?.iter().filter(ended);
                    clients.extend(silent.map(|flow| flow["source"]["address"].to_string()));
                }
                (clients.len() == 3).then_some(())
            })?;
            ensure!(began.elapsed() > Duration::from_secs(5), "before its time");
            ensure!(held.report(SOON)?["open"] == 0, "{} to {} went on", from.name(), to.name());
        }
        // A client that reads nothing stands still, too.
        let flows = lab.node("n2").watch_flows()?;
        let address = std::net::SocketAddr::from((far.ip4(), 9001));
        let lazy = stranger.place().netns().enter(|| std::net::TcpStream::connect(address))??;
        flows.expect(&[("/direction", "inbound"), ("/flags", "SI"), ("/destination/pod", "far")])?;
        drop(lazy);
        let counted = refusals(lab, "n1", "idle_connection")? + refusals(lab, "n2", "idle_connection")?;
        ensure!(counted >= 10.0, "{counted} counted");
        must_be_clean(talking, "who talks").map(drop)
    });
}

/// New connections at a steady rate, with their times.
fn steady(from: &Pod, to: &str) -> Result<Value> {
    let args = ["load", "--to", to, "--rate", "50", "--close", "--connections", "8", "--seconds", "4"];
    from.workload(args).within(Duration::from_secs(30)).json()
}

#[test]
fn one_pod_that_floods_its_agent_leaves_the_others_alone() {
    shop().pod("flooder", |pod| pod.on("n1").namespace("shop")).test(|lab| {
        lab.start_mesh()?;
        let (client, flooder, far) = (lab.pod("client"), lab.pod("flooder"), lab.pod("far"));
        let _servers = [far.serve(["http", "--port", "8080"])?, far.serve(["token", "--port", "9000"])?];
        until_enrolled(lab.node("n1"), 3)?;
        let calm = steady(&client, &at(&far, 8080))?;
        ensure!(calm["failed"] == 0, "{calm}");
        let flood = flooder
            .workload(["storm", "--to", &at(&far, 9000), "--count", "200000", "--threads", "64"])
            .within(Duration::from_secs(120))
            .spawn()?;
        poll_until("the flood to be there", SOON, || {
            let opened =
                lab.node("n1").metric("istio_tcp_connections_opened_total", &["reporter=\"source\""]).ok()?;
            (opened > 2000.0).then_some(())
        })?;
        let flooded = steady(&client, &at(&far, 8080))?;
        drop(flood);
        println!("calm {calm}\nflooded {flooded}");
        ensure!(flooded["failed"] == 0 && flooded["requests"].as_u64() >= Some(190), "{flooded}");
        // One in ten may be late on a busy machine, though none by much.
        let ms = |report: &Value, of: &str| report[of].as_f64().map_or(f64::MAX, |micros| micros / 1000.0);
        let (p90, max) = (ms(&flooded, "p90_us"), ms(&flooded, "max_us"));
        let before = ms(&calm, "p90_us");
        ensure!(
            p90 < 500.0 && max < 5000.0,
            "p90 {p90} ms, {max} ms at most; p90 without the flood {before} ms"
        );
        Ok(())
    });
}
