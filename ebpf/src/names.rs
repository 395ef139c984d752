//! `cgroup/getpeername4/6` and `cgroup/getsockname4/6`: the application sees the addresses it would see without
//! a mesh. `accept()` and `SO_PEERNAME` ask through the same hooks.

use crate::{
    ctx::SockAddr,
    maps::{DESTINATION, PEER, PODS, VIEWS},
    storage,
};
use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use warren_common::abi::Endpoint;

/// These hooks can't refuse.
const ALLOW: i32 = 1;

/// `getpeername()` of a v4 socket.
#[cgroup_sock_addr(getpeername4)]
pub(crate) fn getpeername4(ctx: SockAddrContext) -> i32 {
    show_peer(&SockAddr::<false>::new(&ctx))
}

/// `getpeername()` of a v6 socket.
#[cgroup_sock_addr(getpeername6)]
pub(crate) fn getpeername6(ctx: SockAddrContext) -> i32 {
    show_peer(&SockAddr::<true>::new(&ctx))
}

/// `getsockname()` of a v4 socket.
#[cgroup_sock_addr(getsockname4)]
pub(crate) fn getsockname4(ctx: SockAddrContext) -> i32 {
    show_own(&SockAddr::<false>::new(&ctx))
}

/// `getsockname()` of a v6 socket.
#[cgroup_sock_addr(getsockname6)]
pub(crate) fn getsockname6(ctx: SockAddrContext) -> i32 {
    show_own(&SockAddr::<true>::new(&ctx))
}

/// Server side: the true client. Client side: the destination it asked for.
#[inline(always)]
fn show_peer<const V6: bool>(sa: &SockAddr<'_, V6>) -> i32 {
    if !sa.is_tcp() {
        return ALLOW;
    }
    let Some(peer) = storage::get(&PEER, sa.socket()).or_else(|| destination(sa)) else {
        return ALLOW;
    };
    // A v4 socket can't show a v6 address. None is stored on one; if it were, silence beats nonsense.
    if V6 || peer.ip.is_v4() {
        sa.set_ip(&peer.ip);
        sa.set_port(peer.port);
    }
    ALLOW
}

/// A captured client's connection ends on loopback: show the pod's address instead. The port is the true one.
#[inline(always)]
fn show_own<const V6: bool>(sa: &SockAddr<'_, V6>) -> i32 {
    if !sa.is_tcp() || !sa.endpoint().ip.is_loopback() || destination(sa).is_none() {
        return ALLOW;
    }
    // SAFETY: entries are replaced whole; a torn read could only mix two configurations of the same pod.
    let Some(pod) = (unsafe { PODS.get(sa.cookie()) }) else {
        return ALLOW;
    };
    let own = if sa.endpoint().ip.is_v4() { pod.ipv4 } else { pod.ipv6 };
    if !own.is_unspecified() {
        sa.set_ip(&own);
    }
    ALLOW
}

/// Where a captured client wanted to go. An MPTCP client's own socket has no storage: it is found by address.
#[inline(always)]
fn destination<const V6: bool>(sa: &SockAddr<'_, V6>) -> Option<Endpoint> {
    if let Some(found) = storage::get(&DESTINATION, sa.socket()) {
        return Some(found);
    }
    if !sa.is_mptcp_parent() {
        return None;
    }
    // SAFETY: the entry lives until the client's subflow closes; a torn read is not possible, as it is written once.
    unsafe { VIEWS.get(sa.connection()) }.copied()
}
