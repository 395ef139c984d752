//! `stream`: checked ping-pong until stdin closes, across whatever happens meanwhile.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::Args;
use serde_json::{Value, json};

use super::dial::{Conn, Target};
use super::errno;
use super::pattern::Pattern;

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// Connections at the same time
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Bytes of a message
    #[arg(long, default_value_t = 512)]
    size: usize,
    /// Pause between messages of a connection
    #[arg(long, default_value_t = 2)]
    pause_ms: u64,
    /// Open a new connection after this many messages; 0: only when one breaks
    #[arg(long, default_value_t = 0)]
    reconnect_after: u64,
}

#[derive(Default)]
struct Tally {
    messages: u64,
    /// Bytes sent that never came back.
    lost_bytes: u64,
    /// Answers that were not what was sent.
    corrupt: u64,
    connects: u64,
    broken: u64,
    failed_connects: u64,
    longest_gap: Duration,
    errors: BTreeMap<String, u64>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let address = options.target.address()?;
    let mut stops = Vec::new();
    let mut threads = Vec::new();
    for seed in 1..=options.connections as u64 {
        let (stop, stopped) = mpsc::channel::<()>();
        let options = options.clone();
        stops.push(stop);
        threads.push(thread::spawn(move || one(&options, address, seed, &stopped)));
    }
    super::report(&json!({ "streaming": true }));
    super::wait_for_stdin();
    drop(stops);
    let mut total = Tally::default();
    for thread in threads {
        total.add(thread.join().map_err(|_| anyhow!("a thread panicked"))?);
    }
    super::report(&total.to_json());
    Ok(())
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.lost_bytes += other.lost_bytes;
        self.corrupt += other.corrupt;
        self.connects += other.connects;
        self.broken += other.broken;
        self.failed_connects += other.failed_connects;
        self.longest_gap = self.longest_gap.max(other.longest_gap);
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
    }

    fn to_json(&self) -> Value {
        let clean =
            self.lost_bytes == 0 && self.corrupt == 0 && self.broken == 0 && self.failed_connects == 0;
        json!({
            "ok": clean && self.messages > 0,
            "messages": self.messages,
            "lost_bytes": self.lost_bytes,
            "corrupt": self.corrupt,
            "connects": self.connects,
            "broken": self.broken,
            "failed_connects": self.failed_connects,
            "longest_gap_ms": self.longest_gap.as_millis() as u64,
            "errors": self.errors,
        })
    }

    fn note(&mut self, stage: &str, error: &io::Error) {
        *self.errors.entry(format!("{stage} {}", errno::name(error))).or_default() += 1;
    }
}

/// Waits a little, as a paced client does; true when it is time to stop.
fn stop_within(stopped: &Receiver<()>, pause: Duration) -> bool {
    !matches!(stopped.recv_timeout(pause), Err(RecvTimeoutError::Timeout))
}

fn one(options: &Options, address: SocketAddr, seed: u64, stopped: &Receiver<()>) -> Tally {
    let mut tally = Tally::default();
    let mut pattern = Pattern::new(seed);
    let mut last_good = Instant::now();
    let mut conn: Option<(Conn, u64)> = None;
    let pause = Duration::from_millis(options.pause_ms);
    loop {
        if stop_within(stopped, if conn.is_some() { pause } else { Duration::from_millis(5) }) {
            tally.longest_gap = tally.longest_gap.max(last_good.elapsed());
            return tally;
        }
        let Some((open, carried)) = &mut conn else {
            tally.connects += 1;
            match options.target.dial(address) {
                Ok(fresh) => conn = Some((fresh, 0)),
                Err(error) => {
                    tally.failed_connects += 1;
                    tally.note("connect", &error);
                }
            }
            continue;
        };
        match ping(open, &mut pattern, options.size) {
            Ok(good) => {
                tally.messages += 1;
                tally.corrupt += u64::from(!good);
                tally.longest_gap = tally.longest_gap.max(last_good.elapsed());
                last_good = Instant::now();
                *carried += 1;
                if options.reconnect_after > 0 && *carried >= options.reconnect_after {
                    conn = None;
                }
            }
            Err(error) => {
                tally.broken += 1;
                tally.lost_bytes += options.size as u64;
                tally.note("message", &error);
                conn = None;
            }
        }
    }
}

fn ping(conn: &mut Conn, pattern: &mut Pattern, size: usize) -> io::Result<bool> {
    let mut message = vec![0; size];
    pattern.fill(&mut message);
    conn.write_all(&message)?;
    let mut answer = vec![0; size];
    conn.read_exact(&mut answer)?;
    Ok(answer == message)
}
