//! Rotation as agents see it: what they are told when, and what waits for what they say.

use super::support::{Controller, Token, pod};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::time::Duration;
use warren_common::model::Identity;

const MESHED: &str =
    "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {warren.dev/mesh: enabled}}\n";

async fn shop() -> Controller {
    Controller::start(&[
        ("namespace.yaml", MESHED.to_owned()),
        ("web.yaml", pod("web", "n1", "10.0.0.1")),
        ("db.yaml", pod("db", "n2", "10.0.0.2")),
    ])
    .await
}

async fn until_phase(controller: &Controller, wanted: &str) -> serde_json::Value {
    let mut last = serde_json::Value::Null;
    for _ in 0..400 {
        last = controller.admin("GET", "/v1/ca").await.1;
        if last["rotation"]["phase"] == wanted {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never {wanted}: {last:#}");
}

/// The root that a new certificate of `web` leads to.
async fn issued_under(controller: &Controller) -> Vec<u8> {
    let identity: Identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let chain = controller.certificate(&Token::agent("n1"), &identity).await.unwrap();
    CertificateDer::from_pem_slice(chain.last().unwrap().as_bytes()).unwrap().to_vec()
}

#[tokio::test]
async fn a_root_is_replaced_step_by_step_as_agents_say() {
    let controller = shop().await;
    let (mut one, mut two) = (controller.agent_on("n1").await, controller.agent_on("n2").await);
    let (first, same) = (one.next_trust().await, two.next_trust().await);
    assert!(first == same && first.roots.len() == 1 && first.renew_within == Duration::from_secs(1));
    for agent in [&one, &two] {
        agent.report(&first.id, &first.signer).await;
    }
    assert_eq!(controller.admin("POST", "/v1/ca/rotate-root").await.0, 200);
    let (code, said) = controller.admin("POST", "/v1/ca/rotate").await;
    assert!(code == 409 && said["error"].as_str().unwrap().contains("under way (distributing)"), "{said}");
    assert_eq!(controller.admin("GET", "/v1/ca/rotate").await.0, 405);

    // Both roots, the old one signs. One node is not enough.
    let both = one.next_trust().await;
    assert_eq!((both.roots.len(), &both.signer, both.roots[0] == first.roots[0]), (2, &first.signer, true));
    one.report(&both.id, &first.signer).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let status = until_phase(&controller, "distributing").await;
    assert_eq!(status["rotation"]["behind"], serde_json::json!(["n2: has other roots"]));
    assert_eq!(issued_under(&controller).await, first.roots[0]);
    assert_eq!(two.next_trust().await, both);
    two.report(&both.id, &first.signer).await;

    // The new one signs; the bundle is the same, and says whose certificates to have.
    until_phase(&controller, "renewing").await;
    let renewing = one.next_trust().await;
    assert!(renewing.id == both.id && renewing.signer != first.signer && renewing.roots[0] == both.roots[1]);
    assert_eq!(issued_under(&controller).await, both.roots[1]);
    // Who knows only one of them gets in, whichever it is.
    let new_root = std::fs::read_to_string(controller.ca_file("root-cert.pem")).unwrap();
    let (new_root, _) =
        new_root.split_at(new_root.find("-----END").unwrap() + "-----END CERTIFICATE-----".len());
    for root in [controller.root.get().unwrap(), new_root] {
        controller.channel_by(root).await.unwrap();
    }
    one.report(&both.id, &renewing.signer).await;
    // An agent that hands over to another has two sessions: both count.
    let successor = controller.agent_on("n1").await;
    two.report(&both.id, &renewing.signer).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    until_phase(&controller, "renewing").await;
    drop(successor);

    until_phase(&controller, "dropping").await;
    let dropped = one.next_trust().await;
    assert_eq!((dropped.roots.len(), &dropped.retired), (1, &first.roots));
    assert_eq!(two.next_trust().await, renewing);
    assert_eq!(two.next_trust().await, dropped);
    for agent in [&one, &two] {
        agent.report(&dropped.id, &dropped.signer).await;
    }
    let status = until_phase(&controller, "steady").await;
    assert_eq!((&status["rotation"]["with_roots"], &status["rotation"]["renewed"]), (&2.into(), &2.into()));
    assert_eq!(status["roots"][1]["state"], "retired");
    // The file of an agent that nobody renews is enough to hear of it.
    controller.channel().await;
    assert_eq!(controller.admin("POST", "/v1/ca/forget").await.0, 200);
    assert!(one.next_trust().await.retired.is_empty());
    controller.get_until("/metrics", |text| text.contains("warren_ca_rotation{phase=\"steady\"} 1")).await;
    controller.stop().await;
}

#[tokio::test]
async fn a_rotation_survives_its_controller() {
    let first = shop().await;
    assert_eq!(first.admin("POST", "/v1/ca/rotate-root").await.0, 200);
    let before = until_phase(&first, "distributing").await;
    // Longer than a phase lasts at least: only the nodes' pods, which the second one has yet to read of, hold it now.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let second = Controller::start_in(first.stop().await).await;
    let after = until_phase(&second, "distributing").await;
    assert_eq!(
        (&before["roots"], &before["rotation"]["since"]),
        (&after["roots"], &after["rotation"]["since"])
    );
    let mut agents = [second.agent_on("n1").await, second.agent_on("n2").await];
    for agent in &mut agents {
        let bundle = agent.next_trust().await;
        agent.report(&bundle.id, &bundle.signer).await;
    }
    until_phase(&second, "renewing").await;
    second.stop().await;
}
