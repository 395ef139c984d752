//! ServiceEntries and WorkloadEntries as people write them.

use super::tests::{config, index, pod, pod_of};
use super::*;
use crate::objects::Key;
use warren_common::model::{AppProtocol, Mode, Service, TunnelProtocol};

fn entry(name: &str, created: u32, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
         metadata: {{name: {name}, namespace: shop, creationTimestamp: '2026-01-01T00:00:{created:02}Z'}}\n\
         spec: {{{spec}}}\n"
    )
}

fn vm(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1beta1\nkind: WorkloadEntry\n\
         metadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n"
    )
}

const PORTS: &str =
    "ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}, {number: 5432, name: db}]";

fn resolved(yaml: &str, key: &ResourceKey) -> Resolved {
    resolve(&index(yaml), &config(), key)
}

fn service(yaml: &str, host: &str) -> Option<Service> {
    match resolved(yaml, &ResourceKey::Host(Name::new("shop", host))).resource {
        Some(Resource::Address(MeshResource::Service(service))) => Some(*service),
        _ => None,
    }
}

fn workload(yaml: &str, key: &ResourceKey) -> Option<Workload> {
    match resolved(yaml, key).resource {
        Some(Resource::Address(MeshResource::Workload(workload))) => Some(*workload),
        _ => None,
    }
}

fn listed(name: &str, address: &str) -> ResourceKey {
    let address = match address.parse() {
        Ok(ip) => EntryAddress::Ip(ip),
        Err(_) => EntryAddress::Name(address.into()),
    };
    ResourceKey::Listed(Name::new("shop", name), address)
}

/// `host:port>target` of every service that the workload stands behind.
fn serves(workload: &Workload) -> Vec<String> {
    let services = workload.services.iter();
    let each = services.flat_map(|(name, ports)| {
        ports.iter().map(|port| format!("{}:{}>{}", name.hostname, port.service_port, port.target_port))
    });
    each.collect()
}

fn told(yaml: &str, name: &str) -> String {
    let key = ResourceKey::Remarks(Key { kind: Kind::ServiceEntry, name: Name::new("shop", name) });
    resolved(yaml, &key).problems.iter().map(|problem| problem.reason.clone()).collect::<Vec<_>>().join("; ")
}

#[test]
fn a_static_entry_has_its_endpoints() {
    let yaml = entry(
        "db",
        1,
        &format!(
            "hosts: [DB.example.com], addresses: [10.5.0.1, 10.5.0.2/32], {PORTS}, resolution: STATIC, \
             exportTo: ['.', bank], subjectAltNames: ['spiffe://td/ns/a/sa/b'], endpoints: [\
             {{address: 192.0.2.1, ports: {{http: 8888}}, weight: 3, locality: r/z/s, network: vm, \
             labels: {{app: db}}, serviceAccount: db}}, {{address: 192.0.2.2}}]"
        ),
    );
    let service = service(&yaml, "db.example.com").unwrap();
    assert_eq!((service.addresses.len(), service.steering.mode), (2, Mode::Any));
    assert_eq!(service.origin.exported_to.as_ref().map(|to| to.concat()), Some("bankshop".into()));
    assert_eq!(service.origin.subject_alt_names.len(), 1);
    let protocols: Vec<_> = service.ports.iter().map(|port| (port.target_port, port.app_protocol)).collect();
    assert_eq!(protocols, [(8080, AppProtocol::Http11), (5432, AppProtocol::Unknown)]);
    let first = workload(&yaml, &listed("db", "192.0.2.1")).unwrap();
    assert_eq!(serves(&first), ["db.example.com:80>8888", "db.example.com:5432>5432"]);
    assert_eq!(first.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/db");
    assert_eq!((first.placement.weight, &*first.placement.network), (3, "vm"));
    assert_eq!((&*first.placement.locality.zone, first.tunnel), ("z", TunnelProtocol::None));
    assert_eq!(&*first.canonical_name, "db");
    let second = workload(&yaml, &listed("db", "192.0.2.2")).unwrap();
    assert_eq!(serves(&second), ["db.example.com:80>8080", "db.example.com:5432>5432"]);
    assert_eq!(second.placement.weight, 1);
    assert_eq!(workload(&yaml, &listed("db", "192.0.2.3")), None);
    assert_eq!(told(&yaml, "db"), "");
}

#[test]
fn names_are_left_to_the_clients_node() {
    let hosts = entry(
        "api",
        1,
        &format!("hosts: [api.example.com], addresses: [10.5.0.1], {PORTS}, resolution: DNS"),
    );
    let own = workload(&hosts, &listed("api", "api.example.com")).unwrap();
    assert_eq!((own.placement.hostname.as_deref(), own.addresses.len()), (Some("api.example.com"), 0));
    assert_eq!(serves(&own), ["api.example.com:80>8080", "api.example.com:5432>5432"]);
    let spec = format!(
        "hosts: [api.example.com], addresses: [10.5.0.1], {PORTS}, resolution: DNS_ROUND_ROBIN, \
         endpoints: [{{address: eu.example.com}}]"
    );
    let elsewhere = entry("api", 1, &spec);
    assert_eq!(workload(&elsewhere, &listed("api", "api.example.com")), None);
    assert!(workload(&elsewhere, &listed("api", "eu.example.com")).is_some());
}

#[test]
fn without_resolution_connections_pass_through() {
    let yaml = entry(
        "out",
        1,
        &format!("hosts: [out.example.com], addresses: [192.0.2.7], {PORTS}, exportTo: ['~']"),
    );
    let service = service(&yaml, "out.example.com").unwrap();
    assert_eq!(service.steering.mode, Mode::Passthrough);
    assert_eq!(service.origin.exported_to, Some(vec![]));
}

#[test]
fn selectors_find_pods_and_workload_entries() {
    let spec = format!(
        "hosts: [web.internal], addresses: [10.5.0.1], {PORTS}, resolution: STATIC, location: MESH_INTERNAL, \
         workloadSelector: {{labels: {{app: web}}}}"
    );
    let yaml = entry("web", 1, &spec)
        + &pod(", labels: {app: web}", "", "")
        + &vm("vm-1", "address: 192.0.2.1, ports: {http: 7777}, labels: {app: web}, serviceAccount: web")
        + &vm("vm-2", "address: 192.0.2.2, labels: {app: other}")
        + &vm("vm-3", "address: vm.example.com, labels: {app: web}");
    assert_eq!(serves(&pod_of(&yaml, "web").0.unwrap()), ["web.internal:80>8080", "web.internal:5432>5432"]);
    let vm_key = |name: &str| ResourceKey::WorkloadEntry(Name::new("shop", name));
    let first = workload(&yaml, &vm_key("vm-1")).unwrap();
    assert_eq!(serves(&first), ["web.internal:80>7777", "web.internal:5432>5432"]);
    assert_eq!(&*first.uid.0, "Kubernetes/networking.istio.io/WorkloadEntry/shop/vm-1");
    assert_eq!(serves(&workload(&yaml, &vm_key("vm-2")).unwrap()), [""; 0]);
    let third = resolved(&yaml, &vm_key("vm-3"));
    assert!(third.problems[0].reason.contains("is a name"), "{third:?}");
    assert_eq!(workload(&yaml, &vm_key("gone")), None);
}

#[test]
fn of_one_host_the_oldest_counts_and_kubernetes_before_all() {
    let spec = |ip: &str| {
        format!(
            "hosts: [a.test], addresses: [{ip}], {PORTS}, resolution: STATIC, endpoints: [{{address: 192.0.2.1}}]"
        )
    };
    let two = entry("young", 2, &spec("10.5.0.2")) + &entry("old", 1, &spec("10.5.0.1"));
    assert_eq!(service(&two, "a.test").unwrap().addresses[0].to_string(), "10.5.0.1");
    assert!(told(&two, "young").contains("older ServiceEntry"), "{}", told(&two, "young"));
    assert_eq!(told(&two, "old"), "");
    assert_eq!(serves(&workload(&two, &listed("young", "192.0.2.1")).unwrap()), [""; 0]);
    let fqdn = entry("web", 1, &spec("10.5.0.9").replace("a.test", "web.shop.svc.cluster.local"));
    assert_eq!(service(&fqdn, "web.shop.svc.cluster.local").unwrap().addresses[0].to_string(), "10.5.0.9");
    let kubernetes = "---\napiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {clusterIP: 10.96.0.1}\n";
    let both = fqdn + kubernetes;
    assert_eq!(service(&both, "web.shop.svc.cluster.local").unwrap().addresses[0].to_string(), "10.96.0.1");
    assert!(told(&both, "web").contains("Kubernetes Service"));
}

#[test]
fn what_is_not_captured_is_said() {
    let yaml = entry("a", 1, &format!("hosts: [a.test], {PORTS}, resolution: DNS"));
    assert!(told(&yaml, "a").contains("DNS is not captured"));
    let yaml = entry("a", 1, &format!("hosts: [a.test], addresses: [10.0.0.0/8, 10.1.1.1], {PORTS}"));
    assert!(told(&yaml, "a").contains("the range 10.0.0.0/8 is not supported"));
    assert_eq!(service(&yaml, "a.test").unwrap().addresses.len(), 1);
    let yaml = entry("a", 1, &format!("hosts: [a.test, b.test], addresses: [10.1.1.1], {PORTS}"));
    assert!(told(&yaml, "a").contains("share spec.addresses"));
}
