//! The real server on a real socket: manifests on disk, TLS, tokens, a tonic client.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

#[path = "grpc/rotation.rs"]
mod rotation;
mod support;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::{Controller, Token, pod};
use tonic::Code;
use warren_common::model::Identity;
use warren_common::proto::{AUTHORIZATION_TYPE_URL, TRAFFIC_TYPE_URL, certificate_request};
use x509_parser::prelude::{FromDer, X509Certificate};

const WEB: &str = "Kubernetes//Pod/shop/web";
const DB: &str = "Kubernetes//Pod/shop/db";

fn two_pods() -> Vec<(&'static str, String)> {
    vec![("web.yaml", pod("web", "n1", "10.0.0.1")), ("db.yaml", pod("db", "n2", "10.0.0.2"))]
}

#[tokio::test]
async fn changes_on_disk_reach_the_agent() {
    let controller = Controller::start(&two_pods()).await;
    let mut agent = controller.agent(&["*"], &BTreeMap::new()).await;
    assert_eq!(agent.next().await, (vec![DB.to_owned(), WEB.to_owned()], vec![]));

    controller.write("web.yaml", &pod("web", "n1", "10.0.0.9"));
    assert_eq!(agent.next().await, (vec![WEB.to_owned()], vec![]));
    assert!(agent.holds[WEB].1.contains("10.0.0.9"));

    controller.remove("db.yaml");
    assert_eq!(agent.next().await, (vec![], vec![DB.to_owned()]));

    controller.write("more/deep.yml", "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n");
    assert_eq!(agent.next().await, (vec!["shop/web.shop.svc.cluster.local".to_owned()], vec![]));
    controller.stop().await;
}

#[tokio::test]
async fn the_label_of_a_namespace_enrols_running_pods() {
    let controller = Controller::start(&two_pods()).await;
    let mut agent = controller.agent(&["*"], &BTreeMap::new()).await;
    agent.next().await;
    assert!(agent.holds[WEB].1.contains("enrolled: false"));
    controller.write(
        "namespace.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {warren.dev/mesh: enabled}}\n",
    );
    assert_eq!(agent.next().await.0, [DB, WEB]);
    assert!(agent.holds[WEB].1.contains("enrolled: true") && agent.holds[WEB].1.contains("Hbone"));
    controller.stop().await;
}

#[tokio::test]
async fn a_restart_costs_only_the_difference() {
    let first = Controller::start(&two_pods()).await;
    let mut agent = first.agent(&["*"], &BTreeMap::new()).await;
    agent.next().await;
    let held = agent.versions();
    let directory = first.stop().await;

    // Nothing changed: an empty answer. Something did: that.
    let second = Controller::start_in(directory).await;
    let mut agent = second.agent(&["*"], &held).await;
    assert_eq!(agent.next().await, (vec![], vec![]));
    drop(agent);
    second.write("web.yaml", &pod("web", "n1", "10.0.0.9"));
    second.remove("db.yaml");
    let directory = second.stop().await;
    let third = Controller::start_in(directory).await;
    let mut agent = third.agent(&["*"], &held).await;
    assert_eq!(agent.next().await, (vec![WEB.to_owned()], vec![DB.to_owned()]));
    third.stop().await;
}

#[tokio::test]
async fn a_malformed_file_keeps_its_last_good_version() {
    let controller = Controller::start(&two_pods()).await;
    let mut agent = controller.agent(&["*"], &BTreeMap::new()).await;
    agent.next().await;

    controller.write("web.yaml", "apiVersion: v1\nkind: Pod\nmetadata: [\n");
    let problems = controller.get_until("/debug/problems", |text| text.contains("web.yaml")).await;
    assert!(problems.contains("\"line\""), "{problems}");
    controller.get_until("/metrics", |text| text.contains("warren_source_problems 1")).await;

    // The rest goes on, and the bad file has removed nothing.
    controller.write("db.yaml", &pod("db", "n2", "10.0.0.3"));
    assert_eq!(agent.next().await, (vec![DB.to_owned()], vec![]));

    controller.write("web.yaml", &pod("web", "n1", "10.0.0.4"));
    assert_eq!(agent.next().await, (vec![WEB.to_owned()], vec![]));
    controller.get_until("/metrics", |text| text.contains("warren_source_problems 0")).await;
    controller.get_until("/healthz/ready", |text| text.contains("200 OK")).await;
    controller.stop().await;
}

#[tokio::test]
async fn a_rejection_is_counted_and_the_stream_goes_on() {
    let controller = Controller::start(&two_pods()).await;
    let mut agent = controller.agent(&["*"], &BTreeMap::new()).await;
    agent.reject_next().await;
    controller
        .get_until("/metrics", |text| text.contains("pilot_total_xds_rejects{type=\"address\"} 1"))
        .await;
    controller.write("web.yaml", &pod("web", "n1", "10.0.0.9"));
    assert_eq!(agent.next().await, (vec![WEB.to_owned()], vec![]));
    controller.stop().await;
}

#[tokio::test]
async fn types_that_are_not_served_are_answered() {
    let controller = Controller::start(&two_pods()).await;
    let mut agent = controller.agent_for("type.googleapis.com/example.Nothing", &[], &BTreeMap::new()).await;
    assert_eq!(agent.next().await, (vec![], vec![]));
    controller.stop().await;
}

#[tokio::test]
async fn policies_are_pushed_changed_and_removed() {
    let policy = |spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: web, namespace: shop}}\nspec: {{{spec}}}\n"
        )
    };
    let controller = Controller::start(&two_pods()).await;
    let mut policies = controller.agent_for(AUTHORIZATION_TYPE_URL, &["*"], &BTreeMap::new()).await;
    assert_eq!(policies.next().await, (vec![], vec![]));
    let name = "shop/web".to_owned();
    controller.write("policy.yaml", &policy("action: DENY, rules: [{}]"));
    assert_eq!(policies.next().await, (vec![name.clone()], vec![]));
    assert!(policies.holds[&name].1.contains("Deny") && policies.holds[&name].1.contains("Namespace"));
    let version = policies.versions();
    controller.write("policy.yaml", &policy("rules: [{to: [{operation: {methods: [GET]}}]}]"));
    assert_eq!(policies.next().await, (vec![name.clone()], vec![]));
    assert!(policies.versions() != version && policies.holds[&name].1.contains("rules: []"));
    controller.get_until("/debug/problems", |text| text.contains("AuthorizationPolicy shop/web")).await;
    // A bad one is reported and changes nothing.
    controller.write("policy.yaml", &policy("action: DENY"));
    controller.get_until("/debug/problems", |text| text.contains("spec.rules is missing")).await;
    controller.remove("policy.yaml");
    assert_eq!(policies.next().await, (vec![], vec![name]));
    controller.stop().await;
}

#[tokio::test]
async fn routes_are_pushed_changed_and_removed_one_service_at_a_time() {
    let service = |name: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{clusterIP: 10.96.0.1, ports: [{{name: http, port: 80}}]}}\n"
        )
    };
    let route = |name: &str, subset: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\n\
             metadata: {{name: {name}, namespace: shop}}\n\
             spec: {{hosts: [{name}], http: [{{route: [{{destination: {{host: {name}, subset: {subset}}}}}]}}]}}\n"
        )
    };
    let named = |name: &str| format!("shop/{name}.shop.svc.cluster.local");
    let mut manifests = two_pods();
    manifests.push(("services.yaml", service("web") + &service("db")));
    manifests.push(("routes.yaml", route("web", "v1") + &route("db", "v1")));
    let controller = Controller::start(&manifests).await;
    let mut traffic = controller.agent_for(TRAFFIC_TYPE_URL, &["*"], &BTreeMap::new()).await;
    assert_eq!(traffic.next().await, (vec![named("db"), named("web")], vec![]));
    // Only what differs is sent again, and soon.
    let began = std::time::Instant::now();
    controller.write("routes.yaml", &(route("web", "v2") + &route("db", "v1")));
    assert_eq!(traffic.next().await, (vec![named("web")], vec![]));
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(traffic.holds[&named("web")].1.contains("v2"));
    controller.get_until("/debug/problems", |text| text.contains("subset-not-found")).await;
    // A destination that comes back under another port is another destination.
    controller.write("routes.yaml", &route("web", "v2"));
    assert_eq!(traffic.next().await, (vec![], vec![named("db")]));
    controller.write("services.yaml", &service("db"));
    assert_eq!(traffic.next().await, (vec![], vec![named("web")]));
    controller.stop().await;
}

#[tokio::test]
async fn an_address_can_be_asked_for() {
    let controller = Controller::start(&two_pods()).await;
    let mut agent = controller.agent(&["/10.0.0.2", "/10.9.9.9"], &BTreeMap::new()).await;
    // The pods of its own node come unasked.
    let expected = (vec![DB.to_owned(), WEB.to_owned()], vec!["/10.9.9.9".to_owned()]);
    assert_eq!(agent.next().await, expected);
    controller.stop().await;
}

#[tokio::test]
async fn an_agent_by_interest_is_told_of_its_own_pods_and_of_what_it_asks_for() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: shop}\n\
                   spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n";
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
                 metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}\n\
                 ports: [{port: 8080}]\n\
                 endpoints: [{addresses: [10.0.0.2], conditions: {ready: true}}]\n";
    let mut manifests = two_pods();
    manifests.push(("slice.yaml", slice.to_owned()));
    let controller = Controller::start(&manifests).await;
    // Nothing but the pods of its node, which its token names.
    let mut agent = controller.agent_by_interest().await;
    assert_eq!(agent.next().await, (vec![WEB.to_owned()], vec![]));
    agent.change(&["/10.96.0.1"], &[]).await;
    assert_eq!(agent.next().await, (vec![], vec!["/10.96.0.1".to_owned()]));
    // The service appears, with the pod of the other node behind it.
    controller.write("service.yaml", service);
    let name = "shop/db.shop.svc.cluster.local".to_owned();
    assert_eq!(agent.next().await, (vec![DB.to_owned(), name.clone()], vec![]));
    controller.write("db.yaml", &pod("db", "n2", "10.0.0.2").replace("'True'", "'False'"));
    assert_eq!(agent.next().await, (vec![DB.to_owned()], vec![]));
    controller.remove("service.yaml");
    assert_eq!(agent.next().await, (vec![], vec!["/10.96.0.1".to_owned(), DB.to_owned(), name]));
    agent.change(&["/10.0.0.2"], &["/10.96.0.1"]).await;
    assert_eq!(agent.next().await, (vec![DB.to_owned()], vec![]));
    controller.stop().await;
}

#[tokio::test]
async fn a_certificate_is_signed_for_a_pod_of_the_callers_node() {
    let controller = Controller::start(&two_pods()).await;
    let identity: Identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let chain = controller.certificate(&Token::agent("n1"), &identity).await.unwrap();
    let ders: Vec<_> =
        chain.iter().map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).collect();
    let (leaf, root) = (ders.first().unwrap(), ders.last().unwrap());

    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    verifier.verify_client_cert(leaf, &ders[1..ders.len() - 1], UnixTime::now()).unwrap();

    let (_, parsed) = X509Certificate::from_der(leaf).unwrap();
    let san = parsed.subject_alternative_name().unwrap().unwrap().value;
    let names: Vec<_> = san.general_names.iter().map(ToString::to_string).collect();
    assert_eq!(names, [format!("URI({identity})")]);
    assert_eq!(parsed.validity().not_after.timestamp() - parsed.validity().not_before.timestamp(), 600 + 60);
    assert_eq!(
        std::fs::read_to_string(controller.ca_file("root-cert.pem")).unwrap().replace('\r', ""),
        chain.last().unwrap().clone()
    );
    controller
        .get_until("/metrics", |text| text.contains("citadel_server_success_cert_issuance_count 1"))
        .await;
    controller.stop().await;
}

#[tokio::test]
async fn nobody_gets_an_identity_of_another_node() {
    let controller = Controller::start(&two_pods()).await;
    let identity: Identity = "spiffe://cluster.local/ns/shop/sa/db".parse().unwrap();
    for (token, code) in [
        (Token::agent("n1"), Code::PermissionDenied),
        (Token { account: "web", ..Token::agent("n2") }, Code::PermissionDenied),
        (Token { node: None, ..Token::agent("n2") }, Code::PermissionDenied),
        (Token { audience: "somebody.else", ..Token::agent("n2") }, Code::Unauthenticated),
        (Token { expires_in_s: -3600, ..Token::agent("n2") }, Code::Unauthenticated),
        (Token { own_key: true, ..Token::agent("n2") }, Code::Unauthenticated),
        (Token { missing: true, ..Token::agent("n2") }, Code::Unauthenticated),
    ] {
        let status = controller.certificate(&token, &identity).await.unwrap_err();
        assert_eq!(status.code(), code, "{token:?}: {status:?}");
        assert!(!status.message().is_empty());
        let discovery = controller.try_agent(&token).await;
        assert_eq!(discovery.is_err(), code == Code::Unauthenticated, "{token:?}");
    }
    controller.certificate(&Token::agent("n2"), &identity).await.unwrap();
    controller.stop().await;
}

#[tokio::test]
async fn a_request_that_is_none_is_refused() {
    let controller = Controller::start(&two_pods()).await;
    let identity: Identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let mut unnamed = certificate_request(&identity, String::new(), 600);
    unnamed.metadata = None;
    for request in [unnamed, certificate_request(&identity, "nonsense".to_owned(), 600)] {
        let status = controller.create(&Token::agent("n1"), request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
    controller.stop().await;
}
