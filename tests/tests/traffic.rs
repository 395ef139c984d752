//! Much of everything: bytes, connections, connections at once. Nothing is lost, and nothing is left behind.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use warren_tests::lab::{Lab, Mesh, Node, poll_until};

const MIB_64: &str = "67108864";
const QUICK: u64 = 20_000;
/// An idle connection has to outlive the pings of its tunnel (every 20 s).
const IDLE: Duration = Duration::from_secs(25);

#[test]
fn nothing_is_lost_and_nothing_is_left_behind() {
    Lab::builder()
        .nodes(["n1", "n2"])
        .namespace("shop", Mesh::Enabled)
        .pod("client", |pod| pod.on("n1").namespace("shop"))
        .pod("near", |pod| pod.on("n1").namespace("shop"))
        .pod("far", |pod| pod.on("n2").namespace("shop").label("app", "far"))
        .pod("outside", |pod| pod.on("n2"))
        .service("remote", |service| service.namespace("shop").port("tcp", 9002, 9002).select("app", "far"))
        .test(|lab| {
            lab.start_mesh()?;
            let mut servers = Vec::new();
            for name in ["far", "near", "outside"] {
                let pod = lab.pod(name);
                servers.push(pod.serve(["exchange", "--port", "9001"])?);
                servers.push(pod.serve(["token", "--port", "9002", "--port", "9003"])?);
                servers.push(pod.serve(["echo", "--port", "9004"])?);
            }
            // First, so that they are idle while the rest runs.
            let watch = lab.node("n1").watch_flows()?;
            let mut idle = Vec::new();
            for name in ["far", "near", "outside"] {
                let to = format!("{}:9004", lab.pod(name).ip4());
                let hold = ["hold", "--count", "5", "--to", &to, "--timeout-ms", "5000"];
                let mut hold = lab.pod("client").workload(hold).with_stdin().spawn()?;
                hold.wait_for("\"open\":5", Duration::from_secs(10))?;
                idle.push(hold);
            }
            let (idle_flows, since) = (watch.seen()?, Instant::now());

            bulk(lab)?;
            let before = footprint(lab)?;
            storm(lab, 1)?;
            let between = settled(lab, &before)?;
            storm(lab, 8)?;
            let after = settled(lab, &between)?;
            // The first storm fills what is bounded (flow records, allocator); the second finds it full.
            for (between, after) in between.iter().zip(&after) {
                let grown = after.rss_kib.saturating_sub(between.rss_kib);
                ensure!(grown < 16 * 1024, "{QUICK} connections cost {grown} KiB: {between:?}, {after:?}");
            }
            for node in lab.nodes() {
                let counters = node.kernel_counters()?;
                ensure!(counters["origin_missing"] == 0, "{}: {counters:?}", node.name());
                ensure!(counters["connect_denied"] == 0, "{}: {counters:?}", node.name());
            }

            let ids: Vec<_> = idle_flows.iter().map(|flow| flow["id"].clone()).collect();
            poll_until("the connections to have been idle long enough", Duration::from_secs(40), || {
                (since.elapsed() > IDLE).then_some(())
            })?;
            // The same ones are open still.
            let open = |flow: &&Value| flow["state"] == "open" && ids.contains(&flow["id"]);
            let flows = lab.node("n1").admin("/v1/flows")?;
            let count = flows["flows"].as_array().map(|flows| flows.iter().filter(open).count());
            ensure!(count == Some(ids.len()) && ids.len() >= 15, "{count:?} of {} are open", ids.len());
            for hold in idle {
                let held = hold.report(Duration::from_secs(10))?;
                ensure!(held["ok"] == true, "idle connections broke: {held}");
            }
            Ok(())
        });
}

/// 64 MiB each way, checked byte by byte, over 200 connections and over one.
fn bulk(lab: &Lab) -> Result<()> {
    for name in ["far", "near", "outside"] {
        for connections in ["200", "1"] {
            let to = format!("{}:9001", lab.pod(name).ip4());
            let args = ["bulk", "--to", &to, "--bytes", MIB_64, "--connections", connections];
            let command = lab.pod("client").workload(args).args(["--timeout-ms", "30000"]);
            let done = command.within(Duration::from_secs(60)).json()?;
            say(&format!("{connections} connections to {name}: {done}"));
            ensure!(done["ok"] == true, "{connections} connections to {name}: {done}");
        }
    }
    Ok(())
}

/// Every connection reaches the port and the pod it asked for.
fn storm(lab: &Lab, threads: u64) -> Result<()> {
    let (far, near, outside) = (lab.pod("far"), lab.pod("near"), lab.pod("outside"));
    let also = [
        format!("{}:9003", far.ip4()),
        format!("[{}]:9002", far.ip6()),
        format!("{}:9002", lab.vip("remote")?.0),
        format!("{}:9003", near.ip4()),
        format!("[{}]:9002", near.ip6()),
        format!("{}:9003", outside.ip4()),
    ];
    let mut command = lab.pod("client").workload(["storm", "--to", &format!("{}:9002", far.ip4())]);
    for other in &also {
        command = command.args(["--also", other]);
    }
    let command = command.args(["--count", &QUICK.to_string(), "--threads", &threads.to_string()]);
    let done = command.within(Duration::from_secs(120)).json()?;
    say(&format!("{threads} threads: {done}"));
    ensure!(done["ok"] == true && done["good"] == QUICK && done["lost"] == 0, "{threads} threads: {done}");
    Ok(())
}

/// What an agent holds of the system.
#[derive(Debug)]
struct Footprint {
    files: usize,
    rss_kib: u64,
}

fn footprint_of(node: &Node) -> Result<Footprint> {
    Ok(Footprint { files: node.agent().open_files()?, rss_kib: node.agent().rss_kib()? })
}

fn footprint(lab: &Lab) -> Result<Vec<Footprint>> {
    lab.nodes().iter().map(footprint_of).collect()
}

/// Waits until the agents have let go of their sockets. A few stay: tunnels that wait for more, and sockets that
/// are kept ready for the next connections.
fn settled(lab: &Lab, before: &[Footprint]) -> Result<Vec<Footprint>> {
    let now = poll_until("the agents to close what they opened", Duration::from_secs(10), || {
        let now = footprint(lab).ok()?;
        now.iter().zip(before).all(|(now, before)| now.files <= before.files + 80).then_some(now)
    });
    let now = now.map_err(|error| error.context(format!("before {before:?}, now {:?}", footprint(lab))))?;
    say(&format!("before {before:?}, now {now:?}"));
    Ok(now)
}

fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "    {text}");
}
