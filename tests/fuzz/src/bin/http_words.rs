//! Words in headers and queries that routing decides by: timeouts, traces, cookies and parameters that are hashed.
#![no_main]

use http::header::{COOKIE, HeaderMap, HeaderValue};
use std::net::Ipv4Addr;
use std::time::Duration;
use warren_agent::balance::{HashInput, hash_input};
use warren_agent::observe::TraceId;
use warren_agent::route::http::{RequestView, timeout_of};
use warren_common::model::traffic::HashKey;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    timeout(bytes);
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    trace(&value);
    cookie(&value);
    if let Ok(query) = value.to_str() {
        parameter(query);
    }
});

fn timeout(text: &[u8]) {
    let limit = Duration::from_millis(7);
    let alone = timeout_of(None, Some(text));
    assert_eq!(timeout_of(Some(limit), Some(text)), Some(alone.map_or(limit, |alone| alone.min(limit))));
    if let Some(alone) = alone {
        let text = std::str::from_utf8(text).expect("digits and a unit");
        let (number, unit) = text.split_at(text.len() - 1);
        let nanos = ["n", "u", "m", "S", "M", "H"]
            .iter()
            .position(|one| *one == unit)
            .map(|index| [1_u128, 1_000, 1_000_000, 1_000_000_000, 60_000_000_000, 3_600_000_000_000][index]);
        assert_eq!(
            number.parse().ok().zip(nanos).map(|(n, unit): (u128, _)| n * unit),
            Some(alone.as_nanos())
        );
    }
}

/// What is a trace's number stands in the header, and no header makes two of it.
fn trace(value: &HeaderValue) {
    for name in ["traceparent", "b3", "x-b3-traceid"] {
        let headers: HeaderMap = [(http::HeaderName::from_static(name), value.clone())].into_iter().collect();
        let Some(trace) = TraceId::of(&headers) else { continue };
        let number = trace.to_string();
        assert!(number.len() == 32 && number.bytes().any(|digit| digit != b'0'));
        // What follows the number may be anything.
        let text = String::from_utf8_lossy(value.as_bytes());
        assert!(text.contains(&number) || text.contains(&number[16..]), "{number} is not in {text}");
    }
}

fn hashed(key: &HashKey, headers: &HeaderMap, query: Option<&str>) -> Option<u64> {
    let request = RequestView { method: "GET", scheme: "http", authority: "web", path: "/", query, headers };
    let found = hash_input(key, &request, Ipv4Addr::LOCALHOST.into(), 1);
    assert!(!matches!(found, HashInput::NewCookie { .. }), "nobody asked for one");
    found.hash()
}

/// The first cookie counts, whatever comes after it and in how many headers it comes.
fn cookie(value: &HeaderValue) {
    let key = HashKey::Cookie { name: "id".into(), path: None, ttl_s: None, attributes: Vec::new() };
    let of = |values: &[&[u8]]| {
        let values = values.iter().filter_map(|value| HeaderValue::from_bytes(value).ok());
        hashed(&key, &values.map(|value| (COOKIE, value)).collect(), None)
    };
    let value = value.as_bytes();
    let alone = of(&[value]);
    let other = of(&[b"id=other"]);
    assert_eq!(of(&[&[value, b"; id=other"].concat()]), alone.or(other));
    assert_eq!(of(&[value, b"id=other"]), alone.or(other));
    assert_eq!(of(&[b"id=other", value]), other);
    assert!(alone.is_none() || value.windows(3).any(|part| part == b"id="));
}

fn parameter(query: &str) {
    let (key, headers) = (HashKey::Query("id".into()), HeaderMap::new());
    let of = |query: &str| hashed(&key, &headers, Some(query));
    assert_eq!(of(&format!("{query}&id=other")), of(query).or(of("id=other")));
    assert_eq!(of(&format!("id=other&{query}")), of("id=other"));
}
