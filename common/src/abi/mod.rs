//! Keys and values of the maps that the kernel programs and the agent share.
//!
//! Every type is `#[repr(C)]`, fixed width, without implicit padding (asserted below), and valid for any
//! bit pattern. Addresses are IPv6 in network byte order; IPv4 is v4-mapped (`::ffff:a.b.c.d`).
//! Ports are host byte order, widened to 32 bits as the kernel's context fields are.

#[cfg(feature = "std")]
mod convert;
mod counters;
mod events;

pub use counters::{COUNTER_COUNT, Counter};
pub use events::{Event, EventKind};

/// The third word of a v4-mapped address as it stands in memory (network byte order).
pub const V4_MAPPED: u32 = 0x0000_ffff_u32.to_be();

/// How many ports an exclusion list of a pod can hold; the rest is refused when the pod is enrolled.
pub const MAX_EXCLUDED_PORTS: usize = 16;

/// An IP address as four words in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ip {
    /// The 16 bytes of the address as they go over the wire, read as native words.
    pub words: [u32; 4],
}

impl Ip {
    /// A v4 address given as its native-read network-order word (`user_ip4`, `remote_ip4`).
    pub const fn v4(word: u32) -> Self {
        Self { words: [0, 0, V4_MAPPED, word] }
    }

    /// Whether the address is v4-mapped.
    pub const fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == V4_MAPPED
    }

    /// Whether the address is `0.0.0.0` or `::`.
    pub const fn is_unspecified(&self) -> bool {
        self.words[0] == 0
            && self.words[1] == 0
            && (self.words[2] == 0 || self.words[2] == V4_MAPPED)
            && self.words[3] == 0
    }

    /// Whether the address is in `127.0.0.0/8` or is `::1`.
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            return u32::from_be(self.words[3]) >> 24 == 127;
        }
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == 0 && self.words[3] == 1_u32.to_be()
    }
}

/// Address and port of one end of a TCP connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address; v4 is v4-mapped.
    pub ip: Ip,
    /// The port, host byte order.
    pub port: u32,
    /// The family the application asked with: 2 (`AF_INET`) or 10 (`AF_INET6`, also for v4-mapped).
    pub family: u32,
}

/// A TCP connection as one of its two sockets sees it. Connections over loopback repeat between network
/// namespaces, hence the cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Connection {
    /// Cookie of the socket's network namespace (`SO_NETNS_COOKIE`, Linux 5.14); 0 where a hook cannot ask.
    pub cookie: u64,
    /// Local address.
    pub local: Ip,
    /// Remote address.
    pub remote: Ip,
    /// Local port, host byte order.
    pub local_port: u32,
    /// Remote port, host byte order.
    pub remote_port: u32,
}

/// What the connect hooks must know of an enrolled pod; keyed by network namespace cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodConfig {
    /// The pod's IPv4 address (v4-mapped), unspecified if it has none.
    pub ipv4: Ip,
    /// The pod's IPv6 address, unspecified if it has none.
    pub ipv6: Ip,
    /// Bits of [`pod_flags`].
    pub flags: u32,
    /// How many of `exclude_outbound_ports` are set.
    pub exclude_outbound_len: u32,
    /// Destination ports that are not captured, host byte order.
    pub exclude_outbound_ports: [u16; MAX_EXCLUDED_PORTS],
}

/// Bits of [`PodConfig::flags`].
pub mod pod_flags {
    /// The pod has entries in the map of excluded outbound CIDRs.
    pub const HAS_EXCLUDED_CIDRS: u32 = 1;
}

/// What sk_lookup must know of an inbound destination of an enrolled pod; keyed by [`Ip`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboundConfig {
    /// How many of `exclude_ports` are set.
    pub exclude_len: u32,
    /// Local ports whose connections go to the application directly, host byte order.
    pub exclude_ports: [u16; MAX_EXCLUDED_PORTS],
}

/// Key of the longest-prefix-match map of excluded outbound CIDRs. The prefix covers the whole cookie and
/// then the address, so its length is `64 + 128` for a host and `64 + 96 + n` for an IPv4 `/n`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CidrKey {
    /// Cookie of the pod's network namespace, big endian so that it is a bit string.
    pub cookie_be: [u8; 8],
    /// The network address.
    pub ip: Ip,
}

/// Settings that all programs of a node share (one entry, index 0).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeConfig {
    /// 1: with no agent listening, connections pass instead of failing (`--fail-open`).
    pub fail_open: u32,
    /// 1: programs log what they do through aya-log.
    pub debug: u32,
}

const _: () = {
    assert!(size_of::<Ip>() == 16);
    assert!(size_of::<Endpoint>() == 24);
    assert!(size_of::<Connection>() == 48);
    assert!(size_of::<PodConfig>() == 72);
    assert!(size_of::<InboundConfig>() == 36);
    assert!(size_of::<CidrKey>() == 24);
    assert!(size_of::<NodeConfig>() == 8);
    assert!(size_of::<Event>() == 64);
};

#[cfg(feature = "aya")]
mod pod {
    #![allow(unsafe_code)]
    use super::{CidrKey, Connection, Endpoint, Event, InboundConfig, Ip, NodeConfig, PodConfig};

    // SAFETY: all are `#[repr(C)]`, `Copy`, without padding (sizes asserted above) and without invalid bit patterns.
    unsafe impl aya::Pod for Ip {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Endpoint {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Connection {}
    // SAFETY: as above.
    unsafe impl aya::Pod for PodConfig {}
    // SAFETY: as above.
    unsafe impl aya::Pod for InboundConfig {}
    // SAFETY: as above.
    unsafe impl aya::Pod for CidrKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for NodeConfig {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Event {}
}
