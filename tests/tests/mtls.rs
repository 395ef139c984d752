//! PeerAuthentication from a manifest to the wire: who may enter without mutual TLS, and where that is said.

use anyhow::{Result, ensure};
use warren_tests::checks;
use warren_tests::lab::{Lab, Mesh, Pod, poll_until, run_checks};

use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const RULE: &str = "PeerAuthentication shop/default";
const PORT_RULE: &str = "PeerAuthentication shop/metrics";

#[test]
fn strict_keeps_plaintext_out() {
    Lab::builder()
        .nodes(["n1", "n2"])
        .namespace("shop", Mesh::Enabled)
        .pod("client", |pod| pod.on("n1").namespace("shop"))
        .pod("near", |pod| pod.on("n1").namespace("shop"))
        .pod("server", |pod| pod.on("n2").namespace("shop").label("app", "server"))
        .pod("stranger", |pod| pod.on("n1"))
        .pod("neighbour", |pod| pod.on("n2"))
        .test(|lab| {
            lab.start_mesh()?;
            let _servers = ["server", "near"]
                .into_iter()
                .map(|name| lab.pod(name).serve(["echo", "--port", "9000", "--port", "9090"]))
                .collect::<Result<Vec<_>>>()?;
            run_checks(
                lab,
                checks![
                    without_a_rule_plaintext_may_enter,
                    strict_refuses_plaintext_and_names_its_rule,
                    strict_lets_mutual_tls_and_the_same_node_pass,
                    a_port_may_be_excepted,
                    what_is_withdrawn_no_longer_holds,
                ],
            )
        });
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n"
    )
}

fn enters(lab: &Lab, from: &str, to: &Pod, port: u16) -> bool {
    let to = format!("{}:{port}", to.ip4());
    let said = lab.pod(from).workload(["connect", "--to", &to, "--send", "hello"]).json();
    said.is_ok_and(|said| said["ok"] == true && said["text"] == "hello")
}

fn until(lab: &Lab, what: &str, wanted: bool, from: &str, port: u16) -> Result<()> {
    poll_until(what, SOON, || (enters(lab, from, &lab.pod("server"), port) == wanted).then_some(()))
}

fn without_a_rule_plaintext_may_enter(lab: &Lab) -> Result<()> {
    let watch = lab.node("n2").watch_flows()?;
    until(lab, "a stranger to enter", true, "stranger", 9000)?;
    watch.expect(&[("/verdict", "allowed"), ("/policy", "warren/permissive")])?;
    Ok(())
}

fn strict_refuses_plaintext_and_names_its_rule(lab: &Lab) -> Result<()> {
    lab.write_manifest("strict.yaml", &policy("default", "mtls: {mode: STRICT}"))?;
    until(lab, "STRICT to hold", false, "stranger", 9000)?;
    for from in ["stranger", "neighbour"] {
        let watch = lab.node("n2").watch_flows()?;
        ensure!(!enters(lab, from, &lab.pod("server"), 9000), "{from} entered in plaintext");
        let fields =
            [("/direction", "inbound"), ("/verdict", "denied"), ("/policy", RULE), ("/flags", "DENY")];
        let flow = watch.expect(&fields)?;
        let error = flow["error"].as_str().unwrap_or_default();
        ensure!(error.contains(RULE) && error.contains("port 9000"), "{flow}");
    }
    let shown = flows_page(lab)?;
    ensure!(shown.contains(RULE), "{shown}");
    Ok(())
}

/// `warren flows` on the server's node, as a person sees it.
fn flows_page(lab: &Lab) -> Result<String> {
    lab.node("n2").warren(["flows"]).stdout()
}

fn strict_lets_mutual_tls_and_the_same_node_pass(lab: &Lab) -> Result<()> {
    ensure!(enters(lab, "client", &lab.pod("server"), 9000), "mutual TLS across nodes");
    ensure!(enters(lab, "client", &lab.pod("near"), 9000), "enrolled pods of one node");
    ensure!(!enters(lab, "stranger", &lab.pod("near"), 9000), "plaintext on one node");
    Ok(())
}

fn a_port_may_be_excepted(lab: &Lab) -> Result<()> {
    let spec = "selector: {matchLabels: {app: server}}, portLevelMtls: {9090: {mode: PERMISSIVE}}";
    lab.write_manifest("port.yaml", &policy("metrics", spec))?;
    until(lab, "the exception to hold", true, "stranger", 9090)?;
    let watch = lab.node("n2").watch_flows()?;
    ensure!(enters(lab, "stranger", &lab.pod("server"), 9090), "the excepted port");
    watch.expect(&[("/direction", "inbound"), ("/verdict", "allowed"), ("/policy", PORT_RULE)])?;
    ensure!(!enters(lab, "stranger", &lab.pod("server"), 9000), "every other port");
    Ok(())
}

fn what_is_withdrawn_no_longer_holds(lab: &Lab) -> Result<()> {
    lab.remove_manifest("port.yaml")?;
    until(lab, "the exception to be gone", false, "stranger", 9090)?;
    lab.remove_manifest("strict.yaml")?;
    until(lab, "STRICT to be gone", true, "stranger", 9000)
}
