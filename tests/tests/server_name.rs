//! `connection.sni`: what a client's TLS says at its beginning decides who enters, and is looked at only where it does.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use warren_tests::checks;
use warren_tests::lab::{Lab, Mesh, poll_until, run_checks};

const SOON: Duration = Duration::from_secs(20);
/// The doors: HBONE, the same node, plaintext.
const DOORS: [&str; 3] = ["client", "near", "stranger"];
/// The agent waits so long for a ClientHello (ms).
const PATIENCE: f64 = 3000.0;

#[test]
fn server_names_decide_where_a_policy_says_so() {
    Lab::builder()
        .nodes(["n1", "n2"])
        .namespace("shop", Mesh::Enabled)
        .pod("client", |pod| pod.on("n1").namespace("shop").service_account("client"))
        .pod("near", |pod| pod.on("n2").namespace("shop").service_account("near"))
        .pod("stranger", |pod| pod.on("n1"))
        .pod("server", |pod| pod.on("n2").namespace("shop").label("app", "server"))
        .test(|lab| {
            lab.start_mesh()?;
            let server = lab.pod("server");
            let _servers = [
                server.serve(["echo", "--port", "9443"])?,
                server.serve(["server-first", "--port", "9000"])?,
            ];
            run_checks(
                lab,
                checks![
                    an_allow_lets_its_names_in,
                    where_no_name_is_asked_for_the_server_may_speak_first,
                    who_says_nothing_is_waited_for_and_refused,
                    a_deny_keeps_its_names_out,
                ],
            )
        });
}

fn policy(lab: &Lab, spec: &str) -> Result<()> {
    let yaml = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: tls, namespace: shop}}\nspec: {{{spec}}}\n"
    );
    lab.write_manifest("policy.yaml", &yaml)
}

fn ask(lab: &Lab, from: &str, port: u16, args: &[&str]) -> Result<Value> {
    let to = format!("{}:{port}", lab.pod("server").ip4());
    lab.pod(from).workload(["connect", "--to", &to]).args(args).json()
}

/// Whether a ClientHello with this name comes back from the server, byte by byte what it was.
fn enters(lab: &Lab, from: &str, name: &str) -> Result<bool> {
    let seen = ask(lab, from, 9443, &["--hello", name])?;
    let same = seen["sha256"].is_string() && seen["sha256"] == seen["hello_sha256"];
    ensure!(same == (seen["ok"] == true), "some of it came back: {seen}");
    Ok(same)
}

fn until(lab: &Lab, from: &str, name: &str, wanted: bool) -> Result<()> {
    poll_until(&format!("{from} with {name}: {wanted}"), SOON, || {
        (enters(lab, from, name).ok()? == wanted).then_some(())
    })
}

/// One connection, and what the server's node says of it.
fn told(lab: &Lab, from: &str, name: &str, verdict: &str, rule: &str) -> Result<()> {
    let watch = lab.node("n2").watch_flows()?;
    ensure!(enters(lab, from, name)? == (verdict == "allowed"), "{from} with {name} is not {verdict}");
    let flow = watch.expect(&[("/direction", "inbound"), ("/verdict", verdict), ("/policy", rule)])?;
    ensure!((flow["flags"] == "DENY") == (verdict == "denied"), "{flow}");
    Ok(())
}

fn an_allow_lets_its_names_in(lab: &Lab) -> Result<()> {
    policy(
        lab,
        "rules: [{to: [{operation: {ports: ['9443']}}], when: [{key: connection.sni, values: [DB.example.com, '*.shop.test']}]}, \
         {to: [{operation: {ports: ['9000']}}]}]",
    )?;
    for from in DOORS {
        until(lab, from, "other.example.com", false)?;
        told(lab, from, "db.example.com", "allowed", "allow shop/tls#0")?;
        told(lab, from, "web.shop.test", "allowed", "allow shop/tls#0")?;
        told(lab, from, "other.example.com", "denied", "deny (no ALLOW rule matched)")?;
        // No TLS, no name; and nobody is waited for.
        let seen = ask(lab, from, 9443, &["--send", "GET / HTTP/1.1"])?;
        ensure!(seen["ok"] == false && seen["ms"].as_f64() < Some(PATIENCE / 2.0), "{from}: {seen}");
    }
    Ok(())
}

fn where_no_name_is_asked_for_the_server_may_speak_first(lab: &Lab) -> Result<()> {
    for from in DOORS {
        let seen = ask(lab, from, 9000, &["--read-line", "--send", "x"])?;
        ensure!(seen["ok"] == true && seen["ms"].as_f64() < Some(PATIENCE / 2.0), "{from}: {seen}");
    }
    Ok(())
}

fn who_says_nothing_is_waited_for_and_refused(lab: &Lab) -> Result<()> {
    for from in DOORS {
        let seen = ask(lab, from, 9443, &["--keep-open"])?;
        let took = seen["ms"].as_f64().context("no time")?;
        ensure!(seen["error"] == "ECONNRESET" && took > PATIENCE * 0.9 && took < PATIENCE * 2.0, "{seen}");
    }
    Ok(())
}

fn a_deny_keeps_its_names_out(lab: &Lab) -> Result<()> {
    policy(lab, "action: DENY, rules: [{when: [{key: connection.sni, values: ['*.evil.test']}]}]")?;
    for from in DOORS {
        until(lab, from, "other.example.com", true)?;
        told(lab, from, "a.evil.test", "denied", "deny shop/tls#0")?;
        let seen = ask(lab, from, 9443, &["--send", "no TLS"])?;
        ensure!(seen["ok"] == true && seen["text"] == "no TLS", "{from}: {seen}");
    }
    // Nobody gets around it by waiting until the agent has done so.
    let seen = ask(lab, "client", 9443, &["--keep-open"])?;
    ensure!(seen["error"] == "ECONNRESET", "{seen}");
    lab.remove_manifest("policy.yaml")?;
    until(lab, "client", "a.evil.test", true)
}
