//! Kinds of workloads, and their own life under the mesh.

use anyhow::ensure;
use serde_json::json;
use warren_tests::cluster::{Cluster, lossless, service};

#[test]
fn jobs_and_init_containers_complete() {
    Cluster::test(|cluster| {
        let namespace = cluster.meshed("mesh-jobs")?;
        namespace
            .apply([cluster.server("server", "echo", 9000).deployment(2), service("server", 80, 9000)])?;
        namespace.rolled_out("server")?;
        let once = ["load", "--to", "web:80", "--rate", "50", "--seconds", "1", "--close"];
        let hello = ["connect", "--to", "server:80", "--send", "hello"];
        namespace.apply([
            cluster.server("web", "http", 8080).deployment(2),
            service("web", 80, 8080),
            cluster.client("patient").init(&hello).alone(),
        ])?;
        namespace.rolled_out("web")?;
        namespace.apply([cluster.pod("job", &once).init(&hello).job()])?;
        namespace.pod_ready("patient")?;
        namespace.kubectl(&["wait", "--for=condition=Complete", "job/job", "--timeout=60s"])?;
        for (what, container) in [("patient", "init"), ("job/job", "init"), ("job/job", "main")] {
            let said = namespace.kubectl(&["logs", what, "-c", container])?;
            ensure!(said.contains("\"ok\":true"), "{container} of {what}: {said}");
        }
        ensure!(namespace.restarts()? == 0, "a container was restarted");
        Ok(())
    });
}

#[test]
fn a_rolling_restart_of_the_application_loses_no_request() {
    Cluster::test(|cluster| {
        let namespace = cluster.meshed("mesh-roll")?;
        // As applications do that lose nothing without a mesh: stay until everybody knows.
        let web = cluster
            .server("web", "http", 8080)
            .spec(|spec| spec["terminationGracePeriodSeconds"] = json!(6))
            .container(|main| main["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 4}}}));
        namespace.apply([web.deployment(2), service("web", 80, 8080), cluster.client("client").alone()])?;
        namespace.rolled_out("web")?;
        namespace.pod_ready("client")?;
        let load = namespace.start("client", &["load", "--to", "web:80", "--rate", "50", "--close"])?;
        namespace.kubectl(&["rollout", "restart", "deployment/web"])?;
        namespace.rolled_out("web")?;
        let report = load.report()?;
        lossless(&report)?;
        Ok(())
    });
}

#[test]
fn stateful_sets_and_host_ports_keep_working() {
    Cluster::test(|cluster| {
        let namespace = cluster.meshed("mesh-kinds")?;
        let mut set = cluster.server("member", "http", 8080).deployment(2);
        set["kind"] = json!("StatefulSet");
        set["spec"]["serviceName"] = json!("member");
        set["spec"]["podManagementPolicy"] = json!("Parallel");
        let mut headless = service("member", 8080, 8080);
        headless["spec"]["clusterIP"] = json!("None");
        let port = json!([{"containerPort": 8080, "hostPort": 18080}]);
        let node = &cluster.nodes()[1];
        let door = cluster.server("door", "http", 8080).container(|main| main["ports"] = port);
        namespace.apply([set, headless, door.on(&node.name).alone(), cluster.client("client").alone()])?;
        namespace.kubectl(&["rollout", "status", "statefulset/member", "--timeout=60s"])?;
        namespace.pod_ready("door")?;
        namespace.pod_ready("client")?;
        for member in ["member-0.member:8080", "member-1.member:8080", "member:8080"] {
            let get = ["load", "--to", member, "--rate", "20", "--seconds", "0.5", "--close"];
            let seen = namespace.exec_json("client", &get)?;
            ensure!(seen["ok"] == true, "{member}: {seen}");
        }
        ensure!(cluster.nodes()[0].reaches(&node.address, 18080)?, "the hostPort does not answer");
        ensure!(namespace.restarts()? == 0, "a container was restarted");
        Ok(())
    });
}
