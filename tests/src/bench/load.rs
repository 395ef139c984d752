//! Runs one load and reads its number: iperf3, wrk, and our own client where a schedule is needed.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::GRACE;
use super::field::{Field, HTTP, IPERF};
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
    fn iperf_tells_what_arrived_or_why_nothing_did() {
        let text = r#"{"end":{"sum_sent":{"bytes":9},"sum_received":{"bytes":8,"bits_per_second":64.0}}}"#;
        let reading = read_iperf(text).expect("a reading");
        assert_eq!((reading.value, reading.amount), (64.0, 8.0));
        let error = read_iperf(r#"{"error":"unable to connect"}"#).expect_err("an error");
        assert!(error.to_string().contains("unable to connect"));
    }
}
