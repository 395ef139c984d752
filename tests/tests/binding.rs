//! Connections, tunnels and keys belong to a pod, not to its address or its name: a reused address is refused at both ends
//! and tried again, and of a pod that has gone nothing is left.

#![allow(clippy::print_stdout, reason = "figures that a person wants to see")]

mod turmoil;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use turmoil::{SOON, at, must_be_clean, shop, stream, until_enrolled, until_status};
use warren_tests::lab::{Lab, PodSpec, Proc, poll_until};

/// The last number of the address that is used twice.
const REUSED: u8 = 50;

fn on_n2(name: &str, account: &str) -> PodSpec {
    PodSpec::new(name).on("n2").namespace("shop").service_account(account)
}

fn serve(lab: &Lab, name: &str) -> Result<Proc> {
    lab.pod(name).serve(["server-first", "--port", "9000", "--label", name])
}

/// Who answers at an address.
fn ask(lab: &Lab, to: &str) -> Result<Value> {
    lab.pod("client").workload(["connect", "--to", to, "--read-line", "--timeout-ms", "20000"]).json()
}

/// An address goes from one pod to another while the client's node hears nothing of it. Whoever has it now never gets a
/// connection that is for the first, and the connection that waits gets there as soon as the node knows where.
fn an_address_is_reused(thief: &str, flow_of: &str, says: &str) {
    shop().test(|lab| {
        lab.start_mesh()?;
        lab.add_pod(&on_n2("db", "db").number(REUSED).label("app", "db"))?;
        let first = serve(lab, "db")?;
        let to = at(&lab.pod("db"), 9000);
        until_enrolled(lab.node("n2"), 2)?;
        let answer = ask(lab, &to)?;
        ensure!(answer["line"].to_string().contains("db"), "{answer}");

        lab.plug_controller("n1", false)?;
        lab.delete_pod("db")?;
        drop(first);
        lab.add_pod(&on_n2("thief", thief).number(REUSED))?;
        let _second = serve(lab, "thief")?;
        until_enrolled(lab.node("n2"), 2)?;
        let refused = ask(lab, &to)?;
        ensure!(
            refused["ok"] == false && refused["line"].as_str().unwrap_or_default().is_empty(),
            "{refused}"
        );
        let flow = lab.node(flow_of).until_flow(says, |flow| flow["error"].to_string().contains(says))?;
        ensure!(flow["flags"] == "IDENTITY_ERROR", "{flow}");

        lab.plug_controller("n1", true)?;
        let mut last = Value::Null;
        poll_until("the one who has the address now to be known", SOON, || {
            last = ask(lab, &to).ok()?;
            last["line"].as_str()?.contains("thief").then_some(())
        })
        .with_context(|| format!("the last answer: {last}"))?;
        Ok(())
    });
}

#[test]
fn a_reused_address_of_another_identity_is_refused_by_the_client() {
    an_address_is_reused("thief", "n1", "proved to be spiffe://cluster.local/ns/shop/sa/thief");
}

#[test]
fn a_reused_address_of_the_same_identity_is_refused_by_the_server() {
    an_address_is_reused("db", "n2", "meant for another pod than thief");
}

#[test]
fn a_service_is_not_answered_by_who_took_its_pods_address() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let client = lab.pod("client");
        lab.add_pod(&on_n2("web-2", "web").number(REUSED).label("app", "web"))?;
        let _servers =
            ["near", "far", "web-2"].map(|name| lab.pod(name).serve(["echo", "--port", "9000"]).ok());
        until_enrolled(lab.node("n2"), 2)?;
        let to = format!("{}:90", lab.vip("web")?.0);
        let quick = stream(&client, &to, &["--reconnect-after", "1"])?;
        lab.plug_controller("n1", false)?;
        lab.delete_pod("web-2")?;
        // Of the same identity, and it listens at the same port; but it is not a pod of the service.
        lab.add_pod(&on_n2("thief", "web").number(REUSED))?;
        let _thief = lab.pod("thief").serve(["source", "--port", "9000"])?;
        until_enrolled(lab.node("n2"), 2)?;
        lab.node("n2").until_flow("at the wrong pod", |flow| {
            flow["error"].to_string().contains("meant for another pod than thief")
        })?;
        let report = quick.report(SOON)?;
        // What was open to the pod that was deleted broke with it.
        ensure!(report["corrupt"] == 0 && report["failed_connects"] == 0, "{report}");
        ensure!(report["broken"].as_u64() <= Some(4), "{report}");
        println!("{report}");
        lab.plug_controller("n1", true)
    });
}

/// Files with a key on a node; one that is being written has another extension as yet.
fn keys(lab: &Lab, node: &str) -> usize {
    let folder = lab.dir().join("nodes").join(node).join("state/certs");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "pem")).count()
}

#[test]
fn of_a_deleted_pod_neither_a_tunnel_nor_a_key_is_left() {
    // Those that outlive their connections are shared ones.
    shop().agent_arg("--tunnel").agent_arg("shared").test(|lab| {
        lab.start_mesh()?;
        lab.add_pod(&on_n2("db-0", "db"))?;
        lab.add_pod(&on_n2("db-1", "db"))?;
        let _servers =
            [serve(lab, "db-0")?, serve(lab, "db-1")?, lab.pod("far").serve(["echo", "--port", "9000"])?];
        until_enrolled(lab.node("n2"), 3)?;
        let steady = stream(&lab.pod("client"), &at(&lab.pod("far"), 9000), &[])?;
        for name in ["db-0", "db-1"] {
            let answer = ask(lab, &at(&lab.pod(name), 9000))?;
            ensure!(answer["line"].to_string().contains(name), "{answer}");
        }
        let tunnels = || lab.node("n1").admin("/v1/status").ok()?["tunnels"].as_u64();
        let before = tunnels().context("no number of tunnels")?;
        ensure!(before >= 3, "{before} tunnels");
        let certified =
            || Ok::<_, anyhow::Error>(lab.node("n2").warren(["certs"]).stdout()?.contains("/sa/db"));
        // A certificate serves before it is on the disk.
        poll_until("two keys", SOON, || (keys(lab, "n2") == 2 && certified().ok()?).then_some(()))
            .with_context(|| format!("{} keys", keys(lab, "n2")))?;

        // One of two pods of the identity: its tunnels go, the key stays.
        lab.delete_pod("db-0")?;
        let began = Instant::now();
        poll_until("its idle tunnel to be closed", SOON, || (tunnels()? == before - 1).then_some(()))?;
        println!("its tunnel was closed after {:?}", began.elapsed());
        ensure!(keys(lab, "n2") == 2 && certified()?, "the key is db-1's too");
        lab.delete_pod("db-1")?;
        let began = Instant::now();
        // The two nodes hear of it each at its own time.
        poll_until("the key to be wiped, and the tunnel to be closed", SOON, || {
            (keys(lab, "n2") == 1 && !certified().ok()? && tunnels()? == before - 2).then_some(())
        })
        .with_context(|| format!("{} keys, {:?} tunnels of {before}", keys(lab, "n2"), tunnels()))?;
        println!("wiped after {:?}", began.elapsed());
        must_be_clean(steady, "another pod's connections")?;
        Ok(())
    });
}

#[test]
fn what_a_pod_cannot_end_itself_is_cut_with_the_reason() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let (client, far) = (lab.pod("client"), lab.pod("far"));
        let _server = far.serve(["echo", "--port", "9000"])?;
        let patient =
            ["connect", "--to", &at(&far, 9000), "--send", "hello", "--keep-open", "--timeout-ms", "60000"];
        let open = client.workload(patient).spawn()?;
        lab.node("n2").until_flow("that is open", |flow| {
            flow["state"] == "open" && flow["direction"] == "inbound" && flow["bytes_received"] == 5
        })?;
        // The network goes first: the end of the processes cannot be told any more.
        lab.plug_pod("client", false)?;
        drop(open);
        lab.delete_pod("client")?;
        let began = Instant::now();
        let cut = lab.node("n1").until_flow("of the pod that has gone", |flow| {
            flow["state"] == "closed" && flow["direction"] == "outbound" && flow["error"].is_string()
        })?;
        println!("{} after {:?}", cut["error"], began.elapsed());
        until_status(lab.node("n1"), "no tunnel", |status| status["tunnels"] == 0)?;
        ensure!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        Ok(())
    });
}
