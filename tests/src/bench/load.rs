//! Runs one load and reads its number: iperf3, wrk, and our own client where a schedule is needed.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::GRACE;
use super::field::{Field, H2C, HTTP, IPERF};
use super::plan::{Measure, Mode, Plan, Route, Sample};

/// What a load generator said.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Reading {
    value: f64,
    amount: f64,
    errors: u64,
}

/// One load, once. A load that fails is a sample too: it says why.
pub(crate) fn sample(
    field: &Field<'_>,
    plan: &Plan,
    round: u32,
    measure: Measure,
    route: Route,
    mode: Mode,
) -> Sample {
    let mut sample = Sample {
        measure,
        route,
        mode,
        round,
        value: None,
        amount: 0.0,
        errors: 0,
        agents_cpu_seconds: 0.0,
        failure: None,
    };
    let taken = field.agents_cpu().and_then(|before| {
        let reading = run(field, plan, measure, route, mode)?;
        Ok((reading, field.agents_cpu()? - before))
    });
    match taken {
        Ok((reading, cpu)) => {
            sample.value = Some(reading.value);
            sample.amount = reading.amount;
            sample.errors = reading.errors;
            sample.agents_cpu_seconds = cpu;
        }
        Err(error) => {
            sample.failure = Some(format!("{error:#}").lines().next().unwrap_or_default().to_owned())
        }
    }
    sample
}

fn run(field: &Field<'_>, plan: &Plan, measure: Measure, route: Route, mode: Mode) -> Result<Reading> {
    let server = field.server(mode, route);
    let client = field.client(mode);
    let seconds = plan.seconds.to_string();
    let limit = Duration::from_secs(plan.seconds.into()) + GRACE;
    let wrk = |connections: &str, more: &[&str]| {
        let command = client.command("wrk").args(["-t1", "-c", connections, "-d", &seconds]).args(more);
        let done = command.arg(format!("http://{server}:{HTTP}/")).within(limit).stdout()?;
        read_wrk(&done).with_context(|| format!("wrk said {done:?}"))
    };
    let close = ["-H", "Connection: close"];
    // Through the mesh by the service's name, whose rules count; else to the same server.
    let name = measure.l7().filter(|_| mode == Mode::Mesh);
    let routed = |more: &[&str]| {
        let url = name.map_or_else(|| format!("http://{server}:{HTTP}/"), |name| format!("http://{name}/"));
        let command = client.command("wrk").resolve_names().args(["-t1", "-c", "32", "-d", &seconds]);
        let done = command.args(more).arg(url).within(limit).stdout()?;
        read_wrk(&done).with_context(|| format!("wrk said {done:?}"))
    };
    let h2load = |calls: &str, path: &str, more: &[&str]| {
        let url = name
            .map_or_else(|| format!("http://{server}:{H2C}{path}"), |name| format!("http://{name}:81{path}"));
        let command = client.command("h2load").resolve_names();
        let command = command.args(["-c1", "-t1", "-m", calls, "-D", &seconds, "-H", "te: trailers"]);
        let done = command.args(["-H", "content-type: application/grpc"]).args(more).arg(url);
        let done = done.within(limit).stdout()?;
        read_h2load(&done).with_context(|| format!("h2load said {done:?}"))
    };
    let iperf = |streams: &str| {
        let command = client.command("iperf3").args(["-J", "-P", streams, "-t", &seconds]);
        let done = command
            .args(["--connect-timeout", "5000", "-p", &IPERF.to_string(), "-c"])
            .arg(server.to_string())
            .within(limit)
            .run()?;
        read_iperf(&done.stdout).with_context(|| format!("{}", done.status))
    };
    match measure {
        Measure::Bulk1 => iperf("1"),
        Measure::Bulk4 => iperf("4"),
        Measure::KeepAlive1 => wrk("1", &[]),
        Measure::KeepAlive32 => wrk("32", &[]),
        Measure::New1 => wrk("1", &close),
        Measure::New32 => wrk("32", &close),
        Measure::Routed | Measure::Hundred => routed(&[]),
        Measure::Matched => routed(&["-H", "end-user: jason"]),
        Measure::Unary => Ok(h2load("32", "/", &[])?.calls()),
        Measure::Streaming => Ok(h2load("4", "/mb", &[])?.bits()),
        Measure::P50 => {
            let to = format!("{server}:{HTTP}");
            let words = ["load", "--to", &to, "--rate", "1000", "--connections", "4", "--seconds", &seconds];
            let report = client.workload(words).within(limit).json()?;
            let number = |key: &str| report[key].as_u64().with_context(|| format!("no {key} in {report}"));
            Ok(Reading {
                value: number("p50_us")? as f64,
                amount: number("requests")? as f64,
                errors: number("failed")?,
            })
        }
    }
}

/// What h2load said of a timed run.
#[derive(Clone, Copy, Debug, PartialEq)]
struct H2Load {
    seconds: f64,
    succeeded: f64,
    failed: u64,
    bytes: f64,
}

impl H2Load {
    fn calls(self) -> Reading {
        Reading { value: self.succeeded / self.seconds, amount: self.succeeded, errors: self.failed }
    }

    fn bits(self) -> Reading {
        Reading { value: self.bytes * 8.0 / self.seconds, amount: self.bytes, errors: self.failed }
    }
}

fn read_h2load(text: &str) -> Result<H2Load> {
    let line = |start: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(start));
        found.with_context(|| format!("no line {start:?}"))
    };
    let before = |line: &str, word: &str| -> Result<f64> {
        let at = line.find(word).with_context(|| format!("no {word:?} in {line:?}"))?;
        let number = line[..at].trim_end().rsplit([' ', '(']).next().unwrap_or_default();
        number.parse().with_context(|| format!("no number before {word:?} in {line:?}"))
    };
    let (finished, requests) = (line("finished in ")?, line("requests: ")?);
    let seconds = finished.split("s,").next().unwrap_or_default().parse()?;
    let succeeded = before(requests, " succeeded")?;
    ensure!(succeeded > 0.0, "no request was answered");
    let failed = before(requests, " failed")? + before(requests, " errored")?;
    let bytes = before(line("traffic: ")?, ") data")?;
    // gRPC's errors are 200, too, and have no body.
    ensure!(bytes >= succeeded, "answers without a body: {requests}, {bytes} bytes");
    Ok(H2Load { seconds, succeeded, failed: failed as u64, bytes })
}

fn read_iperf(text: &str) -> Result<Reading> {
    let report: Value = serde_json::from_str(text).context("iperf3 printed no JSON")?;
    if let Some(error) = report["error"].as_str() {
        bail!("iperf3: {error}");
    }
    let received = &report["end"]["sum_received"];
    let number = |key: &str| received[key].as_f64().with_context(|| format!("iperf3 has no {key}"));
    Ok(Reading { value: number("bits_per_second")?, amount: number("bytes")?, errors: 0 })
}

fn read_wrk(text: &str) -> Result<Reading> {
    let mut reading = Reading { value: 0.0, amount: 0.0, errors: 0 };
    for line in text.lines().map(str::trim) {
        if let Some(rate) = line.strip_prefix("Requests/sec:") {
            reading.value = rate.trim().parse()?;
        } else if let Some((count, _)) = line.split_once(" requests in ") {
            reading.amount = count.parse()?;
        } else if line.starts_with("Socket errors:") || line.starts_with("Non-2xx") {
            let numbers = line.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok());
            reading.errors += numbers.sum::<u64>();
        }
    }
    ensure!(reading.amount > 0.0, "no request was answered");
    Ok(reading)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_read_with_its_errors() {
        let text = "Running 2s test @ http://10.0.0.1/\n  1 threads and 32 connections\n\
                    Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency   100us\n\
                    \x20 4000 requests in 2.00s, 1.00MB read\n\
                    \x20 Socket errors: connect 1, read 2, write 0, timeout 4\n\
                    \x20 Non-2xx or 3xx responses: 5\nRequests/sec:   2000.50\nTransfer/sec: 1MB\n";
        let expected = Reading { value: 2000.5, amount: 4000.0, errors: 12 };
        assert_eq!(read_wrk(text).expect("a reading"), expected);
        assert!(read_wrk("0 requests in 2.00s\nRequests/sec: 0.00\n").is_err());
    }

    #[test]
    fn h2load_is_read_with_its_errors() {
        let text = "starting benchmark...\n\nfinished in 2.00s, 1500.00 req/s, 1.50GB/s\n\
                    requests: 3010 total, 3010 started, 3005 done, 3000 succeeded, 5 failed, 2 errored, 0 timeout\n\
                    status codes: 3000 2xx, 0 3xx, 0 4xx, 5 5xx\n\
                    traffic: 2.9GB (3145728000) total, 5.20KB (5328) headers (space savings 90.00%), 2.9GB (3000000000) data\n";
        let read = read_h2load(text).expect("a reading");
        assert_eq!(read, H2Load { seconds: 2.0, succeeded: 3000.0, failed: 7, bytes: 3e9 });
        assert_eq!(read.calls().value.round(), 1500.0);
        assert_eq!(read.bits().value.round(), 12e9);
        for (part, bad) in [("3000 succeeded", "0 succeeded"), ("(3000000000) data", "(0) data")] {
            assert!(read_h2load(&text.replace(part, bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn iperf_tells_what_arrived_or_why_nothing_did() {
        let text = r#"{"end":{"sum_sent":{"bytes":9},"sum_received":{"bytes":8,"bits_per_second":64.0}}}"#;
        let reading = read_iperf(text).expect("a reading");
        assert_eq!((reading.value, reading.amount), (64.0, 8.0));
        let error = read_iperf(r#"{"error":"unable to connect"}"#).expect_err("an error");
        assert!(error.to_string().contains("unable to connect"));
    }
}
