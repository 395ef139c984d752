//! warren's kernel programs. They decide nothing but "the agent's or not": who may talk to whom, and where a
//! connection goes, is the agent's business.
//!
//! | program | attached to | does |
//! |---|---|---|
//! | `connect4`, `connect6` | the pods' parent cgroup | remembers the destination, redirects to the agent |
//! | `getpeername4/6`, `getsockname4/6` | the pods' parent cgroup | shows applications the addresses they expect |
//! | `sockops_pods` | the pods' parent cgroup | carries destinations over to the agent, true clients to servers |
//! | `sockops_agent` | the agent's cgroup | the other end of both |
//! | `sockops_kubelet` | the kubelet's cgroup | records probes |
//! | `steer` (sk_lookup) | each enrolled pod's network namespace | steers inbound connections to the agent |
//!
//! The agent's cgroup may lie beneath the pods' cgroup, so every program tolerates the agent's sockets.
//! Floor: Linux 6.1. Helpers and fields are older: sk_lookup 5.9 (`ingress_ifindex` 5.17), netns cookies in
//! sockops 5.15, `get{peer,sock}name` hooks 5.8, `bpf_setsockopt` in connect hooks 5.8.
#![no_std]
#![no_main]
// Every context field, map value and socket is a raw pointer that the verifier checks.
#![allow(unsafe_code)]
#![allow(clippy::needless_pass_by_value, reason = "the entry points' signature is given by aya's macros")]
#![allow(
    clippy::needless_borrows_for_generic_args,
    reason = "keys of 48 bytes are not copied on a stack of 512"
)]

mod connect;
mod ctx;
mod maps;
mod names;
mod probes;
mod report;
mod sk_lookup;
mod sockops_agent;
mod sockops_pods;
mod storage;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The licence that the kernel asks for.
// SAFETY: the section and name are what the loader expects; nothing else defines them.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
