//! What DestinationRules say of connections and endpoints, on real sockets; the choices themselves are unit tests with
//! simulated time (`agent/src/balance`, `agent/src/http/tests`).

#[path = "destination_rules/steps.rs"]
mod steps;
#[path = "l7/talk.rs"]
mod talk;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use steps::{answers, load, nothing_lost, server};
use talk::SOON;
use warren_tests::checks;
use warren_tests::lab::{Lab, poll_until, run_checks};

/// An agent starts and takes over.
const TAKEN: (&str, Duration) = ("this agent serves the pods now", Duration::from_secs(30));

fn shop(test: impl FnOnce(&Lab) -> Result<()>) {
    Lab::builder()
        .two_versions()
        .service("web", |service| service.namespace("shop").port("http", 80, 8080).select("app", "web"))
        .service("near", |service| service.namespace("shop").port("tcp", 80, 8080).select("version", "v1"))
        .service("far", |service| service.namespace("shop").port("tcp", 80, 8080).select("version", "v2"))
        .test(|lab| {
            lab.start_mesh()?;
            let _servers = [server(lab, "near", "8080")?, server(lab, "far", "8080")?];
            test(lab)
        });
}

#[test]
fn destination_rules_hold_for_connections_and_endpoints() {
    shop(|lab| {
        run_checks(
            lab,
            checks![
                connections_are_kept_as_long_as_they_may,
                requests_wait_for_a_connection_and_no_more_than_may,
                shares_are_exact,
                a_silent_endpoint_is_asked_as_it_is_said,
                passthrough_reaches_the_service,
                a_rule_about_connections_alone_holds_for_requests,
                another_zone_serves_while_the_near_one_is_left_out,
            ],
        )
    });
}

#[test]
fn an_upgrade_of_the_agents_costs_no_request() {
    shop(an_upgrade_costs_no_request);
}

#[test]
fn who_is_not_there_is_waited_for_as_long_as_is_said() {
    shop(|lab| {
        let policy = json!({ "connectionPool": { "tcp": { "connectTimeout": "200ms" } } });
        in_force(lab, "patience", &policy, &[("v2", 1)])?;
        lab.plug_node("n2", false)?;
        let began = Instant::now();
        let found = answers(lab, &["steps", "web", "/"])?;
        ensure!(found[0]["status"] == 503, "{found:?}");
        // Three tries; without the rule each would have 2 s.
        ensure!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        // A connection that nobody looks into is reset instead; without the rule after 10 s.
        of_connections(lab, "far", &policy)?;
        poll_until("a connection that is given up soon", SOON, || {
            let began = Instant::now();
            let is_reset = answers(lab, &["steps", "far.shop", "/"]).is_err();
            (is_reset && began.elapsed() < Duration::from_secs(5)).then_some(())
        })?;
        lab.plug_node("n2", true)
    });
}

/// A DestinationRule with this policy, and a VirtualService that sends to these subsets by weight; waits until they are in force.
fn in_force(lab: &Lab, marker: &str, policy: &Value, shares: &[(&str, usize)]) -> Result<()> {
    let subset = |name: &str| json!({ "name": name, "labels": { "version": name } });
    let mut rule = json!({ "host": "web", "subsets": [subset("v1"), subset("v2")] });
    if !policy.is_null() {
        rule["trafficPolicy"] = policy.clone();
    }
    lab.write_object("destination-rule.yaml", "DestinationRule", "shop/web", &rule)?;
    let route: Vec<_> = shares.iter().map(|(subset, weight)| talk::share(subset, *weight)).collect();
    talk::in_force(lab, marker, &[json!({ "route": route })])
}

/// A DestinationRule with this policy for a service whose connections nobody looks into.
fn of_connections(lab: &Lab, service: &str, policy: &Value) -> Result<()> {
    let rule = json!({ "host": service, "trafficPolicy": policy });
    lab.write_object(&format!("{service}.yaml"), "DestinationRule", &format!("shop/{service}"), &rule)
}

fn connections_are_kept_as_long_as_they_may(lab: &Lab) -> Result<()> {
    let http = |field: &str, value: Value| json!({ "connectionPool": { "http": { field: value } } });
    let tcp = |field: &str, value: &str| json!({ "connectionPool": { "tcp": { field: value } } });
    for (number, (policy, steps, connections)) in [
        (Value::Null, &["/", "/", "2", "/"][..], 1),
        (http("maxRequestsPerConnection", json!(2)), &["/"; 6], 3),
        (http("maxRequestsPerConnection", json!(1)), &["/"; 3], 3),
        (http("idleTimeout", json!("1s")), &["/", "1.5", "/", "1.5", "/"], 3),
        (tcp("idleTimeout", "1s"), &["/", "1.5", "/"], 2),
        // A request that is under way is older than its connection may be, and ends well.
        (tcp("maxConnectionDuration", "1s"), &["/1.5", "/"], 2),
    ]
    .into_iter()
    .enumerate()
    {
        for subset in ["v1", "v2"] {
            in_force(lab, &format!("kept-{number}-{subset}"), &policy, &[(subset, 1)])?;
            let found = answers(lab, &[&["steps", "web"], steps].concat())?;
            ensure!(found.iter().all(|one| one["status"] == 200), "{policy} {subset}: {found:?}");
            let seen: BTreeSet<_> = found.iter().map(|one| one["connection"].to_string()).collect();
            ensure!(seen.len() == connections, "{policy} {subset}: {found:?}");
        }
    }
    Ok(())
}

fn requests_wait_for_a_connection_and_no_more_than_may(lab: &Lab) -> Result<()> {
    let pool = |tcp: Value, http: Value| json!({ "connectionPool": { "tcp": tcp, "http": http } });
    let peak = || -> Result<u64> {
        let found = answers(lab, &["steps", "web", "/peak"])?;
        found[0]["peak"].as_u64().context("no peak")
    };
    in_force(lab, "queue", &pool(json!({ "maxConnections": 2 }), json!({})), &[("v2", 1)])?;
    peak()?;
    // Clients are on all workers of the agent, and the limit is one.
    let found = answers(lab, &["burst", "web", "8", "/0.4"])?;
    ensure!(found.len() == 8 && found.iter().all(|one| one["status"] == 200), "{found:?}");
    ensure!(peak()? == 2, "more than two connections were in use");

    let narrow = pool(json!({ "maxConnections": 1 }), json!({ "http1MaxPendingRequests": 1 }));
    in_force(lab, "overflow", &narrow, &[("v2", 1)])?;
    let found = answers(lab, &["burst", "web", "8", "/2"])?;
    let count = |status: u16| found.iter().filter(|one| one["status"] == status).count();
    ensure!(count(200) >= 1 && count(503) >= 1 && count(200) + count(503) == 8, "{found:?}");
    let refused = found.iter().filter(|one| one["status"] == 503);
    ensure!(refused.into_iter().all(|one| one["overloaded"] == "true"), "{found:?}");
    let is_it = |flow: &Value| flow["request"]["path"] == "/2" && flow["flags"] == "UO";
    lab.node("n1").until_flow("of a refused request", is_it).map(drop)
}

fn shares_are_exact(lab: &Lab) -> Result<()> {
    in_force(lab, "shares", &Value::Null, &[("v1", 75), ("v2", 25)])?;
    let found = answers(lab, &[&["steps", "web"], &["/"; 100][..]].concat())?;
    let far = found.iter().filter(|one| one["who"] == "far").count();
    ensure!(
        found.len() == 100 && (23..=27).contains(&far),
        "{far} of {} went to where 25 should",
        found.len()
    );
    Ok(())
}

fn a_silent_endpoint_is_asked_as_it_is_said(lab: &Lab) -> Result<()> {
    let alive = json!({ "time": "100s", "interval": "7s", "probes": 4 });
    let policy = json!({ "connectionPool": { "tcp": { "tcpKeepalive": alive } } });
    in_force(lab, "alive", &policy, &[("v1", 1)])?;
    ensure!(answers(lab, &["steps", "web", "/"])?[0]["status"] == 200);
    // On the same node the agent's end is in the server's namespace.
    let sockets = || lab.pod("near").command("ss").args(["-tnoH", "dport = :8080"]).stdout();
    let found = sockets()?;
    ensure!(found.contains("timer:(keepalive,1min"), "{found}");
    // The same of a connection that nobody looks into, while it stands.
    let alive = json!({ "time": "1000s", "interval": "7s", "probes": 4 });
    of_connections(lab, "near", &json!({ "connectionPool": { "tcp": { "tcpKeepalive": alive } } }))?;
    poll_until("a connection that is kept alive", SOON, || {
        let _held = load(lab, "near.shop").ok()?;
        let is_it = poll_until("its socket", Duration::from_secs(1), || {
            sockets().ok()?.contains("timer:(keepalive,16min").then_some(())
        });
        is_it.ok()
    })
}

fn passthrough_reaches_the_service(lab: &Lab) -> Result<()> {
    let policy = json!({ "loadBalancer": { "simple": "PASSTHROUGH" } });
    in_force(lab, "passthrough", &policy, &[("", 1)])?;
    let found = answers(lab, &[&["steps", "web"], &["/"; 40][..]].concat())?;
    let who: BTreeSet<_> = found.iter().map(|one| one["who"].to_string()).collect();
    ensure!(found.iter().all(|one| one["status"] == 200) && who.len() == 2, "{found:?}");
    Ok(())
}

/// A declared HTTP port without a VirtualService: who comes when no more may be open waits, and is not reset.
fn a_rule_about_connections_alone_holds_for_requests(lab: &Lab) -> Result<()> {
    let policy = json!({ "connectionPool": { "tcp": { "maxConnections": 1 } } });
    in_force(lab, "alone", &policy, &[("", 1)])?;
    lab.remove_manifest("rules.yaml")?;
    poll_until("the end of the VirtualService", SOON, || {
        let found = answers(lab, &["steps", "web", "/bad/nobody"]).ok()?;
        let routes = lab.node("n1").warren(["routes", "web", "--client", "shop/client"]).stdout().ok()?;
        (found[0]["status"] == 200 && !routes.contains("VirtualService")).then_some(())
    })?;
    let found = answers(lab, &["burst", "web", "4", "/0.4"])?;
    ensure!(found.len() == 4 && found.iter().all(|one| one["status"] == 200), "{found:?}");
    Ok(())
}

fn another_zone_serves_while_the_near_one_is_left_out(lab: &Lab) -> Result<()> {
    let outliers = json!({
        "consecutive5xxErrors": 2, "interval": "1s", "baseEjectionTime": "120s", "maxEjectionPercent": 100,
    });
    in_force(lab, "outliers", &json!({ "outlierDetection": outliers }), &[("", 1)])?;
    // The endpoint in the client's zone comes first, as long as it is not left out.
    let found = answers(lab, &[&["steps", "web"], &["/bad/near"; 10][..]].concat())?;
    let who: Vec<_> = found.iter().map(|one| (one["who"].as_str(), one["status"].as_u64())).collect();
    let (failed, rest) = who.split_at(2);
    ensure!(failed.iter().all(|one| *one == (Some("near"), Some(503))), "{found:?}");
    ensure!(rest.iter().all(|one| *one == (Some("far"), Some(200))), "{found:?}");
    let text = lab.node("n1").warren(["services", "-o", "wide", "-n", "shop"]).stdout()?;
    // It has a service of its own, too, which leaves nothing out.
    let is_meant = |line: &&str| line.contains(" web ") && line.contains(" near ");
    let line = text.lines().find(is_meant).context("near is not there")?;
    ensure!(line.ends_with("ready, left out: consecutive_5xx for shop/client"), "{text}");
    let mut others = text.lines().filter(|line| !is_meant(line));
    ensure!(others.all(|line| !line.contains("left out")), "{text}");
    let labels = ["cause=\"consecutive_5xx\""];
    ensure!(lab.node("n1").metric("warren_outlier_ejections_total", &labels)? >= 1.0);
    Ok(())
}

fn an_upgrade_costs_no_request(lab: &Lab) -> Result<()> {
    in_force(lab, "upgrade", &Value::Null, &[("", 1)])?;
    let load = load(lab, "web")?;
    let mut successors = Vec::new();
    for node in lab.nodes() {
        let successor = node.another_agent("next", &[])?;
        successor.spawn()?;
        successor.wait_log(TAKEN.0, TAKEN.1)?;
        // It has nothing to cut: clients were told, and so were the agents whose requests went through its tunnels.
        node.agent().stop()?;
        let log = std::fs::read_to_string(node.agent().log_path())?;
        ensure!(log.contains("drained; goodbye"), "{}", node.agent().log_tail(20));
        successors.push(successor);
    }
    let done = nothing_lost(load)?;
    ensure!(done["connections"].as_u64() >= Some(2), "the connection was ended in order: {done}");
    Ok(())
}
