//! PeerAuthentication STRICT: probes pass, and nobody else does.

use anyhow::ensure;
use serde_json::json;
use warren_tests::cluster::{Cluster, Mesh, SOON, service};

#[test]
fn probes_pass_under_strict_and_plaintext_does_not() {
    Cluster::test(|cluster| {
        cluster.apply_crds()?;
        let namespace = cluster.meshed("mesh-strict")?;
        let outside = cluster.namespace("plain-strict", Mesh::Absent)?;
        let node = &cluster.nodes()[0].name;
        outside.apply([cluster.client("client").on(node).alone()])?;
        let strict = json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": {"name": "default"},
            "spec": {"mtls": {"mode": "STRICT"}},
        });
        let http = json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1});
        let server = cluster.server("http", "http", 8080).container(|main| main["livenessProbe"] = http);
        namespace.apply([
            strict,
            server.on(node).deployment(1),
            service("http", 80, 8080),
            cluster.client("client").on(node).alone(),
        ])?;
        namespace.rolled_out("http")?;
        namespace.pod_ready("client")?;
        outside.pod_ready("client")?;
        let get = ["load", "--to", "http.mesh-strict:80", "--rate", "10", "--seconds", "0.3", "--close"];
        namespace.until("the policy to refuse plaintext", SOON, || {
            let refused = outside.exec_json("client", &get)?;
            ensure!(refused["failed"] == refused["requests"], "plaintext passes: {refused}");
            Ok(())
        })?;
        let inside = namespace.exec_json("client", &get)?;
        ensure!(inside["ok"] == true, "the mesh itself is refused: {inside}");
        // A probe's connection comes from the node, but not everything from the node is a probe.
        let server = namespace.pods("http")?.remove(0);
        let address = server["status"]["podIP"].as_str().unwrap_or_default();
        ensure!(
            !cluster.nodes()[0].reaches(address, 8080)?,
            "the node's other processes get in under STRICT"
        );
        ensure!(namespace.restarts()? == 0, "a liveness probe failed");
        // Readiness is asked for again and again; three periods later it still holds.
        namespace.until("probes to be counted", SOON, || {
            let pod = namespace.pods("http")?.remove(0);
            let since = pod["status"]["containerStatuses"][0]["ready"] == true;
            ensure!(since, "not ready: {pod}");
            Ok(())
        })
    });
}
