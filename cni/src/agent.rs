//! Asking this node's agent.

use crate::frame::{decode, encode};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{self, IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use warren_common::model::cni::{Answer, Request};

/// How often an agent that is not there is looked for again.
const RETRY: Duration = Duration::from_millis(50);

/// Asks the agent behind `socket`, which may take `patience` to answer. The namespace goes along as a descriptor.
///
/// # Errors
/// When there is no agent, or it does not answer in time, or not in its words.
pub(crate) fn ask(
    socket: &Path,
    request: &Request,
    netns: Option<BorrowedFd<'_>>,
    patience: Duration,
) -> io::Result<Answer> {
    let message = encode(request).map_err(io::Error::other)?;
    let mut stream = UnixStream::connect(socket)?;
    let deadline = Instant::now() + patience;
    stream.set_write_timeout(Some(patience))?;
    let sent = send(&stream, &message, netns)?;
    stream.write_all(message.get(sent..).unwrap_or_default())?;
    receive(&mut stream, deadline)
}

/// Waits at most `patience` until something listens on `socket`. Returns whether anything does.
pub(crate) fn wait_for(socket: &Path, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if UnixStream::connect(socket).is_ok() {
            return true;
        }
        if Instant::now() + RETRY > deadline {
            return false;
        }
        // A process of its own, which has nothing else to do and whose caller waits.
        #[allow(clippy::disallowed_methods)]
        std::thread::sleep(RETRY);
    }
}

fn send(stream: &UnixStream, message: &[u8], netns: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = netns.into_iter().collect();
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    let sent = sendmsg(stream.as_fd(), &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(sent)
}

fn receive(stream: &mut UnixStream, deadline: Instant) -> io::Result<Answer> {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(answer) = decode(&received).map_err(io::Error::other)? {
            return Ok(answer);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => received.extend(buffer.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
