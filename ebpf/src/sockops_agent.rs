//! sockops on the agent's cgroup: the other end of what `sockops_pods` does.

use crate::{
    ctx::SockOps,
    maps::{AGENT_PEER, CLIENTS, ORIGIN, ORIGINS},
    report, storage,
};
use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, bpf_sock,
    },
    macros::sock_ops,
    programs::SockOpsContext,
};
use warren_common::{abi::Counter, ports};

/// Socket events of the agent.
#[sock_ops]
pub(crate) fn sockops_agent(ctx: SockOpsContext) -> u32 {
    let ops = SockOps::new(&ctx);
    if let Some(sk) = ops.socket() {
        match ops.op() {
            BPF_SOCK_OPS_TCP_CONNECT_CB => connecting(&ops, sk),
            BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => accepted(&ops, sk),
            BPF_SOCK_OPS_STATE_CB if ops.new_state() == BPF_TCP_CLOSE => closed(&ops, sk),
            _ => {}
        }
    }
    1
}

/// The agent dials an application for a client: leave the client's address where the application's accepted
/// socket will look for it. The full connection is the key; a port alone gave stale clients.
#[inline(always)]
fn connecting(ops: &SockOps<'_>, sk: *mut bpf_sock) {
    let Some(client) = storage::get(&AGENT_PEER, sk) else {
        return;
    };
    let _ = CLIENTS.insert(&ops.connection_of_peer(), &client, 0);
    ops.watch_states(BPF_SOCK_OPS_STATE_CB_FLAG);
}

/// A captured connection arrives: take over its destination.
#[inline(always)]
fn accepted(ops: &SockOps<'_>, sk: *mut bpf_sock) {
    if ops.local_port() != u32::from(ports::OUTBOUND) {
        return;
    }
    let connection = ops.connection_of_peer();
    // SAFETY: the entry is written once, before the SYN that led here.
    let found = unsafe { ORIGINS.get(&connection) }.copied();
    let _ = ORIGINS.remove(&connection);
    match found {
        Some(destination) if storage::set(&ORIGIN, sk, &destination).is_ok() => {
            report::count(Counter::OriginFound);
        }
        _ => report::count(Counter::OriginMissing),
    }
}

/// The connect failed, or nobody took the client's address: a later connection must not find it.
#[inline(always)]
fn closed(ops: &SockOps<'_>, sk: *mut bpf_sock) {
    if storage::get(&AGENT_PEER, sk).is_some() {
        let _ = CLIENTS.remove(&ops.connection_of_peer());
    }
}
