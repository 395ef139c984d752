//! Cases against the lab, one after the other.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use warren_tests::lab::{Lab, Pod, poll_until};

use crate::cases::{Case, Exchange};
use crate::fixture::{Fixture, Running};
use crate::{expect, status};

/// How long it may take until answers are what they should be.
const CONSISTENT: Duration = Duration::from_secs(30);
/// So many of them in a row have to be.
const IN_A_ROW: usize = 3;
/// How often a request is repeated where shares count, by how many clients, and how often that may fail.
const REPEATED: usize = 500;
const CLIENTS: usize = 10;
const TRIES: usize = 10;
const FILE: &str = "case.yaml";

/// The lab with the suite in it.
pub(crate) struct Bench<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) fixture: &'a Fixture,
    pub(crate) running: &'a Running,
    /// Who asks unless a case says otherwise, and what.
    pub(crate) client: Pod,
    pub(crate) url: &'a str,
    /// Requests that tell whether the routes of a case are gone.
    pub(crate) probes: Vec<Exchange>,
}

/// Runs all cases, prints a line for each, and fails with every failure. `WARREN_CHECK=word` runs only those whose names
/// contain the word.
pub(crate) fn run_all(
    bench: &Bench<'_>,
    what: &str,
    cases: &BTreeMap<String, Case>,
    manifests: &BTreeMap<String, Vec<Value>>,
) -> Result<()> {
    let only = std::env::var("WARREN_CHECK").unwrap_or_default();
    let (mut all, mut failures) = (0, Vec::new());
    for (name, case) in cases.iter().filter(|(name, _)| name.contains(&only)) {
        let manifests = manifests.get(name).with_context(|| format!("the suite has no {name}"))?;
        let began = Instant::now();
        let outcome = bench.run(case, manifests);
        let seconds = began.elapsed().as_secs_f64();
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        say(&format!("    {word} {name} ({seconds:.1} s)"));
        all += 1;
        failures.extend(outcome.err().map(|error| format!("{name}: {error:#}")));
    }
    say(&format!("    {} of {all} {what}", all - failures.len()));
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// Past libtest's capture: a list of what was proven belongs into every report.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

impl Bench<'_> {
    /// Applies a case's manifests, asks, and takes them away again.
    fn run(&self, case: &Case, manifests: &[Value]) -> Result<()> {
        if manifests.is_empty() {
            return self.ask_all(case);
        }
        let outcome = self.hold(case, manifests);
        self.lab.remove_manifest(FILE)?;
        self.without_rules()?;
        outcome
    }

    fn hold(&self, case: &Case, manifests: &[Value]) -> Result<()> {
        self.apply(case, manifests, 7)?;
        self.in_force(case.requests.first().context("no requests")?)?;
        self.ask_all(case)?;
        // As after a change of something that does not matter.
        self.apply(case, manifests, 8)
    }

    /// Writes the manifests in a generation, as the API server counts them, and waits for its status.
    fn apply(&self, case: &Case, manifests: &[Value], generation: u64) -> Result<()> {
        let mut manifests = manifests.to_vec();
        for object in &mut manifests {
            object["metadata"]["generation"] = json!(generation);
        }
        let texts: Vec<_> = manifests.iter().map(Value::to_string).collect();
        self.lab.write_manifest(FILE, &texts.join("\n---\n"))?;
        manifests.retain(is_route);
        eventually("the status", || status::check(self.lab, &manifests, case.resolved.as_deref()))
    }

    fn ask_all(&self, case: &Case) -> Result<()> {
        for exchange in &case.requests {
            eventually(&format!("{exchange:?}"), || {
                (0..IN_A_ROW).try_for_each(|_| {
                    let exchange = self.fresh(exchange);
                    let answer = self.ask(&exchange, 1, 1)?.remove(0);
                    expect::check(&exchange, &answer).with_context(|| format!("answered was {answer}"))
                })
            })?;
            if !exchange.mirrors.is_empty() {
                repeatedly(|| self.mirrored(exchange))?;
            }
        }
        if !case.shares.is_empty() {
            let exchange = case.requests.first().context("nothing to repeat")?;
            repeatedly(|| {
                let answers = self.ask(&self.fresh(exchange), REPEATED, case.clients)?;
                expect::check_shares(&case.shares, &answers)
            })?;
        }
        Ok(())
    }

    /// Waits until requests are looked into: some answers are right without rules, too.
    fn in_force(&self, exchange: &Exchange) -> Result<()> {
        eventually(&format!("rules for {exchange:?}"), || {
            let answer = self.ask(&self.fresh(exchange), 1, 1)?.remove(0);
            ensure!(answer["error"].is_null() && !is_untouched(&answer), "answered was {answer}");
            Ok(())
        })
    }

    /// The same request as no other, with what is not said filled in.
    fn fresh(&self, exchange: &Exchange) -> Exchange {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let mut fresh = exchange.clone();
        fresh.url.get_or_insert_with(|| self.url.to_owned());
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        fresh.path = fresh.path.replace("UUID", &format!("n{number}"));
        fresh
    }

    /// Whether as many copies come as should. They are on their own way: what comes is counted until no more does.
    fn mirrored(&self, exchange: &Exchange) -> Result<()> {
        let exchange = self.fresh(exchange);
        self.ask(&exchange, REPEATED, CLIENTS)?;
        for (deployment, percent) in &exchange.mirrors {
            let (mut count, mut since) = (0, Instant::now());
            poll_until("the last copy", CONSISTENT, || {
                let now = self.running.seen(deployment, &exchange.path);
                if now != count {
                    (count, since) = (now, Instant::now());
                }
                (since.elapsed() > Duration::from_millis(500)).then_some(())
            })?;
            expect::check_share(deployment, *percent, count, REPEATED)?;
        }
        Ok(())
    }

    /// Asks so often, by so many clients; the answers.
    fn ask(&self, exchange: &Exchange, count: usize, clients: usize) -> Result<Vec<Value>> {
        let pod = match &exchange.from {
            Some(namespace) => self.fixture.pod(self.lab, namespace, "echo-v1")?,
            None => self.client.clone(),
        };
        let mut url = exchange.url.as_deref().unwrap_or(self.url).to_owned();
        if let Some((before, rest)) = url.split_once('{') {
            let (deployment, after) = rest.split_once('}').context("no end")?;
            url =
                format!("{before}{}{after}", self.fixture.pod(self.lab, pod.namespace(), deployment)?.ip4());
        }
        let mut command = pod.workload(["ask", &format!("{url}{}", exchange.path)]);
        command = command.args(["--method", &exchange.method]);
        command = command.args(["--count", &count.to_string(), "--parallel", &clients.to_string()]);
        for (name, value) in &exchange.headers {
            command = command.args(["-H", &format!("{name}: {value}")]);
        }
        match command.resolve_names().within(Duration::from_secs(60)).json()? {
            Value::Array(answers) if answers.len() == count => Ok(answers),
            other => bail!("{count} answers were expected: {other}"),
        }
    }

    /// Waits until no request is looked into any more, or the next case could be answered by this one's routes.
    fn without_rules(&self) -> Result<()> {
        for probe in &self.probes {
            eventually(&format!("no rules for {probe:?}"), || {
                let answer = self.ask(probe, 1, 1)?.remove(0);
                ensure!(is_untouched(&answer), "answered was {answer}");
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Whether a backend saw the request as the client sent it.
fn is_untouched(answer: &Value) -> bool {
    let headers = &answer["seen"]["headers"];
    headers.is_object() && headers["x-request-id"].is_null()
}

pub(crate) fn is_route(object: &Value) -> bool {
    object["kind"].as_str().is_some_and(|kind| kind.ends_with("Route"))
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

/// A draw may be an unlucky one; that it was is said.
fn repeatedly(holds: impl Fn() -> Result<()>) -> Result<()> {
    for _ in 1..TRIES {
        match holds() {
            Ok(()) => return Ok(()),
            Err(error) => say(&format!("    again: {error:#}")),
        }
    }
    holds()
}
