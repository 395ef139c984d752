//! Custom resources that somebody wrote in haste, or in malice: each is refused with a reason, and slows nothing else.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use warren_tests::cluster::{Cluster, Mesh, SOON, SYSTEM, service};

fn policy(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": name},
        "spec": spec,
    })
}

/// What every replica of the controller finds wrong.
fn problems(cluster: &Cluster) -> Result<Vec<String>> {
    let selector = "app.kubernetes.io/name=warren-controller";
    let pods = cluster.json(["-n", SYSTEM, "get", "pods", "-l", selector])?;
    let mut all = Vec::new();
    for pod in pods["items"].as_array().context("a list of pods")? {
        let name = pod["metadata"]["name"].as_str().context("a pod has a name")?;
        let path = format!("/api/v1/namespaces/{SYSTEM}/pods/{name}:15014/proxy/debug/problems");
        all.push(cluster.kubectl(["get", "--raw", &path])?);
    }
    Ok(all)
}

#[test]
fn bad_resources_are_refused_by_name_and_slow_nothing() {
    Cluster::test(|cluster| {
        cluster.apply_crds()?;
        cluster.install()?;
        let namespace = cluster.namespace("mesh-hostile", Mesh::Enabled)?;
        let long = "x".repeat(1 << 20);
        namespace.apply([
            policy("bad-mode", &json!({"mtls": {"mode": "PERHAPS"}})),
            policy("bad-shape", &json!({"mtls": ["STRICT"], "selector": 7})),
            policy(
                "bad-port",
                &json!({"portLevelMtls": {"many": {"mode": "STRICT"}}, "unknown": {"a": [1, 2]}}),
            ),
        ])?;
        // Too long for the annotation that `kubectl apply` writes.
        cluster.create(&{
            let mut huge = policy("bad-size", &json!({"mtls": {"mode": long}}));
            huge["metadata"]["namespace"] = json!(namespace.name());
            huge
        })?;
        namespace.apply(
            (0..300).map(|number| policy(&format!("flood-{number}"), &json!({"mtls": {"mode": number}}))),
        )?;
        namespace.until("each to be named with a reason", SOON, || {
            for said in problems(cluster)? {
                for name in ["bad-mode", "bad-shape", "bad-port", "bad-size", "flood-"] {
                    ensure!(
                        said.contains(&format!("mesh-hostile/{name}")),
                        "{name} is not among the problems"
                    );
                }
                // Nobody reads hundreds of them.
                ensure!(said.contains(" more"), "the rest is not counted");
                ensure!(said.len() < 1 << 20, "the list of problems has {} bytes", said.len());
            }
            Ok(())
        })?;
        // The rest of the world goes on: pods are enrolled, endpoints are pushed.
        namespace.apply([
            cluster.server("web", "http", 8080).deployment(2),
            service("web", 80, 8080),
            cluster.client("client").alone(),
        ])?;
        namespace.rolled_out("web")?;
        namespace.pod_ready("client")?;
        let get = ["load", "--to", "web:80", "--rate", "50", "--seconds", "1", "--close"];
        let seen = namespace.exec_json("client", &get)?;
        ensure!(seen["ok"] == true, "{seen}");
        ensure!(cluster.system_restarts()? == 0, "a container of warren was restarted");
        Ok(())
    });
}
