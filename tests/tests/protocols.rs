//! Protocols that lean on what TCP promises: who speaks first, half-closed connections, resets, refusals.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use warren_tests::checks;
use warren_tests::lab::{Lab, Mesh, Proc, ServiceSpec, run_checks};

const ALL: [&str; 4] = ["far", "near", "outside", "stranger"];
/// A refusal comes at once; nobody's deadline has to run out for it.
const PROMPT_MS: f64 = 2000.0;

#[test]
fn connections_begin_end_and_fail_as_without_a_mesh() {
    Lab::builder()
        .nodes(["n1", "n2"])
        .namespace("shop", Mesh::Enabled)
        .pod("client", |pod| pod.on("n1").namespace("shop").label("app", "client"))
        .pod("near", |pod| pod.on("n1").namespace("shop"))
        .pod("far", |pod| pod.on("n2").namespace("shop"))
        .pod("stranger", |pod| pod.on("n1"))
        .pod("outside", |pod| pod.on("n2"))
        .service("own", |service| service.namespace("shop").port("tcp", 80, 9100).select("app", "client"))
        .service("empty", |service| service.namespace("shop").port("tcp", 80, 9100).select("app", "nobody"))
        .test(|lab| {
            lab.start_mesh()?;
            run_checks(
                lab,
                checks![
                    the_server_may_speak_first,
                    the_client_may_end_first,
                    the_server_may_end_first,
                    an_immediate_end_is_an_end,
                    a_servers_reset_is_a_reset,
                    a_clients_reset_is_a_reset,
                    a_closed_port_is_refused_at_once,
                    an_unreachable_address_fails_at_once,
                    a_service_without_endpoints_is_refused_at_once,
                    a_port_that_the_service_lacks_is_refused_at_once,
                    a_service_of_closed_ports_is_refused_at_once,
                    a_pod_may_call_itself,
                    a_pod_may_call_its_own_service,
                ],
            )
        });
}

fn connect(lab: &Lab, to: &str, more: &[&str]) -> Result<Value> {
    lab.pod("client").workload(["connect", "--to", to]).args(more).json()
}

/// Both addresses of a pod, with a port.
fn addresses(lab: &Lab, pod: &str, port: u16) -> [String; 2] {
    let pod = lab.pod(pod);
    [format!("{}:{port}", pod.ip4()), format!("[{}]:{port}", pod.ip6())]
}

fn the_server_may_speak_first(lab: &Lab) -> Result<()> {
    for name in ALL {
        let _server = lab.pod(name).serve(["server-first", "--port", "9000", "--label", name])?;
        for to in addresses(lab, name, 9000) {
            for style in ["blocking", "epoll"] {
                let seen = connect(lab, &to, &["--read-line", "--send", "hello", "--style", style])?;
                ensure!(
                    seen["line"] == format!("220 {name} ready") && seen["text"] == "hello",
                    "{name}: {seen}"
                );
            }
        }
    }
    Ok(())
}

/// The client ends its direction; the server answers after it has read everything.
fn the_client_may_end_first(lab: &Lab) -> Result<()> {
    for name in ALL {
        let _server = lab.pod(name).serve(["half-close", "--port", "9000"])?;
        for to in addresses(lab, name, 9000) {
            for bytes in ["0", "1", "1000000"] {
                let seen = connect(lab, &to, &["--send-bytes", bytes])?;
                let text = seen["text"].as_str().unwrap_or("");
                ensure!(text.trim_end().ends_with(&format!(" {bytes}")), "{bytes} bytes to {name}: {seen}");
            }
        }
    }
    Ok(())
}

/// The server ends its direction; what the client sends afterwards still arrives.
fn the_server_may_end_first(lab: &Lab) -> Result<()> {
    for name in ALL {
        let mut server = lab.pod(name).serve(["witness", "--end-first", "--port", "9000"])?;
        let seen = connect(lab, &addresses(lab, name, 9000)[0], &["--send-last", "--send-bytes", "300000"])?;
        ensure!(seen["ok"] == true && seen["text"] == "ready\n", "{name}: {seen}");
        let witnessed = ended(&mut server)?;
        ensure!(witnessed["end"] == "EOF" && witnessed["received"] == 300_000, "{name}: {witnessed}");
    }
    Ok(())
}

fn an_immediate_end_is_an_end(lab: &Lab) -> Result<()> {
    for name in ALL {
        let _server = lab.pod(name).serve(["close", "--port", "9000"])?;
        for to in addresses(lab, name, 9000) {
            let seen = connect(lab, &to, &["--keep-open"])?;
            ensure!(seen["ok"] == true && seen["received"] == 0, "{name}: {seen}");
        }
    }
    Ok(())
}

fn a_servers_reset_is_a_reset(lab: &Lab) -> Result<()> {
    for name in ALL {
        let _server = lab.pod(name).serve(["rst", "--port", "9000"])?;
        let flows = lab.node("n1").watch_flows()?;
        for style in ["blocking", "epoll", "go"] {
            let seen = connect(lab, &addresses(lab, name, 9000)[0], &["--keep-open", "--style", style])?;
            ensure!(seen["error"] == "ECONNRESET", "{name}: {seen}");
            ensure!(took(&seen) < PROMPT_MS, "{name}: {seen}");
        }
        let flow =
            flows.wait_for("a reset", |flow| flow["direction"] == "outbound" && !flow["error"].is_null())?;
        ensure!(flow["state"] == "closed", "{flow}");
    }
    Ok(())
}

fn a_clients_reset_is_a_reset(lab: &Lab) -> Result<()> {
    for name in ALL {
        let mut server = lab.pod(name).serve(["witness", "--port", "9000"])?;
        let seen = connect(lab, &addresses(lab, name, 9000)[0], &["--read-line", "--reset"])?;
        ensure!(seen["ok"] == true && seen["line"] == "ready", "{name}: {seen}");
        let witnessed = ended(&mut server)?;
        ensure!(witnessed["end"] == "ECONNRESET", "{name}: {witnessed}");
    }
    Ok(())
}

fn a_closed_port_is_refused_at_once(lab: &Lab) -> Result<()> {
    for name in ALL {
        for to in addresses(lab, name, 9999) {
            let flows = lab.node("n1").watch_flows()?;
            let inbound = lab.node(lab.pod(name).node()).watch_flows()?;
            refused(lab, &to)?;
            let flow = flows.expect(&[
                ("/direction", "outbound"),
                ("/state", "closed"),
                ("/flags", "CONNECT"),
                ("/destination/address", &to),
                ("/source/pod", "client"),
            ])?;
            says(&flow, "refused")?;
            if lab.pod(name).namespace() == "shop" {
                let flow = inbound.expect(&[
                    ("/direction", "inbound"),
                    ("/flags", "CONNECT"),
                    ("/verdict", "allowed"),
                ])?;
                says(&flow, &to)?;
                says(&flow, "refused")?;
            }
        }
    }
    Ok(())
}

/// Nobody has the address: the network says so, and so does the agent. One try each: routers limit how often they
/// say so, and a client without the mesh waits for its retransmissions then, too.
fn an_unreachable_address_fails_at_once(lab: &Lab) -> Result<()> {
    for to in ["10.244.2.249:80", "[fd00:10:244:2::249]:80"] {
        let flows = lab.node("n1").watch_flows()?;
        let seen = connect(lab, to, &["--keep-open"])?;
        ensure!(seen["error"] == "ECONNRESET" && took(&seen) < 3.0 * PROMPT_MS, "{to}: {seen}");
        let flow = flows.expect(&[
            ("/direction", "outbound"),
            ("/flags", "CONNECT"),
            ("/destination/address", to),
        ])?;
        says(&flow, "unreachable")?;
    }
    Ok(())
}

fn a_service_without_endpoints_is_refused_at_once(lab: &Lab) -> Result<()> {
    let (vip4, vip6) = lab.vip("empty")?;
    for to in [format!("{vip4}:80"), format!("[{vip6}]:80")] {
        let flows = lab.node("n1").watch_flows()?;
        refused(lab, &to)?;
        let flow =
            flows.expect(&[("/direction", "outbound"), ("/flags", "UH"), ("/destination/address", &to)])?;
        says(&flow, "empty.shop.svc.cluster.local has no healthy endpoint")?;
    }
    Ok(())
}

fn a_port_that_the_service_lacks_is_refused_at_once(lab: &Lab) -> Result<()> {
    let to = format!("{}:81", lab.vip("own")?.0);
    let flows = lab.node("n1").watch_flows()?;
    refused(lab, &to)?;
    let flow = flows.expect(&[("/direction", "outbound"), ("/destination/address", &to)])?;
    says(&flow, "has no port 81")
}

/// Both endpoints are tried, and the flow names the last one's failure.
fn a_service_of_closed_ports_is_refused_at_once(lab: &Lab) -> Result<()> {
    lab.add_service(&ServiceSpec::new("closed").namespace("shop").port("tcp", 80, 9999))?;
    lab.set_endpoints("closed", Some(&["near", "far"]))?;
    let to = format!("{}:80", lab.vip("closed")?.0);
    warren_tests::lab::poll_until("the service to be known", Duration::from_secs(20), || {
        let known = lab.node("n1").admin("/v1/services").ok()?;
        let endpoints =
            known["services"].as_array()?.iter().find(|one| one.to_string().contains("closed.shop"))?;
        (endpoints["endpoints"].as_array()?.len() == 2).then_some(())
    })?;
    let flows = lab.node("n1").watch_flows()?;
    refused(lab, &to)?;
    let flow = flows.expect(&[("/direction", "outbound"), ("/destination/address", &to)])?;
    says(&flow, "refused")?;
    ensure!(flow["destination"]["service"] == "closed.shop.svc.cluster.local", "{flow}");
    Ok(())
}

/// Never captured: loopback and the pod's own addresses.
fn a_pod_may_call_itself(lab: &Lab) -> Result<()> {
    let client = lab.pod("client");
    let _server = client.serve(["whoami", "--port", "9100"])?;
    let flows = lab.node("n1").watch_flows()?;
    let (ip4, ip6) = (client.ip4().to_string(), format!("[{}]", client.ip6()));
    for host in ["127.0.0.1", "[::1]", &ip4, &ip6, "0.0.0.0"] {
        for style in ["blocking", "go"] {
            let seen = connect(lab, &format!("{host}:9100"), &["--style", style])?;
            ensure!(seen["ok"] == true, "{host}: {seen}");
            let text = seen["text"].as_str().unwrap_or("").replace("::ffff:", "").replace(['[', ']'], "");
            let own = seen["sockname"].as_str().unwrap_or("?").replace(['[', ']'], "");
            ensure!(text.contains(&format!("peer={own} ")), "{host}: {seen}");
        }
    }
    let closed = connect(lab, &format!("{ip4}:9199"), &[])?;
    ensure!(closed["error"] == "ECONNREFUSED", "{closed}");
    flows.expect_none()
}

fn a_pod_may_call_its_own_service(lab: &Lab) -> Result<()> {
    let client = lab.pod("client");
    let _server = client.serve(["whoami", "--port", "9100"])?;
    let (vip4, vip6) = lab.vip("own")?;
    for (to, own) in [
        (format!("{vip4}:80"), client.ip4().to_string()),
        (format!("[{vip6}]:80"), format!("[{}]", client.ip6())),
    ] {
        let flows = lab.node("n1").watch_flows()?;
        let seen = connect(lab, &to, &[])?;
        ensure!(seen["ok"] == true && seen["peername"] == to, "{seen}");
        let port = seen["sockname"].as_str().and_then(|name| name.rsplit(':').next()).context("no port")?;
        let text = seen["text"].as_str().unwrap_or("").replace("::ffff:", "");
        ensure!(
            text.replace(['[', ']'], "").contains(&format!("peer={}:{port} ", own.replace(['[', ']'], ""))),
            "{seen}"
        );
        for direction in ["outbound", "inbound"] {
            flows.expect(&[
                ("/direction", direction),
                ("/source/pod", "client"),
                ("/destination/pod", "client"),
                ("/transport", "same-node"),
                ("/flags", "-"),
            ])?;
        }
    }
    Ok(())
}

/// However a client asks, it is told promptly, and never with an orderly end.
fn refused(lab: &Lab, to: &str) -> Result<()> {
    for more in [
        &["--keep-open"][..],
        &["--keep-open", "--send", "hello"],
        &["--style", "nonblocking"],
        &["--style", "epoll", "--keep-open"],
        &["--style", "go", "--keep-open"],
    ] {
        let seen = connect(lab, to, more)?;
        let error = seen["error"].as_str().unwrap_or("none");
        let named = ["ECONNREFUSED", "ECONNRESET", "EPIPE", "ENOTCONN"].contains(&error);
        ensure!(seen["ok"] == false && named, "{more:?} to {to}: {seen}");
        ensure!(took(&seen) < PROMPT_MS, "{more:?} to {to} was not told at once: {seen}");
    }
    Ok(())
}

fn took(seen: &Value) -> f64 {
    seen["ms"].as_f64().unwrap_or(f64::INFINITY)
}

fn says(flow: &Value, words: &str) -> Result<()> {
    let error = flow["error"].as_str().unwrap_or_default();
    ensure!(error.contains(words), "the flow doesn't say {words:?}: {flow}");
    Ok(())
}

/// What a `witness` tells of its first connection.
fn ended(server: &mut Proc) -> Result<Value> {
    Ok(serde_json::from_str(&server.wait_for("\"end\"", Duration::from_secs(20))?)?)
}
