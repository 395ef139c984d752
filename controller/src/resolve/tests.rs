//! Manifests in, resources out: the rules as a user writes them.

use super::*;
use crate::source::Change;
use crate::source::manifests::parse;
use warren_common::model::{Health, Locality, Service, TunnelProtocol, Workload, WorkloadKind};

pub(crate) fn config() -> ResolveConfig {
    ResolveConfig {
        cluster: "Kubernetes".into(),
        cluster_domain: "cluster.local".into(),
        trust_domain: "cluster.local".into(),
    }
}

pub(crate) fn index(yaml: &str) -> Index {
    let mut index = Index::default();
    for object in parse(yaml).unwrap().objects {
        index.apply(&Change::Upsert(object));
    }
    index
}

pub(super) fn pod_of(yaml: &str, name: &str) -> (Option<Workload>, Vec<String>) {
    let resolved = resolve(&index(yaml), &config(), &ResourceKey::Workload(Name::new("shop", name)));
    let reasons = resolved.problems.iter().map(ToString::to_string).collect();
    match resolved.resource {
        Some(Resource::Address(MeshResource::Workload(workload))) => (Some(*workload), reasons),
        None => (None, reasons),
        Some(other) => panic!("{other:?}"),
    }
}

pub(super) fn service_of(yaml: &str, name: &str) -> Option<Service> {
    match resolve(&index(yaml), &config(), &ResourceKey::Service(Name::new("shop", name))).resource? {
        Resource::Address(MeshResource::Service(service)) => Some(*service),
        other => panic!("{other:?}"),
    }
}

/// A pod `web` with extra metadata, spec and status, each in YAML's flow style.
pub(super) fn pod(metadata: &str, spec: &str, status: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: web, namespace: shop, uid: u1{metadata}}}\n\
         spec: {{nodeName: n1, containers: []{spec}}}\n\
         status: {{phase: Running, podIPs: [{{ip: 'fd00::1'}}, {{ip: 10.0.0.1}}], \
         conditions: [{{type: Ready, status: 'True'}}]{status}}}\n"
    )
}

const ENROLLED: &str =
    "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {warren.dev/mesh: enabled}}\n";

#[test]
fn a_pod_becomes_a_workload() {
    let (workload, problems) = pod_of(&pod(", labels: {app: web, version: v2}", "", ""), "web");
    let workload = workload.unwrap();
    assert!(problems.is_empty());
    assert_eq!(workload.uid.to_string(), "Kubernetes//Pod/shop/web");
    assert_eq!(workload.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
    assert_eq!(workload.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/default");
    assert_eq!((&*workload.canonical_name, &*workload.canonical_revision), ("web", "v2"));
    assert_eq!((workload.health, workload.tunnel), (Health::Healthy, TunnelProtocol::None));
    assert_eq!((&*workload.enrolment.pod_uid, workload.enrolment.enrolled), ("u1", false));
    assert_eq!(workload.labels.len(), 2);
}

#[test]
fn a_pod_is_where_its_label_says_else_where_its_node_is() {
    let node = "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/region: r1, \
         topology.kubernetes.io/zone: z1, topology.istio.io/subzone: s1}}\n";
    for (label, expected) in [
        ("", ["r1", "z1", "s1"]),
        (", labels: {istio-locality: ''}", ["r1", "z1", "s1"]),
        (", labels: {istio-locality: r2.z2.s2}", ["r2", "z2", "s2"]),
        // What it leaves out is not taken from the node.
        (", labels: {istio-locality: r2}", ["r2", "", ""]),
    ] {
        let workload = pod_of(&(node.to_owned() + &pod(label, "", "")), "web").0.unwrap();
        let Locality { region, zone, subzone } = &workload.placement.locality;
        assert_eq!([&**region, &**zone, &**subzone], expected, "{label}");
    }
}

#[test]
fn pods_without_processes_or_node_are_left_out() {
    for status in [", phase: Succeeded", ", phase: Failed"] {
        let yaml = pod("", "", "")
            .replace("phase: Running, ", "")
            .replace("status: {", &format!("status: {{{}, ", &status[2..]));
        assert_eq!(pod_of(&yaml, "web").0, None, "{status}");
    }
    let yaml = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\nspec: {containers: []}\n";
    assert_eq!(pod_of(yaml, "web").0, None);
    assert_eq!(pod_of(yaml, "absent").0, None);
}

#[test]
fn a_pod_is_told_of_before_it_has_an_address() {
    let yaml = ENROLLED.to_owned()
        + &pod("", "", "")
            .replace("podIPs: [{ip: 'fd00::1'}, {ip: 10.0.0.1}], ", "")
            .replace("True", "False");
    let workload = pod_of(&yaml, "web").0.unwrap();
    assert!(workload.addresses.is_empty() && workload.enrolment.enrolled);
    assert_eq!((&*workload.node, &*workload.enrolment.pod_uid), ("n1", "u1"));
    assert_eq!(workload.health, Health::Unhealthy);
    // With neither an address nor a node it is nobody's.
    assert_eq!(pod_of(&yaml.replace("nodeName: n1, ", ""), "web").0, None);
}

#[test]
fn namespaces_are_told_of_when_they_are_enrolled() {
    for (yaml, enrolled) in [
        (ENROLLED.to_owned(), true),
        (ENROLLED.replace("warren.dev/mesh: enabled", "istio.io/dataplane-mode: ambient"), true),
        (ENROLLED.replace("enabled", "disabled"), false),
        (ENROLLED.replace("name: shop", "name: other"), false),
    ] {
        let resolved = resolve(&index(&yaml), &config(), &ResourceKey::Namespace("shop".into()));
        assert_eq!((resolved.type_url, resolved.name.as_str()), (NAMESPACE_TYPE_URL, "shop"));
        assert_eq!(resolved.resource, enrolled.then(|| Resource::Namespace("shop".into())), "{yaml}");
    }
}

#[test]
fn health_is_readiness_without_deletion() {
    for (yaml, health) in [
        (pod("", "", ""), Health::Healthy),
        (pod(", deletionTimestamp: '2026-01-01T00:00:00Z'", "", ""), Health::Terminating),
        (pod("", "", "").replace("status: 'True'", "status: 'False'"), Health::Unhealthy),
        (pod("", "", "").replace("type: Ready", "type: PodScheduled"), Health::Unhealthy),
        (
            pod("", "", "").replace(
                "[{type: Ready, status: 'True'}]",
                "[{type: Ready, status: 'False'}, {type: ContainersReady, status: 'True'}]",
            ),
            Health::Terminating,
        ),
    ] {
        assert_eq!(pod_of(&yaml, "web").0.unwrap().health, health, "{yaml}");
    }
}

#[test]
fn enrolment_by_labels_and_never_on_the_hosts_network() {
    for (yaml, enrolled) in [
        (pod("", "", ""), false),
        (ENROLLED.to_owned() + &pod("", "", ""), true),
        (ENROLLED.to_owned() + &pod(", labels: {warren.dev/mesh: disabled}", "", ""), false),
        (ENROLLED.to_owned() + &pod(", labels: {istio.io/dataplane-mode: none}", "", ""), false),
        (ENROLLED.to_owned() + &pod("", ", hostNetwork: true", ""), false),
        (pod(", labels: {warren.dev/mesh: enabled}", "", ""), true),
        (pod(", labels: {istio.io/dataplane-mode: ambient}", "", ""), true),
        (
            ENROLLED.replace("warren.dev/mesh: enabled", "istio.io/dataplane-mode: ambient")
                + &pod("", "", ""),
            true,
        ),
    ] {
        let workload = pod_of(&yaml, "web").0.unwrap();
        assert_eq!(workload.enrolment.enrolled, enrolled, "{yaml}");
        assert_eq!(workload.tunnel == TunnelProtocol::Hbone, enrolled, "{yaml}");
    }
}

#[test]
fn exclusions_apply_as_far_as_they_parse() {
    let annotations = ", annotations: {warren.dev/exclude-outbound-ports: '25,smtp', \
         warren.dev/exclude-inbound-ports: '9100', warren.dev/exclude-outbound-cidrs: '10.1.0.0/16, nonsense'}";
    let (workload, problems) = pod_of(&pod(annotations, "", ""), "web");
    let enrolment = workload.unwrap().enrolment;
    assert_eq!((enrolment.exclude_outbound_ports, enrolment.exclude_inbound_ports), (vec![25], vec![9100]));
    assert_eq!(enrolment.exclude_outbound_cidrs, [("10.1.0.0".parse().unwrap(), 16)]);
    assert_eq!(problems.len(), 2);
    assert!(
        problems[0].starts_with("Pod shop/web: annotation warren.dev/exclude-outbound-ports: \"smtp\""),
        "{problems:?}"
    );
}

#[test]
fn owners_are_told_by_their_names() {
    for (kind, name, expected_kind, expected) in [
        ("ReplicaSet", "web-7d4b9c6f8", WorkloadKind::Deployment, "web"),
        ("ReplicaSet", "my-web-7d4b9c6f8", WorkloadKind::Deployment, "my-web"),
        ("ReplicaSet", "web-frontend", WorkloadKind::Deployment, "web-frontend"),
        ("ReplicaSet", "bare", WorkloadKind::Deployment, "bare"),
        ("Job", "backup-28571040", WorkloadKind::CronJob, "backup"),
        ("Job", "migrate", WorkloadKind::Job, "migrate"),
        ("Job", "migrate-2", WorkloadKind::Job, "migrate-2"),
        ("StatefulSet", "db", WorkloadKind::Deployment, "db"),
        ("Node", "n1", WorkloadKind::Pod, "web"),
    ] {
        let owner = format!(
            ", ownerReferences: [{{apiVersion: apps/v1, kind: {kind}, name: {name}, uid: x, controller: true}}]"
        );
        let workload = pod_of(&pod(&owner, "", ""), "web").0.unwrap();
        assert_eq!((workload.kind, &*workload.owner), (expected_kind, expected), "{kind} {name}");
        assert_eq!((&*workload.canonical_name, &*workload.canonical_revision), (expected, "latest"));
    }
}

#[test]
fn a_service_account_no_identity_can_hold_is_reported() {
    let (workload, problems) = pod_of(&pod("", ", serviceAccountName: 'A b'", ""), "web");
    assert_eq!(workload, None);
    assert!(problems[0].contains("service account"), "{problems:?}");
}
