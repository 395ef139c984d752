//! Kubernetes' services: how endpoints are chosen, and endpoints that are no pods.

use super::tests::{config, index, pod, pod_of, service_of};
use super::*;
use warren_common::model::{Health, Mode, PortMapping, Scope, Service, TunnelProtocol};

fn service(spec: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\n\
         spec: {{clusterIPs: [10.96.0.1], ports: [{{name: http, port: 80, targetPort: web}}]{spec}}}\n"
    )
}

fn slice(name: &str, port: u16, endpoint: &str) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: {port}}}]\nendpoints: [{{{endpoint}}}]\n"
    )
}

const NODE: &str = "---
apiVersion: v1
kind: Node
metadata:
  name: n1
  labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z1, topology.istio.io/subzone: s1}
";

#[test]
fn specs_steer_the_choice() {
    for (spec, mode, scopes, affinity) in [
        ("", Mode::Any, &[][..], None),
        (", internalTrafficPolicy: Cluster", Mode::Any, &[], None),
        (", internalTrafficPolicy: Local", Mode::Strict, &[Scope::Node], None),
        (
            ", trafficDistribution: PreferClose",
            Mode::Failover,
            &[Scope::Network, Scope::Region, Scope::Zone],
            None,
        ),
        (
            ", trafficDistribution: PreferSameZone",
            Mode::Failover,
            &[Scope::Network, Scope::Region, Scope::Zone],
            None,
        ),
        (
            ", trafficDistribution: PreferSameNode",
            Mode::Failover,
            &[Scope::Network, Scope::Region, Scope::Zone, Scope::Subzone, Scope::Node],
            None,
        ),
        (
            ", trafficDistribution: PreferClose, internalTrafficPolicy: Local",
            Mode::Strict,
            &[Scope::Node],
            None,
        ),
        (", sessionAffinity: None", Mode::Any, &[], None),
        (", sessionAffinity: ClientIP", Mode::Any, &[], Some(10_800)),
        (
            ", sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}",
            Mode::Any,
            &[],
            Some(5),
        ),
    ] {
        let steering = service_of(&service(spec), "web").unwrap().steering;
        assert_eq!(
            (steering.mode, &*steering.scopes, steering.affinity_s),
            (mode, scopes, affinity),
            "{spec}"
        );
    }
}

#[test]
fn an_external_name_is_an_alias() {
    let alias = service(", type: ExternalName, externalName: db.example.com")
        .replace("clusterIPs: [10.96.0.1], ", "");
    let Service { origin, addresses, .. } = service_of(&alias, "web").unwrap();
    assert_eq!((origin.external_name.as_deref(), addresses.len()), (Some("db.example.com"), 0));
    let yaml = alias + &slice("web-1", 8080, "addresses: [10.0.0.1]") + &pod("", "", "");
    assert!(pod_of(&yaml, "web").0.unwrap().services.is_empty(), "it has no endpoints");
}

#[test]
fn pods_know_where_they_are_and_what_they_are_called() {
    let stateful = pod("", ", hostname: web-0, subdomain: web", "");
    let workload = pod_of(&format!("{stateful}{NODE}"), "web").0.unwrap();
    let locality = &workload.placement.locality;
    assert_eq!([&*locality.region, &*locality.zone, &*locality.subzone], ["r1", "z1", "s1"]);
    assert_eq!(workload.placement.hostname.as_deref(), Some("web-0.web.shop.svc.cluster.local"));
    let bare = pod_of(&pod("", ", hostname: web-0", ""), "web").0.unwrap();
    assert_eq!((bare.placement.hostname, &*bare.placement.locality.zone), (None, ""));
}

#[test]
fn hints_and_named_ports_are_each_pods_own() {
    let hinted = "addresses: [10.0.0.1], hints: {forZones: [{name: z1}, {name: z2}], forNodes: [{name: n1}]}";
    let yaml = service("")
        + &pod("", "", "")
        + &slice("web-1", 8081, hinted)
        + &slice("web-2", 9999, "addresses: [10.0.0.2]");
    let workload = pod_of(&yaml, "web").0.unwrap();
    let hints = workload.placement.hints.values().next().unwrap();
    assert_eq!((hints.zones.len(), hints.nodes.len()), (2, 1));
    let ports: Vec<_> = workload.services.values().flatten().copied().collect();
    assert_eq!(ports, [PortMapping { service_port: 80, target_port: 8081 }]);
}

/// The address 10.0.0.9 of the service.
fn address(yaml: &str) -> Option<Workload> {
    let key = ResourceKey::Endpoint(Name::new("shop", "web"), "10.0.0.9".parse().unwrap());
    let resolved = resolve(&index(yaml), &config(), &key);
    assert_eq!(resolved.problems, []);
    assert_eq!(resolved.name, "Kubernetes/discovery.k8s.io/EndpointSlice/shop/web/10.0.0.9");
    match resolved.resource {
        Some(Resource::Address(MeshResource::Workload(workload))) => Some(*workload),
        _ => None,
    }
}

#[test]
fn an_address_without_a_pod_is_outside_of_the_mesh() {
    let manual = service("") + &slice("web-1", 8080, "addresses: [10.0.0.9], nodeName: n1") + NODE;
    let workload = address(&manual).unwrap();
    assert_eq!((workload.tunnel, workload.health), (TunnelProtocol::None, Health::Healthy));
    assert_eq!((&*workload.node, &*workload.placement.locality.zone), ("n1", "z1"));
    assert!(!workload.enrolment.enrolled && workload.addresses.len() == 1);
    let ports: Vec<_> = workload.services.values().flatten().copied().collect();
    assert_eq!(ports, [PortMapping { service_port: 80, target_port: 8080 }]);
    for (condition, health) in [
        ("{ready: true}", Health::Healthy),
        ("{ready: false, serving: true, terminating: true}", Health::Terminating),
        ("{ready: false, serving: false, terminating: true}", Health::Unhealthy),
        ("{ready: false}", Health::Unhealthy),
    ] {
        let endpoint = format!("addresses: [10.0.0.9], conditions: {condition}");
        let workload = address(&(service("") + &slice("web-1", 8080, &endpoint))).unwrap();
        assert_eq!(workload.health, health, "{condition}");
    }
    let other = slice("web-1", 8080, "addresses: [10.0.0.8]");
    let of_pod = "addresses: [10.0.0.9], targetRef: {kind: Pod, name: gone}";
    let pod_there = pod("", "", "").replace("10.0.0.1", "10.0.0.9");
    for yaml in [
        slice("web-1", 8080, "addresses: [10.0.0.9]"),
        service("") + &other,
        service("") + &slice("web-1", 8080, of_pod),
        manual.clone() + &pod_there,
    ] {
        assert_eq!(address(&yaml), None, "{yaml}");
    }
    let on_host = pod_there.replace("containers: []", "containers: [], hostNetwork: true");
    assert!(address(&(manual + &on_host)).is_some(), "a node's address is no pod's own");
}

#[test]
fn a_pod_that_terminates_still_serves() {
    let leaving = pod(", deletionTimestamp: '2026-01-01T00:00:00Z'", "", "");
    assert_eq!(pod_of(&leaving, "web").0.unwrap().health, Health::Terminating);
    let done = leaving.replace("status: 'True'", "status: 'False'");
    assert_eq!(pod_of(&done, "web").0.unwrap().health, Health::Unhealthy);
}
