//! What the kernel programs report through the ring buffer: the rare and the wrong, never the ordinary.

use super::Endpoint;

/// Why an event was sent. Stored as `u32`; unknown values come from a newer object and are ignored.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A connect was refused: its destination could not be remembered (map or storage full).
    ConnectDenied = 1,
    /// A connect passed in plaintext: no agent, and `--fail-open` is set.
    FailedOpen = 2,
    /// An inbound connection was dropped: no agent listens.
    InboundRefused = 3,
    /// A socket bound to a device was unbound so that it can reach the agent.
    DeviceUnbound = 4,
}

impl EventKind {
    /// The kind behind a raw value, if this side knows it.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::ConnectDenied),
            2 => Some(Self::FailedOpen),
            3 => Some(Self::InboundRefused),
            4 => Some(Self::DeviceUnbound),
            _ => None,
        }
    }
}

/// One record of the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// An [`EventKind`].
    pub kind: u32,
    /// Process id (tgid) of the task that connected, 0 where there is none.
    pub pid: u32,
    /// Cookie of the pod's network namespace; 0 where the hook cannot ask (sk_lookup).
    pub cookie: u64,
    /// Where the connection was going.
    pub destination: Endpoint,
    /// Where it came from, as far as the hook knows.
    pub source: Endpoint,
}
