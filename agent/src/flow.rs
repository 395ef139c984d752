//! The stages of a connection. Each holds what the one before found out, so that a step cannot be left out:
//! there is no way to a [`Permit`](crate::policy::Permit) but through the policy, and none to the application
//! without one.
//!
//! ```text
//!  outbound:  accepted -> Dialled -> Target -> Upstream -> copied
//!  inbound:   accepted -> Arrival -> Permit -> TcpStream -> copied
//! ```

use crate::gate::TunnelId;
use crate::http::Opened;
use crate::pods::Pod;
use crate::policy::ServerName;
use crate::tunnel::{SealedSocket, TunnelStream};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpStream;
use warren_common::model::Identity;

/// A captured connection of a pod whose original destination is known.
#[derive(Debug)]
pub(crate) struct Dialled<'a> {
    /// The pod that dialled.
    pub pod: Arc<Pod>,
    /// The application's own address as its peers should see it.
    pub client: SocketAddr,
    /// What it asked for.
    pub destination: SocketAddr,
    /// What the TLS that goes to the server begins with.
    pub hello: Hello<'a>,
    /// Only a stream of a shared tunnel will do: what it carries is requests, or may be.
    pub shares: bool,
}

/// Where the server name is that the TLS of a connection asks for: what the far application will see, and nothing else.
#[derive(Clone, Debug)]
pub(crate) enum Hello<'a> {
    /// In what the application's side has sent, of which nothing has been read.
    Unread(&'a TcpStream),
    /// What goes there is made here: requests without TLS, which have no name, or TLS with this one.
    Known(ServerName),
}

/// A connection that has come as far as the pod's door.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The pod it wants to enter.
    pub pod: Arc<Pod>,
    /// Who comes; None for plaintext.
    pub source: Option<Identity>,
    /// The address of the connection's direct peer.
    pub peer: IpAddr,
    /// The client's address, for the application and the records.
    pub client: SocketAddr,
    /// The pod's address and port.
    pub destination: SocketAddr,
    /// The tunnel that it comes through, if through one.
    pub tunnel: Option<TunnelId>,
}

/// The far side of a connection, open and ready for bytes.
#[derive(Debug)]
pub(crate) enum Upstream {
    /// A socket: a pod of this node, or what is not in the mesh.
    Socket(TcpStream),
    /// A stream of a tunnel.
    Tunnel(TunnelStream),
    /// A tunnel of its own.
    Dedicated(Box<SealedSocket>),
    /// TLS that is spoken here, over whichever way.
    Originated(Box<Opened>),
}
