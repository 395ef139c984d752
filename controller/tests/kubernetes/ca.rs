//! The CA's Secret, the root's ConfigMap, and who writes.

use super::cluster::{Cluster, until};
use super::server::Server;
use serde_json::{Value, json};

async fn leads(server: &Server) -> bool {
    server.get("/metrics").await.lines().any(|line| line == "warren_controller_leader 1")
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_agree_on_one_ca_and_one_leader() {
    let Some(cluster) = Cluster::find() else { return };
    let namespace = cluster.namespace("ca");
    let (one, two, three) =
        tokio::join!(namespace.replica("one"), namespace.replica("two"), namespace.replica("three"));
    let replicas = [one, two, three];
    let root = until("the root", || namespace.root()).await;
    let secret = namespace.cluster.json(&["-n", &namespace.name, "get", "secret", "warren-ca"]);
    assert_eq!(secret["data"].as_object().unwrap().len(), 5);
    let mut leaders = Vec::new();
    for replica in replicas {
        // A TLS connection: its certificate is of the one CA.
        namespace.ready(&replica).await;
        assert_eq!(replica.root.get(), Some(&root));
        drop(replica.channel().await);
        leaders.push((leads(&replica).await, replica));
    }
    assert_eq!(leaders.iter().filter(|(leads, _)| *leads).count(), 1);

    // What somebody breaks is repaired, what somebody deletes is made anew.
    let broken = json!({"data": {"root-cert.pem": "x", "other": "y"}}).to_string();
    namespace.kubectl(&["patch", "configmap", "warren-ca-root", "--type=merge", "-p", &broken]);
    until("the repair", || namespace.root().filter(|now| *now == root)).await;
    namespace.kubectl(&["delete", "configmap", "warren-ca-root"]);
    until("the new ConfigMap", || namespace.root().filter(|now| *now == root)).await;

    // A leader that ends in order is followed at once.
    let (leader, followers): (Vec<_>, Vec<_>) = leaders.into_iter().partition(|(leads, _)| *leads);
    for (_, leader) in leader {
        leader.stop().await;
    }
    let lease = || namespace.cluster.json(&["-n", &namespace.name, "get", "lease", "warren-controller"]);
    let transitions = |lease: &Value| lease["spec"]["leaseTransitions"].as_i64().unwrap_or_default();
    until("the next leader", || Some(lease()).filter(|lease| transitions(lease) == 1)).await;
    for (_, follower) in followers {
        follower.stop().await;
    }
}

/// Waits until a replica's CA is in this phase; says which certificate signs.
async fn until_phase(replica: &Server, wanted: &str) -> Value {
    for _ in 0..400 {
        let status = replica.admin("GET", "/v1/ca").await.1;
        if status["rotation"]["phase"] == wanted {
            return status["rotation"]["signer"].clone();
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("never {wanted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_told_to_rotate_all_replicas_do() {
    let Some(cluster) = Cluster::find() else { return };
    let namespace = cluster.namespace("rotate");
    let replicas = [namespace.replica("one").await, namespace.replica("two").await];
    let old = until("the root", || namespace.root()).await;
    for replica in &replicas {
        namespace.ready(replica).await;
    }
    let before = until_phase(&replicas[0], "steady").await;
    let follower = usize::from(leads(&replicas[0]).await);
    assert_eq!(replicas[follower].admin("POST", "/v1/ca/rotate-root").await.0, 200);
    // Pods of other tests may be in the mesh: how it goes on depends on agents that are not there.
    for replica in &replicas {
        assert_eq!(until_phase(replica, "distributing").await, before);
        assert_eq!(replica.admin("POST", "/v1/ca/rotate").await.0, 409);
    }
    let normal = |pem: &str| pem.replace(['\r', '\n'], "");
    let is_beside = |now: &String| now.len() > old.len() && normal(now).starts_with(&normal(&old));
    until("both roots for agents", || namespace.root().filter(is_beside)).await;
    let path = "jsonpath={.data}";
    let shares = ["-n", namespace.name.as_str(), "get", "configmap", "warren-ca-progress", "-o", path];
    until("what both replicas know", || {
        let data = namespace.cluster.try_kubectl(&shares, "").ok()?;
        (data.contains("\"one\"") && data.contains("\"two\"")).then_some(())
    })
    .await;
    for replica in replicas {
        replica.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_version_made_is_taken_over() {
    let Some(cluster) = Cluster::find() else { return };
    let namespace = cluster.namespace("old-ca");
    let old = super::permissions::old_ca();
    namespace.apply(std::slice::from_ref(&old));
    let replica = namespace.replica("one").await;
    namespace.ready(&replica).await;
    let secret = namespace.cluster.json(&["-n", &namespace.name, "get", "secret", "warren-ca"]);
    assert!(secret["data"]["warren-ca.json"].is_string());
    let normal = |pem: &str| pem.replace(['\r', '\n'], "");
    let root = old["stringData"]["root-cert.pem"].as_str().unwrap();
    assert_eq!(normal(replica.root.get().unwrap()), normal(root));
    drop(replica.channel().await);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugged_in_ca_has_precedence_and_a_bad_one_is_not_passed_over() {
    let Some(cluster) = Cluster::find() else { return };
    let namespace = cluster.namespace("cacerts");
    let secret = |data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cacerts"}, "stringData": data});
    namespace.apply(&[secret(json!({"ca-cert.pem": "nonsense"}))]);
    let replica = namespace.replica("one").await;
    let problems = replica.get_until("/debug/problems", |text| text.contains("the Secret cacerts")).await;
    assert!(problems.contains("root-cert.pem is missing"), "{problems}");
    assert!(namespace.root().is_none());

    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let own = params.self_signed(&key).unwrap().pem();
    namespace.apply(&[secret(json!({
        "root-cert.pem": own, "ca-cert.pem": own, "cert-chain.pem": own, "ca-key.pem": key.serialize_pem(),
    }))]);
    namespace.ready(&replica).await;
    let normal = |pem: &str| pem.replace(['\r', '\n'], "");
    assert_eq!(normal(replica.root.get().unwrap()), normal(&own));
    drop(replica.channel().await);
    replica.stop().await;
}
