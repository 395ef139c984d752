//! `warren ca rotate`, and rotation by age: new keys under traffic, and nobody notices but who has old papers.

#[path = "../boundaries/forge.rs"]
#[allow(dead_code, reason = "the boundaries use all of it")]
mod forge;
#[path = "../boundaries/peer.rs"]
#[allow(dead_code, reason = "the boundaries use all of it")]
mod peer;
#[path = "../turmoil/mod.rs"]
mod turmoil;

mod plugged;

use anyhow::{Context as _, Result, ensure};
use forge::{Ca, Papers, Valid};
use peer::{Ask, Client};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use turmoil::{SOON, at, must_be_clean, shop, stream, until_reached};
use warren_tests::lab::{Lab, Proc, poll_until};

const FRIEND: &str = "spiffe://cluster.local/ns/shop/sa/friend";
/// A rotation of a root, with pauses of some seconds between its phases.
const LONG: Duration = Duration::from_secs(90);

/// What `warren ca status` says.
fn status(lab: &Lab) -> Result<Value> {
    Ok(serde_json::from_str(&lab.warren_ca(["status", "-o", "json"]).stdout()?)?)
}

fn phase(lab: &Lab) -> Option<String> {
    Some(status(lab).ok()?["rotation"]["phase"].as_str()?.to_owned())
}

fn until_phase(lab: &Lab, wanted: &str) -> Result<()> {
    let mut last = Value::Null;
    let there = poll_until(&format!("the phase {wanted}"), LONG, || {
        last = status(lab).ok()?;
        (last["rotation"]["phase"] == wanted).then_some(())
    });
    there.with_context(|| format!("the last status: {last:#}"))
}

/// Every phase that is seen until the CA is steady again.
fn phases_until_steady(lab: &Lab) -> Result<Vec<String>> {
    let mut seen = Vec::<String>::new();
    let over = poll_until("the rotation to be over", LONG, || {
        // The controller may be away for a moment.
        let phase = phase(lab)?;
        if seen.last() != Some(&phase) {
            seen.push(phase);
        }
        (seen.len() > 1 && seen.last().is_some_and(|phase| phase == "steady")).then_some(())
    });
    over.with_context(|| format!("seen: {seen:?}, now: {:#}", status(lab).unwrap_or_default()))?;
    Ok(seen)
}

/// The roots that a node trusts, by serial number.
fn roots(lab: &Lab, node: &str) -> Result<BTreeSet<String>> {
    let certs = lab.node(node).admin("/v1/certs")?;
    let roots = certs["roots"].as_array().context("no roots")?;
    Ok(roots.iter().filter_map(|root| Some(root["serial"].as_str()?.to_owned())).collect())
}

/// The serial numbers of a node's certificates.
fn serials(lab: &Lab, node: &str) -> Result<BTreeSet<String>> {
    let certs = lab.node(node).admin("/v1/certs")?;
    let all = certs["certificates"].as_array().context("no certificates")?;
    Ok(all.iter().filter_map(|one| Some(one["serial"].as_str()?.to_owned())).collect())
}

/// A connection that lasts, and new ones all the time; every byte is checked.
struct Traffic {
    long: Proc,
    fresh: Proc,
    back: Proc,
}

impl Traffic {
    fn start(lab: &Lab) -> Result<Self> {
        let (client, far) = (lab.pod("client"), lab.pod("far"));
        for (from, to) in [(&client, &far), (&far, &client)] {
            until_reached(from, &at(to, 9000))?;
        }
        let fresh = ["--reconnect-after", "1", "--connections", "2", "--pause-ms", "20"];
        Ok(Self {
            long: stream(&client, &at(&far, 9000), &["--connections", "2", "--pause-ms", "5"])?,
            fresh: stream(&client, &at(&far, 9000), &fresh)?,
            back: stream(&far, &at(&client, 9000), &fresh)?,
        })
    }

    fn must_be_clean(self) -> Result<()> {
        let long = must_be_clean(self.long, "the connection that lasts")?;
        ensure!(long["connects"] == 2, "{long}");
        for (fresh, what) in [(self.fresh, "new connections"), (self.back, "new connections back")] {
            let fresh = must_be_clean(fresh, what)?;
            ensure!(fresh["connects"].as_u64() > Some(50), "{fresh}");
        }
        Ok(())
    }
}

/// What a peer from outside gets with these papers.
fn knock(lab: &Lab, papers: &Papers) -> Result<u16> {
    let far = lab.pod("far");
    let gateway = SocketAddr::from((far.ip4(), 15008));
    let stranger = lab.pod("outside-near");
    Ok(Client::new(&stranger, Some(papers)).ask(gateway, &Ask::Connect(&at(&far, 9000), None))?.0)
}

fn servers(lab: &Lab) -> Result<Vec<Proc>> {
    ["client", "near", "far"].iter().map(|pod| lab.pod(pod).serve(["echo", "--port", "9000"])).collect()
}

#[test]
fn both_certificates_are_replaced_by_hand_under_traffic_and_old_papers_are_worthless() {
    shop().controller_arg("--ca-settle=3s").test(|lab| {
        lab.start_mesh()?;
        let _servers = servers(lab)?;
        let traffic = Traffic::start(lab)?;
        let old_papers = Ca::of_mesh(lab)?.sign(FRIEND, Valid::Now)?;
        ensure!(knock(lab, &old_papers)? == 200, "they are good while they are");
        let (old_roots, before) = (roots(lab, "n2")?, [serials(lab, "n1")?, serials(lab, "n2")?]);

        // The signing certificate: every certificate is another, by the same root.
        let said = lab.warren_ca(["rotate", "-o", "json"]).stdout()?;
        let said: Value = serde_json::from_str(&said)?;
        ensure!(said["rotation"]["phase"] == "renewing" && said["rotation"]["kind"] == "signer", "{said}");
        let busy = lab.warren_ca(["rotate", "--root"]).run()?;
        ensure!(busy.stderr.contains("a rotation is under way"), "{busy:?}");
        ensure!(phases_until_steady(lab)? == ["renewing", "steady"], "other phases");
        for (node, before) in ["n1", "n2"].iter().zip(&before) {
            ensure!(serials(lab, node)?.is_disjoint(before), "{node} has old certificates");
            ensure!(roots(lab, node)? == old_roots, "{node}");
        }

        // The root, with a controller that dies while it is being distributed, and its successor while old ones are renewed.
        lab.warren_ca(["rotate", "--root"]).stdout()?;
        ensure!(status(lab)?["roots"].as_array().is_some_and(|roots| roots.len() == 2), "{:#}", status(lab)?);
        lab.controller().kill();
        lab.controller().start()?;
        until_phase(lab, "renewing")?;
        lab.controller().kill();
        lab.controller().start()?;
        let seen = phases_until_steady(lab)?;
        ensure!(seen.last().is_some_and(|last| last == "steady"), "{seen:?}");
        for node in ["n1", "n2"] {
            let now = roots(lab, node)?;
            ensure!(
                now.len() == 1 && now.is_disjoint(&old_roots),
                "{node} trusts {now:?}, once {old_roots:?}"
            );
        }
        let refused = knock(lab, &old_papers);
        ensure!(refused.is_err(), "old papers: {refused:?}");
        let new_papers = Ca::of_mesh(lab)?.sign(FRIEND, Valid::Now)?;
        ensure!(knock(lab, &new_papers)? == 200, "new papers");
        traffic.must_be_clean()?;
        let shown = lab.warren_ca(["status"]).stdout()?;
        ensure!(shown.contains("no rotation is under way") && shown.contains("retired"), "{shown}");

        // Nor are they worth anything after a restart of an agent, which starts from what it was told last.
        lab.node("n2").agent().restart()?;
        ensure!(roots(lab, "n2")?.is_disjoint(&old_roots), "after a restart");
        until_reached(&lab.pod("client"), &at(&lab.pod("far"), 9000))
    });
}

#[test]
fn age_replaces_both_without_anybody_asking() {
    let mut shop = shop().controller_arg("--ca-settle=2s").controller_arg("--certificate-lifetime=20s");
    for arg in ["--ca-root-lifetime=45s", "--ca-signer-lifetime=24s", "--ca-rotate-at=66"] {
        shop = shop.controller_arg(arg);
    }
    shop.test(|lab| {
        lab.start_mesh()?;
        let _servers = servers(lab)?;
        let traffic = Traffic::start(lab)?;
        let (old_roots, old_papers) = (roots(lab, "n1")?, Ca::of_mesh(lab)?.sign(FRIEND, Valid::Now)?);
        let signer = |status: &Value| status["rotation"]["signer"].as_str().map(str::to_owned);
        let first = signer(&status(lab)?);
        poll_until("another signing certificate", LONG, || {
            let now = status(lab).ok()?;
            (now["rotation"]["kind"] == "signer" && signer(&now) != first).then_some(())
        })?;
        ensure!(roots(lab, "n1")? == old_roots, "by the same root");
        poll_until("another root, alone", LONG, || {
            let gone = |node: &str| Some(roots(lab, node).ok()?.is_disjoint(&old_roots));
            (gone("n1")? && gone("n2")?).then_some(())
        })?;
        let refused = knock(lab, &old_papers);
        ensure!(refused.is_err(), "old papers: {refused:?}");
        let ends = lab.node("n1").metric("warren_certificate_expiry_timestamp_seconds", &[])?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        ensure!((now - 1.0..now + 21.0).contains(&ends), "{ends} at {now}");
        traffic.must_be_clean()
    });
}

#[test]
fn an_agent_that_was_down_for_all_of_it_is_waited_for_and_finds_its_way_back() {
    let shop = shop().controller_arg("--ca-settle=1s").controller_arg("--certificate-lifetime=8s");
    shop.test(|lab| {
        lab.start_mesh()?;
        let _servers = servers(lab)?;
        let (client, far) = (lab.pod("client"), lab.pod("far"));
        until_reached(&client, &at(&far, 9000))?;
        let old_roots = roots(lab, "n2")?;
        poll_until("what n2 was told to be saved", SOON, || {
            lab.dir().join("nodes/n2/state/trust.json").exists().then_some(())
        })?;
        lab.node("n2").agent().kill();
        let start = Instant::now();
        lab.warren_ca(["rotate", "--root"]).stdout()?;
        poll_until("n2 to be missed", SOON, || {
            let behind = status(lab).ok()?["rotation"]["behind"].clone();
            behind.as_array()?.iter().any(|one| one == "n2: not connected").then_some(())
        })?;
        phases_until_steady(lab)?;
        // As long as a certificate lives, and again until the last one that it could have had has expired.
        ensure!(start.elapsed() > Duration::from_secs(16), "over after {:?}", start.elapsed());
        ensure!(roots(lab, "n1")?.is_disjoint(&old_roots), "n1");
        lab.node("n2").agent().start()?;
        for (from, to) in [(&client, &far), (&far, &client)] {
            until_reached(from, &at(to, 9000))?;
        }
        ensure!(roots(lab, "n2")? == roots(lab, "n1")?, "n2");
        Ok(())
    });
}
