//! Errors by their names, so that tests compare `ECONNREFUSED` and not a number or a sentence.

use std::io;

/// The name of an error's number, or of its kind when it has none.
pub(crate) fn name(error: &io::Error) -> String {
    let known = match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => "ECONNREFUSED",
        Some(libc::ECONNRESET) => "ECONNRESET",
        Some(libc::ECONNABORTED) => "ECONNABORTED",
        Some(libc::EPIPE) => "EPIPE",
        Some(libc::ETIMEDOUT) => "ETIMEDOUT",
        Some(libc::EHOSTUNREACH) => "EHOSTUNREACH",
        Some(libc::ENETUNREACH) => "ENETUNREACH",
        Some(libc::EADDRNOTAVAIL) => "EADDRNOTAVAIL",
        Some(libc::EADDRINUSE) => "EADDRINUSE",
        Some(libc::EACCES) => "EACCES",
        Some(libc::EPERM) => "EPERM",
        Some(libc::EINVAL) => "EINVAL",
        Some(libc::ENOTCONN) => "ENOTCONN",
        Some(libc::EAGAIN) => "EAGAIN",
        Some(libc::EISCONN) => "EISCONN",
        Some(libc::EMFILE) => "EMFILE",
        Some(other) => return format!("errno {other}"),
        None => match error.kind() {
            io::ErrorKind::UnexpectedEof => "EOF",
            io::ErrorKind::TimedOut => "TIMEOUT",
            _ => return error.to_string(),
        },
    };
    known.to_owned()
}
