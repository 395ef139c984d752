//! The mesh cases of the Gateway API's conformance suite, with the suite's own fixtures and expectations: its Deployments are
//! pods of the lab with our echo server in them, its routes are read by the controller as they are.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use warren_tests::lab::{Lab, poll_until};
use warren_tests::shared;

mod cases;
mod expect;
mod fixture;
mod status;

use cases::{Case, Exchange};
use fixture::Fixture;

/// How long it may take until answers are what they should be.
const CONSISTENT: Duration = Duration::from_secs(30);
/// So many of them in a row have to be.
const IN_A_ROW: usize = 3;
/// How often a request is repeated where shares count, and how often that may fail.
const REPEATED: usize = 500;
const TRIES: usize = 10;
const FILE: &str = "case.yaml";

#[test]
fn mesh_cases_hold() {
    let Some(dir) = shared::or_skip("gateway-conformance", "mesh_cases_hold") else { return };
    let fixture = Fixture::read(&dir, "mesh/manifests.yaml").unwrap();
    let cases = cases::all().unwrap();
    let manifests = fixture.mesh_cases().unwrap();
    assert!(cases.keys().eq(manifests.keys()), "{:?} are not {:?}", cases.keys(), manifests.keys());
    fixture.lab().unwrap().test(|lab| {
        lab.start_mesh()?;
        let _servers = fixture.serve(lab)?;
        let only = std::env::var("WARREN_CHECK").unwrap_or_default();
        let chosen = || cases.iter().filter(|(name, _)| name.contains(&only));
        let mut failures = Vec::new();
        for (name, case) in chosen() {
            let began = Instant::now();
            let outcome = run(lab, &fixture, case, &manifests[name]);
            let seconds = began.elapsed().as_secs_f64();
            let word = if outcome.is_ok() { "ok" } else { "FAILED" };
            say(&format!("    {word} {name} ({seconds:.1} s)"));
            if let Err(error) = outcome {
                failures.push(format!("{name}: {error:#}"));
            }
        }
        let all = chosen().count();
        say(&format!(
            "    {} of {all} mesh cases of the Gateway API's conformance suite",
            all - failures.len()
        ));
        ensure!(failures.is_empty(), "{}", failures.join("\n"));
        Ok(())
    });
}

/// Past libtest's capture: a list of what was proven belongs into every report.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Applies a case's manifests, asks, and takes them away again.
fn run(lab: &Lab, fixture: &Fixture, case: &Case, manifests: &[Value]) -> Result<()> {
    let mut manifests = manifests.to_vec();
    for object in &mut manifests {
        // As the API server does.
        object["metadata"]["generation"] = json!(status::GENERATION);
    }
    if !manifests.is_empty() {
        let texts: Vec<_> = manifests.iter().map(Value::to_string).collect();
        lab.write_manifest(FILE, &texts.join("\n---\n"))?;
    }
    let outcome = hold(lab, fixture, case, &manifests);
    if !manifests.is_empty() {
        lab.remove_manifest(FILE)?;
        without_rules(lab, fixture)?;
    }
    outcome
}

fn hold(lab: &Lab, fixture: &Fixture, case: &Case, manifests: &[Value]) -> Result<()> {
    for exchange in &case.requests {
        eventually(&format!("{exchange:?}"), || {
            let answers = ask(lab, fixture, exchange, IN_A_ROW, 1)?;
            answers.iter().try_for_each(|answer| {
                expect::check(exchange, answer).with_context(|| format!("answered was {answer}"))
            })
        })?;
    }
    if !case.shares.is_empty() {
        let exchange = case.requests.first().context("nothing to repeat")?;
        let mut tries = 0;
        loop {
            let answers = ask(lab, fixture, exchange, REPEATED, case.clients)?;
            match expect::check_shares(&case.shares, &answers) {
                Ok(()) => break,
                Err(error) if tries == TRIES => return Err(error),
                Err(_) => tries += 1,
            }
        }
    }
    eventually("the status", || status::check(lab, manifests, case.resolved.as_deref()))
}

/// Until it holds; if it never does, why it did not at last.
fn eventually(what: &str, mut holds: impl FnMut() -> Result<()>) -> Result<()> {
    let mut why = None;
    let held = poll_until(what, CONSISTENT, || {
        why = holds().err();
        why.is_none().then_some(())
    });
    match why {
        Some(why) => Err(why.context(what.to_owned())),
        None => held,
    }
}

/// Asks so often, as the case says; the answers.
fn ask(
    lab: &Lab,
    fixture: &Fixture,
    exchange: &Exchange,
    count: usize,
    clients: usize,
) -> Result<Vec<Value>> {
    let mut url = exchange.url.clone();
    if let Some((before, rest)) = exchange.url.split_once('{') {
        let (deployment, after) = rest.split_once('}').context("no end")?;
        url = format!("{before}{}{after}", fixture.pod(lab, &exchange.from, deployment)?.ip4());
    }
    let pod = fixture.pod(lab, &exchange.from, "echo-v1")?;
    let mut command = pod.workload(["ask", &format!("{url}{}", exchange.path)]);
    command = command.args(["--count", &count.to_string(), "--parallel", &clients.to_string()]);
    for (name, value) in &exchange.headers {
        command = command.args(["-H", &format!("{name}: {value}")]);
    }
    match command.resolve_names().within(Duration::from_secs(60)).json()? {
        Value::Array(answers) if answers.len() == count => Ok(answers),
        other => bail!("{count} answers were expected: {other}"),
    }
}

/// Waits until no client's requests are looked into any more, or the next case could be answered by this one's routes.
fn without_rules(lab: &Lab, fixture: &Fixture) -> Result<()> {
    for from in ["gateway-conformance-mesh", "gateway-conformance-mesh-consumer"] {
        for (namespace, name) in fixture.services() {
            for port in [80, 7070] {
                let url = format!("http://{name}.{namespace}:{port}");
                let probe = Exchange { from: from.to_owned(), url, ..Exchange::default() };
                eventually(&format!("no rules for {}", probe.url), || {
                    let answers = ask(lab, fixture, &probe, 1, 1)?;
                    let headers = &answers[0]["seen"]["headers"];
                    let untouched = headers.is_object() && headers["x-request-id"].is_null();
                    ensure!(untouched, "answered was {}", answers[0]);
                    Ok(())
                })?;
            }
        }
    }
    Ok(())
}
