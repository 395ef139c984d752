//! What people see of the mesh: names that they gave, not addresses.

use anyhow::ensure;
use warren_tests::cluster::{Cluster, SOON, service};

#[test]
fn metrics_and_flows_name_the_deployments() {
    Cluster::test(|cluster| {
        let namespace = cluster.meshed("mesh-names")?;
        namespace.apply([
            cluster.server("store", "echo", 9000).on(&cluster.nodes()[1].name).deployment(1),
            service("store", 80, 9000),
            cluster.client("buyer").on(&cluster.nodes()[0].name).deployment(1),
        ])?;
        namespace.rolled_out("store")?;
        namespace.rolled_out("buyer")?;
        let seen =
            namespace.exec_json("deploy/buyer", &["connect", "--to", "store:80", "--send", "hello"])?;
        ensure!(seen["text"] == "hello", "{seen}");
        let flow = cluster.flow("mesh-names", |flow| flow["destination"]["workload"] == "store")?;
        ensure!(flow["source"]["workload"] == "buyer", "{flow}");
        ensure!(flow["source"]["namespace"] == "mesh-names", "{flow}");
        for agent in cluster.agents()? {
            let node = agent["spec"]["nodeName"].as_str().unwrap_or_default();
            let reporter = if node == cluster.nodes()[0].name { "source" } else { "destination" };
            namespace.until("the metrics to name them", SOON, || {
                let metrics = cluster.agent_metrics(&agent)?;
                let names = |line: &&str| {
                    line.starts_with("istio_tcp_connections_opened_total")
                        && line.contains("source_workload=\"buyer\"")
                        && line.contains("destination_workload=\"store\"")
                        && line.contains(&format!("reporter=\"{reporter}\""))
                };
                ensure!(metrics.lines().any(|line| names(&line)), "{node} has no such metric:\n{metrics}");
                Ok(())
            })?;
        }
        Ok(())
    });
}
