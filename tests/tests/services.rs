//! What services promise, from a manifest to the wire: endpoints without pods, the client's own node, affinity,
//! names outside of the cluster, and services that Kubernetes does not know.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use warren_tests::checks;
use warren_tests::lab::{Lab, Mesh, poll_until, run_checks};

const SOON: Duration = Duration::from_secs(20);
/// Virtual addresses of the tests' own services; nothing but the mesh knows them.
const MANUAL: &str = "10.97.0.1";
const LOCAL: &str = "10.97.0.2";
const AFFINE: &str = "10.97.0.3";
const ENTRY: &str = "10.97.0.4";
const NAMED: &str = "10.97.0.5";

#[test]
fn services_keep_their_promises() {
    Lab::builder()
        .nodes(["n1", "n2"])
        .namespace("shop", Mesh::Enabled)
        .pod("client", |pod| pod.on("n1").namespace("shop"))
        .pod("other", |pod| pod.on("n2").namespace("shop"))
        .pod("near", |pod| pod.on("n1").namespace("shop").label("app", "web"))
        .pod("far", |pod| pod.on("n2").namespace("shop").label("app", "web"))
        .pod("outside", |pod| pod.on("n2"))
        .test(|lab| {
            lab.start_mesh()?;
            let _servers = ["near", "far", "outside"]
                .into_iter()
                .map(|name| lab.pod(name).serve(["token", "--port", "9000"]))
                .collect::<Result<Vec<_>>>()?;
            run_checks(
                lab,
                checks![
                    an_endpoint_without_a_pod_is_reached_in_plaintext,
                    internal_traffic_policy_keeps_to_the_node,
                    a_client_returns_to_its_endpoint,
                    a_headless_service_is_named_in_flows,
                    a_service_entry_has_an_address_of_its_own,
                    a_name_is_looked_up_on_the_clients_node,
                    what_is_wrong_with_an_object_is_said,
                ],
            )
        });
}

fn service(name: &str, ip: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{clusterIP: {ip}, ports: [{{name: tcp, port: 80, targetPort: 9000}}]{more}}}\n"
    )
}

/// Endpoints at these pods; without references, as those of a service without a selector.
fn slice(lab: &Lab, service: &str, pods: &[&str], by_reference: bool) -> String {
    let endpoint = |name: &&str| {
        let pod = lab.pod(name);
        let reference = match by_reference {
            true => format!(", targetRef: {{kind: Pod, name: {name}, namespace: {}}}", pod.namespace()),
            false => String::new(),
        };
        format!("{{addresses: ['{}']{reference}}}", pod.ip4())
    };
    let endpoints: Vec<_> = pods.iter().map(endpoint).collect();
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {service}-1, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}\n\
         addressType: IPv4\nports: [{{name: tcp, port: 9000}}]\nendpoints: [{}]\n",
        endpoints.join(", ")
    )
}

/// What the server of the test program says of itself.
fn ask(lab: &Lab, from: &str, to: &str) -> Result<Value> {
    lab.pod(from).workload(["connect", "--to", to, "--send", "x"]).json()
}

/// Connects once the node of `from` knows the address: before that it leads nowhere.
fn until_answered(lab: &Lab, from: &str, to: &str) -> Result<Value> {
    let ip = to.split(':').next().unwrap_or(to);
    poll_until(&format!("{to} to be known to {from}'s node"), SOON, || {
        let services = lab.node(lab.pod(from).node()).admin("/v1/services").ok()?;
        let has = |service: &Value| {
            service["service"]["addresses"].as_array().is_some_and(|all| all.iter().any(|one| one == ip))
        };
        services["services"].as_array()?.iter().any(has).then_some(())
    })?;
    let mut last = Value::Null;
    let answered = poll_until(&format!("{to} to answer {from}"), SOON, || {
        last = ask(lab, from, to).ok()?;
        (last["ok"] == true).then(|| last.clone())
    });
    answered.with_context(|| format!("the last attempt: {last}"))
}

fn an_endpoint_without_a_pod_is_reached_in_plaintext(lab: &Lab) -> Result<()> {
    // The lab tells of the pod too: an address that nobody tells of would not be a pod's.
    let yaml = service("manual", MANUAL, "") + &slice(lab, "manual", &["outside"], false);
    lab.write_manifest("manual.yaml", &yaml)?;
    let watch = lab.node("n1").watch_flows()?;
    until_answered(lab, "client", &format!("{MANUAL}:80"))?;
    let service = "manual.shop.svc.cluster.local";
    watch.expect(&[
        ("/destination/service", service),
        ("/transport", "plaintext"),
        ("/verdict", "allowed"),
    ])?;
    Ok(())
}

fn internal_traffic_policy_keeps_to_the_node(lab: &Lab) -> Result<()> {
    let policy = ", internalTrafficPolicy: Local";
    let yaml = service("local", LOCAL, policy) + &slice(lab, "local", &["near"], true);
    lab.write_manifest("local.yaml", &yaml)?;
    let to = format!("{LOCAL}:80");
    until_answered(lab, "client", &to)?;
    let watch = lab.node("n2").watch_flows()?;
    ensure!(ask(lab, "other", &to)?["ok"] != true, "another node's endpoint was used");
    let flow = watch.wait_for("internalTrafficPolicy as the reason", |flow| {
        flow["error"].as_str().is_some_and(|error| error.contains("internalTrafficPolicy is Local"))
    })?;
    ensure!(flow["flags"] == "UH", "{flow}");
    Ok(())
}

fn a_client_returns_to_its_endpoint(lab: &Lab) -> Result<()> {
    let affinity = ", sessionAffinity: ClientIP";
    let yaml = service("affine", AFFINE, affinity) + &slice(lab, "affine", &["near", "far"], true);
    lab.write_manifest("affine.yaml", &yaml)?;
    let to = format!("{AFFINE}:80");
    until_answered(lab, "client", &to)?;
    let watch = lab.node("n1").watch_flows()?;
    for _ in 0..20 {
        ensure!(ask(lab, "client", &to)?["ok"] == true, "a connection failed");
    }
    let flows = watch.seen()?;
    let outbound = flows.iter().filter(|flow| flow["direction"] == "outbound");
    let endpoints: BTreeSet<_> =
        outbound.filter_map(|flow| flow["destination"]["endpoint"].as_str().map(str::to_owned)).collect();
    ensure!(endpoints.len() == 1, "one client went to {endpoints:?}");
    Ok(())
}

fn a_headless_service_is_named_in_flows(lab: &Lab) -> Result<()> {
    let yaml = service("headless", "None", "") + &slice(lab, "headless", &["far"], true);
    lab.write_manifest("headless.yaml", &yaml)?;
    let to = format!("{}:9000", lab.pod("far").ip4());
    poll_until("flows to name the headless service", SOON, || {
        let watch = lab.node("n1").watch_flows().ok()?;
        ask(lab, "client", &to).ok()?;
        let flows = watch.seen().ok()?;
        let named = |flow: &Value| flow["destination"]["service"] == "headless.shop.svc.cluster.local";
        flows.iter().any(named).then_some(())
    })
}

fn entry(name: &str, address: &str, more: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{hosts: [{name}.example.com], addresses: [{address}], location: MESH_EXTERNAL, \
         ports: [{{number: 80, name: tcp, protocol: TCP, targetPort: 9000}}], {more}}}\n"
    )
}

fn a_service_entry_has_an_address_of_its_own(lab: &Lab) -> Result<()> {
    let outside = lab.pod("outside").ip4();
    let spec = format!("resolution: STATIC, endpoints: [{{address: {outside}}}]");
    lab.write_manifest("entry.yaml", &entry("db", ENTRY, &spec))?;
    let watch = lab.node("n1").watch_flows()?;
    until_answered(lab, "client", &format!("{ENTRY}:80"))?;
    watch.expect(&[("/destination/service", "db.example.com"), ("/transport", "plaintext")])?;
    Ok(())
}

fn a_name_is_looked_up_on_the_clients_node(lab: &Lab) -> Result<()> {
    // The lab has no DNS server: a name that needs none stands for one.
    let outside = u32::from(lab.pod("outside").ip4());
    let spec = format!("resolution: DNS, endpoints: [{{address: '0x{outside:08x}'}}]");
    lab.write_manifest("named.yaml", &entry("api", NAMED, &spec))?;
    let watch = lab.node("n1").watch_flows()?;
    until_answered(lab, "client", &format!("{NAMED}:80"))?;
    let endpoint = format!("{}:9000", lab.pod("outside").ip4());
    watch.expect(&[("/destination/service", "api.example.com"), ("/destination/endpoint", &endpoint)])?;
    let unknown = entry("gone", "10.97.0.6", "resolution: DNS, endpoints: [{address: nowhere.invalid}]");
    lab.write_manifest("gone.yaml", &unknown)?;
    let watch = lab.node("n1").watch_flows()?;
    poll_until("the name to be known as unknown", SOON, || {
        ask(lab, "client", "10.97.0.6:80").ok()?;
        let flows = watch.seen().ok()?;
        let told =
            |flow: &Value| flow["error"].as_str().is_some_and(|error| error.contains("nowhere.invalid"));
        flows.iter().any(told).then_some(())
    })
}

fn what_is_wrong_with_an_object_is_said(lab: &Lab) -> Result<()> {
    let spec = "spec: {hosts: [a.test], resolutoin: DNS}\n";
    let bad = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: bad, namespace: shop}}\n{spec}"
    );
    lab.write_manifest("bad.yaml", &bad)?;
    lab.until_problem(&["resolutoin"])?;
    lab.remove_manifest("bad.yaml")
}
