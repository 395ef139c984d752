//! sockops on the pods' parent cgroup: destinations go out to the agent, true clients come in from it.

use crate::{
    ctx::SockOps,
    maps::{CLIENTS, DESTINATION, HAS_MPTCP, ORIGINS, PEER, VIEWS},
    report, storage,
};
use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, bpf_sock,
    },
    helpers::generated::bpf_skc_to_mptcp_sock,
    macros::sock_ops,
    programs::SockOpsContext,
};
use warren_common::abi::Counter;

/// Socket events of pods.
#[sock_ops]
pub(crate) fn sockops_pods(ctx: SockOpsContext) -> u32 {
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

/// A captured client sends its SYN: addresses and ports are final now.
#[inline(always)]
fn connecting(ops: &SockOps<'_>, sk: *mut bpf_sock) {
    let Some(destination) = storage::get(&DESTINATION, sk) else {
        return;
    };
    let connection = ops.connection();
    // Should this fail, the agent finds no destination and closes the connection (and counts it).
    let _ = ORIGINS.insert(&connection, &destination, 0);
    if is_mptcp(sk) {
        let _ = VIEWS.insert(&connection, &destination, 0);
    }
    ops.watch_states(BPF_SOCK_OPS_STATE_CB_FLAG);
}

/// An application's listener has a new connection: if the agent opened it, the agent said for whom.
#[inline(always)]
fn accepted(ops: &SockOps<'_>, sk: *mut bpf_sock) {
    let connection = ops.connection();
    // SAFETY: the entry is written once, before the SYN that led here.
    let Some(client) = (unsafe { CLIENTS.get(&connection) }).copied() else {
        return;
    };
    let _ = CLIENTS.remove(&connection);
    if storage::set(&PEER, sk, &client).is_ok() {
        report::count(Counter::ClientShown);
    }
}

/// The client's socket is gone, or its connect failed.
#[inline(always)]
fn closed(ops: &SockOps<'_>, sk: *mut bpf_sock) {
    if storage::get(&DESTINATION, sk).is_none() {
        return;
    }
    let connection = ops.connection();
    let _ = ORIGINS.remove(&connection);
    if is_mptcp(sk) {
        let _ = VIEWS.remove(&connection);
    }
}

/// Whether this is a subflow of an MPTCP connection (helper since 5.19).
#[inline(always)]
fn is_mptcp(sk: *mut bpf_sock) -> bool {
    // SAFETY: the socket comes from the context.
    HAS_MPTCP.load() == 1 && !unsafe { bpf_skc_to_mptcp_sock(sk.cast()) }.is_null()
}
