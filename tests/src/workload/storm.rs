//! `storm`: many quick connections; each carries a token that must come back from the port it asked for.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};
use clap::Args;
use serde_json::json;

use super::dial::Target;
use super::errno;

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// Other destinations, taken in turn with the first
    #[arg(long)]
    also: Vec<String>,
    /// The servers' port is not the one asked for, but this (a service's target port)
    #[arg(long)]
    target_port: Option<u16>,
    /// Connections in all
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// Threads that open them
    #[arg(long, default_value_t = 1)]
    threads: u64,
}

/// What a thread saw.
#[derive(Default)]
struct Tally {
    good: u64,
    /// Answered by somebody else, or cut short.
    lost: u64,
    failed: BTreeMap<String, u64>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut targets = vec![options.target.address()?];
    for also in &options.also {
        targets.push(options.target.with_other(also).address()?);
    }
    let next = AtomicU64::new(0);
    let start = Instant::now();
    let mut total = Tally::default();
    thread::scope(|scope| {
        let started: Vec<_> =
            (0..options.threads).map(|_| scope.spawn(|| one_thread(options, &targets, &next))).collect();
        for thread in started {
            let tally = thread.join().map_err(|_| anyhow!("a thread panicked"))?;
            total.good += tally.good;
            total.lost += tally.lost;
            for (error, count) in tally.failed {
                *total.failed.entry(error).or_default() += count;
            }
        }
        anyhow::Ok(())
    })?;
    super::report(&json!({
        "ok": total.good == options.count,
        "good": total.good,
        "lost": total.lost,
        "failed": total.failed.values().sum::<u64>(),
        "errors": total.failed,
        "seconds": start.elapsed().as_secs_f64(),
    }));
    Ok(())
}

fn one_thread(options: &Options, targets: &[SocketAddr], next: &AtomicU64) -> Tally {
    let mut tally = Tally::default();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= options.count {
            return tally;
        }
        let target = targets[number as usize % targets.len()];
        match one(options, target, number) {
            Ok(true) => tally.good += 1,
            Ok(false) => tally.lost += 1,
            Err(error) => *tally.failed.entry(errno::name(&error)).or_default() += 1,
        }
    }
}

fn one(options: &Options, target: SocketAddr, number: u64) -> io::Result<bool> {
    let mut token = [0; 16];
    token[..8].copy_from_slice(&number.to_be_bytes());
    token[8..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let mut conn = options.target.dial(target)?;
    let seen = conn.stream.peer_addr()?;
    conn.write_all(&token)?;
    let mut answer = [0; 18];
    conn.read_exact(&mut answer)?;
    // The server waits for our end before it closes, so that it has the TIME_WAIT and we keep the port.
    conn.stream.shutdown(Shutdown::Write)?;
    let port = options.target_port.unwrap_or(target.port());
    Ok(answer[..16] == token && answer[16..] == port.to_be_bytes() && seen == target)
}
