//! Counters, events, and the node's settings.

use crate::maps::{COUNTERS, EVENTS, NODE};
use aya_ebpf::helpers::generated::bpf_get_current_pid_tgid;
use warren_common::abi::{Counter, Endpoint, Event, EventKind, NodeConfig};

/// Adds one. The slot is this CPU's own; an interrupt between load and store may lose a count.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: a valid value of the per-CPU map.
        unsafe { *slot += 1 };
    }
}

/// Sends an event, or counts that it was lost.
#[inline(always)]
pub(crate) fn event(kind: EventKind, pid: u32, cookie: u64, destination: &Endpoint, source: &Endpoint) {
    let event = Event { kind: kind as u32, pid, cookie, destination: *destination, source: *source };
    if EVENTS.output(&event, 0).is_err() {
        count(Counter::EventLost);
    }
}

/// Process id of the current task; only where there is one.
#[inline(always)]
pub(crate) fn pid() -> u32 {
    // SAFETY: a helper without arguments.
    (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32
}

/// The node's settings.
#[inline(always)]
pub(crate) fn node() -> NodeConfig {
    NODE.get(0).copied().unwrap_or_default()
}
