//! `serve`: one thread per connection; prints a line when all ports are open.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

mod modes;

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
    /// What `http` and `server-first` call themselves
    #[arg(long, default_value = "warren")]
    label: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Family {
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
    let serving: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let options = Arc::clone(&options);
            thread::spawn(move || accept_all(&listener, &options))
        })
        .collect();
    for thread in serving {
        if thread.join().is_err() {
            bail!("a listener panicked");
        }
    }
    Ok(())
}

fn listen(family: Family, port: u16) -> Result<TcpListener> {
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

fn accept_all(listener: &TcpListener, options: &Arc<Options>) {
    loop {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                eprintln!("accept: {error}");
                continue;
            }
        };
        let options = Arc::clone(options);
        let serve = move || {
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
        Mode::Rst => Socket::from(stream).set_linger(Some(std::time::Duration::ZERO)),
        Mode::Close => Ok(()),
        Mode::Exchange => super::bulk::serve(&stream),
        Mode::Token => modes::token(stream),
    }
}
