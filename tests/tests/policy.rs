//! Open connections and the rules that change under them: who loses the permit is closed within a second, with the reason
//! in the flow; who keeps it notices nothing.

use anyhow::{Context as _, Result, ensure};
use std::time::{Duration, Instant};
use warren_tests::checks;
use warren_tests::lab::{Lab, Mesh, Pod, Proc, poll_until, run_checks};

const SOON: Duration = Duration::from_secs(20);
/// From the controller's word to the end of the connection one second is promised; the way from the manifest to the
/// agent comes before that.
const LIVE: Duration = Duration::from_secs(4);

#[test]
fn rules_change_under_open_connections() {
    Lab::builder()
        .nodes(["n1", "n2"])
        .namespace("shop", Mesh::Enabled)
        .pod("client", |pod| pod.on("n1").namespace("shop").service_account("client"))
        .pod("near", |pod| pod.on("n2").namespace("shop").service_account("near"))
        .pod("server", |pod| pod.on("n2").namespace("shop").label("app", "server"))
        .pod("stranger", |pod| pod.on("n1"))
        .test(|lab| {
            lab.start_mesh()?;
            let _server = lab.pod("server").serve(["echo", "--port", "9000"])?;
            run_checks(lab, checks![strict_ends_plaintext_and_nothing_else])
        });
}

/// Connections that stand and are idle.
fn hold(lab: &Lab, from: &str, to: &Pod) -> Result<Proc> {
    let to = format!("{}:9000", to.ip4());
    let args = ["hold", "--count", "3", "--to", &to];
    poll_until(&format!("connections from {from}"), SOON, || {
        let mut held = lab.pod(from).workload(args).with_stdin().spawn().ok()?;
        let said = held.wait_for("open", SOON).ok()?;
        said.contains("\"open\":3").then_some(held)
    })
}

/// How many of them still carry a message.
fn alive(mut held: Proc) -> Result<u64> {
    held.close_stdin();
    let said = held.report(SOON)?;
    said["open"].as_u64().with_context(|| format!("no number of connections: {said}"))
}

/// Waits until the server's node has closed three connections of `from` for `rule`.
fn closed_by(lab: &Lab, from: &str, rule: &str) -> Result<()> {
    let ip = lab.pod(from).ip4().to_string();
    let began = Instant::now();
    poll_until(&format!("the connections of {from} to be closed by {rule}"), LIVE, || {
        let flows = lab.node("n2").admin("/v1/flows").ok()?;
        let is_it = |flow: &&serde_json::Value| {
            flow["direction"] == "inbound"
                && flow["state"] == "closed"
                && flow["policy"] == rule
                && flow["flags"] == "DENY"
                && flow["source"]["address"].as_str().is_some_and(|address| address.starts_with(&ip))
                && flow["error"].as_str().is_some_and(|error| error.contains("the rules have changed"))
        };
        (flows["flows"].as_array()?.iter().filter(is_it).count() >= 3).then_some(())
    })?;
    eprintln!("closed after {:?}", began.elapsed());
    Ok(())
}

fn strict_ends_plaintext_and_nothing_else(lab: &Lab) -> Result<()> {
    let server = lab.pod("server");
    let stranger = hold(lab, "stranger", &server)?;
    let (client, near) = (hold(lab, "client", &server)?, hold(lab, "near", &server)?);
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                  metadata: {name: default, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n";
    lab.write_manifest("strict.yaml", strict)?;
    closed_by(lab, "stranger", "PeerAuthentication shop/default")?;
    ensure!(alive(stranger)? == 0, "plaintext went on");
    ensure!(alive(client)? == 3 && alive(near)? == 3, "mutual TLS or the same node was disturbed");
    let evicted = lab.node("n2").metric("warren_policy_evictions_total", &[])?;
    ensure!(evicted >= 3.0, "{evicted} evictions were counted");
    lab.remove_manifest("strict.yaml")
}
