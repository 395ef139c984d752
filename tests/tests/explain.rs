//! `warren why` and `warren routes`: what is foretold is what happens then.

#[path = "l7/talk.rs"]
mod talk;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::path::Path;
use talk::{SOON, curl, server, to};
use warren_tests::checks;
use warren_tests::lab::{Lab, object, poll_until, run_checks};
use warren_tests::shared;

#[test]
fn what_is_foretold_happens() {
    Lab::builder()
        .two_versions()
        .service("web", |service| service.namespace("shop").port("http", 80, 8080).select("app", "web"))
        .service("db", |service| {
            let service = service.namespace("shop").port("tcp-db", 5432, 9000).port("tcp-shut", 5433, 9001);
            service.select("version", "v2")
        })
        .test(|lab| {
            lab.start_mesh()?;
            let _servers = [server(lab, "near")?, server(lab, "far")?];
            for (name, object) in
                [("rules.yaml", rules()), ("subsets.yaml", subsets()), ("shut.yaml", shut())]
            {
                lab.write_manifest(name, &object.to_string())?;
            }
            poll_until("the rules to be in force", SOON, || {
                let told = why(lab, &["http://web/made"]).ok()?;
                let shut = why(lab, &["db:5433"]).ok()?;
                (told["outcome"]["status"] == 299 && shut["outcome"]["verdict"] == "denied").then_some(())
            })?;
            run_checks(
                lab,
                checks![
                    requests_go_where_it_was_foretold,
                    connections_go_where_it_was_foretold,
                    people_read_it,
                    tables_are_shown,
                    questions_are_answered_with_what_to_do,
                    flows_are_found_by_what_was_asked,
                    files_foretell_what_agents_do,
                ],
            )
        });
}

fn rules() -> Value {
    let at = |path: &str| json!([{"uri": {"prefix": path}}]);
    let http = json!([
        {"name": "made", "match": at("/made"), "directResponse": {"status": 299}},
        {"name": "jason", "match": [{"headers": {"user": {"exact": "jason"}}, "uri": {"prefix": "/shop/"}}],
            "rewrite": {"uri": "/cart/"}, "route": [to("v2")]},
        {"name": "old", "match": at("/old"), "redirect": {"uri": "/new"}},
        {"name": "fault", "match": at("/fault"), "route": [to("v1")],
            "fault": {"abort": {"httpStatus": 418, "percentage": {"value": 100.0}}}},
        {"name": "none", "match": at("/none"), "route": [to("v9")]},
        {"name": "undefined", "match": at("/undefined"), "route": [to("v3")]},
        {"name": "gone", "match": at("/gone"), "route": [{"destination": {"host": "gone"}}]},
        {"name": "post", "match": [{"method": {"exact": "POST"}}], "route": [to("v2")]},
        {"name": "shop", "match": at("/shop"), "route": [to("v1")], "timeout": "9s"},
    ]);
    object("VirtualService", "shop/web", &json!({"hosts": ["web"], "http": http}))
}

fn subsets() -> Value {
    let subset = |name: &str| json!({"name": name, "labels": {"version": name}});
    let policy = json!({"loadBalancer": {"simple": "ROUND_ROBIN"}});
    let all = [subset("v1"), subset("v2"), subset("v9")];
    object("DestinationRule", "shop/web", &json!({"host": "web", "trafficPolicy": policy, "subsets": all}))
}

fn shut() -> Value {
    let rules = json!([{"to": [{"operation": {"ports": ["9001"]}}]}]);
    let selector = json!({"matchLabels": {"version": "v2"}});
    let spec = json!({"action": "DENY", "selector": selector, "rules": rules});
    object("AuthorizationPolicy", "shop/shut", &spec)
}

/// What is foretold for the client.
fn why(lab: &Lab, more: &[&str]) -> Result<Value> {
    let args = ["why", "shop/client", "-o", "json"].iter().chain(more);
    let text = lab.node("n1").warren(args).stdout()?;
    serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
}

fn requests_go_where_it_was_foretold(lab: &Lab) -> Result<()> {
    let table: &[(&str, &[&str], &str)] = &[
        ("http://web/made", &[], "299"),
        ("http://web/shop/x?a=b", &["-H", "user: jason"], "200"),
        ("http://web.shop/shop/x", &["-H", "user: other"], "200"),
        ("http://web.shop.svc.cluster.local/old?q", &[], "301"),
        ("http://web/fault", &[], "418"),
        ("http://web/none", &[], "503"),
        ("http://web/undefined", &[], "503"),
        ("http://web/gone", &[], "503"),
        ("http://web/anything", &["-X", "POST"], "200"),
        ("http://web/anything", &[], "404"),
    ];
    for (url, more, status) in table {
        let told = why(lab, &[&[*url], *more].concat())?["outcome"].clone();
        ensure!(told["certain"] == true, "{url}: {told}");
        let watch = lab.node("n1").watch_flows()?;
        // What a pod has first is IPv4, and so is what is foretold.
        let args = ["-4", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}"];
        let seen = curl(lab, url, &[&args, *more].concat())?;
        let (code, location) = seen.split_once(' ').unwrap_or((&seen, ""));
        ensure!(code == *status, "{url}: {seen}");
        let flow =
            watch.wait_for(url, |flow| flow["request"]["path"].is_string() && flow["state"] == "closed")?;
        let request = &flow["request"];
        let answered = told["status"].as_u64().map(|status| status.to_string());
        ensure!(answered.as_deref().unwrap_or("200") == code, "{url}: {told} {seen}");
        ensure!(told["route"] == request["route"], "{url}: {told} {flow}");
        if told["route"].is_string() {
            ensure!(told["objects"] == request["objects"], "{url}: {told} {flow}");
        }
        ensure!(told["flag"].as_str().unwrap_or("-") == flow["flags"], "{url}: {told} {flow}");
        ensure!(told["location"].as_str().unwrap_or("") == location, "{url}: {told} {seen}");
        if told["status"].is_null() {
            ensure!(told["cluster"] == request["cluster"], "{url}: {told} {flow}");
            goes_to(&told, &flow).with_context(|| (*url).to_owned())?;
        }
    }
    Ok(())
}

/// Endpoint, way and verdict are as foretold.
fn goes_to(told: &Value, flow: &Value) -> Result<()> {
    let to = &flow["destination"];
    let pod = format!("{}/{}", to["namespace"].as_str().unwrap_or("-"), to["pod"].as_str().unwrap_or("-"));
    ensure!(told["endpoint"] == pod.as_str() && told["address"] == to["endpoint"], "{told} {flow}");
    ensure!(told["transport"] == flow["transport"], "{told} {flow}");
    Ok(())
}

fn connections_go_where_it_was_foretold(lab: &Lab) -> Result<()> {
    let _servers = [
        lab.pod("far").serve(["whoami", "--port", "9000"])?,
        lab.pod("far").serve(["whoami", "--port", "9001"])?,
    ];
    let vip = lab.vip("db")?.0;
    let told = why(lab, &["tcp://db:5432"])?["outcome"].clone();
    let watch = lab.node("n1").watch_flows()?;
    lab.pod("client").workload(["connect", "--to", &format!("{vip}:5432")]).json()?;
    let flow = watch.expect(&[("/direction", "outbound"), ("/state", "closed")])?;
    ensure!(told["verdict"] == "allowed" && told["certain"] == true && flow["flags"] == "-", "{told} {flow}");
    goes_to(&told, &flow)?;

    let told = why(lab, &["db:5433"])?["outcome"].clone();
    ensure!(told["verdict"] == "denied" && told["flag"] == "DENY", "{told}");
    ensure!(told["policy"].as_str().is_some_and(|rule| rule.contains("shop/shut")), "{told}");
    let watch = lab.node("n1").watch_flows()?;
    let refused = lab.pod("client").workload(["connect", "--to", &format!("{vip}:5433")]).json();
    let flow = watch.expect(&[("/direction", "outbound"), ("/state", "closed")])?;
    ensure!(flow["flags"] == "DENY", "{refused:?} {flow}");
    goes_to(&told, &flow)?;

    let outside = why(lab, &["192.0.2.1:443"])?["outcome"].clone();
    ensure!(outside["transport"] == "plaintext" && outside["endpoint"].is_null(), "{outside}");
    Ok(())
}

fn people_read_it(lab: &Lab) -> Result<()> {
    let text =
        lab.node("n1").warren(["why", "shop/client", "http://web/shop/x", "-H", "user: jason"]).stdout()?;
    for said in [
        "shop/client: GET http://web/shop/x\n",
        "  service    web.shop.svc.cluster.local port 80",
        "VirtualService shop/web",
        "path prefix /made",
        "the path is /shop/x",
        "jason holds, number 2 of 9",
        "rewrite    the endpoint is asked for /cart/x",
        "DestinationRule shop/web: subset v2: version=v2, ROUND_ROBIN",
        "lacks the label version=v2",
        "mTLS tunnel (HBONE) to ",
        "goes to shop/far at ",
    ] {
        ensure!(text.contains(said), "{said:?} is missing in\n{text}");
    }
    ensure!(!text.contains('\u{1b}'), "colours without a terminal");
    Ok(())
}

fn tables_are_shown(lab: &Lab) -> Result<()> {
    let text = lab.node("n1").warren(["routes", "web"]).stdout()?;
    for said in [
        "web.shop.svc.cluster.local:80 HTTP/1.1, for shop/client, shop/near",
        "VirtualService shop/web",
        "made",
        "answer 299",
        "redirect 301 to path /new",
        "timeout 9s",
        "DestinationRule shop/web: ROUND_ROBIN",
        "0 endpoints",
        "gone.shop.svc.cluster.local leads nowhere",
    ] {
        ensure!(
            text.contains(said) || text.replace("all 2 pods", "shop/client, shop/near").contains(said),
            "{said:?} is missing in\n{text}"
        );
    }
    let one = lab.node("n1").warren(["routes", "--client", "shop/client", "-o", "yaml"]).stdout()?;
    ensure!(one.contains("- shop/client\n") && !one.contains("- shop/near\n"), "{one}");
    let limited = lab.node("n1").warren(["routes", "web", "--limit", "2"]).stdout()?;
    ensure!(limited.contains("7 rules more"), "{limited}");
    Ok(())
}

fn questions_are_answered_with_what_to_do(lab: &Lab) -> Result<()> {
    for (args, said) in [
        (["why", "shop/clint", "http://web/"], "is it shop/client?"),
        (["why", "shop/far", "http://web/"], "--node n2"),
        (["why", "shop/client", "web/x"], "write http://web/path"),
    ] {
        let done = lab.node("n1").warren(args).run()?;
        ensure!(!done.status.success() && done.stderr.contains(said), "{done}");
    }
    Ok(())
}

fn flows_are_found_by_what_was_asked(lab: &Lab) -> Result<()> {
    for path in ["/made", "/shop/sought", "/none"] {
        curl(lab, &format!("http://web{path}"), &["-o", "/dev/null"])?;
    }
    let found = |args: &[&str]| -> Result<Vec<Value>> {
        let text = lab.node("n1").warren(["flows", "-o", "json"].iter().chain(args)).stdout()?;
        text.lines().map(|line| Ok(serde_json::from_str::<Value>(line)?["request"].clone())).collect()
    };
    poll_until("the request to be told", SOON, || {
        (found(&["--path", "/shop/s*"]).ok()?.len() == 1).then_some(())
    })?;
    let bad = found(&["--status", "5xx"])?;
    ensure!(!bad.is_empty() && bad.iter().all(|request| request["status"] == 503), "{bad:?}");
    let made = found(&["--route", "made", "--method", "get", "--status", "299"])?;
    ensure!(!made.is_empty() && made.iter().all(|request| request["path"] == "/made"), "{made:?}");
    Ok(())
}

fn files_foretell_what_agents_do(lab: &Lab) -> Result<()> {
    let manifests = lab.manifests_dir();
    let offline = |url: &str, files: &[&Path]| -> Result<Value> {
        let mut args = vec!["why", "shop/client", url, "-H", "end-user: jason", "-o", "json"];
        for file in files {
            args.extend(["-f", file.to_str().context("a path")?]);
        }
        let text = lab.node("n1").warren(args).stdout()?;
        Ok(serde_json::from_str::<Value>(&text)?["outcome"].clone())
    };
    for url in ["http://web/made", "http://web/shop/x", "http://web/none", "http://web/old", "db:5433"] {
        let (told, live) = (offline(url, &[&manifests])?, why(lab, &[url])?["outcome"].clone());
        ensure!(told == live, "{url}: {told} {live}");
    }
    let Some(founding) = shared::or_skip("founding", "why says what the founding manifests do") else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let service = folder.path().join("service.yaml");
    std::fs::write(&service, REVIEWS)?;
    let rules = founding.join("1-virtualservice.yaml");
    let told = offline("http://reviews.default/", &[&rules, &service])?;
    // The rules are of the namespace default, and for every client; its subsets are nobody's.
    ensure!(told["objects"] == "VirtualService default/reviews", "{told}");
    ensure!(told["cluster"] == "outbound|80|v2|reviews.default.svc.cluster.local", "{told}");
    ensure!(told["status"] == 503 && told["flag"] == "NC", "{told}");
    Ok(())
}

const REVIEWS: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec: {selector: {app: reviews}, ports: [{name: http, port: 80}]}
";
