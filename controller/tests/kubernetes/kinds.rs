//! Custom kinds: absent, present, gone, and full of nonsense.

use super::agent::Agent;
use super::cluster::{AGENT, Cluster, Namespace, until};
use super::server::Server;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use warren_common::proto::ADDRESS_TYPE_URL;
use warren_controller::source::{CUSTOM_KINDS, ServedKind};

/// Definitions of all custom kinds that let everything in, as an old or careless one does. Removed when dropped.
pub struct Definitions(Cluster);

fn names() -> Vec<String> {
    CUSTOM_KINDS.iter().map(|served| format!("{}.{}", served.plural, served.group)).collect()
}

impl Definitions {
    pub fn none(cluster: &Cluster) -> Self {
        let definitions = Self(cluster.clone());
        definitions.remove().unwrap();
        definitions
    }

    pub fn create(&self) {
        let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let definition = |served: &ServedKind| {
            let kind = served.kind.as_str();
            // Only the oldest version: the controller finds it.
            let version = served.versions.last().unwrap();
            json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": format!("{}.{}", served.plural, served.group),
                             // Kubernetes keeps groups under k8s.io for what it has approved.
                             "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"}},
                "spec": {
                    "group": served.group, "scope": "Namespaced",
                    "names": {"kind": kind, "plural": served.plural, "singular": kind.to_ascii_lowercase(),
                              "listKind": format!("{kind}List")},
                    "versions": [{"name": version, "served": true, "storage": true, "subresources": {"status": {}},
                                  "schema": {"openAPIV3Schema": open}}],
                },
            })
        };
        self.0.apply(&CUSTOM_KINDS.iter().map(definition).collect::<Vec<_>>());
        let names = names();
        let mut wait = vec!["wait", "--for=condition=Established", "--timeout=20s", "crd"];
        wait.extend(names.iter().map(String::as_str));
        self.0.kubectl(&wait);
    }

    fn remove(&self) -> Result<String, String> {
        let names = names();
        let mut delete = vec!["delete", "--ignore-not-found", "crd"];
        delete.extend(names.iter().map(String::as_str));
        self.0.try_kubectl(&delete, "")
    }
}

impl Drop for Definitions {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

pub fn policy(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "security.istio.io/v1beta1", "kind": "PeerAuthentication",
           "metadata": {"name": name}, "spec": spec})
}

fn service(port: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"},
           "spec": {"selector": {"app": "db"}, "ports": [{"port": port}]}})
}

/// A replica with a pod to look at, and an agent that looks.
async fn watched(namespace: &Namespace) -> (Server, Agent, String) {
    namespace.pod("web", "web", "nowhere-1", "192.0.2.3");
    namespace.pod("agent", AGENT, "nowhere-1", "192.0.2.1");
    let label = ["label", "namespace", &namespace.name, "warren.dev/mesh=enabled"];
    namespace.cluster.kubectl(&label);
    let replica = namespace.replica("one").await;
    namespace.ready(&replica).await;
    let token = namespace.pod_token(AGENT, "agent");
    let agent = Agent::open(&replica, Some(&token), ADDRESS_TYPE_URL, &["*"], &BTreeMap::new()).await;
    let web = format!("Kubernetes//Pod/{}/web", namespace.name);
    (replica, agent.unwrap(), web)
}

/// The content of a resource once it is as wanted.
async fn content(agent: &mut Agent, name: &str, wanted: impl Fn(Option<&str>) -> bool) {
    while !wanted(agent.holds.get(name).map(|(_, content)| content.as_str())) {
        agent.next().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_comes_and_goes_with_its_definition() {
    let Some(cluster) = Cluster::find() else { return };
    let definitions = Definitions::none(&cluster);
    let namespace = cluster.namespace("kinds");
    let (replica, mut agent, web) = watched(&namespace).await;
    content(&mut agent, &web, |text| text.is_some()).await;
    let before = agent.holds[&web].1.clone();

    definitions.create();
    namespace.apply(&[policy("strict", &json!({"mtls": {"mode": "STRICT"}}))]);
    content(&mut agent, &web, |text| text.is_some_and(|text| text != before)).await;
    let strict = agent.holds[&web].1.clone();

    // One that can't be used changes nothing, and its owner is told.
    namespace.apply(&[policy("strict", &json!({"mtls": {"mode": "SOMETIMES"}}))]);
    let problems = replica.get_until("/debug/problems", |text| text.contains("SOMETIMES")).await;
    assert!(problems.contains("its last good version stays"), "{problems}");
    until("the event", || {
        let events = namespace.kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"]);
        events.contains("SOMETIMES").then_some(())
    })
    .await;
    namespace.apply(&[service(80)]);
    let db = format!("{0}/db.{0}.svc.cluster.local", namespace.name);
    content(&mut agent, &db, |text| text.is_some()).await;
    assert_eq!(agent.holds[&web].1, strict);

    drop(definitions);
    content(&mut agent, &web, |text| text == Some(before.as_str())).await;
    replica.get_until("/debug/problems", |text| !text.contains("SOMETIMES")).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_objects_by_the_thousand_are_named_and_slow_nothing() {
    let Some(cluster) = Cluster::find() else { return };
    let definitions = Definitions::none(&cluster);
    definitions.create();
    let namespace = cluster.namespace("hostile");
    let mut deep = json!(1);
    for _ in 0..500 {
        deep = json!({ "a": deep });
    }
    let huge = "A".repeat(1 << 20);
    for number in 0..20 {
        let spec = [json!({"mtls": {"mode": huge}}), json!({"x": huge}), json!({"mtls": deep})];
        let object = policy(&format!("big-{number:02}"), &spec[number % 3]);
        let made =
            namespace.cluster.try_kubectl(&["-n", &namespace.name, "create", "-f", "-"], &object.to_string());
        made.unwrap_or_else(|error| panic!("{}", &error[..error.len().min(500)]));
    }
    let (replica, mut agent, web) = watched(&namespace).await;
    content(&mut agent, &web, |text| text.is_some()).await;

    // While thousands more arrive, a change still goes through promptly.
    let (many, in_namespace) = (cluster.clone(), namespace.name.clone());
    let flood = tokio::task::spawn_blocking(move || {
        let bad =
            |number| policy(&format!("bad-{number:04}"), &json!({"unknown": number, "mtls": {"mode": 7}}));
        let items: Vec<_> = (0..2000).map(bad).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        many.try_kubectl(&["-n", &in_namespace, "create", "-f", "-"], &list).unwrap();
    });
    replica.get_until("/debug/problems", |text| text.contains("bad-")).await;
    let db = format!("{0}/db.{0}.svc.cluster.local", namespace.name);
    let mut slowest = Duration::ZERO;
    for port in 81..91 {
        namespace.apply(&[service(port)]);
        let applied = Instant::now();
        let wanted = format!("port: {port}");
        content(&mut agent, &db, |text| text.is_some_and(|text| text.contains(&wanted))).await;
        slowest = slowest.max(applied.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "a change took {slowest:?} to arrive");
    flood.await.unwrap();

    let listed =
        replica.get_until("/debug/problems", |text| text.contains("1920 more objects are rejected")).await;
    assert!(listed.len() < 200 << 10, "{} bytes of problems", listed.len());
    let body = listed.split_once("\r\n\r\n").unwrap().1;
    let problems: Vec<Value> = serde_json::from_str(body).unwrap();
    for number in 0..20 {
        let place = format!("PeerAuthentication {}/big-{number:02}", namespace.name);
        let problem = problems.iter().find(|problem| problem["place"] == place.as_str());
        let reason = problem.and_then(|problem| problem["reason"].as_str()).unwrap_or_default();
        assert!((20..600).contains(&reason.len()), "{place}: {reason}");
    }
    drop(definitions);
    replica.get_until("/debug/problems", |text| !text.contains("rejected")).await;
    replica.stop().await;
}
