//! `bulk`: many bytes both ways at once; each end makes its stream from a seed and checks the other's.
//!
//! The client sends a header (seed, length), then both send `length` bytes at the same time and half-close. The
//! server's last 9 bytes say what it received: count and verdict.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::dial::Target;
use super::errno;
use super::pattern::Pattern;

const CHUNK: usize = 32 * 1024;
const STACK: usize = 256 * 1024;

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// Connections at the same time
    #[arg(long, default_value_t = 1)]
    connections: u64,
    /// Bytes each way, over all connections together
    #[arg(long, default_value_t = 64 << 20)]
    bytes: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let address = options.target.address()?;
    let length = options.bytes / options.connections.max(1);
    let start = Instant::now();
    let work = |seed: u64| {
        let options = options.clone();
        thread::Builder::new().stack_size(STACK).spawn(move || {
            let stream = options.target.dial(address)?.stream;
            // Threads wait here, one per direction, whatever the style of the connect.
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(options.target.timeout()))?;
            client(&stream, seed, length)
        })
    };
    let started: Vec<_> = (1..=options.connections).map(work).collect::<io::Result<_>>()?;
    let mut failures = Vec::new();
    for (thread, number) in started.into_iter().zip(1_u64..) {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failures.push(format!("{number}: {}", errno::name(&error))),
            Err(_) => failures.push(format!("{number}: panic")),
        }
    }
    super::report(&json!({
        "ok": failures.is_empty(),
        "connections": options.connections,
        "bytes_each_way": length * options.connections,
        "seconds": start.elapsed().as_secs_f64(),
        "failed": failures.len(),
        "failures": failures.iter().take(10).collect::<Vec<_>>(),
    }));
    Ok(())
}

fn client(stream: &TcpStream, seed: u64, length: u64) -> io::Result<()> {
    let mut header = [0; 16];
    header[..8].copy_from_slice(&seed.to_be_bytes());
    header[8..].copy_from_slice(&length.to_be_bytes());
    let mut stream = stream;
    stream.write_all(&header)?;
    thread::scope(|scope| {
        let sending = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || {
            send(stream, seed, length).and_then(|()| stream.shutdown(Shutdown::Write))
        })?;
        receive(stream, !seed, length)?;
        let mut verdict = [0; 9];
        let mut reader = stream;
        reader.read_exact(&mut verdict)?;
        sending.join().map_err(|_| io::Error::other("sender panicked"))??;
        let [count @ .., good] = verdict;
        if u64::from_be_bytes(count) != length || good != 1 {
            return Err(io::Error::other("the server received other bytes"));
        }
        expect_end(stream)
    })
}

/// The server's side of one connection.
pub(crate) fn serve(stream: &TcpStream) -> io::Result<()> {
    let mut reader = stream;
    let mut header = [0; 16];
    reader.read_exact(&mut header)?;
    let number = |at: usize| header[at..at + 8].iter().fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte));
    let (seed, length) = (number(0), number(8));
    thread::scope(|scope| {
        let sending =
            thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || send(stream, !seed, length))?;
        let good = receive(stream, seed, length).and_then(|()| expect_end(stream)).is_ok();
        sending.join().map_err(|_| io::Error::other("sender panicked"))??;
        let mut verdict = [0; 9];
        verdict[..8].copy_from_slice(&length.to_be_bytes());
        verdict[8] = good.into();
        let mut writer = stream;
        writer.write_all(&verdict)
    })
}

fn send(mut stream: &TcpStream, seed: u64, mut left: u64) -> io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let mut buffer = vec![0; CHUNK];
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
        pattern.fill(&mut buffer[..length]);
        stream.write_all(&buffer[..length])?;
        left -= length as u64;
    }
    Ok(())
}

fn receive(stream: &TcpStream, seed: u64, length: u64) -> io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let mut buffer = vec![0; CHUNK];
    let mut left = length;
    while left > 0 {
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
        let count = read(stream, &mut buffer[..room])?;
        if count == 0 {
            return Err(io::Error::other(format!("end after {} of {length} bytes", length - left)));
        }
        if let Some(at) = pattern.mismatch(&buffer[..count]) {
            return Err(io::Error::other(format!("wrong byte at {}", length - left + at as u64)));
        }
        left -= count as u64;
    }
    Ok(())
}

/// A process that was stopped and goes on is interrupted where it waits with a timeout.
fn read(mut stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn expect_end(stream: &TcpStream) -> io::Result<()> {
    match read(stream, &mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("bytes after the end")),
    }
}
