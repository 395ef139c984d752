//! `warren ca revoke` on a machine that has nothing but a kubeconfig: the list is in the cluster, and every replica and
//! every agent goes by it.

use anyhow::{Result, ensure};
use serde_json::Value;
use warren_tests::cluster::{Cluster, SOON};

use super::cli::{json, shop};

const IDENTITY: &str = "spiffe://cluster.local/ns/mesh-revoked/sa/default";

/// Takes a revocation back, whatever the test found.
struct Undo<'a>(&'a Cluster);

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.warren_output(&["ca", "revoke", IDENTITY, "--undo"]) {
            eprintln!("{IDENTITY} is still revoked: {error:#}");
        }
    }
}

fn is_listed(status: &Value) -> bool {
    status["revoked"].as_array().is_some_and(|list| list.iter().any(|one| one == IDENTITY))
}

#[test]
fn a_revoked_identity_is_out_in_the_whole_cluster_until_that_is_taken_back() {
    Cluster::test(|cluster| {
        let shop = shop(cluster, "mesh-revoked")?;
        let status = || -> Result<Value> { json(cluster, &["ca", "status", "-o", "json"]) };
        ensure!(!is_listed(&status()?), "revoked before anybody said so: {}", status()?);

        let undo = Undo(cluster);
        let told = json(cluster, &["ca", "revoke", IDENTITY, "-o", "json"])?;
        ensure!(is_listed(&told), "{told}");
        shop.until("a revoked client to be refused", SOON, || {
            let entered = shop.ask("deploy/buyer", "store:80");
            ensure!(entered.is_err(), "it still gets in: {entered:?}");
            Ok(())
        })?;
        let flows = cluster.warren_output(&["flows", "-n", "mesh-revoked", "-o", "json"])?;
        ensure!(flows.contains("was revoked"), "no flow says why: {flows}");
        ensure!(is_listed(&status()?), "{}", status()?);
        let table = cluster.warren_output(&["ca", "status"])?;
        ensure!(table.contains(IDENTITY), "{table}");

        drop(undo);
        shop.until("the client to be let in again", SOON, || shop.ask("deploy/buyer", "store:80").map(drop))
    });
}
