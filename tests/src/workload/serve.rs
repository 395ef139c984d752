//! `serve`: one thread per connection; prints a line when all ports are open.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use crate::sys;

mod modes;

/// How often a graceful server looks whether it is to stop.
const POLL: Duration = Duration::from_millis(20);

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// What to do with a connection
    #[arg(value_enum)]
    mode: Mode,
    /// Ports to listen on
    #[arg(long = "port", required = true)]
    ports: Vec<u16>,
    /// Addresses to listen on
    #[arg(long, value_enum, default_value_t)]
    family: Family,
    /// How many bytes `source` sends
    #[arg(long, default_value_t = 1 << 20)]
    bytes: u64,
    /// `witness` ends its own direction at once
    #[arg(long)]
    end_first: bool,
    /// When stdin ends, stop listening, let open connections end, and end: as a server that was told to terminate
    #[arg(long)]
    graceful: bool,
    /// What `http` and `server-first` call themselves
    #[arg(long, default_value = "warren")]
    label: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Family {
    /// 0.0.0.0
    V4,
    /// [::], IPv6 alone
    V6,
    /// [::], with IPv4 as mapped addresses
    #[default]
    Dual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Send back what comes
    Echo,
    /// Say `peer=<getpeername> accept=<accept> local=<getsockname>`
    Whoami,
    /// Send a banner, then echo
    ServerFirst,
    /// Read to the end, then answer with SHA-256 and count
    HalfClose,
    /// Read to the end, then answer with the count
    Sink,
    /// Send a generated stream, then close
    Source,
    /// Tiny HTTP/1.1 with keep-alive; the body names server and peer
    Http,
    /// Say a line, read to the end, and print what came and how the connection ended
    Witness,
    /// Reset at once
    Rst,
    /// Close at once
    Close,
    /// The other end of `bulk`
    Exchange,
    /// The other end of `storm`: 16 bytes back, and the local port
    Token,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let options = Arc::new(options.clone());
    let listeners: Vec<_> =
        options.ports.iter().map(|&port| listen(options.family, port)).collect::<Result<_>>()?;
    let names: Vec<_> =
        listeners.iter().filter_map(|one| one.local_addr().ok()).map(|at| at.to_string()).collect();
    super::report(&json!({ "listening": names }));
    let stop = Arc::new(AtomicBool::new(false));
    if options.graceful {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            super::wait_for_stdin();
            stop.store(true, Ordering::Release);
        });
    }
    // Every connection holds a sender: nothing is ever received, but the end of all.
    let (open, ended) = mpsc::channel::<()>();
    let serving: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let (options, stop, open) = (Arc::clone(&options), Arc::clone(&stop), open.clone());
            thread::spawn(move || accept_all(&listener, &options, &stop, &open))
        })
        .collect();
    for thread in serving {
        if thread.join().is_err() {
            bail!("a listener panicked");
        }
    }
    drop(open);
    while ended.recv().is_ok() {}
    Ok(())
}

pub(super) fn listen(family: Family, port: u16) -> Result<TcpListener> {
    let address: SocketAddr = match family {
        Family::V4 => (Ipv4Addr::UNSPECIFIED, port).into(),
        Family::V6 | Family::Dual => (Ipv6Addr::UNSPECIFIED, port).into(),
    };
    let open = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if family != Family::V4 {
            socket.set_only_v6(family == Family::V6)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(4096)?;
        Ok(socket.into())
    };
    open().with_context(|| format!("cannot listen on {address}"))
}

/// Serves who comes until it is told to stop; each connection holds `open`.
fn accept_all(listener: &TcpListener, options: &Arc<Options>, stop: &AtomicBool, open: &Sender<()>) {
    loop {
        if options.graceful {
            match sys::poll(listener.as_fd(), libc::POLLIN, POLL) {
                // Whoever is in the queue is accepted first.
                Ok(false) if stop.load(Ordering::Acquire) => return,
                Ok(false) => continue,
                Ok(true) | Err(_) => {}
            }
        }
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                eprintln!("accept: {error}");
                continue;
            }
        };
        let (options, open) = (Arc::clone(options), open.clone());
        let serve = move || {
            let _open = open;
            // What a client does to its connection is its own business.
            let _ = one(stream, peer, &options);
        };
        if let Err(error) = thread::Builder::new().stack_size(192 * 1024).spawn(serve) {
            eprintln!("thread: {error}");
        }
    }
}

fn one(stream: TcpStream, accepted: SocketAddr, options: &Options) -> io::Result<()> {
    match options.mode {
        Mode::Echo => modes::echo(stream),
        Mode::Whoami => modes::whoami(stream, accepted),
        Mode::ServerFirst => modes::server_first(stream, &options.label),
        Mode::HalfClose => modes::half_close(stream, true),
        Mode::Sink => modes::half_close(stream, false),
        Mode::Source => modes::source(stream, options.bytes),
        Mode::Http => modes::http(stream, &options.label),
        Mode::Witness => modes::witness(stream, options.end_first),
        Mode::Rst => Socket::from(stream).set_linger(Some(Duration::ZERO)),
        Mode::Close => Ok(()),
        Mode::Exchange => super::bulk::serve(&stream),
        Mode::Token => modes::token(stream),
    }
}
