//! `warren` on a machine that has nothing but a kubeconfig.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::io::{self, BufRead as _, BufReader};
use std::process::{ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use warren_tests::cluster::{Cluster, Namespace, SOON, service};

pub(crate) fn json(cluster: &Cluster, args: &[&str]) -> Result<Value> {
    let text = cluster.warren_output(args)?;
    serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
}

fn lines(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))).collect()
}

/// A client on the first node, its server on the second, and a stranger on the first.
pub(crate) fn shop<'a>(cluster: &'a Cluster, name: &str) -> Result<Namespace<'a>> {
    let namespace = cluster.meshed(name)?;
    let [first, second] = [&cluster.nodes()[0].name, &cluster.nodes()[1].name];
    namespace.apply([
        cluster.server("store", "whoami", 9000).on(second).deployment(1),
        service("store", 80, 9000),
        cluster.client("buyer").on(first).deployment(1),
        cluster.client("stranger").on(first).deployment(1),
    ])?;
    for deployment in ["store", "buyer", "stranger"] {
        namespace.rolled_out(deployment)?;
    }
    namespace.until("the mesh to carry them", SOON, || {
        namespace.ask("deploy/buyer", "store:80")?;
        namespace.ask("deploy/stranger", "store:80")?;
        let flows = lines(&cluster.warren_output(&["flows", "-n", name, "-o", "json"])?)?;
        ensure!(flows.iter().any(|flow| flow["transport"] == "hbone"), "no tunnel yet: {flows:?}");
        Ok(())
    })?;
    Ok(namespace)
}

#[test]
fn every_command_asks_all_agents() {
    Cluster::test(|cluster| {
        let _shop = shop(cluster, "mesh-cli")?;
        let status = json(cluster, &["status", "-o", "json"])?;
        let nodes: Vec<_> =
            status["nodes"].as_array().context("nodes")?.iter().map(|it| &it["node"]).collect();
        ensure!(nodes.len() == cluster.nodes().len(), "{status}");
        let one = json(cluster, &["status", "--node", &cluster.nodes()[0].name, "-o", "json"])?;
        ensure!(one["nodes"].as_array().is_some_and(|nodes| nodes.len() == 1), "{one}");
        let table = cluster.warren_output(&["status"])?;
        ensure!(cluster.nodes().iter().all(|node| table.contains(&node.name)), "{table}");

        let workloads = json(cluster, &["workloads", "-n", "mesh-cli", "-o", "json"])?;
        let workloads = workloads["workloads"].as_array().context("workloads")?;
        ensure!(workloads.len() == 3, "each once, of whatever agents know: {workloads:?}");
        let services = json(cluster, &["services", "-n", "mesh-cli", "-o", "json"])?;
        ensure!(
            services["services"][0]["endpoints"].as_array().is_some_and(|it| it.len() == 1),
            "{services}"
        );
        let all = cluster.warren_output(&["services", "-A"])?;
        ensure!(all.contains("mesh-cli") && all.contains("kubernetes"), "{all}");
        let certificates = cluster.warren_output(&["certs"])?;
        ensure!(
            certificates.starts_with("NODE") && certificates.contains("ns/mesh-cli/sa/"),
            "{certificates}"
        );
        Ok(())
    });
}

#[test]
fn flows_of_one_deployment_come_from_its_nodes_and_are_only_its_own() {
    Cluster::test(|cluster| {
        let _shop = shop(cluster, "mesh-cli-flows")?;
        let of = |target: &str| -> Result<Vec<Value>> {
            lines(&cluster.warren_output(&["flows", "-n", "mesh-cli-flows", target, "-o", "json"])?)
        };
        let buyer = of("deploy/buyer")?;
        ensure!(!buyer.is_empty());
        for flow in &buyer {
            ensure!(
                flow["source"]["workload"] == "buyer" && flow["node"] == cluster.nodes()[0].name.as_str(),
                "{flow}"
            );
        }
        let store = of("svc/store")?;
        ensure!(store.iter().any(|flow| flow["source"]["workload"] == "buyer"), "{store:?}");
        ensure!(store.iter().all(|flow| flow["destination"]["workload"] == "store"), "{store:?}");
        let nobody = cluster.warren(["flows", "-n", "mesh-cli-flows", "deploy/nobody"]).output()?;
        let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
        ensure!(!nobody.status.success() && said.contains("deployment/nobody"), "{said}");
        Ok(())
    });
}

/// Lines as they come: a thread reads them, so that whoever waits for one may give up.
fn as_they_come(output: ChildStdout) -> Receiver<io::Result<String>> {
    let (tell, told) = channel();
    thread::spawn(move || BufReader::new(output).lines().try_for_each(|line| tell.send(line)));
    told
}

/// The nodes that tell of a new connection of the stranger.
fn followed(shop: &Namespace<'_>, told: &Receiver<io::Result<String>>) -> Result<Vec<Value>> {
    let next = || -> Result<String> { Ok(told.recv_timeout(SOON).context("nothing more is told")??) };
    // The newest that was there shows that the subscription stands.
    let first = next()?;
    shop.ask("deploy/stranger", "store:80")?;
    let mut sides = Vec::new();
    while sides.len() < 2 {
        let line = next()?;
        let event: Value = serde_json::from_str(&line)?;
        if event["source"]["workload"] == "stranger" && line != first {
            sides.push(event["node"].clone());
        }
    }
    Ok(sides)
}

#[test]
fn followed_flows_arrive_as_they_end() {
    Cluster::test(|cluster| {
        let shop = shop(cluster, "mesh-cli-follow")?;
        let mut follow =
            cluster.warren(["flows", "-f", "--last", "1", "-n", "mesh-cli-follow", "-o", "json"]);
        let mut follow = follow.stdout(Stdio::piped()).spawn()?;
        let told = as_they_come(follow.stdout.take().context("its output")?);
        let sides = followed(&shop, &told);
        follow.kill()?;
        follow.wait()?;
        let mut sides = sides?;
        sides.sort_by_key(Value::to_string);
        let nodes: Vec<Value> = cluster.nodes().iter().map(|node| node.name.as_str().into()).collect();
        ensure!(sides == nodes, "{sides:?}");
        Ok(())
    });
}

#[test]
fn check_finds_nothing_wrong_and_then_what_is_wrong() {
    Cluster::test(|cluster| {
        let namespace = cluster.meshed("mesh-check")?;
        let bad = |found: &Value| -> Vec<Value> {
            let findings = found.as_array().cloned().unwrap_or_default();
            findings.into_iter().filter(|finding| finding["result"] == "bad").collect()
        };
        // What another test left may just be on its way out.
        namespace.until("nothing to be wrong", SOON, || {
            let well = json(cluster, &["check", "-o", "json"])?;
            ensure!(bad(&well).is_empty(), "{:#?}", bad(&well));
            Ok(())
        })?;
        namespace.apply([
            cluster
                .server("own", "echo", 15008)
                .container(|main| main["ports"] = serde_json::json!([{"containerPort": 15008}]))
                .alone(),
            serde_json::json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "closed"},
                "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": [{"port": 9000}]}]}}),
        ])?;
        namespace.until("the pod to be listed", SOON, || {
            let done = cluster.warren(["check", "-o", "json"]).output()?;
            ensure!(!done.status.success(), "nothing is wrong");
            let found = bad(&serde_json::from_slice(&done.stdout)?);
            let of = |name: &str| {
                found.iter().find(|finding| finding["name"] == name).map(|it| it["detail"].to_string())
            };
            let clash = of("ports").context("no clash is found")?;
            ensure!(clash.contains("mesh-check/own (15008)"), "{clash}");
            let closed = of("NetworkPolicies").context("no policy is found")?;
            ensure!(closed.contains("mesh-check/own (by closed)"), "{closed}");
            Ok(())
        })
    });
}
