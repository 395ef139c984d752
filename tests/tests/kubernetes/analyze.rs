//! `warren analyze --cluster`: what a cluster holds, read as the controller reads it.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use warren_tests::cluster::{Cluster, SOON, service};

#[test]
fn a_broken_route_of_the_cluster_is_found_and_a_file_can_repair_it() {
    Cluster::test(|cluster| {
        cluster.apply_crds()?;
        let namespace = cluster.meshed("mesh-analyze")?;
        let route = |host: &str| {
            json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                "metadata": {"name": "store", "namespace": "mesh-analyze"},
                "spec": {"hosts": ["store"], "http": [{"route": [{"destination": {"host": host}}]}]}})
        };
        namespace.apply([service("store", 80, 9000), route("nobody")])?;
        let of = |found: &Value| -> Vec<Value> {
            let all = found.as_array().cloned().unwrap_or_default();
            let ours = |remark: &Value| remark["object"] == "VirtualService mesh-analyze/store";
            all.into_iter().filter(ours).collect()
        };
        let analyze = |more: &[&str]| -> Result<(bool, Value)> {
            let args = ["analyze", "--cluster", "-o", "json"].into_iter().chain(more.iter().copied());
            let done = cluster.warren(args).output()?;
            let text = String::from_utf8_lossy(&done.stdout);
            let said = String::from_utf8_lossy(&done.stderr);
            let found = serde_json::from_str(&text).with_context(|| format!("{text}{said}"))?;
            Ok((done.status.success(), found))
        };
        namespace.until("the broken route to be found", SOON, || {
            let (well, found) = analyze(&[])?;
            let ours = of(&found);
            ensure!(!well && ours.len() == 1, "{found}");
            ensure!(ours[0]["code"] == "destination-not-found" && ours[0]["file"].is_null(), "{found}");
            Ok(())
        })?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("repaired.json");
        std::fs::write(&file, route("store").to_string())?;
        let (well, found) = analyze(&["-f", file.to_str().context("a path")?])?;
        let ours = of(&found);
        ensure!(well && ours.len() == 1 && ours[0]["severity"] == "info", "{found}");
        ensure!(ours[0]["text"].as_str().is_some_and(|text| text.starts_with("no longer: ")), "{found}");
        let still = namespace.json(&["get", "virtualservice", "store"])?;
        ensure!(
            still["spec"]["http"][0]["route"][0]["destination"]["host"] == "nobody",
            "nothing is written"
        );
        // Else the mesh would have something wrong until its namespace is gone.
        namespace.kubectl(&["delete", "virtualservice", "store"])?;
        Ok(())
    });
}
