//! L7 with servers and clients that people use: nginx, Python's, curl, h2load, wrk.
#![allow(clippy::print_stdout, reason = "figures that a person wants to see")]

#[path = "l7/talk.rs"]
mod talk;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use talk::{SOON, SUBSETS, curl, in_force, raw, record, status};
use warren_tests::checks;
use warren_tests::lab::{Lab, Proc, poll_until, run_checks};

const CONFIG: &str = include_str!("l7/nginx.conf");

#[test]
fn servers_and_clients_that_people_use() {
    Lab::builder()
        .two_versions()
        .service("web", |service| {
            let service = service.namespace("shop").port("http", 80, 8080).port("http2", 81, 8081);
            service.port("auto", 82, 8080).port("http-old", 83, 8000).select("app", "web")
        })
        .test(|lab| {
            lab.start_mesh()?;
            let _servers = [nginx(lab, "near")?, nginx(lab, "far")?];
            lab.write_manifest("subsets.yaml", SUBSETS)?;
            run_checks(
                lab,
                checks![
                    connections_are_kept_and_closed_as_asked,
                    bodies_come_compressed_chunked_and_in_parts,
                    answers_without_a_body,
                    what_is_too_large_is_refused_by_whom_it_is_too_large_for,
                    clients_of_http_1_0,
                    http_2_at_either_end,
                    servers_of_http_1_0,
                    h2load_many_requests_on_few_connections,
                    wrk_keeps_its_connections,
                ],
            )
        });
}

fn prefix(lab: &Lab, name: &str) -> PathBuf {
    lab.dir().join(format!("nginx-{name}"))
}

/// Lines that gzip makes much smaller, all different.
fn text() -> String {
    (0..5000).map(|line| format!("line {line} of a text\n")).collect()
}

fn nginx(lab: &Lab, name: &str) -> Result<Proc> {
    let prefix = prefix(lab, name);
    fs::create_dir_all(prefix.join("files"))?;
    let config = CONFIG.replace("PODNAME", name).replace("PADDING", &"x".repeat(3000));
    fs::write(prefix.join("nginx.conf"), config)?;
    fs::write(prefix.join("files/text.txt"), text())?;
    lab.pod(name).nginx(&prefix, 8080)
}

/// Lines of a server's log that contain `tag`, once there are so many: a line is written after its response.
fn log(lab: &Lab, name: &str, tag: &str, count: usize) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let all = || fs::read_to_string(prefix(lab, name).join("access.log")).unwrap_or_default();
    let found = poll_until(&format!("{count} lines with {tag}"), SOON, || {
        lines = all().lines().filter(|line| line.contains(tag)).map(str::to_owned).collect();
        (lines.len() >= count).then_some(())
    });
    found.with_context(|| format!("{} in the log of {name}", lines.len()))?;
    Ok(lines)
}

fn all_to(lab: &Lab, marker: &str, subset: &str) -> Result<()> {
    in_force(lab, marker, &[json!({ "route": [{ "destination": { "host": "web", "subset": subset } }] })])
}

/// For a server on the client's node and one on another.
fn at_either(lab: &Lab, what: &str, check: impl Fn(&str) -> Result<()>) -> Result<()> {
    for (subset, name) in [("v1", "near"), ("v2", "far")] {
        all_to(lab, &format!("{what}-{name}"), subset)?;
        check(name).with_context(|| name.to_owned())?;
    }
    Ok(())
}

fn connections_are_kept_and_closed_as_asked(lab: &Lab) -> Result<()> {
    at_either(lab, "keep", |name| {
        let seen = curl(lab, "http://web/who?keep-[1-60]", &["-w", "%{num_connects}\n"])?;
        ensure!(seen.matches(name).count() == 60, "{seen}");
        ensure!(
            seen.lines().filter(|line| *line == "1").count() == 1,
            "the client had to connect again: {seen}"
        );
        let lines = log(lab, name, "who?keep-", 60)?;
        let connections: BTreeSet<_> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
        ensure!(lines.len() == 60 && connections.len() == 1, "{} requests, {connections:?}", lines.len());
        // The server ends its connection after each; the client's stays.
        let seen = curl(lab, "http://web/last?[1-5]", &["-w", "%{num_connects}\n"])?;
        ensure!(seen.matches("last").count() == 5 && seen.matches('1').count() == 1, "{seen}");
        // The client ends its own after each.
        let close = ["-H", "Connection: close", "-w", "%{num_connects}\n"];
        let seen = curl(lab, "http://web/who?[1-5]", &close)?;
        ensure!(seen.matches(name).count() == 5 && seen.matches('1').count() == 5, "{seen}");
        let answer = raw(
            lab,
            "80",
            r"GET /who HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\nGET /who HTTP/1.1\r\nHost: web\r\n\r\n",
        )?;
        ensure!(
            answer.matches("HTTP/1.1 200 ").count() == 1 && answer.contains("connection: close"),
            "{answer}"
        );
        Ok(())
    })
}

fn bodies_come_compressed_chunked_and_in_parts(lab: &Lab) -> Result<()> {
    at_either(lab, "bodies", |_| {
        let url = "http://web/text.txt";
        ensure!(curl(lab, url, &[])? == text());
        ensure!(curl(lab, url, &["--compressed"])? == text());
        let head = curl(lab, url, &["-H", "accept-encoding: gzip", "-D", "-", "-o", "/dev/null"])?;
        ensure!(
            head.contains("content-encoding: gzip") && head.contains("transfer-encoding: chunked"),
            "{head}"
        );
        ensure!(!head.contains("content-length"), "{head}");
        let part = curl(lab, url, &["-r", "100-199", "-w", " %{http_code}"])?;
        ensure!(part == format!("{} 206", &text()[100..200]), "{part}");
        let parts = curl(lab, url, &["-r", "0-9,20-29", "-w", " %{http_code} %{content_type}"])?;
        ensure!(
            parts.contains(" 206 multipart/byteranges") && parts.contains("Content-Range: bytes 20-29/"),
            "{parts}"
        );
        ensure!(status(lab, url, &["-r", "99999999-"])? == "416");
        ensure!(curl(lab, "http://web/large-head", &["-D", "-"])?.contains(&"x".repeat(30_000)));
        Ok(())
    })
}

fn answers_without_a_body(lab: &Lab) -> Result<()> {
    at_either(lab, "empty", |name| {
        let head = curl(lab, "http://web/text.txt", &["-I"])?;
        ensure!(
            head.contains("200 OK") && head.contains(&format!("content-length: {}", text().len())),
            "{head}"
        );
        let etag = head.lines().find_map(|line| line.strip_prefix("etag: ")).context("no etag")?;
        let condition = format!("If-None-Match: {etag}");
        // One connection for all: the end of each is found.
        let more =
            ["-H", &condition, "http://web/empty", "http://web/who", "-w", " %{http_code} %{num_connects}\n"];
        let seen = curl(lab, "http://web/text.txt", &more)?;
        let words: Vec<_> = seen.split_whitespace().collect();
        ensure!(words == ["204", "1", name, "200", "0", "304", "0"], "{seen}");
        Ok(())
    })
}

fn what_is_too_large_is_refused_by_whom_it_is_too_large_for(lab: &Lab) -> Result<()> {
    at_either(lab, "large", |name| {
        // For the server: lines of more than 8 KiB, bodies of more than 100 KiB.
        let long = format!("http://web/{}", "a".repeat(9000));
        ensure!(status(lab, &long, &[])? == "414");
        let body = lab.dir().join("large-body");
        fs::write(&body, vec![b'x'; 20_000_000])?;
        let body = body.display().to_string();
        for expect in ["Expect: 100-continue", "Expect:"] {
            let seen = status(
                lab,
                &format!("http://web/who?{expect}").replace(": ", "-"),
                &["-T", &body, "-H", expect],
            )?;
            ensure!(seen == "413", "{expect}: {seen}");
        }
        // For the client's node, of which the server hears nothing.
        let headers = lab.dir().join("long-headers");
        fs::write(&headers, format!("x-long: {}\n", "a".repeat(70_000)))?;
        let headers = format!("@{}", headers.display());
        ensure!(status(lab, "http://web/who?long-headers", &["-H", &headers])? == "431");
        let config = lab.dir().join("long-url");
        fs::write(&config, format!("url = \"http://web/{}\"\n", "b".repeat(70_000)))?;
        let config = config.display().to_string();
        let seen = status(lab, "http://web/who?after", &["-K", &config, "-o", "/dev/null"])?;
        ensure!(seen.contains("414") && seen.contains("200"), "{seen}");
        log(lab, name, "who?after", 1)?;
        ensure!(log(lab, name, "long-headers", 0)?.is_empty() && log(lab, name, "bbbb", 0)?.is_empty());
        Ok(())
    })
}

fn clients_of_http_1_0(lab: &Lab) -> Result<()> {
    at_either(lab, "old", |_| {
        ensure!(curl(lab, "http://web/text.txt", &["--http1.0"])? == text());
        // It knows no chunks: the end is the connection's.
        ensure!(curl(lab, "http://web/text.txt", &["--http1.0", "--compressed"])? == text());
        let head = curl(
            lab,
            "http://web/text.txt",
            &["--http1.0", "-H", "accept-encoding: gzip", "-D", "-", "-o", "/dev/null"],
        )?;
        ensure!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
        let answer = raw(lab, "80", r"GET /who HTTP/1.0\r\n\r\n")?;
        ensure!(answer.contains(" 200 OK\r\n"), "{answer}");
        let kept = r"GET /who HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".repeat(3);
        ensure!(raw(lab, "80", &kept)?.matches(" 200 OK\r\n").count() == 3);
        Ok(())
    })
}

fn http_2_at_either_end(lab: &Lab) -> Result<()> {
    at_either(lab, "two", |name| {
        for (port, protocol) in [("80", "HTTP/1.1"), ("81", "HTTP/2.0"), ("82", "HTTP/1.1")] {
            for (how, version) in [("--http2-prior-knowledge", "2"), ("--http1.1", "1.1"), ("--http2", "2")] {
                // Nothing is said by port 82: nginx there speaks HTTP/1.1 alone, and is spoken to as its client speaks.
                if port == "82" && how == "--http2-prior-knowledge" {
                    continue;
                }
                let tag = format!("?{port}{how}-{name}");
                let url = format!("http://web:{port}/text.txt{tag}");
                ensure!(curl(lab, &url, &[how, "--compressed"])? == text(), "{url}");
                let seen = status(lab, &url, &[how, "-w", "%{http_version}"])?;
                ensure!(seen == version, "{url}: {seen}");
                let lines = log(lab, name, &tag, 2)?;
                ensure!(
                    lines.len() == 2 && lines.iter().all(|line| line.contains(&format!(" {protocol} \"GET"))),
                    "{lines:?}"
                );
            }
        }
        Ok(())
    })
}

fn servers_of_http_1_0(lab: &Lab) -> Result<()> {
    // Says HTTP/1.0 and ends each connection.
    let start = |name: &str| -> Result<Proc> {
        let files = prefix(lab, name).join("files");
        let python = lab.pod(name).command("/usr/bin/python3");
        let args = ["-u", "-m", "http.server", "8000", "--bind", "::", "-d"];
        let mut server = python.args(args).arg(files).spawn()?;
        server.wait_for("Serving", Duration::from_secs(20))?;
        Ok(server)
    };
    let _servers = [start("near")?, start("far")?];
    at_either(lab, "python", |_| {
        let seen = curl(lab, "http://web:83/text.txt?[1-20]", &["-w", "%{num_connects}\n"])?;
        ensure!(seen.len() > 20 * text().len() && seen.matches("line 4999 of").count() == 20);
        ensure!(status(lab, "http://web:83/nothing", &[])? == "404");
        ensure!(curl(lab, "http://web:83/text.txt", &["-I"])?.contains("200 OK"));
        Ok(())
    })
}

/// h2load's sums: succeeded, failed or errored or timed out.
fn h2load(lab: &Lab, args: &[&str]) -> Result<(u64, u64, String)> {
    let command = lab.pod("client").command("h2load").resolve_names();
    let text = command.args(args).within(Duration::from_secs(90)).stdout()?;
    let line = text.lines().find(|line| line.starts_with("requests: ")).with_context(|| text.clone())?;
    let number = |name: &str| -> Result<u64> {
        let part = line.split(", ").find(|part| part.ends_with(name)).with_context(|| line.to_owned())?;
        Ok(part.trim_start_matches("requests: ").split(' ').next().unwrap_or_default().parse()?)
    };
    let bad = number("failed")? + number("errored")? + number("timeout")?;
    Ok((number("succeeded")?, bad, text.clone()))
}

fn h2load_many_requests_on_few_connections(lab: &Lab) -> Result<()> {
    let halves = json!({ "route": [
        { "destination": { "host": "web", "subset": "v1" }, "weight": 50 },
        { "destination": { "host": "web", "subset": "v2" }, "weight": 50 },
    ] });
    in_force(lab, "h2load", &[halves])?;
    for (port, server) in [("80", "HTTP/1.1"), ("81", "HTTP/2.0")] {
        let tag = format!("who?h2load-{port}");
        let url = format!("http://web:{port}/{tag}");
        let (good, bad, text) = h2load(lab, &["-n", "4000", "-c", "2", "-m", "80", &url])?;
        ensure!(good == 4000 && bad == 0 && text.contains("4000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{text}");
        let (near, far) = poll_until("a line for each request", SOON, || {
            let (near, far) = (log(lab, "near", &tag, 0).ok()?, log(lab, "far", &tag, 0).ok()?);
            (near.len() + far.len() >= 4000).then_some((near, far))
        })?;
        ensure!(near.iter().chain(&far).all(|line| line.contains(server)), "{server}: {near:?}");
        // Six deviations of a binomial distribution are 190.
        ensure!(
            near.len() + far.len() == 4000 && near.len().abs_diff(2000) < 190,
            "{} + {}",
            near.len(),
            far.len()
        );
        println!(
            "      h2load to {server}: {}",
            text.lines().find(|line| line.starts_with("finished")).unwrap_or_default()
        );
    }
    Ok(())
}

fn wrk_keeps_its_connections(lab: &Lab) -> Result<()> {
    at_either(lab, "wrk", |name| {
        let command = lab.pod("client").command("wrk").resolve_names();
        let args = ["-t", "1", "-c", "16", "-d", "3s", "--timeout", "20s", "http://web/who?wrk"];
        let text = command.args(args).within(Duration::from_secs(60)).stdout()?;
        ensure!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "{text}");
        let lines = log(lab, name, "who?wrk", 100)?;
        let connections: BTreeSet<_> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
        ensure!(
            lines.len() > 100 && connections.len() <= 64,
            "{} requests, {} connections",
            lines.len(),
            connections.len()
        );
        println!(
            "      wrk to {name}: {}",
            text.lines().find(|line| line.contains("requests in")).unwrap_or_default().trim()
        );
        Ok(())
    })?;
    ensure!(record(lab, "/who?wrk")?["request"]["status"] == 200);
    Ok(())
}
