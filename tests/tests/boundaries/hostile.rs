//! Peers that lie about who they are or what they want, on both ends of a tunnel.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use warren_tests::lab::{Lab, MESH_LABEL, PodSpec, poll_until};

use crate::forge::{Ca, Papers, Valid};
use crate::peer::{Ask, Client, Impostor, TLS12};

pub(crate) const FAILED: &str = "istio_tcp_connections_failed_total";

pub(crate) fn gateway(lab: &Lab) -> SocketAddr {
    (lab.pod("far").ip4(), 15008).into()
}

/// The attempt gets no 200, and the server's agent says why.
fn refused(
    lab: &Lab,
    flag: &str,
    words: &str,
    status: Option<u16>,
    attempt: impl FnOnce() -> Result<(u16, String)>,
) -> Result<Value> {
    refused_by(lab, "far", flag, words, status, attempt)
}

/// The same at another pod's door.
pub(crate) fn refused_by(
    lab: &Lab,
    pod: &str,
    flag: &str,
    words: &str,
    status: Option<u16>,
    attempt: impl FnOnce() -> Result<(u16, String)>,
) -> Result<Value> {
    let node = lab.node(lab.pod(pod).node());
    let label = format!("response_flags=\"{flag}\"");
    let before = node.metric(FAILED, &[&label])?;
    let flows = node.watch_flows()?;
    match (attempt(), status) {
        (Ok((code, _)), Some(wanted)) if code == wanted => {}
        (Err(error), None) if !error.to_string().contains("no answer within") => {}
        (outcome, _) => bail!("expected {status:?}, got {outcome:?}"),
    }
    let flow = flows.expect(&[("/direction", "inbound"), ("/flags", flag), ("/destination/pod", pod)])?;
    let error = flow["error"].as_str().unwrap_or_default();
    ensure!(error.contains(words), "the flow doesn't say {words:?}: {flow}");
    ensure!(node.metric(FAILED, &[&label])? > before, "{flag} is not counted: {flow}");
    Ok(flow)
}

/// What all the others are compared with: the same client with proper papers gets in.
pub(crate) fn a_peer_with_proper_papers_enters(lab: &Lab) -> Result<()> {
    let _server = lab.pod("far").serve(["whoami", "--port", "9000"])?;
    let from = lab.pod("stranger");
    let papers = Ca::of_mesh(lab)?.sign("spiffe://cluster.local/ns/shop/sa/friend", Valid::Now)?;
    let flows = lab.node("n2").watch_flows()?;
    let to = format!("{}:9000", lab.pod("far").ip4());
    let (status, text) = Client::new(&from, Some(&papers)).ask(gateway(lab), &Ask::Connect(&to, None))?;
    ensure!(status == 200 && text.contains(&from.ip4().to_string()), "{status} {text}");
    flows.expect(&[
        ("/direction", "inbound"),
        ("/source/identity", "spiffe://cluster.local/ns/shop/sa/friend"),
        ("/destination/address", &to),
        ("/verdict", "allowed"),
        ("/transport", "hbone"),
    ])?;
    Ok(())
}

pub(crate) fn peers_without_proper_papers_are_refused(lab: &Lab) -> Result<()> {
    let _server = lab.pod("far").serve(["whoami", "--port", "9000"])?;
    let from = lab.pod("stranger");
    let to = format!("{}:9000", lab.pod("far").ip4());
    let mesh = Ca::of_mesh(lab)?;
    let friend = "spiffe://cluster.local/ns/shop/sa/friend";
    let cases = [
        ("TLS_FAILURE", "no certificate", None),
        ("TLS_FAILURE", "UnknownIssuer", Some(Papers::self_signed(friend)?)),
        ("TLS_FAILURE", "UnknownIssuer", Some(Ca::unknown()?.sign(friend, Valid::Now)?)),
        ("TLS_FAILURE", "xpired", Some(mesh.sign(friend, Valid::UntilYesterday)?)),
        ("TLS_FAILURE", "not valid yet", Some(mesh.sign(friend, Valid::FromTomorrow)?)),
        (
            "IDENTITY_ERROR",
            "trust domain",
            Some(mesh.sign("spiffe://elsewhere/ns/shop/sa/friend", Valid::Now)?),
        ),
        (
            "IDENTITY_ERROR",
            "names no workload",
            Some(mesh.sign("spiffe://cluster.local/friend", Valid::Now)?),
        ),
        ("IDENTITY_ERROR", "names 0 URIs", Some(mesh.sign("friend.shop", Valid::Now)?)),
    ];
    for (flag, words, papers) in &cases {
        let client = Client::new(&from, papers.as_ref());
        let flow = refused(lab, flag, words, None, || client.ask(gateway(lab), &Ask::Connect(&to, None)))?;
        ensure!(flow["source"]["identity"].is_null(), "an identity without proof: {flow}");
    }
    Ok(())
}

pub(crate) fn other_protocols_are_refused(lab: &Lab) -> Result<()> {
    let from = lab.pod("stranger");
    let papers = Ca::of_mesh(lab)?.sign("spiffe://cluster.local/ns/shop/sa/friend", Valid::Now)?;
    let to = format!("{}:9000", lab.pod("far").ip4());
    let old = Client { versions: TLS12, ..Client::new(&from, Some(&papers)) };
    refused(lab, "TLS_FAILURE", "TLS", None, || old.ask(gateway(lab), &Ask::Connect(&to, None)))?;
    let other = Client { alpn: "postgresql", ..Client::new(&from, Some(&papers)) };
    refused(lab, "TLS_FAILURE", "TLS", None, || other.ask(gateway(lab), &Ask::Connect(&to, None)))?;
    let client = Client::new(&from, Some(&papers));
    let flow = refused(lab, "H2_HANDSHAKE_FAILURE", "does not speak HBONE", None, || {
        client.ask(gateway(lab), &Ask::Garbage)
    })?;
    ensure!(flow["source"]["identity"] == "spiffe://cluster.local/ns/shop/sa/friend", "{flow}");
    refused(lab, "TLS_FAILURE", "TLS", None, || {
        let args = ["connect", "--to", &gateway(lab).to_string(), "--keep-open"];
        let seen = from.workload(args).args(["--send", "GET / HTTP/1.1\r\n\r\n"]).json()?;
        // rustls answers with an alert, which is not what was asked for, and hangs up.
        bail!("{seen}")
    })?;
    Ok(())
}

pub(crate) fn a_tunnel_leads_to_its_own_pod_alone(lab: &Lab) -> Result<()> {
    let _server = lab.pod("far").serve(["whoami", "--port", "9000"])?;
    let _other = lab.pod("near").serve(["whoami", "--port", "9000"])?;
    let from = lab.pod("stranger");
    let papers = Ca::of_mesh(lab)?.sign("spiffe://cluster.local/ns/shop/sa/friend", Valid::Now)?;
    let client = Client::new(&from, Some(&papers));
    let elsewhere = [
        format!("{}:9000", lab.pod("near").ip4()),
        format!("{}:9000", lab.pod("outside").ip4()),
        format!("{}:9000", lab.node("n2").ip4()),
        "127.0.0.1:9000".to_owned(),
        "[::1]:9000".to_owned(),
    ];
    for to in &elsewhere {
        refused(lab, "DENY", "is not an address of pod far", Some(400), || {
            client.ask(gateway(lab), &Ask::Connect(to, None))
        })?;
    }
    refused(lab, "DENY", "is not an IP address and a port", Some(400), || {
        client.ask(gateway(lab), &Ask::Connect("far.shop:9000", None))
    })?;
    let to = format!("{}:9000", lab.pod("far").ip4());
    refused(lab, "DENY", "only CONNECT", Some(400), || client.ask(gateway(lab), &Ask::Get(&to)))?;
    for port in [15001, 15006, 15008, 15053] {
        let to = format!("{}:{port}", lab.pod("far").ip4());
        let flow = refused(lab, "DENY", "belongs to warren", Some(401), || {
            client.ask(gateway(lab), &Ask::Connect(&to, None))
        })?;
        ensure!(flow["policy"] == "warren/reserved-port" && flow["verdict"] == "denied", "{flow}");
    }
    Ok(())
}

/// Papers prove who one is, not which address one has: another workload's is not believed.
pub(crate) fn a_claimed_client_address_is_not_believed(lab: &Lab) -> Result<()> {
    let _server = lab.pod("far").serve(["whoami", "--port", "9000"])?;
    let from = lab.pod("stranger");
    let papers = Ca::of_mesh(lab)?.sign("spiffe://cluster.local/ns/shop/sa/friend", Valid::Now)?;
    let to = format!("{}:9000", lab.pod("far").ip4());
    let claimed = format!("{}:1234", lab.pod("client").ip4());
    let (status, text) =
        Client::new(&from, Some(&papers)).ask(gateway(lab), &Ask::Connect(&to, Some(&claimed)))?;
    ensure!(status == 200 && !text.contains(&lab.pod("client").ip4().to_string()), "{text}");
    ensure!(text.contains(&from.ip4().to_string()), "{text}");
    Ok(())
}

/// The client's agent finds somebody else behind the address, or nobody it can talk to, and sends nothing.
pub(crate) fn a_server_that_is_somebody_else_is_refused(lab: &Lab) -> Result<()> {
    let mesh = Ca::of_mesh(lab)?;
    let right = "spiffe://cluster.local/ns/shop/sa/victim";
    let wrong = "spiffe://cluster.local/ns/shop/sa/mallory";
    let impostor = lab.add_pod(
        &PodSpec::new("impostor")
            .on("n2")
            .namespace("shop")
            .service_account("victim")
            .label(MESH_LABEL, "disabled"),
    )?;
    let cases = [
        ("IDENTITY_ERROR", wrong, Some(mesh.sign(wrong, Valid::Now)?)),
        (
            "IDENTITY_ERROR",
            "trust domain",
            Some(mesh.sign("spiffe://elsewhere/ns/shop/sa/victim", Valid::Now)?),
        ),
        ("TLS_FAILURE", "UnknownIssuer", Some(Papers::self_signed(right)?)),
        ("TLS_FAILURE", "xpired", Some(mesh.sign(right, Valid::UntilYesterday)?)),
        ("TLS_FAILURE", "TLS with", None),
    ];
    let to = format!("{}:9000", impostor.ip4());
    let server = Impostor::start(&impostor)?;
    lab.label_pod("impostor", MESH_LABEL, Some("enabled"))?;
    poll_until("the impostor to be known", Duration::from_secs(20), || {
        let known = lab.node("n1").admin("/v1/workloads").ok()?;
        let all = known["workloads"].as_array()?;
        let one = all.iter().find(|one| one["name"] == "impostor")?;
        (one["tunnel"] == "hbone").then_some(())
    })?;
    for (flag, words, papers) in &cases {
        server.show(papers.as_ref())?;
        let flows = lab.node("n1").watch_flows()?;
        let label = format!("response_flags=\"{flag}\"");
        let before = lab.node("n1").metric(FAILED, &[&label])?;
        let args = ["connect", "--to", &to, "--send", "secret", "--keep-open"];
        let seen = lab.pod("client").workload(args).json()?;
        ensure!(seen["ok"] == false && seen["error"] == "ECONNRESET", "{words}: {seen}");
        let flow =
            flows.expect(&[("/direction", "outbound"), ("/flags", flag), ("/destination/address", &to)])?;
        let error = flow["error"].as_str().unwrap_or_default();
        ensure!(error.contains(words), "the flow doesn't say {words:?}: {flow}");
        ensure!(flow["bytes_sent"] == 0 && flow["destination"]["identity"].is_null(), "{flow}");
        ensure!(lab.node("n1").metric(FAILED, &[&label])? > before, "{flag} is not counted");
    }
    drop(server);
    lab.delete_pod("impostor")
}
