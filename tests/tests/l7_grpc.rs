//! L7 with gRPC: a real server and a real client, calls of all four kinds, statuses, deadlines, cancels, retries, and routes
//! by method.

#[path = "l7/talk.rs"]
mod talk;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use talk::{record_that, rules};
use warren_tests::checks;
use warren_tests::lab::{Lab, poll_until, run_checks};

const SERVER: &str = include_str!("l7/grpc_server.py");
const CLIENT: &str = include_str!("l7/grpc_client.py");
const SOON: Duration = Duration::from_secs(20);

#[test]
fn grpc_works_as_without_a_mesh_and_is_routed() {
    let mut lab = Lab::builder().two_versions();
    for (name, label, value) in
        [("web", "app", "web"), ("web-v1", "version", "v1"), ("web-v2", "version", "v2")]
    {
        lab = lab.service(name, |service| {
            service.namespace("shop").port("grpc", 50051, 50051).select(label, value)
        });
    }
    lab.test(|lab| {
        lab.start_mesh()?;
        let server = |name: &str| lab.pod(name).serve_python(SERVER, [name, "50051"]);
        let _servers = [server("near")?, server("far")?];
        run_checks(
            lab,
            checks![
                calls_of_all_kinds_pass,
                statuses_and_trailers_pass,
                deadlines_and_cancels_reach_the_server,
                what_is_unavailable_is_tried_again,
                many_calls_share_a_connection_and_are_split,
                a_virtual_service_matches_methods,
                a_grpc_route_matches_methods,
            ],
        )
    });
}

fn client(lab: &Lab, kind: &str, text: &str) -> Result<Value> {
    let client = lab.pod("client").python(CLIENT).resolve_names().env("GRPC_DNS_RESOLVER", "native");
    client.args([kind, "web:50051", text]).within(Duration::from_secs(90)).json()
}

fn call(lab: &Lab, method: &str, message: &str) -> Result<Value> {
    client(lab, "call", &format!("{method} {message}"))
}

/// Rules of a VirtualService, and waits until both versions got calls as `is_so` says.
fn in_force(lab: &Lab, http: &Value, is_so: impl Fn(&Lab) -> Result<bool>) -> Result<()> {
    rules(lab, http)?;
    poll_until("the rules", SOON, || is_so(lab).is_ok_and(|is_so| is_so).then_some(()))
}

fn to(service: &str) -> Value {
    json!([{ "destination": { "host": service, "port": { "number": 50051 } } }])
}

/// All to one version.
fn all_to(lab: &Lab, service: &str, who: &str) -> Result<()> {
    in_force(
        lab,
        &json!([{ "route": to(service), "headers": { "request": { "set": { "x-way": service } } } }]),
        |lab| {
            let seen = get(lab)?;
            Ok(seen["who"] == who && seen["metadata"]["x-way"] == service)
        },
    )
}

fn get(lab: &Lab) -> Result<Value> {
    let seen = call(lab, "Get", "x")?;
    serde_json::from_str(seen["text"].as_str().unwrap_or_default()).with_context(|| seen.to_string())
}

/// The record of the last call of a method.
fn record(lab: &Lab, method: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
    record_that(lab, &format!("/shop.Cart/{method}"), is_it)
}

fn calls_of_all_kinds_pass(lab: &Lab) -> Result<()> {
    for (service, who) in [("web-v1", "near"), ("web-v2", "far")] {
        all_to(lab, service, who)?;
        let seen = get(lab)?;
        ensure!(seen["sent"] == "x" && seen["metadata"]["x-user"] == "jason", "{seen}");
        ensure!(seen["metadata"]["x-envoy-attempt-count"] == "1", "{seen}");
        let seen = client(lab, "streams", "50")?;
        let listed = seen["listed"].as_array().context("no list")?;
        ensure!(listed.len() == 50 && listed[49] == format!("{who} 49"), "{seen}");
        ensure!(seen["added"] == format!("{who} 50000") && seen["chat"] == true, "{seen}");
        let flow = record(lab, "Chat", |_| true)?;
        ensure!(flow["request"]["grpc_status"] == 0 && flow["request"]["protocol"] == "HTTP/2", "{flow}");
    }
    Ok(())
}

fn statuses_and_trailers_pass(lab: &Lab) -> Result<()> {
    all_to(lab, "web-v2", "far")?;
    for (code, number) in
        [("NOT_FOUND", 5), ("PERMISSION_DENIED", 7), ("RESOURCE_EXHAUSTED", 8), ("UNAVAILABLE", 14)]
    {
        let seen = call(lab, "Fail", code)?;
        ensure!(seen["code"] == code && seen["details"] == "50% grün", "{seen}");
        ensure!(seen["trailers"]["x-why"] == "because", "{seen}");
        let flow = record(lab, "Fail", |flow| flow["request"]["grpc_status"] == number)?;
        ensure!(flow["request"]["status"] == 200 && flow["request"]["grpc"] == true, "{flow}");
    }
    // Nobody is there.
    in_force(lab, &json!([{ "route": to("nobody") }]), |lab| {
        Ok(call(lab, "Get", "x")?["code"] == "UNAVAILABLE")
    })?;
    in_force(lab, &json!([{ "match": [{ "uri": { "exact": "/none" } }], "route": to("web") }]), |lab| {
        Ok(call(lab, "Get", "x")?["code"] == "UNIMPLEMENTED")
    })
}

fn deadlines_and_cancels_reach_the_server(lab: &Lab) -> Result<()> {
    all_to(lab, "web-v2", "far")?;
    let seen = client(lab, "deadline", "deadline")?;
    ensure!(seen["code"] == "DEADLINE_EXCEEDED" && seen["seconds"].as_f64().unwrap_or(99.0) < 20.0, "{seen}");
    let seen = client(lab, "cancel", "cancel")?;
    ensure!(seen["code"] == "CANCELLED", "{seen}");
    for key in ["deadline", "cancel"] {
        poll_until(&format!("the server to hear of the {key}"), SOON, || {
            let told = call(lab, "Cancelled", "").ok()?;
            told["text"].as_str()?.contains(&format!("\"{key}\"")).then_some(())
        })?;
    }
    record(lab, "Slow", |flow| flow["flags"] == "DC")?;
    Ok(())
}

fn what_is_unavailable_is_tried_again(lab: &Lab) -> Result<()> {
    let retries = json!({ "attempts": 3, "retryOn": "unavailable" });
    in_force(lab, &json!([{ "route": to("web-v2"), "retries": retries }]), |lab| {
        Ok(get(lab)?["who"] == "far"
            && call(lab, "Flaky", &format!("{:x} 1", rand::random::<u64>()))?["code"] == "OK")
    })?;
    let seen = call(lab, "Flaky", "a 3")?;
    ensure!(seen["code"] == "OK" && seen["text"] == "far 4", "{seen}");
    let flow = record(lab, "Flaky", |flow| flow["request"]["attempts"] == 4)?;
    ensure!(flow["request"]["grpc_status"] == 0, "{flow}");
    let seen = call(lab, "Flaky", "b 9")?;
    ensure!(seen["code"] == "UNAVAILABLE" && seen["details"] == "not yet", "{seen}");
    record(lab, "Flaky", |flow| flow["flags"] == "URX" && flow["request"]["grpc_status"] == 14)?;
    Ok(())
}

fn many_calls_share_a_connection_and_are_split(lab: &Lab) -> Result<()> {
    let share = |service: &str, weight: u32| json!({ "destination": { "host": service, "port": { "number": 50051 } }, "weight": weight });
    in_force(lab, &json!([{ "route": [share("web-v1", 75), share("web-v2", 25)] }]), |lab| {
        let seen = client(lab, "many", "100")?;
        Ok(seen["near"].as_u64() > Some(0) && seen["far"].as_u64() > Some(0))
    })?;
    let seen = client(lab, "many", "1000")?;
    let count = |who: &str| seen[who].as_u64().unwrap_or_default();
    // Six deviations of a binomial distribution are 82.
    ensure!(count("near") + count("far") == 1000 && (168..=332).contains(&count("far")), "{seen}");
    Ok(())
}

/// `Get` goes to v1, all else to v2.
fn is_by_method(lab: &Lab) -> Result<bool> {
    let mut so = true;
    for _ in 0..4 {
        so = so
            && get(lab)?["who"] == "near"
            && call(lab, "Flaky", "x 0")?["text"].to_string().contains("far");
    }
    Ok(so)
}

fn a_virtual_service_matches_methods(lab: &Lab) -> Result<()> {
    let get = json!([{ "uri": { "exact": "/shop.Cart/Get" } }]);
    in_force(lab, &json!([{ "match": get, "route": to("web-v1") }, { "route": to("web-v2") }]), is_by_method)
}

fn a_grpc_route_matches_methods(lab: &Lab) -> Result<()> {
    lab.remove_manifest("rules.yaml")?;
    let backend = |name: &str| json!([{ "name": name, "port": 50051 }]);
    let rule = |method: &str, name: &str| {
        let matches = json!([{ "method": { "service": "shop.Cart", "method": method } }]);
        json!({ "matches": matches, "backendRefs": backend(name) })
    };
    let route = json!({
        "parentRefs": [{ "group": "", "kind": "Service", "name": "web", "port": 50051 }],
        "rules": [rule("Get", "web-v1"), rule("Flaky", "web-v2")],
    });
    lab.write_object("route.yaml", "GRPCRoute", "shop/web", &route)?;
    poll_until("the route", SOON, || is_by_method(lab).is_ok_and(|so| so).then_some(()))?;
    // What no rule names is nobody's.
    let seen = call(lab, "Fail", "NOT_FOUND")?;
    ensure!(seen["code"] == "UNIMPLEMENTED", "{seen}");
    let flow = record(lab, "Fail", |flow| flow["flags"] == "NR")?;
    ensure!(flow["request"]["grpc_status"] == 12, "{flow}");
    lab.remove_manifest("route.yaml")
}
