//! The cluster without the mesh: what the other tests take for granted.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::collections::BTreeSet;
use warren_tests::cluster::{Cluster, Mesh, service};

#[test]
fn nodes_are_ready_and_different_machines() {
    Cluster::test(|cluster| {
        let namespace = cluster.namespace("plain-nodes", Mesh::Absent)?;
        for node in cluster.nodes() {
            let condition = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
            let ready = cluster.kubectl(["get", "node", &node.name, "-o", condition])?;
            ensure!(ready == "True", "{} is not ready: {ready}", node.name);
            namespace.apply([cluster.client(&node.name).on(&node.name).alone()])?;
        }
        for node in cluster.nodes() {
            namespace.pod_ready(&node.name)?;
            let at = namespace.json(&["get", "pod", &node.name])?["status"]["hostIP"].clone();
            ensure!(at == node.address.as_str(), "{} is at {at}", node.name);
        }
        Ok(())
    });
}

#[test]
fn a_service_reaches_both_nodes_by_address_and_by_name() {
    Cluster::test(|cluster| {
        let namespace = cluster.namespace("plain-service", Mesh::Absent)?;
        namespace.apply([
            cluster.server("web", "whoami", 8080).deployment(2),
            service("web", 80, 8080),
            cluster.client("client").alone(),
        ])?;
        namespace.rolled_out("web")?;
        namespace.pod_ready("client")?;
        let vip = namespace.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
        for host in [vip.as_str(), "web", "web.plain-service.svc.cluster.local"] {
            let mut answered = BTreeSet::new();
            for _ in 0..40 {
                if answered.len() == 2 {
                    break;
                }
                let text = namespace.ask("client", &format!("{host}:80"))?;
                let local = text.split("local=").nth(1).context("no local address")?;
                answered.insert(local.trim_start_matches("[::ffff:").to_owned());
            }
            ensure!(answered.len() == 2, "{host} is only answered by {answered:?}");
        }
        Ok(())
    });
}

#[test]
fn probes_exec_and_logs_work() {
    Cluster::test(|cluster| {
        let namespace = cluster.namespace("plain-probes", Mesh::Absent)?;
        let exec = json!({"exec": {"command": ["/usr/bin/warren-workload", "--help"]}, "periodSeconds": 1});
        let http = json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1});
        let never = json!({"tcpSocket": {"port": 9}, "periodSeconds": 1});
        let server = |name: &str| cluster.server(name, "http", 8080);
        namespace.apply([
            server("exec").container(|main| main["readinessProbe"] = exec).alone(),
            server("http").container(|main| main["readinessProbe"] = http).alone(),
            server("never").container(|main| main["readinessProbe"] = never).alone(),
        ])?;
        namespace.pod_ready("exec")?;
        namespace.pod_ready("http")?;
        ensure!(namespace.logs("http")?.contains("listening"), "no log of the server");
        ensure!(namespace.exec("http", &["--help"])?.contains("Usage"), "no output of exec");
        let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        ensure!(namespace.kubectl(&["get", "pod", "never", "-o", ready])? == "False", "ready without a port");
        Ok(())
    });
}

#[test]
fn tokens_for_the_mesh_are_issued_and_reviewed() {
    Cluster::test(|cluster| {
        let namespace = cluster.namespace("plain-tokens", Mesh::Absent)?;
        let review = |audience: &str| -> Result<serde_json::Value> {
            let token = namespace.kubectl(&["create", "token", "default", "--audience", audience])?;
            let spec = json!({"token": token.trim(), "audiences": ["warren.dev"]});
            cluster.create(
                &json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}),
            )
        };
        let ours = review("warren.dev")?;
        ensure!(ours["status"]["user"]["username"] == "system:serviceaccount:plain-tokens:default", "{ours}");
        let others = review("somebody.else")?;
        ensure!(others["status"]["authenticated"] != true, "{others}");
        Ok(())
    });
}
