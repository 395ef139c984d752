//! Pods that start: enrolled before their first process, or held up, or let alone. The plugin is the real one, and so is
//! the agent it asks; only the container runtime is played.

mod turmoil;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use turmoil::{SOON, Wire, at, must_be_clean, shop, stream, until_enrolled, until_status};
use warren_tests::lab::{Lab, PluginOutcome, Pod, PodSpec, poll_until};

fn fresh() -> PodSpec {
    PodSpec::new("fresh").on("n1").namespace("shop").service_account("client")
}

/// One attempt, whatever comes of it.
fn once(from: &Pod, to: &str, text: &str) -> Result<Value> {
    from.workload(["connect", "--to", to, "--send", text]).json()
}

/// A refusal as the kubelet shows it.
fn refusal(outcome: &PluginOutcome) -> Result<String> {
    ensure!(!outcome.success, "it succeeded: {}", outcome.output);
    let error: Value = serde_json::from_str(&outcome.output)?;
    ensure!(error["code"] == 11 && error["cniVersion"] == "1.0.0", "{error}");
    Ok(error["msg"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn the_very_first_connection_of_a_pod_is_captured() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let (near, far, node) = (lab.pod("near"), lab.pod("far"), lab.node("n1"));
        let _servers = [near.serve(["echo", "--port", "9000"])?, far.serve(["echo", "--port", "9000"])?];
        until_enrolled(node, 2)?;
        until_enrolled(lab.node("n2"), 1)?;
        let wire = Wire::capture(lab, "first", "tcp")?;
        let sandbox = lab.sandbox(&fresh())?;
        let done = sandbox.plugin("ADD")?;
        ensure!(done.success && done.output == format!("{}\n", sandbox.previous()), "{done:?}");
        // No waiting in between, and no second attempt: the API does not even know its address.
        let pod = sandbox.start()?;
        let said = once(&pod, &at(&far, 9000), "first words")?;
        ensure!(said["ok"] == true && said["text"] == "first words", "{said}");
        ensure!(!wire.has("first words")?, "the first words went over the wire as they are");
        let flow = lab.node("n2").until_flow("from the fresh pod", |flow| {
            flow["direction"] == "inbound" && flow["transport"] == "hbone"
        })?;
        ensure!(
            flow["source"]["identity"] == "spiffe://cluster.local/ns/shop/sa/client"
                || flow.to_string().contains("sa/client"),
            "{flow}"
        );
        let said = once(&pod, &at(&near, 9000), "to the same node")?;
        ensure!(said["ok"] == true, "{said}");
        // Now the API knows: nothing is enrolled anew, and nothing of what is open ends.
        let open = stream(&pod, &at(&far, 9000), &[])?;
        let before = until_enrolled(node, 3).and_then(|()| node.admin("/v1/status"))?["pods"].clone();
        lab.report_addresses("fresh")?;
        until_status(node, "the same pods", |status| status["pods"] == before)?;
        let inward = once(&near, &at(&pod, 9000), "nobody listens")?;
        ensure!(inward["ok"] != true, "{inward}");
        must_be_clean(open, "a connection older than the API's word")?;
        ensure!(sandbox.plugin("CHECK")?.success, "CHECK");
        let done = sandbox.plugin("DEL")?;
        ensure!(done.success && done.output.is_empty(), "{done:?}");
        until_enrolled(node, 2)
    });
}

#[test]
fn a_sandbox_that_is_made_again_is_captured_again() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let (far, node) = (lab.pod("far"), lab.node("n1"));
        let _server = far.serve(["echo", "--port", "9000"])?;
        until_enrolled(lab.node("n2"), 1)?;
        let first = lab.sandbox(&fresh())?;
        first.add()?;
        lab.report_addresses("fresh")?;
        until_enrolled(node, 3)?;
        // The first ends without a word, and the API still tells of its addresses.
        let second = first.again()?;
        second.add()?;
        let pod = second.start()?;
        let wire = Wire::capture(lab, "again", "tcp")?;
        let said = once(&pod, &at(&far, 9000), "words of the second")?;
        ensure!(said["ok"] == true && !wire.has("words of the second")?, "{said}");
        until_enrolled(node, 3)
    });
}

#[test]
fn without_an_agent_pods_of_the_mesh_wait_and_others_start() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let node = lab.node("n1");
        until_enrolled(node, 2)?;
        let sandbox = lab.sandbox(&fresh())?;
        let other = lab.sandbox(&PodSpec::new("other").on("n1"))?;
        // Known at once: it is not in the mesh.
        let began = Instant::now();
        other.add()?;
        // Who is waited for is waited for 5 s.
        ensure!(began.elapsed() < Duration::from_millis(4800), "{:?}", began.elapsed());
        node.agent().kill();
        let said = refusal(&sandbox.plugin("ADD")?)?;
        ensure!(
            said.starts_with(
                "warren: pod shop/fresh waits: namespace shop is enrolled, and this node's warren agent"
            ),
            "{said}"
        );
        other.add()?;
        ensure!(sandbox.plugin("DEL")?.success && sandbox.plugin("STATUS")?.success, "DEL, STATUS");
        // A drained agent takes its socket along; the next one captures before it answers.
        node.start_agent()?;
        sandbox.add()?;
        until_enrolled(node, 3)?;
        node.agent().stop()?;
        refusal(&sandbox.plugin("ADD")?)?;
        other.add()
    });
}

#[test]
fn a_pod_that_the_controller_does_not_know_waits_if_its_namespace_is_enrolled() {
    shop().test(|lab| {
        lab.start_mesh()?;
        until_enrolled(lab.node("n1"), 2)?;
        let (fresh, other) = (lab.sandbox(&fresh())?, lab.sandbox(&PodSpec::new("other").on("n1"))?);
        lab.controller().kill();
        // What was published before that is known; of what comes now nobody hears.
        let late = lab.sandbox(&PodSpec::new("late").on("n1").namespace("shop"))?;
        let later = lab.sandbox(&PodSpec::new("later").on("n1"))?;
        let said = refusal(&late.plugin("ADD")?)?;
        ensure!(said.contains("pod shop/late waits for the mesh: the controller has not told"), "{said}");
        later.add()?;
        lab.start_controller()?;
        // The kubelet tries again, and so does the agent with its controller.
        for sandbox in [&fresh, &other, &late, &later] {
            let mut last = None;
            let started = poll_until("the pods to start", SOON, || {
                last = Some(sandbox.plugin("ADD"));
                last.as_ref().is_some_and(|done| done.as_ref().is_ok_and(|done| done.success)).then_some(())
            });
            started.with_context(|| format!("{last:?}"))?;
        }
        until_enrolled(lab.node("n1"), 4)
    });
}

#[test]
fn an_agent_that_starts_while_the_api_is_silent_finds_the_pod_again() {
    shop().test(|lab: &Lab| {
        lab.start_mesh()?;
        let (far, node) = (lab.pod("far"), lab.node("n1"));
        let _server = far.serve(["echo", "--port", "9000"])?;
        until_enrolled(lab.node("n2"), 1)?;
        let sandbox = lab.sandbox(&fresh())?;
        sandbox.add()?;
        let pod = sandbox.start()?;
        node.agent().kill();
        node.start_agent()?;
        until_enrolled(node, 3)?;
        let wire = Wire::capture(lab, "restart", "tcp")?;
        let said = once(&pod, &at(&far, 9000), "after the restart")?;
        ensure!(said["ok"] == true && !wire.has("after the restart")?, "{said}");
        Ok(())
    });
}
