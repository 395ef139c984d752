//! `warren ca revoke`: nobody gets in with a revoked identity, and who is in goes out, everywhere.

mod turmoil;

use anyhow::ensure;
use serde_json::Value;
use std::time::{Duration, Instant};
use turmoil::{SOON, at, must_be_clean, say, shop, stream, until_reached};
use warren_tests::lab::poll_until;

const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";
/// From the command to the end of the last connection, on a busy machine; by themselves they would last for a minute.
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_revoked_identity_is_out_until_that_is_taken_back() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let (client, near, far) = (lab.pod("client"), lab.pod("near"), lab.pod("far"));
        let mut servers = Vec::new();
        for pod in [&client, &near, &far] {
            servers.push(pod.serve(["echo", "--port", "9000"])?);
        }
        for server in [&near, &far] {
            until_reached(&client, &at(server, 9000))?;
        }
        let mut open = Vec::new();
        for (from, to) in [(&client, &near), (&client, &far), (&far, &client)] {
            let to = at(to, 9000);
            open.push(
                from.workload([
                    "connect",
                    "--to",
                    &to,
                    "--send",
                    "hello",
                    "--keep-open",
                    "--timeout-ms",
                    "60000",
                ])
                .spawn()?,
            );
        }
        let bystander = stream(&near, &at(&far, 9000), &[])?;
        poll_until("three open connections", SOON, || {
            let count = |node: &str| {
                let flows = lab.node(node).admin("/v1/flows").ok()?;
                let answered = flows["flows"].as_array()?.iter().filter(|flow| {
                    flow["state"] == "open" && flow["direction"] == "outbound" && flow["bytes_received"] == 5
                });
                Some(answered.count())
            };
            (count("n1")? == 2 && count("n2")? == 1).then_some(())
        })?;

        let start = Instant::now();
        let said: Value = serde_json::from_str(&lab.warren_ca(["revoke", CLIENT, "-o", "json"]).stdout()?)?;
        ensure!(said["revoked"][0] == CLIENT, "{said}");
        for connection in open {
            let ended = connection.wait(LIMIT)?.json()?;
            ensure!(ended["error"] == "ECONNRESET", "the application sees {ended}");
        }
        let took = start.elapsed();
        println!("all ended after {took:?}");
        ensure!(took < LIMIT, "{took:?}");
        lab.node("n2").until_flow("that was ended", |flow| {
            flow["direction"] == "inbound" && flow["error"].to_string().contains("revoked")
        })?;
        for (from, to) in [(&client, &near), (&client, &far), (&far, &client)] {
            let refused = say(from, &at(to, 9000), "hello")?;
            ensure!(
                refused["ok"] == false || refused["text"] != "hello",
                "{} entered: {refused}",
                from.name()
            );
        }
        // Nor after a restart of the controller, or of an agent without it.
        lab.controller().restart()?;
        let listed = lab.warren_ca(["status"]).stdout()?;
        ensure!(listed.contains(CLIENT), "{listed}");
        must_be_clean(bystander, "somebody else's connection")?;
        poll_until("the list to be saved", SOON, || {
            let saved = std::fs::read(lab.dir().join("nodes/n2/state/mesh.pb")).ok()?;
            saved.windows(CLIENT.len()).any(|window| window == CLIENT.as_bytes()).then_some(())
        })?;

        lab.warren_ca(["revoke", CLIENT, "--undo"]).run()?;
        for server in [&near, &far] {
            until_reached(&client, &at(server, 9000))?;
        }
        until_reached(&far, &at(&client, 9000))
    });
}
