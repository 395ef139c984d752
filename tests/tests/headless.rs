//! Rules and DestinationRules for a headless Service: its clients dial a pod, and the pod's address and port show which it is.

#[path = "destination_rules/steps.rs"]
mod steps;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use steps::{answers, server};
use warren_tests::checks;
use warren_tests::lab::{Lab, marker, poll_until, run_checks};

const ECHO: &str = include_str!("l4_routes/server.py");
const ECHO_CLIENT: &str = include_str!("l4_routes/client.py");
/// A change of the configuration takes effect within a second; a busy machine may be slower.
const SOON: Duration = Duration::from_secs(20);
const HOST: &str = "db.shop.svc.cluster.local";

/// `db` is headless, and so is `aside`; `web` has the same pods, and an address.
fn shop(agent_args: &[&str], test: impl FnOnce(&Lab) -> Result<()>) {
    let mut lab = Lab::builder();
    for arg in agent_args {
        lab = lab.agent_arg(arg);
    }
    lab.two_versions()
        .service("web", |service| service.namespace("shop").port("http", 80, 80).select("app", "web"))
        .test(|lab| {
            lab.start_mesh()?;
            let mut servers = Vec::new();
            for name in ["near", "far"] {
                servers.push(server(lab, name, "80")?);
                servers.push(lab.pod(name).serve_python(ECHO, [name, "9000"])?);
            }
            test(lab)
        });
}

#[test]
fn rules_of_a_headless_service_hold_where_its_pods_are_dialled() {
    shop(&[], |lab| {
        headless(lab, "db")?;
        run_checks(
            lab,
            checks![
                requests_follow_its_virtual_service,
                no_more_connections_than_its_destination_rule_allows,
                bytes_go_to_the_pod_that_was_dialled,
                of_several_the_host_tells_which_is_meant,
                services_with_an_address_are_passed_over,
            ],
        )
    });
}

#[test]
fn an_agent_by_interest_learns_it_with_the_pod() {
    shop(&["--subscribe", "interest"], |lab| {
        headless(lab, "db")?;
        // Pods of its own node come unasked, others when they are dialled.
        for pod in ["near", "far"] {
            rules(lab, "db", "learned", &json!([{ "fault": abort(418), "route": to("") }]))?;
            until_marked(lab, pod, "db", "learned")?;
            ensure!(ask(lab, pod, &["/"])?[0]["status"] == 418);
            lab.remove_manifest("rules-db.yaml")?;
        }
        Ok(())
    });
}

/// A headless Service of both pods, whose ports are not the pods'.
fn headless(lab: &Lab, name: &str) -> Result<()> {
    let port =
        |name: &str, port: u16, target: u16| json!({ "name": name, "port": port, "targetPort": target });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": "shop" },
        "spec": { "clusterIP": "None", "ports": [port("http", 8000, 80), port("tcp", 5432, 9000)] },
    });
    let endpoint = |pod: &str| {
        let ip = lab.pod(pod).ip4().to_string();
        json!({ "addresses": [ip], "targetRef": { "kind": "Pod", "name": pod, "namespace": "shop" } })
    };
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": format!("{name}-1"), "namespace": "shop", "labels": { "kubernetes.io/service-name": name },
        },
        "ports": [{ "name": "http", "port": 80 }, { "name": "tcp", "port": 9000 }],
        "endpoints": [endpoint("near"), endpoint("far")],
    });
    lab.write_manifest(&format!("{name}.yaml"), &format!("{service}\n---\n{slice}\n"))
}

/// Its own endpoints, or those of a subset.
fn to(subset: &str) -> Value {
    let mut destination = json!({ "host": "db", "port": { "number": 8000 } });
    if !subset.is_empty() {
        destination["subset"] = json!(subset);
    }
    json!([{ "destination": destination }])
}

fn abort(status: u16) -> Value {
    json!({ "abort": { "percentage": { "value": 100 }, "httpStatus": status } })
}

fn rules(lab: &Lab, host: &str, mark: &str, rules: &Value) -> Result<()> {
    let mut mark = marker(mark);
    mark["match"][0]["port"] = json!(8000);
    let rest = rules.as_array().context("no list of rules")?;
    let http: Vec<_> = std::iter::once(&mark).chain(rest).collect();
    let spec = json!({ "hosts": [host], "http": http });
    lab.write_object(&format!("rules-{host}.yaml"), "VirtualService", &format!("shop/{host}"), &spec)
}

fn destination_rule(lab: &Lab, policy: &Value) -> Result<()> {
    let subset = |name: &str| json!({ "name": name, "labels": { "version": name } });
    let spec = json!({ "host": "db", "subsets": [subset("v1"), subset("v2")], "trafficPolicy": policy });
    lab.write_object("destination-rule.yaml", "DestinationRule", "shop/db", &spec)
}

/// What answers the steps of a client that dials this pod.
fn ask(lab: &Lab, pod: &str, steps: &[&str]) -> Result<Vec<Value>> {
    let ip = lab.pod(pod).ip4().to_string();
    answers(lab, &[&["steps", &ip], steps].concat())
}

fn until_marked(lab: &Lab, pod: &str, host: &str, marker: &str) -> Result<()> {
    poll_until(&format!("the rules {marker} of {host} at {pod}"), SOON, || {
        (ask(lab, pod, &[&format!("/{marker}")]).ok()?[0]["status"] == 299).then_some(())
    })
}

fn requests_follow_its_virtual_service(lab: &Lab) -> Result<()> {
    destination_rule(lab, &json!({ "connectionPool": { "tcp": { "connectTimeout": "5s" } } }))?;
    let exact = |path: &str| json!([{ "uri": { "exact": path } }]);
    let all = json!([
        { "match": exact("/fault"), "fault": abort(418), "route": to("") },
        { "match": exact("/bad/x"), "route": to("v2") },
        { "name": "itself", "route": to(""), "timeout": "3s" },
    ]);
    rules(lab, "db", "requests", &all)?;
    for pod in ["near", "far"] {
        until_marked(lab, pod, "db", "requests")?;
        let watch = lab.node("n1").watch_flows()?;
        let found = ask(lab, pod, &["/", "/", "/", "/", "/", "/", "/", "/"])?;
        ensure!(found.iter().all(|one| one["status"] == 200 && one["who"] == pod), "{pod}: {found:?}");
        let transport = if pod == "far" { "hbone" } else { "same-node" };
        let flow = watch.expect(&[
            ("/destination/service", HOST),
            ("/destination/pod", pod),
            ("/transport", transport),
        ])?;
        ensure!(flow["request"]["route"] == "itself", "{flow}");
        let found = ask(lab, pod, &["/fault", "/6"])?;
        ensure!(found[0]["status"] == 418 && found[1]["status"] == 504, "{pod}: {found:?}");
        // A subset is what the rule says, whoever was dialled.
        let found = ask(lab, pod, &["/bad/x"])?;
        ensure!(found[0]["who"] == "far", "{pod}: {found:?}");
    }
    Ok(())
}

fn no_more_connections_than_its_destination_rule_allows(lab: &Lab) -> Result<()> {
    destination_rule(lab, &json!({ "connectionPool": { "tcp": { "maxConnections": 2 } } }))?;
    rules(lab, "db", "limited", &json!([{ "route": to("") }]))?;
    until_marked(lab, "far", "db", "limited")?;
    // What was given up before may still be answered.
    poll_until("the server to have nothing to do", SOON, || {
        (ask(lab, "far", &["/peak", "/peak"]).ok()?[1]["peak"] == 1).then_some(())
    })?;
    let ip = lab.pod("far").ip4().to_string();
    let found = answers(lab, &["burst", &ip, "8", "/0.4"])?;
    ensure!(found.len() == 8 && found.iter().all(|one| one["status"] == 200), "{found:?}");
    let peak = ask(lab, "far", &["/peak"])?[0]["peak"].clone();
    ensure!(peak == 2, "{peak} requests at a time");
    Ok(())
}

fn bytes_go_to_the_pod_that_was_dialled(lab: &Lab) -> Result<()> {
    let pool = json!({ "connectionPool": { "tcp": { "maxConnections": 1 } } });
    destination_rule(
        lab,
        &json!({ "portLevelSettings": [{ "port": { "number": 5432 }, "connectionPool": pool["connectionPool"] }] }),
    )?;
    let ip = lab.pod("far").ip4().to_string();
    let client = |kind: &str| lab.pod("client").python(ECHO_CLIENT).args([kind, &ip, "9000", "1"]);
    poll_until("the second connection to be refused", SOON, || {
        let mut held = client("hold").with_stdin().spawn().ok()?;
        held.wait_for("held", Duration::from_secs(30)).ok()?;
        let watch = lab.node("n1").watch_flows().ok()?;
        let second: Value = client("count").json().ok()?;
        let refused = second["seen"][0] == "";
        let flow = refused.then(|| watch.try_expect(&[("/flags", "UO"), ("/state", "closed")])).flatten();
        held.close_stdin();
        (flow?["destination"]["service"] == HOST).then_some(())
    })?;
    // Its place is free again, and nobody else gets what was meant for it.
    poll_until("the pod that was dialled to answer", SOON, || {
        let told: Value = client("count").json().ok()?;
        (told["seen"][0] == "far").then_some(())
    })
}

fn of_several_the_host_tells_which_is_meant(lab: &Lab) -> Result<()> {
    headless(lab, "aside")?;
    rules(lab, "aside", "of-aside", &json!([{ "directResponse": { "status": 298 } }]))?;
    rules(lab, "db", "of-db", &json!([{ "directResponse": { "status": 297 } }]))?;
    let ip = lab.pod("near").ip4();
    let status = |host: &str| -> Result<String> {
        lab.pod("client").curl_status(["-H", &format!("Host: {host}"), &format!("http://{ip}/")])
    };
    for (host, expected) in [
        ("aside", "298"),
        ("db.shop:8000", "297"),
        ("near.db.shop.svc.cluster.local", "297"),
        ("other", "298"),
    ] {
        let mut last = String::new();
        let found = poll_until(&format!("{expected} for {host}"), SOON, || {
            last = status(host).ok()?;
            (last == expected).then_some(())
        });
        found.with_context(|| format!("the last answer: {last}"))?;
    }
    lab.remove_manifest("aside.yaml")?;
    lab.remove_manifest("rules-aside.yaml")
}

fn services_with_an_address_are_passed_over(lab: &Lab) -> Result<()> {
    rules(lab, "web", "of-web", &json!([{ "directResponse": { "status": 296 } }]))?;
    lab.remove_manifest("rules-db.yaml")?;
    lab.remove_manifest("destination-rule.yaml")?;
    let (vip, _) = lab.vip("web")?;
    poll_until("the rules of the service with an address", SOON, || {
        let status = lab.pod("client").curl_status([format!("http://{vip}/")]);
        (status.ok()? == "296").then_some(())
    })?;
    poll_until("the rules of the headless service to be gone", SOON, || {
        (ask(lab, "near", &["/"]).ok()?[0]["status"] == 200).then_some(())
    })?;
    let found = ask(lab, "near", &["/", "/"])?;
    ensure!(found.iter().all(|one| one["status"] == 200 && one["who"] == "near"), "{found:?}");
    Ok(())
}
