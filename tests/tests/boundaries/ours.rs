//! What the mesh leaves alone, and what it lets in without knowing who comes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use warren_tests::lab::{Cmd, Lab, MESH_LABEL, Pod, PodSpec, poll_until};

fn both(pod: &Pod, port: u16) -> [String; 2] {
    [format!("{}:{port}", pod.ip4()), format!("[{}]:{port}", pod.ip6())]
}

/// The connection works, and the server sees this client.
fn answered(command: Cmd, client: &str) -> Result<Value> {
    let seen = command.json()?;
    ensure!(seen["ok"] == true, "{seen}");
    let text = seen["text"].as_str().unwrap_or_default();
    ensure!(text.contains(client), "the server doesn't see the client {client}: {seen}");
    Ok(seen)
}

/// By pod and by service, on one node and between two: no agent, no kernel program, sees anything of it.
pub(crate) fn pods_outside_are_untouched(lab: &Lab) -> Result<()> {
    let (stranger, outside, plain) = (lab.pod("stranger"), lab.pod("outside"), lab.pod("plain"));
    let _servers = [outside.clone(), plain.clone()]
        .iter()
        .map(|pod| pod.serve(["whoami", "--port", "9000"]))
        .collect::<Result<Vec<_>>>()?;
    let watches = [lab.node("n1").watch_flows()?, lab.node("n2").watch_flows()?];
    let counters =
        || lab.nodes().iter().map(warren_tests::lab::Node::kernel_counters).collect::<Result<Vec<_>>>();
    let before = counters()?;
    let (vip4, vip6) = lab.vip("plain")?;
    let mut targets: Vec<_> = both(&plain, 9000).into();
    targets.extend([format!("{vip4}:80"), format!("[{vip6}]:80")]);
    for client in [&stranger, &outside] {
        for to in &targets {
            for style in ["blocking", "go"] {
                let own =
                    if to.starts_with('[') { client.ip6().to_string() } else { client.ip4().to_string() };
                let seen = answered(client.workload(["connect", "--to", to, "--style", style]), &own)?;
                ensure!(seen["peername"] == *to, "{seen}");
            }
        }
    }
    let closed = stranger.workload(["connect", "--to", &both(&plain, 9999)[0]]).json()?;
    ensure!(closed["error"] == "ECONNREFUSED" && closed["stage"] == "connect", "{closed}");
    ensure!(counters()? == before, "the kernel programs counted: {before:?}, {:?}", counters()?);
    watches.iter().try_for_each(warren_tests::lab::FlowWatch::expect_none)
}

/// From pods outside and from the nodes themselves: permitted by default, named for what it is.
pub(crate) fn plaintext_enters_without_an_identity(lab: &Lab) -> Result<()> {
    let far = lab.pod("far");
    let _server = far.serve(["whoami", "--port", "9000"])?;
    for client in ["stranger", "outside"] {
        let client = lab.pod(client);
        for (to, own) in both(&far, 9000).iter().zip([client.ip4().to_string(), client.ip6().to_string()]) {
            let flows = lab.node("n2").watch_flows()?;
            let seen = answered(client.workload(["connect", "--to", to]), &own)?;
            let source = seen["sockname"].as_str().context("no sockname")?;
            ensure!(seen["text"].as_str().unwrap_or_default().contains(&own), "{seen}");
            let flow = flows.expect(&[
                ("/direction", "inbound"),
                ("/source/address", source),
                ("/source/pod", client.name()),
                ("/destination/address", to),
                ("/destination/pod", "far"),
                ("/transport", "plaintext"),
                ("/verdict", "allowed"),
                ("/policy", "warren/permissive"),
                ("/state", "closed"),
            ])?;
            ensure!(
                flow["source"]["identity"].is_null() && flow["destination"]["identity"].is_null(),
                "{flow}"
            );
            ensure!(flow["flags"] == "-" && flow["error"].is_null(), "{flow}");
        }
    }
    for node in lab.nodes() {
        let flows = lab.node("n2").watch_flows()?;
        answered(node.place().workload(["connect", "--to", &both(&far, 9000)[0]]), &node.ip4().to_string())?;
        let flow = flows.expect(&[("/transport", "plaintext"), ("/destination/pod", "far")])?;
        ensure!(flow["source"]["identity"].is_null(), "{flow}");
    }
    Ok(())
}

/// The kubelet of the pod's own node reaches the application itself; another node's kubelet is nobody special.
pub(crate) fn the_kubelets_probes_pass(lab: &Lab) -> Result<()> {
    let far = lab.pod("far");
    let _server = far.serve(["http", "--port", "8080"])?;
    let node = lab.node("n2");
    for to in both(&far, 8080) {
        let flows = node.watch_flows()?;
        let before = node.kernel_counters()?;
        let url = format!("http://{to}/");
        let text = node.kubelet_command("curl").args(["-sS", "--max-time", "5", &url]).stdout()?;
        let own = if to.starts_with('[') { node.ip6().to_string() } else { node.ip4().to_string() };
        ensure!(text.contains(&own), "{text}");
        let after = node.kernel_counters()?;
        ensure!(after["probe_passed"] == before["probe_passed"] + 1, "{before:?}, {after:?}");
        flows.expect_none()?;
    }
    let refused = node.kubelet_workload(["connect", "--to", &both(&far, 9999)[0]]).json()?;
    ensure!(
        refused["error"] == "ECONNREFUSED" && refused["stage"] == "connect",
        "a probe of a closed port: {refused}"
    );
    let flows = node.watch_flows()?;
    let url = format!("http://{}/", both(&far, 8080)[0]);
    lab.node("n1").kubelet_command("curl").args(["-sS", "--max-time", "5", &url]).stdout()?;
    flows.expect(&[("/transport", "plaintext"), ("/destination/pod", "far")])?;
    Ok(())
}

pub(crate) fn what_is_excluded_is_left_alone(lab: &Lab) -> Result<()> {
    let careful = lab.pod("careful");
    let (far, cidr) = (lab.pod("far"), lab.pod("cidr"));
    let _servers = [&far, &cidr]
        .map(|pod| pod.serve(["whoami", "--port", "9000", "--port", "9001"]))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let mut excluded = [both(&far, 9001), both(&cidr, 9000)].concat();
    excluded.sort();
    for to in &excluded {
        let node = lab.node("n1");
        let (mine, theirs) = (node.watch_flows()?, lab.node("n2").watch_flows()?);
        let before = node.kernel_counters()?;
        let own = if to.starts_with('[') { careful.ip6().to_string() } else { careful.ip4().to_string() };
        answered(careful.workload(["connect", "--to", to]), &own)?;
        mine.expect_none()?;
        ensure!(node.kernel_counters()?["excluded"] == before["excluded"] + 1, "{to} was not excluded");
        let flow = theirs.expect(&[("/direction", "inbound"), ("/transport", "plaintext")])?;
        ensure!(flow["source"]["pod"] == "careful" && flow["source"]["identity"].is_null(), "{flow}");
    }
    // Everything else of the pod is captured as ever.
    let flows = lab.node("n1").watch_flows()?;
    answered(careful.workload(["connect", "--to", &both(&far, 9000)[0]]), &careful.ip4().to_string())?;
    flows.expect(&[("/direction", "outbound"), ("/transport", "hbone")])?;

    // Inbound: straight to the application, and from the mesh as from anywhere.
    let _server = careful.serve(["whoami", "--port", "9002", "--port", "9003"])?;
    let stranger = lab.pod("stranger");
    let node = lab.node("n1");
    let (flows, before) = (node.watch_flows()?, node.kernel_counters()?);
    for to in both(&careful, 9002) {
        let own = if to.starts_with('[') { stranger.ip6().to_string() } else { stranger.ip4().to_string() };
        answered(stranger.workload(["connect", "--to", &to]), &own)?;
    }
    flows.expect_none()?;
    ensure!(node.kernel_counters()?["inbound_passed"] == before["inbound_passed"] + 2);
    answered(stranger.workload(["connect", "--to", &both(&careful, 9003)[0]]), &stranger.ip4().to_string())?;
    flows.expect(&[("/direction", "inbound"), ("/transport", "plaintext")])?;
    answered(lab.pod("far").workload(["connect", "--to", &both(&careful, 9002)[0]]), &far.ip4().to_string())?;
    Ok(())
}

/// 15001, 15006 and 15008, from everywhere: the agent's listeners answer nobody who has not been sent there, and
/// an application that sits on such a port behind the agent's back is not reached through it.
pub(crate) fn the_agents_ports_serve_nobody(lab: &Lab) -> Result<()> {
    let (client, far, near) = (lab.pod("client"), lab.pod("far"), lab.pod("near"));
    let mut targets = Vec::new();
    for port in [15001, 15006, 15008, 15053] {
        for pod in [&far, &near] {
            targets.extend(both(pod, port).map(|to| (client.clone(), to, "n1")));
            targets.extend(
                both(pod, port)
                    .map(|to| (lab.pod("stranger"), to, if pod.node() == "n1" { "n1" } else { "n2" })),
            );
        }
        // Its own, by address and by loopback.
        targets.extend(both(&client, port).map(|to| (client.clone(), to, "")));
        // Nobody listens on 15053 here, not even on loopback.
        let judge = if port == 15053 { "" } else { "n1" };
        targets.push((client.clone(), format!("127.0.0.1:{port}"), judge));
        targets.push((client.clone(), format!("[::1]:{port}"), judge));
    }
    for (from, to, judge) in targets {
        let flows = (!judge.is_empty()).then(|| lab.node(judge).watch_flows()).transpose()?;
        let ask = ["--send", "GET / HTTP/1.1\r\n\r\n", "--keep-open"];
        let seen = from.workload(["connect", "--to", &to]).args(ask).json()?;
        let error = seen["error"].as_str().unwrap_or("an orderly end");
        // TLS answers what is no TLS with an alert of seven bytes.
        let alert = to.ends_with(":15008") && seen["received"] == 7;
        ensure!(
            alert || ["ECONNREFUSED", "ECONNRESET", "EPIPE"].contains(&error),
            "{} to {to}: {seen}",
            from.name()
        );
        ensure!(seen["ms"].as_f64().is_some_and(|ms| ms < 2000.0), "{} to {to}: {seen}", from.name());
        if let Some(flows) = flows {
            let flow = flows.wait_for(&format!("a refusal of {to}"), |flow| flow["flags"] != "-")?;
            ensure!(
                ["DENY", "TLS_FAILURE", "CONNECT"].contains(&flow["flags"].as_str().unwrap_or_default()),
                "{flow}"
            );
        }
    }
    // An application can take the ports where the agent has only loopback. Nobody reaches it.
    let address = format!("{}:15001", far.ip4());
    let squatter = far.place().netns().enter(|| std::net::TcpListener::bind(&address))??;
    squatter.set_nonblocking(true)?;
    for from in ["client", "near", "stranger", "outside"] {
        let seen = lab.pod(from).workload(["connect", "--to", &address, "--keep-open"]).json()?;
        ensure!(seen["ok"] == false, "{from}: {seen}");
    }
    ensure!(squatter.accept().is_err(), "somebody got through to an application on 15001");
    Ok(())
}

/// The application was there first: the pod stays as it is, and the status says what to do.
pub(crate) fn a_pod_that_uses_our_port_waits_and_says_why(lab: &Lab) -> Result<()> {
    let busy = lab.add_pod(&PodSpec::new("busy").on("n2").namespace("shop").label(MESH_LABEL, "disabled"))?;
    let server = busy.serve(["echo", "--port", "15008"])?;
    lab.label_pod("busy", MESH_LABEL, Some("enabled"))?;
    let node = lab.node("n2");
    let state = |wanted: &str| {
        poll_until(&format!("the pod to be {wanted}"), Duration::from_secs(10), || {
            let status = node.admin("/v1/status").ok()?;
            let pod = status["pods"].as_array()?.iter().find(|pod| pod["name"] == "busy")?.clone();
            (pod["state"] == wanted).then_some(pod)
        })
    };
    let pending = state("pending")?;
    let reason = pending["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("15008") && reason.contains("does the application use this port?"), "{pending}");
    let text = node.warren(["status"]).run()?.stdout;
    ensure!(text.contains("busy") && text.contains("15008"), "{text}");
    // Others are not held up by it.
    let _far = lab.pod("far").serve(["whoami", "--port", "9000"])?;
    answered(
        lab.pod("client").workload(["connect", "--to", &both(&lab.pod("far"), 9000)[0]]),
        &lab.pod("client").ip4().to_string(),
    )?;
    drop(server);
    let enrolled = state("enrolled")?;
    ensure!(enrolled["reason"].is_null(), "{enrolled}");
    lab.delete_pod("busy")
}
