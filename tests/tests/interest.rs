//! Agents that subscribe by interest: they know what their pods talk to and nothing else, and guess nothing.

#[path = "destination_rules/steps.rs"]
mod steps;
mod turmoil;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use steps::{answers, load, nothing_lost};
use turmoil::{SOON, at, say, shop, until_reached, until_status, warren};
use warren_tests::lab::{Lab, Mesh, Node, Proc, poll_until};

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
        node.until_flow("through a tunnel", |flow| {
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
            node.until_flow("that says why", |flow| {
                flow["destination"]["address"] == to.as_str()
                    && flow["error"].as_str().is_some_and(|error| error.contains("the controller is away"))
            })?;
        }

        lab.start_controller()?;
        until_reached(&client, &at(&stranger, 9000))?;
        node.until_flow("through a tunnel", |flow| {
            flow["transport"] == "hbone" && flow["destination"]["pod"] == "stranger-0"
        })?;
        Ok(())
    });
}

/// `web` and `bytes`, which a pod of the first node dials, and pods of the second node that only rules lead to.
fn led_elsewhere(test: impl FnOnce(&Lab) -> Result<()>) {
    let mut lab = Lab::builder()
        .agent_arg("--subscribe")
        .agent_arg("interest")
        .nodes(["n1", "n2"])
        .namespace("shop", Mesh::Enabled)
        .pod("client", |pod| pod.on("n1").namespace("shop"))
        .pod("web-0", |pod| pod.on("n1").namespace("shop").label("app", "web"))
        .service("web", |service| service.namespace("shop").port("http", 80, 80).select("app", "web"))
        .service("bytes", |service| service.namespace("shop").port("tcp", 9000, 9000).select("app", "web"));
    for name in ["other", "third", "fourth"] {
        lab = lab.pod(&format!("{name}-0"), |pod| pod.on("n2").namespace("shop").label("app", name));
        lab = lab.service(name, |service| {
            service.namespace("shop").port("http", 80, 80).port("tcp", 9000, 9000).select("app", name)
        });
    }
    lab.test(test);
}

/// A pod's servers: of requests, which say who answers, and of bytes.
fn servers(lab: &Lab, pod: &str) -> Result<[Proc; 2]> {
    Ok([steps::server(lab, pod, "80")?, lab.pod(pod).serve(["echo", "--port", "9000"])?])
}

/// The rules of a service: all that is sent there goes to another one.
fn lead(lab: &Lab, from: &str, kind: &str, to: &str) -> Result<()> {
    let port = if kind == "http" { 80 } else { 9000 };
    let route = json!([{ "route": [{ "destination": { "host": to, "port": { "number": port } } }] }]);
    let spec = json!({ "hosts": [from], kind: route });
    lab.write_object(&format!("{from}-rules.yaml"), "VirtualService", &format!("shop/{from}"), &spec)
}

/// What is answered to one request to `web`.
fn ask_web(lab: &Lab) -> Result<Value> {
    let web = lab.vip("web")?.0.to_string();
    answers(lab, &["steps", &web, "/"])?.pop().context("no answer")
}

/// Waits until `web` is answered by this pod.
fn until_answered_by(lab: &Lab, pod: &str) -> Result<()> {
    let mut last = Value::Null;
    let found = poll_until(&format!("an answer of {pod}"), SOON, || {
        last = ask_web(lab).ok()?;
        (last["who"] == pod).then_some(())
    });
    found.with_context(|| format!("the last answer: {last}"))
}

#[test]
fn where_rules_lead_is_learned_though_nobody_dials_it() {
    led_elsewhere(|lab| {
        lead(lab, "web", "http", "other")?;
        lead(lab, "bytes", "tcp", "other")?;
        lab.start_mesh()?;
        let node = lab.node("n1");
        let _servers = [
            servers(lab, "web-0")?,
            servers(lab, "other-0")?,
            servers(lab, "third-0")?,
            servers(lab, "fourth-0")?,
        ];
        ensure!(knows(node)? == (2, 0), "{:?}", knows(node)?);

        // The very first request waits until it is known where it goes.
        let answer = ask_web(lab)?;
        ensure!(answer["status"] == 200 && answer["who"] == "other-0", "{answer}");
        ensure!(knows(node)? == (3, 2), "{:?}", knows(node)?);
        let status = until_status(node, "what it follows", |status| status["controller"]["followed"] == 2)?;
        ensure!(status["workloads"] == 3, "{status:#}");

        // So does a connection; and one to a service that is learned by it alone.
        let bytes = format!("{}:9000", lab.vip("bytes")?.0);
        for pod in ["other-0", "fourth-0"] {
            if pod == "fourth-0" {
                lead(lab, "bytes", "tcp", "fourth")?;
            }
            poll_until(&format!("bytes to go to {pod}"), SOON, || {
                let watch = node.watch_flows().ok()?;
                let said = say(&lab.pod("client"), &bytes, "hello").ok()?;
                let arrived = said["ok"] == true && said["text"] == "hello";
                (arrived && watch.try_expect(&[("/destination/pod", pod)]).is_some()).then_some(())
            })?;
        }

        // Rules that change under open connections cost no request.
        let web = lab.vip("web")?.0.to_string();
        let load = load(lab, &web)?;
        lead(lab, "web", "http", "third")?;
        until_answered_by(lab, "third-0")?;
        nothing_lost(load)?;

        // What was learned outlives the agent, also without its controller.
        lab.controller().kill();
        until_status(node, "that the controller is away", |status| {
            status["controller"]["connected"] == false
        })?;
        node.agent().restart()?;
        until_answered_by(lab, "third-0")
    });
}
