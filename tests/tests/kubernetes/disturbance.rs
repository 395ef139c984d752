//! Parts of the mesh and of Kubernetes end, are replaced, are away. Applications must not notice.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use warren_tests::cluster::{Cluster, Namespace, SOON, SYSTEM, lossless, service};

/// How long the API server is away, seconds.
const OUTAGE: u64 = 60;

/// Servers on both nodes, a client on the first.
fn application<'a>(cluster: &'a Cluster, name: &str) -> Result<Namespace<'a>> {
    let namespace = cluster.meshed(name)?;
    namespace.apply([
        cluster.server("web", "http", 8080).deployment(2),
        service("web", 80, 8080),
        cluster.server("echo", "echo", 9000).on(&cluster.nodes()[1].name).deployment(1),
        service("echo", 80, 9000),
        cluster.client("client").on(&cluster.nodes()[0].name).alone(),
    ])?;
    namespace.rolled_out("web")?;
    namespace.rolled_out("echo")?;
    namespace.pod_ready("client")?;
    // After an outage of the API server CoreDNS hears of new services only when its watch's back-off (30 s and more) has ended.
    for to in ["web:80", "echo:80"] {
        namespace.until(&format!("DNS to know {to}"), 2 * SOON, || {
            namespace.exec("client", &["connect", "--to", to]).map(|_| ())
        })?;
    }
    Ok(namespace)
}

const NEW_CONNECTIONS: [&str; 7] = ["load", "--to", "web:80", "--rate", "50", "--close", "--connections=4"];

#[test]
fn rolling_the_agents_fails_no_new_connection() {
    Cluster::test(|cluster| {
        let namespace = application(cluster, "mesh-agents")?;
        let load = namespace.start("client", &NEW_CONNECTIONS)?;
        cluster.kubectl(["-n", SYSTEM, "rollout", "restart", "daemonset/warren-agent"])?;
        cluster.system_ready("daemonset/warren-agent")?;
        let report = load.report()?;
        lossless(&report)?;
        ensure!(cluster.system_restarts()? == 0, "an agent's container was restarted");
        Ok(())
    });
}

#[test]
fn a_killed_controller_is_not_noticed() {
    Cluster::test(|cluster| {
        let namespace = application(cluster, "mesh-control")?;
        let load = namespace.start("client", &NEW_CONNECTIONS)?;
        let stream = namespace.start("client", &["stream", "--to", "echo:80"])?;
        let selector = "app.kubernetes.io/name=warren-controller";
        cluster.kubectl(["-n", SYSTEM, "delete", "pods", "-l", selector, "--grace-period=0", "--force"])?;
        cluster.system_ready("deployment/warren-controller")?;
        // New pods get what they need from the new controller.
        namespace.apply([cluster.client("late").on(&cluster.nodes()[0].name).alone()])?;
        namespace.pod_ready("late")?;
        let late = namespace.exec_json("late", &["connect", "--to", "echo:80", "--send", "hello"])?;
        ensure!(late["text"] == "hello", "{late}");
        lossless(&load.report()?)?;
        let stream = stream.report()?;
        ensure!(stream["ok"] == true, "{stream}");
        Ok(())
    });
}

#[test]
fn an_api_server_that_is_away_is_not_noticed() {
    Cluster::test(|cluster| {
        let namespace = application(cluster, "mesh-away")?;
        // By address and to the end without kubectl, whose connection passes through the API server.
        let vip = namespace.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
        let (to, seconds) = (format!("{vip}:80"), (OUTAGE + 15).to_string());
        let load = ["load", "--to", &to, "--rate", "50", "--close", "--seconds", &seconds];
        let node = &cluster.nodes()[0].name;
        namespace.apply([cluster
            .pod("load", &load)
            .on(node)
            .spec(|spec| spec["restartPolicy"] = json!("Never"))
            .alone()])?;
        namespace.pod_is("jsonpath={.status.phase}=Running", "load")?;
        cluster.api_outage_for(Duration::from_secs(OUTAGE))?;
        namespace.pod_is("jsonpath={.status.phase}=Succeeded", "load")?;
        let said = namespace.logs("load")?;
        let report: Value = serde_json::from_str(said.lines().last().context("no report")?)?;
        lossless(&report)?;
        ensure!(cluster.system_restarts()? == 0, "a container of warren was restarted");
        // And everything goes on afterwards.
        namespace.apply([cluster.client("late").on(node).alone()])?;
        namespace.pod_ready("late")?;
        // Kubernetes called all pods unready, DNS among them, and its slices say so a moment longer than the pods do.
        namespace.until("a new pod to reach an old one by name", 2 * SOON, || {
            let late = namespace.exec_json("late", &["connect", "--to", "echo:80", "--send", "hello"])?;
            ensure!(late["text"] == "hello", "{late}");
            Ok(())
        })
    });
}

#[test]
fn a_pod_waits_while_its_node_has_no_agent() {
    Cluster::test(|cluster| {
        let namespace = application(cluster, "mesh-waits")?;
        let outside = cluster.namespace("plain-waits", warren_tests::cluster::Mesh::Absent)?;
        let node = &cluster.nodes()[0].name;
        let without = cluster.without_agent(node)?;
        namespace.apply([cluster.client("late").on(node).alone()])?;
        outside.apply([cluster.client("other").on(node).alone()])?;
        // Others pass.
        outside.pod_ready("other")?;
        namespace.until("an event that says why", SOON, || {
            let field = "involvedObject.name=late,reason=FailedCreatePodSandBox";
            let events = namespace.kubectl(&[
                "get",
                "events",
                "--field-selector",
                field,
                "-o",
                "jsonpath={..message}",
            ])?;
            ensure!(events.contains("warren"), "the events say: {events:?}");
            Ok(())
        })?;
        let phase = namespace.kubectl(&["get", "pod", "late", "-o", "jsonpath={.status.phase}"])?;
        ensure!(phase == "Pending", "the pod is {phase} without an agent");
        without.end()?;
        namespace.pod_ready("late")?;
        let late = namespace.exec_json("late", &["connect", "--to", "echo:80", "--send", "hello"])?;
        ensure!(late["text"] == "hello", "{late}");
        Ok(())
    });
}
