//! `load`: HTTP requests at a fixed rate. The schedule doesn't wait for answers, so a slow answer delays nobody's
//! count: a request that had to wait for its connection is timed from the moment it was due.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::Args;
use serde_json::json;

use super::dial::{Conn, Target};
use super::errno;

/// Different answers that are counted one by one.
const ANSWERS: usize = 16;

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// Requests per second, all connections together
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Connections (or, with --close, clients) that take turns
    #[arg(long, default_value_t = 1)]
    connections: u32,
    /// A new connection for every request
    #[arg(long)]
    close: bool,
    /// How long; without it, until stdin closes
    #[arg(long)]
    seconds: Option<f64>,
}

/// What a client saw.
#[derive(Default)]
struct Tally {
    micros: Vec<u64>,
    failed: BTreeMap<String, u64>,
    answers: BTreeMap<String, u64>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.micros.extend(other.micros);
        for (error, count) in other.failed {
            *self.failed.entry(error).or_default() += count;
        }
        for (answer, count) in other.answers {
            self.count_answer(answer, count);
        }
    }

    fn count_answer(&mut self, answer: String, count: u64) {
        if self.answers.len() < ANSWERS || self.answers.contains_key(&answer) {
            *self.answers.entry(answer).or_default() += count;
        }
    }

    fn percentile(&self, percent: usize) -> u64 {
        let at = (self.micros.len() * percent / 100).min(self.micros.len().saturating_sub(1));
        self.micros.get(at).copied().unwrap_or_default()
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let address = options.target.address()?;
    let stop = AtomicBool::new(false);
    let start = Instant::now();
    let mut total = Tally::default();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..options.connections)
            .map(|number| {
                scope.spawn({
                    let stop = &stop;
                    move || client(options, address, number, start, stop)
                })
            })
            .collect();
        if options.seconds.is_none() {
            super::wait_for_stdin();
            stop.store(true, Ordering::Relaxed);
        }
        for client in clients {
            total.add(client.join().map_err(|_| anyhow!("a client panicked"))?);
        }
        anyhow::Ok(())
    })?;
    total.micros.sort_unstable();
    let failed: u64 = total.failed.values().sum();
    super::report(&json!({
        "ok": failed == 0,
        "requests": total.micros.len() as u64 + failed,
        "failed": failed,
        "errors": total.failed,
        "answers": total.answers,
        "p50_us": total.percentile(50),
        "p90_us": total.percentile(90),
        "p99_us": total.percentile(99),
        "max_us": total.micros.last(),
        "seconds": start.elapsed().as_secs_f64(),
    }));
    Ok(())
}

/// Sends every `connections`-th request of the schedule, from the `number`-th on.
fn client(options: &Options, address: SocketAddr, number: u32, start: Instant, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    let mut conn = None;
    let every = Duration::from_secs(1) / options.rate.max(1);
    let mut due = start + every * number;
    let end = options.seconds.map(|seconds| start + Duration::from_secs_f64(seconds));
    while !stop.load(Ordering::Relaxed) && end.is_none_or(|end| due < end) {
        let begun = wait_until(due);
        match request(options, address, &mut conn) {
            Ok(answer) => {
                tally.micros.push(begun.elapsed().as_micros() as u64);
                tally.count_answer(answer, 1);
            }
            Err(error) => {
                conn = None;
                *tally.failed.entry(errno::name(&error)).or_default() += 1;
            }
        }
        due += every * options.connections;
    }
    tally
}

/// Returns when a request that is due then begins: now, if that moment is past, counted from it.
fn wait_until(due: Instant) -> Instant {
    let left = due.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return due;
    }
    #[allow(clippy::disallowed_methods, reason = "the schedule is the point; nothing is awaited")]
    thread::sleep(left);
    // Not from `due`: how late the kernel wakes this thread is not the network's doing.
    Instant::now()
}

fn request(options: &Options, address: SocketAddr, kept: &mut Option<Conn>) -> io::Result<String> {
    let mut conn = match kept.take() {
        Some(conn) => conn,
        None => {
            let conn = options.target.dial(address)?;
            conn.stream.set_nodelay(true)?;
            conn
        }
    };
    let how = if options.close { "close" } else { "keep-alive" };
    let answer = ask(&mut conn, &options.target.to, how)?;
    if !options.close {
        *kept = Some(conn);
    }
    Ok(answer)
}

/// One request on a connection that is kept: the first line of the answer's body.
pub(super) fn get(conn: &mut Conn, host: &str) -> io::Result<String> {
    ask(conn, host, "keep-alive")
}

fn ask(conn: &mut Conn, host: &str, how: &str) -> io::Result<String> {
    let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: {how}\r\n\r\n");
    conn.write_all(text.as_bytes())?;
    read_answer(conn)
}

/// The first line of the body of a 200 with a Content-Length; whatever else comes is an error.
fn read_answer(conn: &mut Conn) -> io::Result<String> {
    let mut raw = Vec::with_capacity(512);
    let mut buffer = [0; 4096];
    loop {
        if let Some(body) = complete(&raw)? {
            let text = String::from_utf8_lossy(body);
            return Ok(text.lines().next().unwrap_or_default().to_owned());
        }
        match conn.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => raw.extend_from_slice(&buffer[..count]),
        }
    }
}

fn complete(raw: &[u8]) -> io::Result<Option<&[u8]>> {
    let Some(end) = raw.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&raw[..end]).to_ascii_lowercase();
    if !head.starts_with("http/1.1 200 ") {
        let status = head.lines().next().unwrap_or_default().to_owned();
        return Err(io::Error::new(io::ErrorKind::InvalidData, status));
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.and_then(|text| text.trim().parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let body = &raw[end + 4..];
    Ok((body.len() >= length).then(|| &body[..length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_last_byte() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        for cut in 0..whole.len() {
            assert_eq!(complete(&whole[..cut]).expect("no error"), None);
        }
        assert_eq!(complete(whole).expect("no error"), Some(&b"abc"[..]));
        assert!(complete(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").is_err());
    }
}
