//! L7: the configuration changes under load and no request is lost; routes that lead nowhere say so everywhere.
#![allow(clippy::print_stdout, reason = "figures that a person wants to see")]

#[path = "l7/talk.rs"]
mod talk;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use talk::{SOON, SUBSETS, record, rules, server, share, to};
use warren_tests::checks;
use warren_tests::lab::{Lab, Proc, marker, object, poll_until, run_checks};

/// Changes under load.
const CHANGES: usize = 50;
/// A change takes effect within a second; a busy machine may be much slower.
const SLACK: Duration = Duration::from_secs(10);

#[test]
fn changes_take_effect_and_lose_nothing() {
    let lab = Lab::builder()
        .two_versions()
        .pod("far-client", |pod| pod.on("n2").namespace("shop"))
        .service("web", |service| service.namespace("shop").port("http", 80, 8080).select("app", "web"));
    lab.test(|lab| {
        lab.start_mesh()?;
        let _servers = [server(lab, "near")?, server(lab, "far")?];
        lab.write_manifest("subsets.yaml", SUBSETS)?;
        run_checks(
            lab,
            checks![
                routes_subsets_and_weights_change_under_load,
                a_virtual_service_to_nothing_is_a_503,
                a_http_route_to_nothing_is_a_500,
            ],
        )
    });
}

/// The status that a pod's request gets.
fn status_of(lab: &Lab, pod: &str, path: &str) -> Result<String> {
    lab.pod(pod).curl_status([format!("http://web{path}")])
}

/// Changes of routes, of shares, and of what a subset is, in turn.
fn change(lab: &Lab, round: usize) -> Result<()> {
    let weight = 10 + round % 80;
    let route = match round % 3 {
        0 => json!({ "route": [to("v1")] }),
        1 => json!({ "route": [share("v1", weight), share("v2", 100 - weight)] }),
        _ => {
            json!({ "route": [to("v2")], "timeout": "30s", "headers": { "request": { "set": { "x-round": round.to_string() } } } })
        }
    };
    if round.is_multiple_of(5) {
        // The versions change places: all in one file, and so in one step.
        let swapped = if round.is_multiple_of(10) { SUBSETS.to_owned() } else { swap(SUBSETS) };
        lab.write_manifest("subsets.yaml", &swapped)?;
    }
    rules(lab, &json!([marker(&format!("change-{round}")), route]))
}

fn swap(subsets: &str) -> String {
    subsets
        .replace("version: v1", "version: x")
        .replace("version: v2", "version: v1")
        .replace("version: x", "version: v2")
}

/// The lines of a load generator that tell of anything that went wrong.
fn losses(wrk: &str, h2load: &str) -> Vec<String> {
    let bad_wrk = wrk.lines().filter(|line| line.contains("Socket errors") || line.contains("Non-2xx"));
    let sums =
        h2load.lines().filter(|line| line.starts_with("requests: ") || line.starts_with("status codes: "));
    let good = ["0 failed, 0 errored, 0 timeout", "0 3xx, 0 4xx, 0 5xx"];
    let bad_h2load = sums.filter(|line| !good.iter().any(|good| line.contains(good)));
    bad_wrk.chain(bad_h2load).map(str::to_owned).collect()
}

/// wrk and h2load run while `work` does, and are ended then: by the time they were given, which `work` has to keep.
fn under_load<T>(lab: &Lab, seconds: u32, work: impl FnOnce() -> Result<T>) -> Result<(T, String, String)> {
    let generator = |program: &str, args: &[&str]| -> Result<Proc> {
        lab.pod("client").command(program).resolve_names().args(args).spawn()
    };
    let time = seconds.to_string();
    let wrk = generator("wrk", &["-t", "1", "-c", "4", "-d", &time, "--timeout", "30s", "http://web/load"])?;
    let h2load = generator("h2load", &["-D", &time, "-c", "1", "-m", "4", "http://web/load"])?;
    let done = work()?;
    let limit = Duration::from_secs(u64::from(seconds) + 60);
    let (wrk, h2load) = (wrk.wait(limit)?, h2load.wait(limit)?);
    ensure!(wrk.status.success() && h2load.status.success(), "{wrk}\n{h2load}");
    Ok((done, wrk.stdout, h2load.stdout))
}

fn routes_subsets_and_weights_change_under_load(lab: &Lab) -> Result<()> {
    let pods = ["client", "far-client"];
    let mut times: [Vec<Duration>; 2] = [Vec::new(), Vec::new()];
    rules(lab, &json!([{ "route": [to("v1")] }]))?;
    let mut round = 0;
    while round < CHANGES {
        let until = Instant::now() + Duration::from_secs(15);
        let ((), wrk, h2load) = under_load(lab, 20, || {
            while round < CHANGES && Instant::now() < until {
                let began = Instant::now();
                change(lab, round)?;
                for (pod, times) in pods.iter().zip(&mut times) {
                    poll_until(&format!("change {round} at {pod}"), SLACK, || {
                        (status_of(lab, pod, &format!("/change-{round}")).ok()? == "299").then_some(())
                    })?;
                    times.push(began.elapsed());
                }
                round += 1;
            }
            Ok(())
        })?;
        let lost = losses(&wrk, &h2load);
        ensure!(lost.is_empty(), "{lost:?}\n{wrk}\n{h2load}");
        ensure!(wrk.contains("requests in") && h2load.contains("succeeded"), "{wrk}\n{h2load}");
    }
    for (pod, times) in pods.iter().zip(&mut times) {
        times.sort();
        println!(
            "      {CHANGES} changes seen by {pod}: half within {:?}, all within {:?}",
            times[CHANGES / 2],
            times[CHANGES - 1]
        );
    }
    lab.write_manifest("subsets.yaml", SUBSETS)?;
    lab.remove_manifest("rules.yaml")
}

/// Fails unless this object leads to nothing as it should: for the client, in the flow, among the problems, in the analysis.
fn leads_nowhere(lab: &Lab, object: &Value, status: &str, words: &[&str]) -> Result<()> {
    let kind = object["kind"].as_str().unwrap_or_default();
    lab.write_manifest("rules.yaml", &object.to_string())?;
    let path = format!("/nothing-{kind}");
    let flow = poll_until("the route to nothing", SOON, || {
        (status_of(lab, "client", &path).ok()? == status).then_some(())?;
        let flow = record(lab, &path).ok()?;
        let error = flow["error"].as_str().unwrap_or_default();
        words.iter().all(|word| error.contains(word)).then_some(flow)
    })?;
    ensure!(flow["flags"] == "NC" && flow["request"]["status"].as_u64() == status.parse().ok(), "{flow}");
    lab.until_problem(words)?;
    let done = lab.node("n1").warren(["analyze", "-f"]).arg(lab.manifests_dir()).run()?;
    let said =
        done.stdout.lines().any(|line| line.contains(kind) && words.iter().all(|word| line.contains(word)));
    ensure!(said, "{done}");
    lab.remove_manifest("rules.yaml")
}

fn a_virtual_service_to_nothing_is_a_503(lab: &Lab) -> Result<()> {
    let all_to = |route: &Value| {
        let spec = json!({ "hosts": ["web"], "http": [{ "route": [route] }] });
        object("VirtualService", "shop/nowhere", &spec)
    };
    leads_nowhere(lab, &all_to(&json!({ "destination": { "host": "nobody" } })), "503", &["nobody"])?;
    leads_nowhere(lab, &all_to(&to("v7")), "503", &["v7"])
}

fn a_http_route_to_nothing_is_a_500(lab: &Lab) -> Result<()> {
    let spec = json!({
        "parentRefs": [{ "group": "", "kind": "Service", "name": "web" }],
        "rules": [{ "backendRefs": [{ "name": "nobody", "port": 80 }] }],
    });
    leads_nowhere(lab, &object("HTTPRoute", "shop/nowhere", &spec), "500", &["nobody"])
}
