//! `hold`: idle connections; at the end each must still carry a message, or a request.

use std::io::{self, Read as _, Write as _};

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::dial::{Conn, Target};
use super::load::get;

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// Connections to hold
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// Requests instead of messages (server: any HTTP/1.1)
    #[arg(long)]
    http: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let address = options.target.address()?;
    let round_trip = |conn: &mut Conn| match options.http {
        true => get(conn, &options.target.to).map(|_answer| ()),
        false => round_trip(conn),
    };
    // One message each at the start too: a connection is only real when its other end has answered.
    let open = |_| {
        let mut conn = options.target.dial(address)?;
        round_trip(&mut conn).map(|()| conn)
    };
    let (held, failed): (Vec<_>, Vec<_>) = (0..options.count).map(open).partition(io::Result::is_ok);
    super::report(&json!({ "open": held.len(), "failed": failed.len() }));
    super::wait_for_stdin();
    let alive = held.into_iter().flatten().filter_map(|mut conn| round_trip(&mut conn).ok()).count();
    super::report(&json!({ "ok": alive as u64 == options.count, "open": alive, "failed": failed.len() }));
    Ok(())
}

fn round_trip(conn: &mut Conn) -> io::Result<()> {
    conn.write_all(b"still there?")?;
    let mut answer = [0; 12];
    conn.read_exact(&mut answer)?;
    if &answer == b"still there?" { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}
