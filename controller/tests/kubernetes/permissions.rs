//! deploy/ grants what is needed and nothing more: without any one verb something fails, and says so.

use super::cluster::{AGENT, Cluster, Namespace, account, until};
use super::kinds::{Definitions, policy};
use serde_json::{Value, json};
use tonic::Code;
use warren_common::model::Identity;
use warren_controller::source::CUSTOM_KINDS;

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/rbac.yaml");

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq)]
struct Grant {
    rule: Value,
    /// In the namespace alone.
    local: bool,
    resource: String,
    verb: String,
}

/// All grants of the controller's roles, singly.
fn grants() -> Vec<Grant> {
    let text = std::fs::read_to_string(MANIFEST).unwrap();
    let mut grants = Vec::new();
    for role in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
        let local = role["kind"] == "Role";
        if !matches!(role["kind"].as_str(), Some("Role" | "ClusterRole")) {
            continue;
        }
        for rule in role["rules"].as_array().unwrap() {
            for resource in rule["resources"].as_array().unwrap() {
                for verb in rule["verbs"].as_array().unwrap() {
                    let text = |value: &Value| value.as_str().unwrap().to_owned();
                    let (mut rule, resource, verb) = (rule.clone(), text(resource), text(verb));
                    (rule["resources"], rule["verbs"]) = (json!([resource]), json!([verb]));
                    grants.push(Grant { rule, local, resource, verb });
                }
            }
        }
    }
    grants
}

/// A route whose status is to be written, which takes this grant.
fn route_of(grant: &Grant) -> Option<Value> {
    let plural = grant.resource.trim_end_matches("/status");
    let served = CUSTOM_KINDS.iter().find(|served| served.plural == plural)?;
    if !matches!(grant.verb.as_str(), "get" | "patch") {
        return None;
    }
    Some(json!({
        "apiVersion": format!("{}/{}", served.group, served.versions.last()?), "kind": served.kind.as_str(),
        "metadata": {"name": "web"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}], "hostnames": ["a.test"],
                 "rules": [{"backendRefs": [{"name": "web", "port": 80}]}]},
    }))
}

/// The roles' cluster-wide half. Removed when dropped.
struct Account<'a> {
    namespace: &'a Namespace,
    name: String,
}

impl<'a> Account<'a> {
    fn with(namespace: &'a Namespace, name: String, grants: &[Grant]) -> Self {
        let role = format!("{}-{name}", namespace.name);
        let rules = |local| grants.iter().filter(|g| g.local == local).map(|g| &g.rule).collect::<Vec<_>>();
        let object = |kind: &str| {
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
                                         "metadata": {"name": role}})
        };
        let mut objects = vec![account(&name)];
        for (kind, local) in [("ClusterRole", false), ("Role", true)] {
            let (mut rules_of, mut binding) = (object(kind), object(&format!("{kind}Binding")));
            rules_of["rules"] = json!(rules(local));
            binding["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role});
            binding["subjects"] =
                json!([{"kind": "ServiceAccount", "name": name, "namespace": namespace.name}]);
            objects.extend([rules_of, binding]);
        }
        for object in &mut objects {
            if !object["kind"].as_str().unwrap().starts_with("Cluster") {
                object["metadata"]["namespace"] = json!(namespace.name);
            }
        }
        namespace.cluster.apply(&objects);
        Self { namespace, name }
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        let role = format!("{}-{}", self.namespace.name, self.name);
        let _ = self.namespace.cluster.try_kubectl(&["delete", "clusterrole,clusterrolebinding", &role], "");
    }
}

/// What a replica without some grant complains about, from its problems or its answers.
async fn complaint(namespace: &Namespace, account: &str, wanted: &str) -> String {
    // Page by page: that takes every verb that any API server asks for.
    let replica = namespace.replica_as(account, account, false).await;
    if wanted.contains("tokenreviews") {
        namespace.ready(&replica).await;
        let identity: Identity = "spiffe://cluster.local/ns/x/sa/y".parse().unwrap();
        let token = namespace.token(AGENT, &["--audience=warren.dev"]);
        let status = replica.certificate(Some(&token), &identity).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        replica.stop().await;
        return status.message().to_owned();
    }
    let problems = replica.get_until("/debug/problems", |text| text.contains(wanted)).await;
    replica.stop().await;
    problems
}

/// The CA as earlier versions made it: a root that signs by itself.
pub fn old_ca() -> Value {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "warren root");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).unwrap().pem();
    let parts = json!({
        "root-cert.pem": root, "ca-cert.pem": root, "cert-chain.pem": root, "ca-key.pem": key.serialize_pem(),
    });
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "warren-ca"}, "stringData": parts})
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_is_needed_and_they_are_enough() {
    let Some(cluster) = Cluster::find() else { return };
    let all = grants();
    assert!(all.len() > 20, "{all:?}");
    let enough = cluster.namespace("rbac-all");
    for (name, stream_lists) in [("pages", false), ("streams", true)] {
        // Streamed lists are watches.
        let needed: Vec<_> =
            all.iter().filter(|grant| !stream_lists || grant.verb != "list").cloned().collect();
        let _account = Account::with(&enough, name.to_owned(), &needed);
        let replica = enough.replica_as(name, name, stream_lists).await;
        enough.ready(&replica).await;
        let problems = replica.get_until("/debug/problems", |_| true).await;
        assert!(!problems.contains("cannot"), "{name}: {problems}");
        replica.stop().await;
    }
    let definitions = Definitions::none(&cluster);
    definitions.create();
    for (number, missing) in all.iter().enumerate() {
        // What is made once must not be there yet.
        let namespace = cluster.namespace(&format!("rbac-{number}"));
        let rest: Vec<_> = all.iter().filter(|grant| *grant != missing).cloned().collect();
        if (missing.verb.as_str(), missing.resource.as_str()) == ("update", "configmaps") {
            let map =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "warren-ca-root"}});
            namespace.apply(&[map]);
        }
        if (missing.verb.as_str(), missing.resource.as_str()) == ("update", "secrets") {
            // What an earlier version made is taken over.
            namespace.apply(&[old_ca()]);
        }
        if missing.resource == "events" {
            namespace.apply(&[policy("bad", &json!({"mtls": {"mode": "SOMETIMES"}}))]);
        }
        if let Some(route) = route_of(missing) {
            let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
                                 "spec": {"ports": [{"port": 80}]}});
            namespace.apply(&[service, route]);
        }
        if (missing.verb.as_str(), missing.resource.as_str()) == ("patch", "events") {
            // An event that is there already is counted up.
            let _account = Account::with(&namespace, "first".to_owned(), &all);
            let replica = namespace.replica_as("first", "first", true).await;
            until("the event", || {
                let events = namespace.kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"]);
                events.contains("SOMETIMES").then_some(())
            })
            .await;
            replica.stop().await;
        }
        let name = format!("without-{number}");
        let _account = Account::with(&namespace, name.clone(), &rest);
        let wanted = format!("cannot {} resource \\\"{}\\\"", missing.verb, missing.resource);
        let said = complaint(&namespace, &name, &wanted).await;
        let plain = wanted.replace('\\', "");
        assert!(said.contains(&wanted) || said.contains(&plain), "without {missing:?}: {said}");
    }
}
