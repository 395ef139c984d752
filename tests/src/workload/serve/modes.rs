//! What a server does with one connection.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::workload::connect::hex;
use crate::workload::pattern::Pattern;
use crate::workload::{errno, report};

pub(super) fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return stream.shutdown(Shutdown::Write);
        }
        stream.write_all(&buffer[..count])?;
    }
}

pub(super) fn whoami(mut stream: TcpStream, accepted: SocketAddr) -> io::Result<()> {
    let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
    writeln!(stream, "peer={peer} accept={accepted} local={local}")?;
    drain(stream)
}

pub(super) fn server_first(mut stream: TcpStream, label: &str) -> io::Result<()> {
    write!(stream, "220 {label} ready\r\n")?;
    echo(stream)
}

pub(super) fn half_close(mut stream: TcpStream, with_sum: bool) -> io::Result<()> {
    let mut sum = Sha256::new();
    let mut total = 0;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        total += count;
        if with_sum {
            sum.update(&buffer[..count]);
        }
    }
    if with_sum { writeln!(stream, "{} {total}", hex(&sum.finalize())) } else { writeln!(stream, "{total}") }
}

pub(super) fn witness(mut stream: TcpStream, end_first: bool) -> io::Result<()> {
    stream.write_all(b"ready\n")?;
    if end_first {
        stream.shutdown(Shutdown::Write)?;
    }
    let mut received = 0;
    let mut buffer = vec![0; 16 * 1024];
    let end = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break "EOF".to_owned(),
            Ok(count) => received += count,
            Err(error) => break errno::name(&error),
        }
    };
    report(&json!({ "received": received, "end": end }));
    Ok(())
}

pub(super) fn source(mut stream: TcpStream, bytes: u64) -> io::Result<()> {
    let mut pattern = Pattern::new(1);
    let mut buffer = vec![0; 64 * 1024];
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        pattern.fill(&mut buffer[..length]);
        stream.write_all(&buffer[..length])?;
        left -= length as u64;
    }
    drain(stream)
}

pub(super) fn token(mut stream: TcpStream) -> io::Result<()> {
    let mut message = [0; 18];
    let port = stream.local_addr()?.port();
    stream.read_exact(&mut message[..16])?;
    message[16..].copy_from_slice(&port.to_be_bytes());
    stream.write_all(&message)?;
    drain(stream)
}

/// Requests without a body, answered until the client closes or says `connection: close`.
pub(super) fn http(stream: TcpStream, label: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let peer = stream.peer_addr()?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(4096, stream);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut close = false;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            close |= line.trim_end().eq_ignore_ascii_case("connection: close");
            if line.trim_end().is_empty() {
                break;
            }
        }
        let body = format!("server={label} peer={peer} request={}\n", first.trim_end());
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n");
        writer.write_all((head + &body).as_bytes())?;
        if close {
            return writer.shutdown(Shutdown::Write);
        }
    }
}

/// Ends our side and reads what is left: closing with unread bytes would send a reset.
fn drain(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    io::copy(&mut stream, &mut io::sink()).map(drop)
}
