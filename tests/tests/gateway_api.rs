//! HTTPRoutes of services, against real servers: what no rule of a VirtualService can say.

#[path = "l7/talk.rs"]
mod talk;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use talk::{SOON, asked, record, server, status};
use warren_tests::checks;
use warren_tests::lab::{Lab, Mesh, poll_until, run_checks};

#[test]
fn routes_of_the_gateway_api_do_what_they_say() {
    Lab::builder()
        .nodes(["n1", "n2"])
        .namespace("shop", Mesh::Enabled)
        .pod("client", |pod| pod.on("n1").namespace("shop"))
        .pod("near", |pod| pod.on("n1").namespace("shop").label("app", "near"))
        .pod("far", |pod| pod.on("n2").namespace("shop").label("app", "far"))
        .service("web", |service| service.namespace("shop").port("http", 80, 8080).select("app", "near"))
        .service("left", |service| service.namespace("shop").port("http", 80, 8080).select("app", "near"))
        .service("right", |service| service.namespace("shop").port("http", 80, 8080).select("app", "far"))
        .service("socket", |service| {
            let service = service.namespace("shop").port("x", 80, 8080).app_protocol("kubernetes.io/ws");
            service.select("app", "far")
        })
        .test(|lab| {
            lab.start_mesh()?;
            let _servers = [server(lab, "near")?, server(lab, "far")?];
            run_checks(
                lab,
                checks![
                    a_backends_own_routes_are_not_asked,
                    what_brings_no_response_is_tried_again,
                    rewrites_of_rule_and_backend_come_together,
                    a_websocket_reaches_its_server,
                    what_is_broken_fails_alone,
                ],
            )
        });
}

/// The rules of a service.
fn route(lab: &Lab, file: &str, service: &str, rules: &Value) -> Result<()> {
    let spec = json!({ "parentRefs": [{ "group": "", "kind": "Service", "name": service }], "rules": rules });
    lab.write_object(file, "HTTPRoute", &format!("shop/{service}"), &spec)
}

fn to(service: &str) -> Value {
    json!({ "name": service, "port": 80 })
}

/// Puts rules of `web` in force: a marker among them, which redirects, says when.
fn in_force(lab: &Lab, marker: &str, rules: &[Value]) -> Result<()> {
    let path = format!("/{marker}");
    let mut all = vec![json!({
        "matches": [{ "path": { "type": "Exact", "value": path } }],
        "filters": [{ "type": "RequestRedirect", "requestRedirect": { "statusCode": 307, "hostname": "there" } }],
    })];
    all.extend_from_slice(rules);
    route(lab, "rules.yaml", "web", &json!(all))?;
    poll_until(&format!("the rules of {marker}"), SOON, || {
        (status(lab, &format!("http://web{path}"), &[]).ok()? == "307").then_some(())
    })
}

fn a_backends_own_routes_are_not_asked(lab: &Lab) -> Result<()> {
    route(lab, "chain.yaml", "right", &json!([{ "backendRefs": [to("left")] }]))?;
    let who = |url: &str| -> Result<Value> { Ok(asked(lab, url, &[])?["who"].take()) };
    poll_until("the route of the backend", SOON, || (who("http://right/x").ok()? == "near").then_some(()))?;
    in_force(lab, "chain", &[json!({ "backendRefs": [to("right")] })])?;
    for _ in 0..8 {
        ensure!(who("http://web/x")? == "far", "the backend's own route was asked");
    }
    lab.remove_manifest("chain.yaml")
}

fn what_brings_no_response_is_tried_again(lab: &Lab) -> Result<()> {
    let rule = |path: &str, more: &Value| -> Result<Value> {
        let mut rule = json!({
            "matches": [{ "path": { "type": "PathPrefix", "value": path } }],
            "backendRefs": [to("right")],
        });
        rule.as_object_mut().context("no rule")?.extend(more.as_object().context("no fields")?.clone());
        Ok(rule)
    };
    let times = json!({ "backendRequest": "200ms" });
    let retry = json!({ "codes": [504], "attempts": 2, "backoff": "300ms" });
    in_force(
        lab,
        "retry",
        &[
            rule("/slow", &json!({ "timeouts": times, "retry": retry }))?,
            rule("/slow/1", &json!({ "timeouts": times }))?,
            rule("/flaky", &json!({ "retry": { "codes": [503], "attempts": 2, "backoff": "300ms" } }))?,
        ],
    )?;
    let began = Instant::now();
    ensure!(status(lab, "http://web/slow/9", &[])? == "504");
    // Three tries of 200 ms, and 300 ms at least before each but the first.
    ensure!(began.elapsed() >= Duration::from_millis(1200), "{:?}", began.elapsed());
    ensure!(record(lab, "/slow/9")?["request"]["attempts"] == 3);
    ensure!(status(lab, "http://web/slow/1", &[])? == "504");
    ensure!(record(lab, "/slow/1")?["request"]["attempts"] == 1, "nobody asked for retries");
    let began = Instant::now();
    ensure!(asked(lab, "http://web/flaky/g/1", &[])?["who"] == "far");
    ensure!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    Ok(())
}

fn rewrites_of_rule_and_backend_come_together(lab: &Lab) -> Result<()> {
    let rewrite = |fields: &Value| json!({ "type": "URLRewrite", "urlRewrite": fields });
    let path = json!({ "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/new" } });
    in_force(
        lab,
        "rewrite",
        &[json!({
            "matches": [{ "path": { "type": "PathPrefix", "value": "/old" } }],
            "filters": [rewrite(&json!({ "hostname": "other.example" }))],
            "backendRefs": [{ "name": "right", "port": 80, "filters": [rewrite(&path)] }],
        })],
    )?;
    let seen = asked(lab, "http://web/old/x?q", &[])?;
    ensure!(seen["path"] == "/new/x?q" && seen["headers"]["host"] == "other.example", "{seen}");
    Ok(())
}

fn a_websocket_reaches_its_server(lab: &Lab) -> Result<()> {
    in_force(lab, "socket", &[json!({ "backendRefs": [to("socket")] })])?;
    talk::a_websocket_is_joined(lab)
}

fn what_is_broken_fails_alone(lab: &Lab) -> Result<()> {
    let unknown =
        json!([{ "type": "ExtensionRef", "extensionRef": { "group": "a.b", "kind": "C", "name": "d" } }]);
    let odd = json!({ "name": "right", "port": 80, "filters": unknown });
    in_force(
        lab,
        "broken",
        &[
            json!({ "matches": [{ "path": { "value": "/odd" } }], "backendRefs": [odd] }),
            json!({ "backendRefs": [to("right")] }),
        ],
    )?;
    ensure!(status(lab, "http://web/odd", &[])? == "500");
    ensure!(asked(lab, "http://web/even", &[])?["who"] == "far");
    Ok(())
}
