//! Installing, and what it does to what runs already.

use anyhow::ensure;
use warren_tests::cluster::{Cluster, Mesh, SOON, lossless, service};

#[test]
fn all_of_the_mesh_runs_and_nothing_restarts() {
    Cluster::test(|cluster| {
        cluster.install()?;
        let mut agents = cluster.agents()?;
        // One that was replaced drains for a while.
        agents.retain(|agent| agent["metadata"]["deletionTimestamp"].is_null());
        ensure!(agents.len() == cluster.nodes().len(), "{} agents", agents.len());
        ensure!(cluster.system_restarts()? == 0, "a container of warren was restarted");
        Ok(())
    });
}

#[test]
fn pods_older_than_the_label_join_under_load() {
    Cluster::test(|cluster| {
        cluster.install()?;
        let namespace = cluster.namespace("mesh-live", Mesh::Absent)?;
        namespace.apply([
            cluster.server("web", "http", 8080).deployment(2),
            service("web", 80, 8080),
            cluster.client("client").alone(),
        ])?;
        namespace.rolled_out("web")?;
        namespace.pod_ready("client")?;
        let load = namespace.start("client", &["load", "--to", "web:80", "--rate", "50", "--close"])?;
        namespace.label(Mesh::Enabled)?;
        namespace.until("the load to pass through the mesh", SOON, || {
            let flows = cluster.flows("mesh-live")?;
            let outbound = flows.iter().filter(|flow| flow["direction"] == "outbound");
            let count = outbound.filter(|flow| flow["transport"] != "plaintext").count();
            ensure!(count > 50, "{count} connections in the mesh");
            Ok(())
        })?;
        lossless(&load.report()?)?;
        ensure!(namespace.restarts()? == 0, "a container was restarted");
        Ok(())
    });
}
