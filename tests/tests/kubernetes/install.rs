//! Into the cluster and out of it again.

use anyhow::{Result, ensure};
use warren_tests::cluster::{Cluster, Mesh, SOON, SYSTEM, service};

#[test]
fn the_manifests_pass_strict_validation() {
    Cluster::test(|cluster| {
        cluster.install()?;
        let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
        let said = cluster.kubectl([
            "apply",
            "-k",
            deploy,
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
        ])?;
        ensure!(said.contains("daemonset.apps/warren-agent"), "{said}");
        let ours = cluster.warren_output(&["install", "--dry-run=server"])?;
        // Whether it is as installed or an earlier test has touched it: the server took all of it.
        ensure!(ours.contains("daemonset.apps/warren-agent ") && ours.contains("(server dry run)"), "{ours}");
        Ok(())
    });
}

#[test]
fn installing_again_changes_nothing() {
    Cluster::test(|cluster| {
        cluster.install()?;
        let before = cluster.system_generations()?;
        cluster.install_again()?;
        ensure!(cluster.system_generations()? == before);
        Ok(())
    });
}

#[test]
fn uninstalling_leaves_nothing_and_plaintext_works() {
    Cluster::test(|cluster| {
        let namespace = cluster.meshed("mesh-uninstall")?;
        namespace.apply([
            cluster.server("store", "whoami", 9000).on(&cluster.nodes()[1].name).deployment(1),
            service("store", 80, 9000),
            cluster.client("buyer").on(&cluster.nodes()[0].name).alone(),
        ])?;
        namespace.rolled_out("store")?;
        namespace.pod_ready("buyer")?;
        namespace.ask("buyer", "store:80")?;

        let said = cluster.warren_output(&["uninstall", "--yes", "--timeout", "90s"])?;
        let left = (|| {
            ensure!(said.contains(&format!("namespace/{SYSTEM} deleted")), "{said}");
            let kinds = "namespaces,clusterroles,clusterrolebindings";
            let left =
                cluster.kubectl(["get", kinds, "-l", "app.kubernetes.io/part-of=warren", "-o", "name"])?;
            ensure!(left.trim().is_empty(), "{left}");
            // Pods that were captured, and a pod that starts now, talk as if warren had never been there.
            namespace.until("plaintext", SOON, || namespace.ask("buyer", "store:80").map(drop))?;
            namespace.apply([cluster.client("later").on(&cluster.nodes()[0].name).alone()])?;
            namespace.pod_ready("later")?;
            namespace.ask("later", "store:80")?;
            ensure!(namespace.restarts()? == 0, "something was restarted");
            Ok(())
        })();
        cluster.install_again()?;
        left
    });
}

#[test]
fn a_namespace_that_was_there_before_stays() {
    Cluster::test(|cluster| {
        cluster.warren_output(&["uninstall", "--yes", "--timeout", "90s"])?;
        let result = in_a_namespace_of_the_users(cluster);
        cluster.install_again()?;
        result
    });
}

fn in_a_namespace_of_the_users(cluster: &Cluster) -> Result<()> {
    let _mine = cluster.namespace("users-own", Mesh::Absent)?;
    cluster.warren_output(&[
        "install",
        "-n",
        "users-own",
        "--wait",
        "false",
        "--image",
        "localhost/none:1",
    ])?;
    let other = cluster.warren(["install", "--dry-run=server"]).output()?;
    ensure!(String::from_utf8_lossy(&other.stderr).contains("already installed in namespace users-own"));
    let said =
        cluster.warren_output(&["uninstall", "-n", "users-own", "--yes", "--force", "--timeout", "5s"])?;
    ensure!(said.contains("namespace/users-own left: it was there before warren"), "{said}");
    let labels = cluster.kubectl(["get", "namespace", "users-own", "-o", "jsonpath={.metadata.labels}"])?;
    ensure!(!labels.contains("part-of"), "{labels}");
    Ok(())
}
