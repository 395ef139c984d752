//! Packets with descriptors over a unix socket (SOCK_SEQPACKET keeps both together). Blocking, with deadlines.

use super::message::{MAX_BYTES, MAX_SOCKETS, decode, encode};
use super::{HandoverError, PATIENCE};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::Duration;

/// Conversations that may wait.
const BACKLOG: i32 = 8;

/// One end of a conversation.
#[derive(Debug)]
pub(super) struct Wire(OwnedFd);

/// What came.
#[derive(Debug)]
pub(super) enum Packet<M> {
    /// A message, and the sockets beside it.
    Message(M, Vec<OwnedFd>),
    /// The other side has gone.
    Gone,
}

impl Wire {
    pub(super) fn connect(path: &Path, deadline: Duration) -> io::Result<Self> {
        let socket = socket(SocketFlags::CLOEXEC)?;
        let wire = Self(socket);
        wire.set_deadline(deadline)?;
        rustix::net::connect(&wire.0, &SocketAddrUnix::new(path)?)?;
        Ok(wire)
    }

    /// An accepted connection, whose other end must be root's.
    pub(super) fn accepted(socket: OwnedFd) -> Result<Self, HandoverError> {
        let peer = socket_peercred(&socket).map_err(io::Error::from)?;
        if !peer.uid.is_root() {
            let uid = peer.uid.as_raw();
            return Err(HandoverError::Protocol(format!(
                "process {} of user {uid} is not root's",
                peer.pid.as_raw_pid()
            )));
        }
        let wire = Self(socket);
        wire.set_deadline(PATIENCE)?;
        Ok(wire)
    }

    /// How long each step may take from now on.
    pub(super) fn set_deadline(&self, deadline: Duration) -> io::Result<()> {
        set_socket_timeout(&self.0, Timeout::Recv, Some(deadline))?;
        Ok(set_socket_timeout(&self.0, Timeout::Send, Some(deadline))?)
    }

    /// How long the next message may be waited for; none: for ever.
    pub(super) fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        Ok(set_socket_timeout(&self.0, Timeout::Recv, patience)?)
    }

    pub(super) fn send<'a>(
        &self,
        message: &impl Serialize,
        sockets: impl Iterator<Item = BorrowedFd<'a>>,
    ) -> io::Result<()> {
        self.send_bytes(&encode(message), sockets)
    }

    /// A packet of bytes.
    pub(super) fn send_bytes<'a>(
        &self,
        bytes: &[u8],
        sockets: impl Iterator<Item = BorrowedFd<'a>>,
    ) -> io::Result<()> {
        let sockets: Vec<_> = sockets.collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(io::Error::other("too many sockets for one message"));
        }
        // A packet goes as a whole or not at all: one that was interrupted has not gone.
        loop {
            match rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                other => return other.map(drop).map_err(io::Error::from),
            }
        }
    }

    pub(super) fn receive<M: DeserializeOwned>(&self) -> Result<Packet<M>, HandoverError> {
        let mut bytes = vec![0; MAX_BYTES];
        match self.receive_bytes(&mut bytes)? {
            None => Ok(Packet::Gone),
            Some((length, sockets)) => {
                Ok(Packet::Message(decode(bytes.get(..length).unwrap_or_default())?, sockets))
            }
        }
    }

    /// A packet as it is, into `bytes`: its length, and the sockets beside it. None: the other side has gone.
    pub(super) fn receive_bytes(
        &self,
        bytes: &mut [u8],
    ) -> Result<Option<(usize, Vec<OwnedFd>)>, HandoverError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(bytes)];
        let received = loop {
            match rustix::net::recvmsg(&self.0, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET | rustix::io::Errno::PIPE) => return Ok(None),
                other => break other.map_err(io::Error::from)?,
            }
        };
        let mut sockets = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                sockets.extend(rights);
            }
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(HandoverError::Protocol("a message is longer than any may be".to_owned()));
        }
        Ok((received.bytes > 0).then_some((received.bytes, sockets)))
    }

    /// Whether the other side has gone by now, whatever it said before.
    pub(super) fn is_gone(&self) -> bool {
        let mut socket = [PollFd::new(&self.0, PollFlags::empty())];
        // Hang-ups and errors are told without being asked for. What can't be polled is not known to have gone.
        let told = poll(&mut socket, Some(&Timespec::default()));
        told.is_ok_and(|told| told > 0)
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A listening socket for conversations, not blocking.
pub(super) fn listen(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Whether somebody listens there.
pub(super) fn is_served(path: &Path) -> bool {
    Wire::connect(path, Duration::from_secs(1)).is_ok()
}

fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}
