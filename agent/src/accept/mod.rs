//! Sockets in pods' network namespaces: listeners, accepted connections and upstream sockets.
//!
//! Invariant: no other room opens a socket. Namespaces are entered on one dedicated thread only, so a worker
//! can never be left in a pod's namespace.

mod connection;
mod listener;
mod names;
mod netns;
mod owner;
mod peek;
mod upstream;

pub use connection::{TunnelSocket, abort, deliver_on_close, end, for_tunnel, keep_alive, reset};
pub use listener::{Accepted, Listener, is_own_listener};
pub use names::Names;
pub use netns::{Netns, NetnsThread};
pub use peek::peek;
pub use upstream::{Family, PodSockets, connect};
