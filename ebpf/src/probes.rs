//! sockops on the kubelet's cgroup: probes are told apart by who opened them, not by an IP address.

use crate::{ctx::SockOps, maps::PROBES};
use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE,
    },
    macros::sock_ops,
    programs::SockOpsContext,
};
use warren_common::abi::Connection;

/// Socket events of the kubelet.
#[sock_ops]
pub(crate) fn sockops_kubelet(ctx: SockOpsContext) -> u32 {
    let ops = SockOps::new(&ctx);
    // sk_lookup can't ask for the cookie of the pod's namespace.
    let probe = || Connection { cookie: 0, ..ops.connection_of_peer() };
    match ops.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => {
            let _ = PROBES.insert(&probe(), &1, 0);
            ops.watch_states(BPF_SOCK_OPS_STATE_CB_FLAG);
        }
        // The port may belong to another process next.
        BPF_SOCK_OPS_STATE_CB if ops.new_state() == BPF_TCP_CLOSE => {
            let _ = PROBES.remove(&probe());
        }
        _ => {}
    }
    1
}
