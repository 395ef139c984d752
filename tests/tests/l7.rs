//! L7: requests are routed where they leave a pod, against real servers and clients.

#[path = "l7/talk.rs"]
mod talk;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use talk::{CLIENT, SUBSETS, agents_kib, asked, curl, in_force, raw, record, server, share, status, to};
use warren_tests::checks;
use warren_tests::lab::{Lab, run_checks};

const GIB: &str = "1073741824";

#[test]
fn requests_are_routed_at_the_clients_node() {
    Lab::builder()
        .two_versions()
        .service("web", |service| {
            let service = service.namespace("shop").port("http", 80, 8080).port("auto", 8000, 8080);
            service.port("talk", 9000, 9000).select("app", "web")
        })
        .test(|lab| {
            lab.start_mesh()?;
            let _servers = [server(lab, "near")?, server(lab, "far")?];
            lab.write_manifest("subsets.yaml", SUBSETS)?;
            run_checks(
                lab,
                checks![
                    without_rules_nobody_looks_into_requests,
                    rules_match_rewrite_and_change_headers,
                    shares_are_as_the_weights_say,
                    faults_timeouts_and_retries_do_what_they_say,
                    destination_rules_pick_endpoints_and_limit_requests,
                    what_is_ambiguous_is_refused,
                    a_websocket_is_joined_with_its_server,
                    a_server_that_speaks_first_is_not_waited_for,
                    http_2_clients_are_served,
                    a_long_stream_costs_no_memory,
                    changes_under_load_lose_no_request,
                ],
            )
        });
}

fn without_rules_nobody_looks_into_requests(lab: &Lab) -> Result<()> {
    let plain = asked(lab, "http://web/plain", &[])?;
    ensure!(plain["headers"]["x-request-id"].is_null(), "{plain}");
    let flows = lab.node("n1").admin("/v1/flows")?;
    let all = flows["flows"].as_array().context("no flows")?;
    ensure!(all.iter().all(|flow| flow["request"].is_null()), "{flows}");
    Ok(())
}

fn rules_match_rewrite_and_change_headers(lab: &Lab) -> Result<()> {
    in_force(
        lab,
        "matching",
        &[
            json!({
                "name": "jason",
                "match": [{ "headers": { "user": { "exact": "jason" } }, "uri": { "prefix": "/shop/" } }],
                "rewrite": { "uri": "/cart/", "authority": "cart.example" },
                "headers": {
                    "request": { "set": { "x-tested": "%REQ(user)%" }, "remove": ["x-drop"] },
                    "response": { "add": { "x-by": "warren" } },
                },
                "route": [to("v2")],
            }),
            json!({ "name": "old", "match": [{ "uri": { "exact": "/old" } }], "redirect": { "uri": "/new" } }),
            json!({ "name": "rest", "match": [{ "uri": { "prefix": "/shop/" } }], "route": [to("v1")] }),
        ],
    )?;
    for port in ["", ":8000"] {
        let url = format!("http://web{port}/shop/x?a=b");
        let jason = asked(lab, &url, &["-H", "user: jason", "-H", "x-drop: 1"])?;
        ensure!(jason["who"] == "far" && jason["path"] == "/cart/x?a=b", "{jason}");
        let headers = &jason["headers"];
        ensure!(headers["host"] == "cart.example" && headers["x-tested"] == "jason", "{jason}");
        ensure!(headers["x-drop"].is_null() && headers["x-envoy-attempt-count"] == "1", "{jason}");
        ensure!(headers["x-envoy-original-path"] == "/shop/x?a=b", "{jason}");
        let other = asked(lab, &url, &["-d", "hello"])?;
        ensure!(other["who"] == "near" && other["body"] == "hello" && other["method"] == "POST", "{other}");
    }
    let head = curl(lab, "http://web/shop/x", &["-H", "user: jason", "-D", "-", "-o", "/dev/null"])?;
    ensure!(head.contains("x-by: warren") && head.contains("x-envoy-upstream-service-time: "), "{head}");
    ensure!(status(lab, "http://web/nobody", &[])? == "404");
    let head = curl(lab, "http://web/old?q", &["-D", "-"])?;
    ensure!(head.contains("301") && head.contains("location: http://web/new?q"), "{head}");

    let flow = record(lab, "/shop/x?a=b")?;
    let request = &flow["request"];
    ensure!(request["route"] == "rest" && request["status"] == 200, "{flow}");
    ensure!(request["objects"] == "VirtualService shop/web", "{flow}");
    ensure!(flow["transport"] == "same-node" && flow["destination"]["pod"] == "near", "{flow}");
    ensure!(flow["destination"]["identity"].is_string() && flow["flags"] == "-", "{flow}");
    ensure!(record(lab, "/nobody")?["flags"] == "NR");
    let text = lab.node("n1").warren(["flows"]).stdout()?;
    ensure!(text.contains("GET http://web/nobody HTTP/1.1: 404"), "{text}");
    let labels = ["response_code=\"200\"", "destination_workload=\"far\"", "request_protocol=\"http\""];
    ensure!(lab.node("n1").metric("istio_requests_total", &labels)? >= 1.0);
    Ok(())
}

fn shares_are_as_the_weights_say(lab: &Lab) -> Result<()> {
    in_force(lab, "weights", &[json!({ "route": [share("v1", 75), share("v2", 25)] })])?;
    // curl repeats a range on one connection.
    let text = curl(lab, "http://web/[1-400]", &[])?;
    let far = text.matches("\"who\": \"far\"").count();
    let near = text.matches("\"who\": \"near\"").count();
    ensure!(near + far == 400, "{near} + {far}");
    // Four deviations of a binomial distribution are 35.
    ensure!((65..=135).contains(&far), "{far} of 400 went to where a quarter should");
    Ok(())
}

fn faults_timeouts_and_retries_do_what_they_say(lab: &Lab) -> Result<()> {
    let when = |path: &str| json!([{ "uri": { "prefix": path } }]);
    let always = json!({ "value": 100.0 });
    in_force(
        lab,
        "trouble",
        &[
            json!({
                "match": when("/abort"),
                "fault": { "abort": { "httpStatus": 555, "percentage": always } },
                "route": [to("v1")],
            }),
            json!({
                "match": when("/delay"),
                "fault": { "delay": { "fixedDelay": "1s", "percentage": always } },
                "route": [to("v1")],
            }),
            json!({ "match": when("/slow"), "timeout": "500ms", "route": [to("v2")] }),
            json!({
                "match": when("/flaky"),
                "retries": { "attempts": 3, "retryOn": "5xx" },
                "route": [to("v2")],
            }),
        ],
    )?;
    ensure!(curl(lab, "http://web/abort", &["-w", " %{http_code}"])? == "fault filter abort 555");
    ensure!(record(lab, "/abort")?["flags"] == "FI");
    let began = Instant::now();
    ensure!(asked(lab, "http://web/delay", &[])?["who"] == "near");
    ensure!(began.elapsed() >= Duration::from_secs(1));
    ensure!(record(lab, "/delay")?["flags"] == "DI");
    let began = Instant::now();
    ensure!(curl(lab, "http://web/slow/10", &["-w", " %{http_code}"])? == "upstream request timeout 504");
    ensure!(began.elapsed() < Duration::from_secs(5));
    ensure!(record(lab, "/slow/10")?["flags"] == "UT");
    let flaky = asked(lab, "http://web/flaky/a/2", &["-d", "again"])?;
    ensure!(flaky["body"] == "again" && flaky["headers"]["x-envoy-attempt-count"] == "3", "{flaky}");
    ensure!(record(lab, "/flaky/a/2")?["request"]["attempts"] == 3);
    ensure!(status(lab, "http://web/flaky/b/9", &[])? == "503");
    let flow = record(lab, "/flaky/b/9")?;
    ensure!(flow["flags"] == "URX" && flow["request"]["attempts"] == 4, "{flow}");
    Ok(())
}

fn destination_rules_pick_endpoints_and_limit_requests(lab: &Lab) -> Result<()> {
    let done = destination_rules(lab);
    lab.write_manifest("subsets.yaml", SUBSETS)?;
    done
}

fn destination_rules(lab: &Lab) -> Result<()> {
    let rule = |policy: &Value| {
        let spec = json!({ "host": "web", "trafficPolicy": policy });
        lab.write_object("subsets.yaml", "DestinationRule", "shop/web", &spec)
    };
    let all = json!({ "route": [to("")] });

    rule(&json!({ "loadBalancer": { "consistentHash": { "httpHeaderName": "x-user" } } }))?;
    in_force(lab, "hash", std::slice::from_ref(&all))?;
    talk::users_keep_their_endpoint(lab, "http://web/who")?;

    rule(&json!({ "connectionPool": { "http": { "http2MaxRequests": 1 } } }))?;
    in_force(lab, "breaker", std::slice::from_ref(&all))?;
    let slow = lab.pod("client").curl(["-o", "/dev/null", "-w", "%{http_code}", "http://web/slow/3"]);
    let slow = slow.spawn()?;
    talk::under_way(lab, "/slow/3")?;
    ensure!(status(lab, "http://web/breaker-full", &[])? == "503");
    ensure!(record(lab, "/breaker-full")?["flags"] == "UO");
    let slow = slow.wait(Duration::from_secs(10))?;
    ensure!(slow.stdout == "200", "{slow}");

    let outliers = json!({
        "consecutive5xxErrors": 3, "interval": "1s", "baseEjectionTime": "60s", "maxEjectionPercent": 100,
    });
    // Else those of the client's zone come first, and the one that fails would never be asked.
    let anywhere = json!({ "localityLbSetting": { "enabled": false } });
    rule(&json!({ "outlierDetection": outliers, "loadBalancer": anywhere }))?;
    in_force(lab, "outliers", std::slice::from_ref(&all))?;
    let text = curl(lab, "http://web/bad/far?[1-60]", &[])?;
    let good = text.matches("\"who\": \"near\"").count();
    ensure!(good >= 57, "only {good} of 60 went to the endpoint that works: {text}");
    let text = curl(lab, "http://web/who?[1-30]", &[])?;
    ensure!(text.matches("\"who\": \"near\"").count() == 30, "who fails is left out: {text}");
    Ok(())
}

fn what_is_ambiguous_is_refused(lab: &Lab) -> Result<()> {
    in_force(lab, "framing", &[json!({ "route": [to("v1")] })])?;
    for bad in [
        r"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        r"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        r"GET / HTTP/1.1\nHost: web\n\n",
        r"GET / HTTP/1.1\r\nHost: web\r\nX: a\r\n b\r\n\r\n",
    ] {
        let answer = raw(lab, "80", bad)?;
        ensure!(answer.starts_with("HTTP/1.1 400 "), "{bad}: {answer}");
    }
    let answer = raw(
        lab,
        "80",
        r"POST /1 HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: web\r\n\r\n",
    )?;
    ensure!(answer.matches("HTTP/1.1 200 OK").count() == 2, "{answer}");
    Ok(())
}

fn a_websocket_is_joined_with_its_server(lab: &Lab) -> Result<()> {
    for (subset, name) in [("v1", "near"), ("v2", "far")] {
        in_force(lab, &format!("socket-{name}"), &[json!({ "route": [to(subset)] })])?;
        talk::a_websocket_is_joined(lab)?;
    }
    ensure!(record(lab, "/chat")?["request"]["status"] == 101);
    Ok(())
}

fn a_server_that_speaks_first_is_not_waited_for(lab: &Lab) -> Result<()> {
    in_force(lab, "talk", &[json!({ "route": [to("v1")] })])?;
    let _near = lab.pod("near").serve(["server-first", "--port", "9000", "--label", "x"])?;
    let _far = lab.pod("far").serve(["server-first", "--port", "9000", "--label", "x"])?;
    let vip = lab.vip("web")?.0;
    for _ in 0..6 {
        let to = format!("{vip}:9000");
        let seen =
            lab.pod("client").workload(["connect", "--to", &to, "--read-line", "--send", "hello"]).json()?;
        ensure!(seen["line"] == "220 x ready" && seen["text"] == "hello", "{seen}");
    }
    Ok(())
}

fn http_2_clients_are_served(lab: &Lab) -> Result<()> {
    in_force(lab, "two", &[json!({ "route": [to("v2")] })])?;
    let seen = asked(lab, "http://web/two-by-two", &["--http2-prior-knowledge"])?;
    ensure!(seen["who"] == "far", "{seen}");
    let flow = record(lab, "/two-by-two")?;
    ensure!(flow["request"]["protocol"] == "HTTP/2" && flow["transport"] == "hbone", "{flow}");
    // What begins in HTTP/1.1, and asks for HTTP/2 (curl, nghttp2), goes on in it. A body is sent in HTTP/1.1.
    let version = ["-o", "/dev/null", "-w", "%{http_version} %{response_code} %{num_connects}"];
    let upgraded = curl(lab, "http://web/upgraded", &[&["--http2"][..], &version].concat())?;
    ensure!(upgraded == "2 200 1", "{upgraded}");
    let flow = record(lab, "/upgraded")?;
    ensure!(flow["request"]["protocol"] == "HTTP/2" && flow["request"]["user_agent"] != "", "{flow}");
    let posted = curl(lab, "http://web/posted", &[&["--http2", "-d", "body"][..], &version].concat())?;
    ensure!(posted == "1.1 200 1", "{posted}");
    let nghttp = lab.pod("client").command("nghttp").resolve_names();
    nghttp.args(["--upgrade", "--no-dep", "http://web/its-first", "http://web/its-second"]).stdout()?;
    let request = record(lab, "/its-second")?["request"].clone();
    ensure!(request["protocol"] == "HTTP/2" && request["status"] == 200, "{request}");
    Ok(())
}

fn a_long_stream_costs_no_memory(lab: &Lab) -> Result<()> {
    in_force(lab, "stream", &[json!({ "route": [to("v2")] })])?;
    let before = agents_kib(lab)?;
    let url = format!("http://web/stream/{GIB}");
    let args = ["-o", "/dev/null", "-w", "%{size_download}", "--max-time", "170", &url];
    let read = lab.pod("client").curl(args).within(Duration::from_secs(180)).stdout()?;
    ensure!(read == GIB, "{read} bytes came");
    let grown = agents_kib(lab)?.saturating_sub(before);
    ensure!(grown < 64 << 10, "a stream of 1 GiB cost {grown} KiB");
    Ok(())
}

fn changes_under_load_lose_no_request(lab: &Lab) -> Result<()> {
    in_force(lab, "load-begin", &[json!({ "route": [to("v1")] })])?;
    let client = lab.pod("client").python(CLIENT).resolve_names();
    let load = client.args(["load", "web", "80", "8"]).spawn()?;
    for round in 0..4 {
        for subset in ["v2", "v1"] {
            in_force(lab, &format!("load-{round}-{subset}"), &[json!({ "route": [to(subset)] })])?;
        }
    }
    let done = load.report(Duration::from_secs(30))?;
    ensure!(done["bad"] == 0, "{done}");
    let count = |name: &str| done["counts"][name].as_u64().unwrap_or_default();
    ensure!(count("near") > 0 && count("far") > 0, "{done}");
    lab.remove_manifest("rules.yaml")
}
