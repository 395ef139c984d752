//! Messages that two readers might read in two ways, and some that mean one thing.

use anyhow::{Result, ensure};
use serde_json::Value;
use warren_tests::lab::Lab;

use crate::{client, notes};

/// Refused, and all that comes after them.
const BAD: &[&str] = &[
    r"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    r"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    r"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    r"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5, 5\r\n\r\nhello",
    r"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: +5\r\n\r\nhello",
    r"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0x5\r\n\r\nhello",
    r"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: -1\r\n\r\nhello",
    r"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
    r"POST / HTTP/1.1\r\nHost: web\r\nContent-Length : 5\r\n\r\nhello",
    r"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    r"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    r"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    r"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    r"POST / HTTP/1.0\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    r"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    r"GET / HTTP/1.1\nHost: web\n\n",
    r"GET / HTTP/1.1\r\nHost: web\r\nX: a\nContent-Length: 40\r\n\r\n",
    r"GET / HTTP/1.1\r\nHost: web\r\nX: a\r b\r\n\r\n",
    r"GET / HTTP/1.1\r\nHost: web\r\nX: a\r\n b\r\n\r\n",
    r"GET / HTTP/1.1\r\n Host: web\r\n\r\n",
    r"GET / HTTP/1.1\r\nHost: web\r\nX: a\x00b\r\n\r\n",
    r"GET /\x00 HTTP/1.1\r\nHost: web\r\n\r\n",
    r"GET / HTTP/1.1\r\nHost: web\r\nHost: other\r\n\r\n",
    r"GET / HTTP/1.1\r\n\r\n",
    r"GET  / HTTP/1.1\r\nHost: web\r\n\r\n",
    r"GET / HTTP/1.1 \r\nHost: web\r\n\r\n",
    r"GET / HTTP/1.2\r\nHost: web\r\n\r\n",
    r"GET / HTTP/3.0\r\nHost: web\r\n\r\n",
    r"GET /\r\nHost: web\r\n\r\n",
    r"G(T / HTTP/1.1\r\nHost: web\r\n\r\n",
    r"GET / HTTP/1.1\r\nHost: web\r\n: nothing\r\n\r\n",
    r"GET / HTTP/1.1\r\nHost: web\r\nno colon\r\n\r\n",
];

/// Refused; where they end is clear.
const BAD_HOSTS: &[&str] = &["a b", "user@web", "web/path", "[::1", "web:99999"];

/// Chunked bodies that go bad.
const BAD_CHUNKS: &[&str] = &[
    r"5\r\nhelloX\r\n0\r\n\r\n",
    r"5\nhello\n0\n\n",
    r"g\r\n",
    r"-5\r\nhello",
    r"ffffffffffffffffff\r\n",
    r"5\r\nhello\r\n0\r\nX: a\n\n",
];

/// With the number of requests that they are.
const GOOD: &[(&str, usize)] = &[
    (r"GET http://web/absolute HTTP/1.1\r\nHost: web\r\n\r\n", 1),
    (r"\r\nGET /after-a-line HTTP/1.1\r\nHost: web\r\n\r\n", 1),
    (r"GET /old HTTP/1.0\r\n\r\n", 1),
    (r"OPTIONS * HTTP/1.1\r\nHost: web\r\n\r\n", 1),
    (
        r"POST /sized HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhelloGET /second HTTP/1.1\r\nHost: web\r\n\r\n",
        2,
    ),
    (
        r"POST /chunked HTTP/1.1\r\nHost: web\r\ntransfer-encoding: Chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nx: 1\r\n\r\nGET /third HTTP/1.1\r\nHost: web\r\n\r\n",
        2,
    ),
];

const SMUGGLED: &str = r"GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n";

/// What is answered to each of the texts, on a connection of its own.
fn answers(lab: &Lab, texts: impl IntoIterator<Item = String>) -> Result<Vec<(String, String)>> {
    let texts: Vec<_> = texts.into_iter().collect();
    let seen = client(lab, "raw", &serde_json::to_string(&texts)?)?;
    let answers: Vec<String> = serde_json::from_value(seen["answers"].clone())?;
    ensure!(answers.len() == texts.len(), "{seen}");
    Ok(texts.into_iter().zip(answers).collect())
}

/// Of every response. They stand behind each other's bodies.
fn statuses(answer: &str) -> Vec<&str> {
    answer
        .split("HTTP/1.")
        .skip(1)
        .filter_map(|rest| rest.get(2..5))
        .filter(|status| status.parse::<u16>().is_ok())
        .collect()
}

/// Fails if the server has got a whole request, or what came after a bad one.
fn nothing_came(lab: &Lab) -> Result<()> {
    let notes = notes(lab)?;
    ensure!(!notes.to_string().contains("smuggled"), "{notes}");
    let mut asked = notes["asked"].as_array().into_iter().flatten();
    ensure!(asked.all(|note| note["body"].is_null()), "what is bad reached the server: {notes}");
    Ok(())
}

pub(crate) fn what_is_odd_is_refused_or_means_one_thing(lab: &Lab) -> Result<()> {
    notes(lab)?;
    let extension = "x".repeat(2000);
    let chunked = r"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n";
    let large = format!(r"{chunked}5;{extension}\r\nhello\r\n0\r\n\r\n");
    let bad = BAD.iter().map(ToString::to_string).chain([large]).map(|bad| format!("{bad}{SMUGGLED}"));
    let hosts = BAD_HOSTS.iter().map(|host| format!(r"GET /bad-host HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    for (text, answer) in answers(lab, bad.chain(hosts))? {
        ensure!(statuses(&answer) == ["400"], "{text}: {answer}");
    }
    nothing_came(lab)?;
    // The request fails, however far it has come; what follows is not read as another one.
    for (text, answer) in answers(lab, BAD_CHUNKS.iter().map(|bad| format!("{chunked}{bad}{SMUGGLED}")))? {
        let seen = statuses(&answer);
        ensure!(seen.is_empty() || seen == ["400"], "{text}: {answer}");
    }
    nothing_came(lab)?;

    let many = r"GET /pipelined HTTP/1.1\r\nHost: web\r\n\r\n".repeat(20);
    let good = || GOOD.iter().copied().chain([(many.as_str(), 20)]);
    for ((_, count), (text, answer)) in good().zip(answers(lab, good().map(|(text, _)| text.to_owned()))?) {
        ensure!(statuses(&answer) == vec!["200"; count], "{text}: {answer}");
    }
    let notes = notes(lab)?;
    let asked: Vec<&Value> = notes["asked"].as_array().into_iter().flatten().collect();
    let wanted: usize = good().map(|(_, count)| count).sum();
    ensure!(asked.len() == wanted, "{} requests became {}: {notes}", wanted, asked.len());
    ensure!(asked.iter().filter(|note| note["body"] == 5).count() == 2, "{notes}");
    ensure!(asked.iter().any(|note| note["line"] == "GET /absolute HTTP/1.1"), "{notes}");
    let old = asked.iter().find(|note| note["line"] == "GET /old HTTP/1.1");
    ensure!(
        old.is_some_and(|note| note["headers"]["host"].as_str().is_some_and(|host| host.ends_with(":80"))),
        "{notes}"
    );
    Ok(())
}
