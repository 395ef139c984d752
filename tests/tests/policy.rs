//! Open connections and the rules that change under them: who loses the permit is closed within a second, with the reason
//! in the flow; who keeps it notices nothing.

use anyhow::{Context as _, Result, ensure};
use std::time::{Duration, Instant};
use warren_tests::checks;
use warren_tests::lab::{Lab, Mesh, Pod, Proc, poll_until, run_checks};

const SOON: Duration = Duration::from_secs(20);
/// From the controller's word to the end of the connection one second is promised; the way from the manifest to the
/// agent comes before that, and a busy machine takes its time. Nothing else would ever end them.
const LIVE: Duration = Duration::from_secs(20);

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
            run_checks(
                lab,
                checks![
                    strict_ends_plaintext_and_nothing_else,
                    a_deny_ends_those_it_names,
                    an_allow_ends_those_it_does_not_name,
                    dry_run_is_shown_and_ends_nothing,
                    an_agent_that_restarts_alone_remembers,
                ],
            )
        });
}

fn policy(name: &str, annotations: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: {name}, namespace: shop{annotations}}}\nspec: {{{spec}}}\n"
    )
}

const SELECTOR: &str = "selector: {matchLabels: {app: server}}";
const FROM_CLIENT: &str = "rules: [{from: [{source: {principals: ['*/ns/shop/sa/client']}}]}]";

fn enters(lab: &Lab, from: &str) -> bool {
    let to = format!("{}:9000", lab.pod("server").ip4());
    let said = lab.pod(from).workload(["connect", "--to", &to, "--send", "hello"]).json();
    said.is_ok_and(|said| said["ok"] == true && said["text"] == "hello")
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

fn a_deny_ends_those_it_names(lab: &Lab) -> Result<()> {
    let server = lab.pod("server");
    let (client, near) = (hold(lab, "client", &server)?, hold(lab, "near", &server)?);
    let deny = policy("no-client", "", &format!("{SELECTOR}, action: DENY, {FROM_CLIENT}"));
    lab.write_manifest("policy.yaml", &deny)?;
    closed_by(lab, "client", "deny shop/no-client#0")?;
    ensure!(alive(client)? == 0, "the client went on");
    ensure!(alive(near)? == 3, "who is not named was disturbed");
    let watch = lab.node("n2").watch_flows()?;
    ensure!(!enters(lab, "client"), "the client entered again");
    let flow =
        watch.expect(&[("/verdict", "denied"), ("/policy", "deny shop/no-client#0"), ("/flags", "DENY")])?;
    let error = flow["error"].as_str().unwrap_or_default();
    ensure!(error == "rbac_access_denied_matched_policy[ns[shop]-policy[no-client]-rule[0]]", "{flow}");
    let shown = lab.node("n2").warren(["policies", "server"]).stdout()?;
    ensure!(shown.contains("no-client") && shown.contains("DENY"), "{shown}");
    let shown = lab.node("n2").warren(["flows"]).stdout()?;
    ensure!(shown.contains("DENIED by shop/no-client#0"), "{shown}");
    lab.remove_manifest("policy.yaml")?;
    poll_until("the client to enter again", SOON, || enters(lab, "client").then_some(()))
}

fn an_allow_ends_those_it_does_not_name(lab: &Lab) -> Result<()> {
    let server = lab.pod("server");
    let (client, near, stranger) =
        (hold(lab, "client", &server)?, hold(lab, "near", &server)?, hold(lab, "stranger", &server)?);
    lab.write_manifest("policy.yaml", &policy("client", "", &format!("{SELECTOR}, {FROM_CLIENT}")))?;
    for from in ["near", "stranger"] {
        closed_by(lab, from, "deny (no ALLOW rule matched)")?;
    }
    ensure!(alive(near)? == 0 && alive(stranger)? == 0, "who is not named went on");
    ensure!(alive(client)? == 3, "who is named was disturbed");
    let watch = lab.node("n2").watch_flows()?;
    ensure!(enters(lab, "client"), "who is named is refused");
    watch.expect(&[
        ("/direction", "inbound"),
        ("/verdict", "allowed"),
        ("/policy", "allow shop/client#0"),
    ])?;
    lab.remove_manifest("policy.yaml")?;
    poll_until("a neighbour to enter again", SOON, || enters(lab, "near").then_some(()))
}

fn dry_run_is_shown_and_ends_nothing(lab: &Lab) -> Result<()> {
    let client = hold(lab, "client", &lab.pod("server"))?;
    let annotation = ", annotations: {istio.io/dry-run: 'true'}";
    let deny = policy("next", annotation, &format!("{SELECTOR}, action: DENY, {FROM_CLIENT}"));
    lab.write_manifest("policy.yaml", &deny)?;
    let watch = lab.node("n2").watch_flows()?;
    poll_until("the dry run to be shown", SOON, || {
        enters(lab, "client").then_some(())?;
        let seen = watch.seen().ok()?;
        seen.iter()
            .any(|flow| flow["dry_run"] == "deny shop/next#0" && flow["verdict"] == "allowed")
            .then_some(())
    })?;
    ensure!(alive(client)? == 3, "a dry run ended something");
    lab.remove_manifest("policy.yaml")
}

fn an_agent_that_restarts_alone_remembers(lab: &Lab) -> Result<()> {
    lab.write_manifest(
        "policy.yaml",
        &policy("no-client", "", &format!("{SELECTOR}, action: DENY, {FROM_CLIENT}")),
    )?;
    poll_until("the client to be refused", SOON, || (!enters(lab, "client")).then_some(()))?;
    lab.controller().kill();
    lab.node("n2").agent().restart()?;
    poll_until("a neighbour to enter", SOON, || enters(lab, "near").then_some(()))?;
    for _ in 0..5 {
        ensure!(!enters(lab, "client"), "the policy was forgotten");
    }
    lab.start_controller()?;
    lab.remove_manifest("policy.yaml")?;
    poll_until("the client to enter again", SOON, || enters(lab, "client").then_some(()))
}
