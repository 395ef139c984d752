//! Who may ask, by what Kubernetes says about tokens.

use super::agent::Agent;
use super::cluster::{AGENT, Cluster};
use std::collections::BTreeMap;
use tonic::Code;
use warren_common::model::Identity;
use warren_common::proto::ADDRESS_TYPE_URL;

#[tokio::test(flavor = "multi_thread")]
async fn only_agents_get_identities_and_only_those_of_their_node() {
    let Some(cluster) = Cluster::find() else { return };
    let namespace = cluster.namespace("tokens");
    let (here, there) = ("nowhere-1", "nowhere-2");
    namespace.pod("agent", AGENT, here, "192.0.2.1");
    namespace.pod("agent-there", AGENT, there, "192.0.2.2");
    namespace.pod("web", "web", here, "192.0.2.3");
    let replica = namespace.replica("one").await;
    namespace.ready(&replica).await;

    let identity: Identity = format!("spiffe://cluster.local/ns/{}/sa/web", namespace.name).parse().unwrap();
    let good = namespace.pod_token(AGENT, "agent");
    let chain = replica.certificate(Some(&good), &identity).await.unwrap();
    // The identity's, the signing certificate and the root.
    assert_eq!(chain.len(), 3);

    let forged = format!("{}x", good);
    let elsewhere = namespace.pod_token(AGENT, "agent-there");
    let web = namespace.pod_token("web", "web");
    let no_pod = namespace.token(AGENT, &["--audience=warren.dev"]);
    let other_audience = namespace.token(AGENT, &["--audience=somebody.else"]);
    let no_audience = namespace.token(AGENT, &[]);
    for (what, token, code) in [
        ("another node's", Some(&elsewhere), Code::PermissionDenied),
        ("an application's", Some(&web), Code::PermissionDenied),
        ("bound to no pod", Some(&no_pod), Code::PermissionDenied),
        ("for another audience", Some(&other_audience), Code::Unauthenticated),
        ("for the API server", Some(&no_audience), Code::Unauthenticated),
        ("forged", Some(&forged), Code::Unauthenticated),
        ("none", None, Code::Unauthenticated),
    ] {
        let status = replica.certificate(token.map(String::as_str), &identity).await.unwrap_err();
        assert_eq!(status.code(), code, "{what}: {status:?}");
        assert!(!status.message().contains(&good[..20]), "a token in the reason");
    }

    // Of a pod that is gone. Not the token from above: that one is remembered for half a minute.
    let fresh = namespace.pod_token(AGENT, "agent");
    namespace.kubectl(&["delete", "pod", "agent", "--grace-period=0", "--force"]);
    let status = replica.certificate(Some(&fresh), &identity).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    let held = BTreeMap::new();
    let discovery = Agent::open(&replica, Some(&fresh), ADDRESS_TYPE_URL, &["*"], &held).await;
    assert_eq!(discovery.err().map(|status| status.code()), Some(Code::Unauthenticated));
    replica.stop().await;
}
