//! Whether an answer is what a case expects: the suite's rules. Pure.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use http::Uri;
use serde_json::Value;

use crate::cases::{Exchange, Redirect};

/// How far a share may be off, in points of percent.
const TOLERANCE: f64 = 5.0;

/// What is wrong with an answer (as `warren-workload ask` tells it), if anything.
pub(crate) fn check(wanted: &Exchange, answer: &Value) -> Result<()> {
    ensure!(answer["error"].is_null(), "{}", answer["error"]);
    ensure!(answer["status"] == wanted.status, "status {} instead of {}", answer["status"], wanted.status);
    headers("the response", &answer["headers"], &wanted.response.headers, &wanted.response.absent)?;
    if let Some(redirect) = &wanted.redirect {
        let location = joined(&answer["headers"], "location").context("there is no Location")?;
        self::redirect(wanted, redirect, &location)?;
    }
    let seen = &answer["seen"];
    if let Some(code) = answer["grpc"].as_i64() {
        ensure!(code == i64::from(wanted.grpc), "gRPC status {code} ({seen}) instead of {}", wanted.grpc);
    }
    if wanted.answered_here {
        ensure!(!seen.is_object(), "a backend has seen it: {seen}");
    }
    if wanted.answered_here || wanted.status != 200 || wanted.grpc != 0 {
        return Ok(());
    }
    if let Some(backend) = &wanted.backend {
        let pod = seen["pod"].as_str().unwrap_or_default();
        ensure!(deployment(pod) == backend, "answered by {seen} instead of a pod of {backend}");
    }
    if let Some(namespace) = &wanted.namespace {
        ensure!(seen["namespace"] == **namespace, "answered by {seen} instead of a pod in {namespace}");
    }
    let path = wanted.seen.path.as_ref().unwrap_or(&wanted.path);
    ensure!(seen["path"] == **path, "the backend saw {} instead of {path}", seen["path"]);
    ensure!(
        seen["method"] == *wanted.method || !answer["grpc"].is_null(),
        "the backend saw {}",
        seen["method"]
    );
    for (name, value) in [("host", &wanted.seen.host), ("proto", &wanted.seen.proto)] {
        let Some(value) = value else { continue };
        ensure!(seen[name] == **value, "{name} is {} instead of {value}", seen[name]);
    }
    let own = deployment(seen["pod"].as_str().unwrap_or_default());
    let named =
        wanted.seen.headers.iter().map(|(name, value)| (name.clone(), value.replace("{backend}", own)));
    headers("the request", &seen["headers"], &named.collect(), &wanted.seen.absent)
}

/// A pod's name is its Deployment's with two words more.
fn deployment(pod: &str) -> &str {
    pod.rsplitn(3, '-').nth(2).unwrap_or_default()
}

/// The values of a header, joined.
fn joined(all: &Value, name: &str) -> Option<String> {
    let values = all[name.to_ascii_lowercase()].as_array()?;
    let values: Vec<_> = values.iter().filter_map(Value::as_str).collect();
    Some(values.join(","))
}

fn headers(whose: &str, all: &Value, wanted: &BTreeMap<String, String>, absent: &[String]) -> Result<()> {
    for (name, value) in wanted {
        let found = joined(all, name);
        ensure!(found.as_ref() == Some(value), "{name} of {whose} is {found:?} instead of {value:?}");
    }
    for name in absent {
        let found = joined(all, name);
        ensure!(found.is_none(), "{name} of {whose} is {found:?} instead of absent");
    }
    Ok(())
}

fn redirect(wanted: &Exchange, to: &Redirect, location: &str) -> Result<()> {
    let asked: Uri = wanted.url.as_deref().context("no URL")?.parse()?;
    let found: Uri = location.parse().with_context(|| format!("Location {location:?}"))?;
    let is = (found.scheme_str(), found.host(), found.port_u16(), found.path());
    let should = (
        to.scheme.as_deref().or(asked.scheme_str()),
        to.host.as_deref().or(asked.host()),
        to.port.or(asked.port_u16()),
        to.path.as_deref().unwrap_or(&wanted.path),
    );
    ensure!(is == should, "Location is {location:?} instead of {should:?}");
    Ok(())
}

/// What is wrong with how answers are spread over deployments (percent), if anything.
pub(crate) fn check_shares(wanted: &BTreeMap<String, f64>, answers: &[Value]) -> Result<()> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for answer in answers {
        let Some(pod) = answer["seen"]["pod"].as_str() else { bail!("one of the answers is {answer}") };
        *counts.entry(deployment(pod)).or_default() += 1;
    }
    let known = counts.keys().all(|name| wanted.contains_key(*name));
    let close = wanted.iter().all(|(name, share)| {
        let count = f64::from(counts.get(name.as_str()).copied().unwrap_or_default());
        count > 0.0 && (count * 100.0 / answers.len() as f64 - share).abs() <= TOLERANCE
    });
    ensure!(known && close, "of {} answers {counts:?} instead of {wanted:?} percent", answers.len());
    Ok(())
}

/// What is wrong with so many of all, if anything.
pub(crate) fn check_share(what: &str, percent: f64, count: usize, all: usize) -> Result<()> {
    let found = count as f64 * 100.0 / all as f64;
    // All are all.
    let close = if percent < 100.0 { (found - percent).abs() <= TOLERANCE } else { count == all };
    ensure!(close, "{what} got {found} percent instead of {percent}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn exchange(yaml: &str) -> Exchange {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn what_differs_is_told() {
        let answer = json!({
            "status": 200,
            "headers": { "x-by": ["a", "b"] },
            "seen": {
                "pod": "echo-v1-rs0-0",
                "namespace": "mesh",
                "method": "GET",
                "path": "/a",
                "host": "h",
                "proto": "HTTP/1.1",
                "headers": { "x": ["1", "2"] },
            },
        });
        for (wanted, wrong) in [
            ("{path: /a, backend: echo-v1, namespace: mesh}", ""),
            ("{path: /a, response: {headers: {X-By: 'a,b'}, absent: [x]}}", ""),
            ("{path: /b, seen: {path: /a, headers: {X: '1,2'}, absent: [y]}}", ""),
            ("{path: /a, status: 404}", "status"),
            ("{path: /b}", "/b"),
            ("{path: /a, seen: {path: /b}}", "/b"),
            ("{path: /a, backend: echo-v2}", "echo-v2"),
            ("{path: /a, backend: echo}", "echo"),
            ("{path: /a, namespace: other}", "other"),
            ("{path: /a, response: {headers: {X-By: a}}}", "X-By"),
            ("{path: /a, response: {absent: [X-By]}}", "X-By"),
            ("{path: /a, seen: {host: h, proto: HTTP/1.1}}", ""),
            ("{path: /a, seen: {host: x}}", "host"),
            ("{path: /a, seen: {headers: {X: '{backend}'}}}", "echo-v1"),
            ("{path: /a, seen: {proto: HTTP/2.0}}", "proto"),
            ("{path: /a, method: POST}", "GET"),
            ("{path: /a, answered_here: true}", "has seen it"),
            ("{path: /a, seen: {headers: {X: '1'}}}", "X"),
            ("{path: /a, seen: {headers: {Y: '1'}}}", "Y"),
            ("{path: /a, seen: {absent: [X]}}", "X"),
        ] {
            let told = check(&exchange(wanted), &answer).err().map(|error| format!("{error:#}"));
            assert_eq!(told.is_some(), !wrong.is_empty(), "{wanted}: {told:?}");
            assert!(told.unwrap_or_default().contains(wrong), "{wanted}");
        }
        assert!(check(&Exchange::default(), &json!({ "error": "refused" })).is_err());
        let call = json!({ "status": 200, "headers": {}, "grpc": 12, "seen": "" });
        assert!(check(&exchange("{grpc: 12}"), &call).is_ok());
        assert!(check(&Exchange::default(), &call).is_err());
    }

    #[test]
    fn a_redirect_changes_what_is_said_and_nothing_else() {
        for (redirect, location, holds) in [
            ("{}", "http://echo/a", true),
            ("{}", "/a", false),
            ("{}", "http://echo:80/a", false),
            ("{}", "https://echo/a", false),
            ("{scheme: https}", "https://echo/a", true),
            ("{scheme: https}", "https://echo:443/a", false),
            ("{host: example.org, port: 8083}", "http://example.org:8083/a", true),
            ("{host: example.org}", "http://echo/a", false),
            ("{path: /b}", "http://echo/b", true),
            ("{path: /b}", "http://echo/a", false),
        ] {
            let wanted =
                exchange(&format!("{{url: 'http://echo', path: /a, status: 302, redirect: {redirect}}}"));
            let answer = json!({ "status": 302, "headers": { "location": [location] } });
            assert_eq!(check(&wanted, &answer).is_ok(), holds, "{redirect} {location}");
        }
        let wanted = exchange("{url: 'http://echo', status: 302, redirect: {}}");
        assert!(check(&wanted, &json!({ "status": 302, "headers": {} })).is_err());
    }

    #[test]
    fn shares_are_within_five_points() {
        let wanted = BTreeMap::from([("a".to_owned(), 70.0), ("b".to_owned(), 30.0)]);
        let spread = |counts: &[(&str, usize)]| {
            let of_one = |&(name, count): &(&str, usize)| {
                std::iter::repeat_n(json!({ "seen": { "pod": format!("{name}-rs0-0") } }), count)
            };
            check_shares(&wanted, &counts.iter().flat_map(of_one).collect::<Vec<_>>())
        };
        assert!(spread(&[("a", 345), ("b", 155)]).is_ok());
        assert!(spread(&[("a", 380), ("b", 120)]).is_err());
        assert!(spread(&[("a", 500)]).is_err());
        assert!(spread(&[("a", 345), ("b", 150), ("c", 5)]).is_err());
        assert!(check_shares(&wanted, &[json!({ "error": "refused" })]).is_err());
        for (percent, count, holds) in
            [(20.0, 124, true), (20.0, 126, false), (100.0, 500, true), (100.0, 499, false)]
        {
            assert_eq!(check_share("x", percent, count, 500).is_ok(), holds, "{percent} {count}");
        }
    }
}
