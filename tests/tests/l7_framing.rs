//! L7 at the edges of HTTP: messages that two readers might read in two ways, ends in the middle, slow bodies, other
//! protocols after a switch. The server notes what it is asked: nobody gets anything past the client's node.

#[path = "l7/odd_messages.rs"]
mod odd_messages;
#[path = "l7/talk.rs"]
mod talk;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use talk::{SOON, SUBSETS, agents_kib, asked, curl, in_force, raw, record, to};
use warren_tests::checks;
use warren_tests::lab::{Cmd, Lab, poll_until, run_checks};

const ODD_SERVER: &str = include_str!("l7/odd_server.py");
const ODD_CLIENT: &str = include_str!("l7/odd_client.py");

#[test]
fn the_edges_of_http_hold() {
    Lab::builder()
        .two_versions()
        .service("web", |service| service.namespace("shop").port("http", 80, 8080).select("app", "web"))
        .test(|lab| {
            lab.start_mesh()?;
            let server = |name: &str| lab.pod(name).serve_python(ODD_SERVER, ["8080"]);
            let _servers = [server("near")?, server("far")?];
            lab.write_manifest("subsets.yaml", SUBSETS)?;
            let (near, far) = (json!([{ "uri": { "prefix": "/near/" } }]), json!({ "uri": "/" }));
            in_force(
                lab,
                "odd",
                &[
                    json!({ "match": near, "rewrite": far, "route": [to("v1")] }),
                    json!({ "route": [to("v2")] }),
                ],
            )?;
            run_checks(
                lab,
                checks![
                    odd_messages::what_is_odd_is_refused_or_means_one_thing,
                    early_answers_are_passed_on,
                    trailers_and_hints,
                    who_waits_for_an_answer_and_goes_takes_its_request_along,
                    who_has_only_said_all_is_still_answered,
                    servers_that_end_in_the_middle,
                    slow_bodies_pass_as_they_come,
                    nobody_is_sent_more_than_it_takes,
                    websockets_pass_with_their_codes,
                    connect_is_a_tunnel,
                ],
            )
        });
}

fn odd(lab: &Lab, kind: &str, path: &str) -> Cmd {
    lab.pod("client").python(ODD_CLIENT).resolve_names().args([kind, "web", "80", path])
}

/// What a client of this kind saw.
fn client(lab: &Lab, kind: &str, path: &str) -> Result<Value> {
    odd(lab, kind, path).within(Duration::from_secs(60)).json()
}

/// What the far server was asked since it was last asked this: its notes.
fn notes(lab: &Lab) -> Result<Value> {
    asked(lab, "http://web/asked", &[])
}

fn early_answers_are_passed_on(lab: &Lab) -> Result<()> {
    for place in ["", "/near"] {
        let seen = client(lab, "early", &format!("{place}/early/202"))?;
        let first = seen["first"].as_str().unwrap_or_default();
        ensure!(first.starts_with("HTTP/1.1 202 "), "{seen}");
        ensure!(seen["second"].as_str().unwrap_or_default().starts_with("HTTP/1.1 200 "), "{seen}");
    }
    let file = lab.dir().join("body");
    std::fs::write(&file, vec![b'x'; 3_000_000])?;
    let upload = file.display().to_string();
    // On the client's node what the server said is read though it resets the connection a moment later.
    for code in ["413", "417"] {
        let url = format!("http://web/near/refuse/{code}");
        for expect in ["Expect: 100-continue", "Expect:"] {
            let seen = curl(lab, &url, &["-T", &upload, "-H", expect, "-w", " %{http_code}"])?;
            ensure!(seen == format!("refused {code}"), "{url}, {expect}: {seen}");
        }
    }
    notes(lab)?;
    let seen = curl(lab, "http://web/taken", &["-T", &upload, "-H", "Expect: 100-continue"])?;
    ensure!(seen.contains("\"body\": 3000000") && !seen.contains("expect"), "{seen}");
    Ok(())
}

fn trailers_and_hints(lab: &Lab) -> Result<()> {
    for place in ["", "/near"] {
        let ask = format!(
            r"POST {place}/trailers HTTP/1.1\r\nHost: web\r\nTE: trailers\r\nTrailer: x-mine\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-mine: 1\r\n\r\n"
        );
        let answer = raw(lab, "80", &ask)?;
        ensure!(answer.ends_with("5\r\nhello\r\n0\r\nx-sum: 3\r\n\r\n"), "{answer}");
        let answer = raw(lab, "80", &format!(r"GET {place}/hints HTTP/1.1\r\nHost: web\r\n\r\n"))?;
        ensure!(answer.starts_with("HTTP/1.1 200 ") && answer.matches("HTTP/1.1 ").count() == 1, "{answer}");
    }
    let notes_now = notes(lab)?;
    ensure!(notes_now.to_string().contains("x-mine: 1"), "{notes_now}");
    Ok(())
}

fn who_waits_for_an_answer_and_goes_takes_its_request_along(lab: &Lab) -> Result<()> {
    notes(lab)?;
    for kind in ["leave", "abort"] {
        let path = format!("/hold?{kind}");
        client(lab, kind, &path)?;
        let flow = record(lab, &path)?;
        ensure!(
            flow["flags"] == "DC" && flow["request"]["details"] == "downstream_remote_disconnect",
            "{flow}"
        );
        poll_until(&format!("the server to hear that its client has gone ({kind})"), SOON, || {
            let notes = notes(lab).ok()?;
            notes["ended"].as_array()?.iter().any(|ended| *ended == *path).then_some(())
        })?;
    }
    client(lab, "abort-body", "/upload")?;
    let flow = record(lab, "/upload")?;
    ensure!(flow["flags"] == "DC", "{flow}");
    Ok(())
}

fn who_has_only_said_all_is_still_answered(lab: &Lab) -> Result<()> {
    // Longer than the client's node takes to look.
    let seen = client(lab, "half-close", "/slow-chunks")?;
    ensure!(
        seen["how"] == "end" && seen["text"].as_str().unwrap_or_default().ends_with("0\r\n\r\n"),
        "{seen}"
    );
    let late = odd(lab, "half-close", "/stall").spawn()?;
    talk::under_way(lab, "/stall")?;
    // Its client's node looks every second; it goes on when it was asked twice.
    for _ in 0..3 {
        client(lab, "slow", "/wait")?;
    }
    notes(lab)?;
    let seen = late.report(Duration::from_secs(20))?;
    ensure!(seen["text"].as_str().unwrap_or_default().starts_with("HTTP/1.1 200 "), "{seen}");
    Ok(())
}

fn servers_that_end_in_the_middle(lab: &Lab) -> Result<()> {
    for place in ["", "/near"] {
        for (path, status, flags) in
            [("/reset", "503", "UC"), ("/close", "503", "UC"), ("/noise", "502", "UPE")]
        {
            let path = format!("{place}{path}?{}", path.len());
            let seen = client(lab, "read", &path)?;
            let head = seen["head"].as_str().unwrap_or_default();
            ensure!(
                head.starts_with(&format!("HTTP/1.1 {status} ")) && seen["how"] == "end",
                "{path}: {seen}"
            );
            let flow = record(lab, &path)?;
            ensure!(flow["flags"] == flags && flow["error"].is_string(), "{path}: {flow}");
        }
        for path in ["/half-reset", "/half-close"] {
            let path = format!("{place}{path}");
            let seen = client(lab, "read", &path)?;
            let bytes = seen["bytes"].as_u64().unwrap_or_default();
            ensure!(
                bytes < 2000 && seen["head"].as_str().unwrap_or_default().contains(" 200 "),
                "{path}: {seen}"
            );
            ensure!(record(lab, &path)?["flags"] == "UC");
        }
        let seen = client(lab, "read", &format!("{place}/to-the-end"))?;
        ensure!(
            seen["head"].as_str().unwrap_or_default().contains(" 200 ") && seen["how"] == "end",
            "{seen}"
        );
        ensure!(record(lab, &format!("{place}/to-the-end"))?["flags"] == "-");
    }
    Ok(())
}

fn slow_bodies_pass_as_they_come(lab: &Lab) -> Result<()> {
    notes(lab)?;
    for place in ["", "/near"] {
        let seen = client(lab, "slow", &format!("{place}/slow"))?;
        ensure!(seen["text"].as_str().unwrap_or_default().contains("\"body\": 10"), "{seen}");
        let url = format!("http://web{place}/slow-chunks");
        let seen = curl(lab, &url, &["-N", "-w", " %{time_starttransfer} %{time_total}"])?;
        let words: Vec<_> = seen.split(' ').collect();
        ensure!(words.len() == 3 && words[0] == "0123456789", "{seen}");
        let (first, last): (f64, f64) = (words[1].parse()?, words[2].parse()?);
        ensure!(last - first >= 0.7, "{seen}: it came at once");
    }
    Ok(())
}

fn nobody_is_sent_more_than_it_takes(lab: &Lab) -> Result<()> {
    notes(lab)?;
    let before = agents_kib(lab)?;
    // Buffers of two agents, and of the kernel at four ends.
    let limit = 64 << 20;
    let mut stalled = odd(lab, "stall", "/flood").with_stdin().spawn()?;
    stalled.wait_for("stalled", Duration::from_secs(30))?;
    let notes_now = notes(lab)?;
    let sent = notes_now["sent"]["/flood"].as_u64().with_context(|| notes_now.to_string())?;
    ensure!(sent < limit, "{sent} bytes were sent to one who does not read");
    stalled.report(Duration::from_secs(20))?;
    let pushed = client(lab, "push", "/stall")?;
    let sent = pushed["sent"].as_u64().unwrap_or(u64::MAX);
    ensure!(sent < limit, "{sent} bytes were taken for one who does not read");
    let grown = agents_kib(lab)?.saturating_sub(before);
    ensure!(grown < 32 << 10, "they cost {grown} KiB");
    Ok(())
}

fn websockets_pass_with_their_codes(lab: &Lab) -> Result<()> {
    notes(lab)?;
    for place in ["", "/near"] {
        let path = format!("{place}/socket");
        let seen = client(lab, "websocket", &path)?;
        let head = seen["head"].as_str().unwrap_or_default();
        ensure!(
            head.starts_with("HTTP/1.1 101 ") && head.to_lowercase().contains("sec-websocket-accept: "),
            "{seen}"
        );
        ensure!(seen["good"] == true && seen["first"] == 0x88 && seen["code"] == 4001, "{seen}");
        ensure!(seen["how"] == "end", "{seen}");
        let flow = record(lab, &path)?;
        ensure!(flow["request"]["status"] == 101 && flow["flags"] == "-", "{flow}");
    }
    let notes_now = notes(lab)?;
    ensure!(notes_now["ended"] == json!([4000]), "{notes_now}");
    Ok(())
}

fn connect_is_a_tunnel(lab: &Lab) -> Result<()> {
    let seen = client(lab, "connect", "elsewhere:443")?;
    ensure!(seen["head"].as_str().unwrap_or_default().starts_with("HTTP/1.1 200 "), "{seen}");
    // Each direction ends by itself.
    ensure!(
        seen["echoed"] == "to the other end" && seen["last"] == "the end" && seen["how"] == "end",
        "{seen}"
    );
    Ok(())
}
