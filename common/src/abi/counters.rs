//! What the kernel programs count, per CPU.

/// Index into the per-CPU counter array. Names are what `warren status` and the metrics print.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// A connect was redirected to the agent (IPv4).
    CapturedV4,
    /// A connect was redirected to the agent (IPv6).
    CapturedV6,
    /// A connect was redirected to the agent (v4-mapped IPv6).
    CapturedMapped,
    /// A connect of an enrolled pod was left alone: loopback or the pod's own address.
    LocalConnect,
    /// A connect of an enrolled pod was left alone: excluded port or CIDR.
    Excluded,
    /// A connect was refused because its destination could not be remembered.
    ConnectDenied,
    /// A connect passed uncaptured because no agent listens and `--fail-open` is set.
    FailedOpen,
    /// A socket was freed from SO_BINDTODEVICE so that it can reach the agent.
    DeviceUnbound,
    /// The agent's accepted socket found its original destination.
    OriginFound,
    /// The agent's accepted socket found no original destination.
    OriginMissing,
    /// An accepted application socket was given the client's true address.
    ClientShown,
    /// An inbound connection was steered to the agent.
    InboundCaptured,
    /// An inbound connection was dropped because no agent listens.
    InboundRefused,
    /// An inbound connection passed: from the pod itself, or an excluded port.
    InboundPassed,
    /// An inbound connection passed because the kubelet opened it.
    ProbePassed,
    /// An event was lost because the ring buffer was full.
    EventLost,
}

/// Length of the counter array.
pub const COUNTER_COUNT: usize = 16;

impl Counter {
    /// All counters in index order.
    pub const ALL: [Self; COUNTER_COUNT] = [
        Self::CapturedV4,
        Self::CapturedV6,
        Self::CapturedMapped,
        Self::LocalConnect,
        Self::Excluded,
        Self::ConnectDenied,
        Self::FailedOpen,
        Self::DeviceUnbound,
        Self::OriginFound,
        Self::OriginMissing,
        Self::ClientShown,
        Self::InboundCaptured,
        Self::InboundRefused,
        Self::InboundPassed,
        Self::ProbePassed,
        Self::EventLost,
    ];

    /// The counter's name in metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CapturedV4 => "captured_v4",
            Self::CapturedV6 => "captured_v6",
            Self::CapturedMapped => "captured_v4_mapped",
            Self::LocalConnect => "local_connect",
            Self::Excluded => "excluded",
            Self::ConnectDenied => "connect_denied",
            Self::FailedOpen => "failed_open",
            Self::DeviceUnbound => "device_unbound",
            Self::OriginFound => "origin_found",
            Self::OriginMissing => "origin_missing",
            Self::ClientShown => "client_shown",
            Self::InboundCaptured => "inbound_captured",
            Self::InboundRefused => "inbound_refused",
            Self::InboundPassed => "inbound_passed",
            Self::ProbePassed => "probe_passed",
            Self::EventLost => "event_lost",
        }
    }
}
