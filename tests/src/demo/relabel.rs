//! Step 8: a namespace leaves the mesh and comes back, under traffic.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::scene::Scene;
use super::wire::Seen;
use crate::lab::{Proc, poll_until};

/// Requests per second of the client that never stops.
const RATE: &str = "200";
/// Requests that it gets through before the next change.
const PHASE: usize = 200;

/// The label goes and returns; nobody is restarted and no request is lost.
pub(crate) fn without_restart(scene: &mut Scene<'_>) -> Result<()> {
    scene.story.step("Out of the mesh and back, under traffic")?;
    scene.story.say(&format!(
        "From here to the end of this step the client sends {RATE} requests per second to http://web.shop/,\n\
         each on a new connection, and counts what fails."
    ))?;
    let load = start_load(scene)?;
    scene.await_requests(PHASE)?;

    scene.story.typed("you$", "kubectl label namespace shop warren.dev/mesh-")?;
    scene.lab.enrol("shop", false)?;
    scene.await_enrolled(&[])?;
    scene.warren("n1", &["status"])?;
    scene.await_requests(PHASE)?;
    let seen = ask_on_record(scene, "state=OUT-OF-THE-MESH", "barrier=FIRST")?;
    let claim = "out of the mesh: served as before, and the capture shows the request in plaintext";
    scene.story.prove(claim, seen.shows("state=OUT-OF-THE-MESH"), "it is not in the capture")?;

    scene.story.typed("you$", "kubectl label namespace shop warren.dev/mesh=enabled")?;
    scene.lab.enrol("shop", true)?;
    scene.await_enrolled(&["client", "web-1", "web-2"])?;
    await_tunnels(scene)?;
    scene.await_requests(PHASE)?;
    let seen = ask_on_record(scene, "state=BACK-IN-THE-MESH", "barrier=SECOND")?;
    scene.warren("n1", &["flows", "--pod", "client", "--last", "2"])?;
    let claim = "back in the mesh: tunnels again, and the capture does not show the request";
    scene.story.prove(claim, !seen.shows("state=BACK-IN-THE-MESH"), "it is in the capture")?;

    let report = load.report(Duration::from_secs(10))?;
    let count = |key: &str| report[key].as_u64().context("the client did not report");
    let (requests, failed) = (count("requests")?, count("failed")?);
    scene.story.say("The client that never stopped:")?;
    let slowest = report["max_us"].as_f64().unwrap_or_default() / 1000.0;
    let mut table = format!("{requests} requests, {failed} failed, the slowest took {slowest:.0} ms\n");
    for (answer, times) in report["answers"].as_object().into_iter().flatten() {
        table += &format!("{times:>5} x {answer}\n");
    }
    scene.story.output(&table)?;
    let claim = format!("none of its {requests} requests failed");
    scene.story.prove(&claim, failed == 0 && requests > 0, &report)?;
    let alive = scene.servers.iter_mut().all(|(_, nginx)| nginx.is_running());
    let claim = "no process was restarted";
    scene.story.prove(claim, alive, "nginx ended")
}

/// The client asks web-2 with `query`; what the capture has when that request has passed, which the outsider's
/// plaintext request after it proves.
fn ask_on_record(scene: &Scene<'_>, query: &str, barrier: &str) -> Result<Seen> {
    scene.ask_far("client", query)?;
    scene.ask_far("outsider", barrier)?;
    scene.wire.seen_until(barrier)
}

fn start_load(scene: &Scene<'_>) -> Result<Proc> {
    let words = ["load", "--to", "web.shop:80", "--rate", RATE, "--connections", "4", "--close"];
    scene.lab.pod("client").workload(words).resolve_names().with_stdin().spawn()
}

/// The other agent may learn of the enrolment a moment later: until the client's node opens tunnels again.
fn await_tunnels(scene: &Scene<'_>) -> Result<()> {
    poll_until("the client to be tunnelled again", Duration::from_secs(10), || {
        let client = scene.ask_far("client", "still=plaintext").ok()?;
        let flow = scene.flow_from("n1", &client).ok()?;
        (flow["transport"] == "hbone").then_some(())
    })
}
