//! Services, and who stands behind them.

use super::tests::{pod, pod_of, service_of};
use super::*;
use warren_common::model::{AppProtocol, Health, PortMapping};

const SERVICE: &str = "---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIPs: [10.96.0.1, 'fd01::1']
  ports:
  - {name: http, port: 80, targetPort: web}
  - {name: grpc-api, port: 90, targetPort: 9090}
  - {name: dns, port: 53, protocol: UDP}
";

fn slice(name: &str, port: u16, endpoint: &str) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: {port}}}]\nendpoints: [{{{endpoint}}}]\n"
    )
}

#[test]
fn a_service_has_its_addresses_and_ports() {
    let service = service_of(SERVICE, "web").unwrap();
    assert_eq!(service.key.to_string(), "shop/web.shop.svc.cluster.local");
    assert_eq!(service.addresses.len(), 2);
    let ports: Vec<_> =
        service.ports.iter().map(|p| (p.service_port, p.target_port, p.app_protocol)).collect();
    assert_eq!(ports, [(80, 0, AppProtocol::Http11), (90, 9090, AppProtocol::Grpc)]);
    assert_eq!(service.ports[0].target_port_name.as_deref(), Some("web"));
    let headless = SERVICE.replace("clusterIPs: [10.96.0.1, 'fd01::1']", "clusterIP: None");
    assert_eq!(service_of(&headless, "web").unwrap().addresses, Vec::<IpAddr>::new());
}

#[test]
fn membership_comes_from_endpoint_slices() {
    let by_address = "addresses: [10.0.0.1]";
    let by_reference = "addresses: [10.0.0.77], targetRef: {kind: Pod, name: web, namespace: shop}";
    let of_other = "addresses: [10.0.0.1], targetRef: {kind: Pod, name: other, namespace: shop}";
    let unready = "addresses: [10.0.0.1], conditions: {ready: false}";
    let terminating = "addresses: [10.0.0.1], conditions: {ready: false, serving: true, terminating: true}";
    let ready_pod = pod("", "", "");
    let unready_pod = ready_pod.replace("status: 'True'", "status: 'False'");
    let publishing = SERVICE.replace("spec:\n", "spec:\n  publishNotReadyAddresses: true\n");
    for (service, pod, endpoint, member) in [
        (SERVICE, &ready_pod, by_address, true),
        (SERVICE, &ready_pod, by_reference, true),
        (SERVICE, &ready_pod, of_other, false),
        (SERVICE, &ready_pod, unready, false),
        (SERVICE, &ready_pod, terminating, true),
        (&publishing, &ready_pod, unready, true),
        (SERVICE, &unready_pod, unready, true),
        ("", &ready_pod, by_address, false),
    ] {
        let yaml = format!("{service}{pod}{}", slice("web-1", 8080, endpoint));
        let workload = pod_of(&yaml, "web").0.unwrap();
        let expected =
            if member { vec![PortMapping { service_port: 80, target_port: 8080 }] } else { vec![] };
        assert_eq!(workload.services.values().flatten().copied().collect::<Vec<_>>(), expected, "{yaml}");
    }
}

#[test]
fn a_pod_knows_before_its_slice_that_it_is_ready() {
    let unready = slice("web-1", 8080, "addresses: [10.0.0.1], conditions: {ready: false}");
    for (manager, member) in [("endpointslice-controller.k8s.io", true), ("somebody.else", false)] {
        let label = format!("labels: {{endpointslice.kubernetes.io/managed-by: {manager}, ");
        let yaml = format!("{SERVICE}{}{}", pod("", "", ""), unready.replace("labels: {", &label));
        let workload = pod_of(&yaml, "web").0.unwrap();
        assert_eq!(
            (workload.health, workload.services.len()),
            (Health::Healthy, usize::from(member)),
            "{yaml}"
        );
    }
}

#[test]
fn slices_of_one_service_add_up() {
    let second =
        slice("web-2", 9191, "addresses: ['fd00::1']").replace("name: http, port", "name: grpc-api, port");
    let yaml =
        format!("{SERVICE}{}{}{second}", pod("", "", ""), slice("web-1", 8080, "addresses: [10.0.0.1]"));
    let mappings: Vec<_> = pod_of(&yaml, "web").0.unwrap().services.values().flatten().copied().collect();
    assert_eq!(
        mappings,
        [
            PortMapping { service_port: 80, target_port: 8080 },
            PortMapping { service_port: 90, target_port: 9191 }
        ]
    );
}

#[test]
fn versions_follow_the_content() {
    let version = |yaml: &str| {
        let workload = pod_of(yaml, "web").0.unwrap();
        crate::push::resource(&Resource::Address(MeshResource::Workload(Box::new(workload)))).unwrap().version
    };
    let base = format!(
        "{SERVICE}{}{}",
        pod(", labels: {a: b, c: d}", "", ""),
        slice("web-1", 8080, "addresses: [10.0.0.1]")
    );
    assert_eq!(version(&base), version(&base));
    assert_ne!(version(&base), version(&base.replace("8080", "8081")));
    assert_ne!(version(&base), version(&base.replace("c: d", "c: e")));
}
