//! What a quiet HTTP connection costs the agent that looks into its requests.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use warren_tests::lab::{Lab, Mesh, Proc, poll_until};

/// Connections that are open and quiet.
const CONNECTIONS: u64 = 2000;
/// Most that one may cost, KB: half of what it was with all its buffers. The goal is 8, and `cargo xtask bench` measures it: this agent is
/// not optimised, its futures are larger, and the records of requests are among it.
const MOST: f64 = 22.0;
const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn a_quiet_http_connection_holds_no_buffers() {
    Lab::builder()
        .nodes(["n1", "n2"])
        .namespace("shop", Mesh::Enabled)
        .pod("client", |pod| pod.on("n1").namespace("shop"))
        .pod("server", |pod| pod.on("n2").namespace("shop").label("app", "web"))
        .service("web", |service| service.namespace("shop").port("http", 80, 8080).select("app", "web"))
        .test(|lab| {
            lab.start_mesh()?;
            let _server = lab.pod("server").serve(["http", "--port", "8080"])?;
            let rules = json!({
                "hosts": ["web"],
                "http": [{
                    "headers": { "response": { "set": { "x-by": "warren" } } },
                    "route": [{ "destination": { "host": "web" } }],
                }],
            });
            lab.write_object("rules.yaml", "VirtualService", "shop/web", &rules)?;
            poll_until("the rules", LIMIT, || {
                let head = lab.pod("client").curl(["-D", "-", "-o", "/dev/null", "http://web/"]).stdout();
                head.ok()?.contains("x-by: warren").then_some(())
            })?;
            // Tunnels, pools and what the allocator keeps for itself exist.
            drop(hold(lab, 100)?);
            let warm = resting(lab)?;
            let held = hold(lab, CONNECTIONS)?;
            let loaded = resting(lab)?;
            let each = loaded.saturating_sub(warm) as f64 * 1.024 / CONNECTIONS as f64;
            println!("{each:.1} KB per quiet HTTP connection ({warm} KiB, then {loaded} KiB)");
            let report = held.report(LIMIT)?;
            ensure!(report["ok"] == true, "quiet connections were lost: {report}");
            ensure!(each <= MOST, "{each:.1} KB per quiet connection");
            Ok(())
        });
}

/// Opens connections that have carried a request each.
fn hold(lab: &Lab, count: u64) -> Result<Proc> {
    let words = ["hold", "--http", "--to", "web:80", "--count", &count.to_string()];
    let mut held = lab.pod("client").workload(words).resolve_names().with_stdin().spawn()?;
    held.wait_for("\"open\"", LIMIT)?;
    Ok(held)
}

/// Resident KiB of the clients' agent, once it has not changed for a while.
fn resting(lab: &Lab) -> Result<u64> {
    let (mut last, mut same) = (0, 0);
    poll_until("the agent's memory to settle", LIMIT, || {
        let now = lab.node("n1").agent().rss_kib().ok()?;
        same = if now.abs_diff(last) <= 16 { same + 1 } else { 0 };
        last = now;
        (same >= 100).then_some(now)
    })
}
