//! Agents that subscribe by interest: they know what their pods talk to and nothing else, and guess nothing.

mod turmoil;

use anyhow::{Result, ensure};
use serde_json::Value;
use turmoil::{SOON, at, say, shop, until_flow, until_reached, until_status, warren};
use warren_tests::lab::{Lab, Node, poll_until};

/// A lab whose agents ask, with five more pods on the second node that nobody talks to.
fn by_interest(test: impl FnOnce(&Lab) -> Result<()>) {
    let mut lab = shop().agent_arg("--subscribe").agent_arg("interest");
    for number in 0..5 {
        lab = lab.pod(&format!("stranger-{number}"), |pod| pod.on("n2").namespace("shop"));
    }
    lab.test(test);
}

/// Workloads and services that a node's agent knows.
fn knows(node: &Node) -> Result<(usize, usize)> {
    let count = |path: &str, what: &str| -> Result<usize> {
        Ok(node.admin(path)?[what].as_array().map_or(0, Vec::len))
    };
    Ok((count("/v1/workloads", "workloads")?, count("/v1/services", "services")?))
}

#[test]
fn an_agent_learns_what_its_pods_dial_and_no_more() {
    by_interest(|lab| {
        lab.start_mesh()?;
        let (client, far, node) = (lab.pod("client"), lab.pod("far"), lab.node("n1"));
        let _servers =
            [far.serve(["echo", "--port", "9000"])?, lab.pod("near").serve(["echo", "--port", "9000"])?];
        // The pods of its own node, in the mesh or not.
        ensure!(knows(node)? == (3, 0), "{:?}", knows(node)?);

        // Never seen before: the very first connection waits for the answer, and passes through a tunnel.
        let said = say(&client, &at(&far, 9000), "hello")?;
        ensure!(said["ok"] == true && said["text"] == "hello", "{said}");
        until_flow(node, "through a tunnel", |flow| {
            flow["transport"] == "hbone" && flow["destination"]["pod"] == "far"
        })?;
        ensure!(knows(node)? == (4, 0), "{:?}", knows(node)?);

        // A service comes with the pods behind it.
        let (vip, _) = lab.vip("web")?;
        let said = say(&client, &format!("{vip}:90"), "hello")?;
        ensure!(said["ok"] == true && said["text"] == "hello", "{said}");
        ensure!(knows(node)? == (4, 1), "{:?}", knows(node)?);

        // What the books call a pod outside the mesh is outside.
        let outside = lab.pod("outside-far");
        let _outside = outside.serve(["echo", "--port", "9000"])?;
        let said = say(&client, &at(&outside, 9000), "hello")?;
        ensure!(said["ok"] == true, "{said}");

        let status = until_status(node, "what it follows", |status| status["controller"]["followed"] == 3)?;
        ensure!(status["workloads"] == 5, "{status:#}");
        let page = warren(node, &["status"]).stdout()?;
        ensure!(page.contains("by interest"), "{page}");
        // A caller that was proven is followed, so that its next connection has a name.
        poll_until("far's agent to know the client", SOON, || {
            let known: Value = lab.node("n2").admin("/v1/workloads").ok()?;
            known["workloads"].as_array()?.iter().any(|workload| workload["name"] == "client").then_some(())
        })
    });
}

#[test]
fn with_the_controller_away_nothing_is_guessed() {
    by_interest(|lab| {
        lab.start_mesh()?;
        let (client, far, node) = (lab.pod("client"), lab.pod("far"), lab.node("n1"));
        let (stranger, outside) = (lab.pod("stranger-0"), lab.pod("outside-far"));
        let _servers = [
            far.serve(["echo", "--port", "9000"])?,
            stranger.serve(["echo", "--port", "9000"])?,
            outside.serve(["echo", "--port", "9000"])?,
        ];
        until_reached(&client, &at(&far, 9000))?;
        until_reached(&client, &at(&outside, 9000))?;
        let followed = |status: &Value| status["controller"]["followed"] == 2;
        until_status(node, "what it follows", followed)?;
        lab.controller().kill();
        until_status(node, "that the controller is away", |status| {
            status["controller"]["connected"] == false
        })?;

        // Also of an agent that starts without its controller.
        for restarted in [false, true] {
            if restarted {
                node.agent().restart()?;
            }
            // What was asked about goes on; what was not might be in the mesh, so it does not leave in plaintext.
            until_reached(&client, &at(&far, 9000))?;
            until_reached(&client, &at(&outside, 9000))?;
            let said = say(&client, &at(&stranger, 9000), "hello")?;
            ensure!(said["ok"] == false, "{said}");
            let to = at(&stranger, 9000);
            until_flow(node, "that says why", |flow| {
                flow["destination"]["address"] == to.as_str()
                    && flow["error"].as_str().is_some_and(|error| error.contains("the controller is away"))
            })?;
        }

        lab.start_controller()?;
        until_reached(&client, &at(&stranger, 9000))?;
        until_flow(node, "through a tunnel", |flow| {
            flow["transport"] == "hbone" && flow["destination"]["pod"] == "stranger-0"
        })?;
        Ok(())
    });
}
