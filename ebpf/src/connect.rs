//! `cgroup/connect4` and `cgroup/connect6`: where a pod's connections turn towards the agent.

use crate::{
    ctx::SockAddr,
    maps::{AGENTS, CIDRS, DESTINATION, PODS},
    report, storage,
};
use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_F_CURRENT_NETNS, SO_BINDTODEVICE, SOL_SOCKET, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
    },
    btf_maps::lpm_trie::Key,
    helpers::generated::{bpf_get_current_cgroup_id, bpf_setsockopt, bpf_sk_lookup_tcp, bpf_sk_release},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use aya_log_ebpf::info;
use warren_common::{
    abi::{CidrKey, Counter, Endpoint, EventKind, Ip, MAX_EXCLUDED_PORTS, NodeConfig, PodConfig, pod_flags},
    ports,
};

const LOOPBACK_V4: Ip = Ip::v4(u32::from_be_bytes([127, 0, 0, 1]).to_be());
const LOOPBACK_V6: Ip = Ip { words: [0, 0, 0, 1_u32.to_be()] };
const AGENT_PORT: u32 = ports::OUTBOUND as u32;

/// What the hook tells the kernel.
const DENY: i32 = 0;
const ALLOW: i32 = 1;

/// `connect()` of a v4 socket.
#[cgroup_sock_addr(connect4)]
pub(crate) fn connect4(ctx: SockAddrContext) -> i32 {
    connect(&SockAddr::<false>::new(&ctx))
}

/// `connect()` of a v6 socket, also to a v4-mapped address.
#[cgroup_sock_addr(connect6)]
pub(crate) fn connect6(ctx: SockAddrContext) -> i32 {
    connect(&SockAddr::<true>::new(&ctx))
}

/// What becomes of a connect.
enum Verdict {
    /// Not ours: a namespace that is not enrolled, the agent itself.
    Ignore,
    /// The pod's own business, for the counted reason.
    Leave(Counter),
    /// No agent, and the node prefers plaintext to silence.
    FailOpen,
    /// To the agent.
    Capture,
}

#[inline(always)]
fn connect<const V6: bool>(sa: &SockAddr<'_, V6>) -> i32 {
    if !sa.is_tcp() {
        return ALLOW;
    }
    let destination = sa.endpoint();
    let cookie = sa.cookie();
    match judge(sa, cookie, &destination) {
        Verdict::Capture => return capture(sa, cookie, &destination),
        Verdict::Ignore => {}
        Verdict::Leave(reason) => report::count(reason),
        Verdict::FailOpen => {
            report::count(Counter::FailedOpen);
            report::event(EventKind::FailedOpen, report::pid(), cookie, &destination, &Endpoint::default());
        }
    }
    // The socket may have been captured by an earlier connect: it must not go on showing that destination.
    storage::delete(&DESTINATION, sa.socket());
    ALLOW
}

#[inline(always)]
fn judge<const V6: bool>(sa: &SockAddr<'_, V6>, cookie: u64, destination: &Endpoint) -> Verdict {
    // SAFETY: entries are replaced whole; a torn read could only mix two configurations of the same pod.
    let Some(pod) = (unsafe { PODS.get(cookie) }) else {
        return Verdict::Ignore;
    };
    let node = report::node();
    // The agent's own sockets in the pod's namespace carry the pod's cookie.
    // SAFETY: a helper without arguments; only presence matters.
    if unsafe { AGENTS.get(bpf_get_current_cgroup_id()) }.is_some() {
        return Verdict::Ignore;
    }
    if is_local(pod, &destination.ip) {
        return Verdict::Leave(Counter::LocalConnect);
    }
    if is_excluded_port(pod, destination.port) || is_excluded_cidr(pod, cookie, &destination.ip) {
        return Verdict::Leave(Counter::Excluded);
    }
    if node.fail_open == 1 && !agent_listens(sa, destination) {
        return Verdict::FailOpen;
    }
    log(sa, &node, cookie, destination);
    Verdict::Capture
}

/// Loopback, "this host" (`connect` takes the unspecified address for loopback), the pod itself, and link-local
/// v6: its scope id is not visible here, so the agent could not dial it.
#[inline(always)]
fn is_local(pod: &PodConfig, ip: &Ip) -> bool {
    ip.is_loopback() || ip.is_unspecified() || *ip == pod.ipv4 || *ip == pod.ipv6 || is_link_local_v6(ip)
}

#[inline(always)]
fn is_link_local_v6(ip: &Ip) -> bool {
    u32::from_be(ip.words[0]) >> 22 == 0xfe80 >> 6
}

#[inline(always)]
fn is_excluded_port(pod: &PodConfig, port: u32) -> bool {
    for index in 0..MAX_EXCLUDED_PORTS {
        if index as u32 >= pod.exclude_outbound_len {
            return false;
        }
        if u32::from(pod.exclude_outbound_ports[index]) == port {
            return true;
        }
    }
    false
}

#[inline(always)]
fn is_excluded_cidr(pod: &PodConfig, cookie: u64, ip: &Ip) -> bool {
    pod.flags & pod_flags::HAS_EXCLUDED_CIDRS != 0
        && CIDRS.get(&Key::new(192, CidrKey { cookie_be: cookie.to_be_bytes(), ip: *ip })).is_some()
}

/// Whether somebody listens on the agent's port in this namespace (`bpf_sk_lookup_tcp`, Linux 4.20).
#[inline(always)]
fn agent_listens<const V6: bool>(sa: &SockAddr<'_, V6>, destination: &Endpoint) -> bool {
    let port = ports::OUTBOUND.to_be();
    let (addresses, size) = if V6 && !destination.ip.is_v4() {
        let v6 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
            saddr: LOOPBACK_V6.words,
            daddr: LOOPBACK_V6.words,
            sport: 0,
            dport: port,
        };
        (bpf_sock_tuple__bindgen_ty_1 { ipv6: v6 }, size_of_val(&v6))
    } else {
        let word = LOOPBACK_V4.words[3];
        let v4 =
            bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 { saddr: word, daddr: word, sport: 0, dport: port };
        (bpf_sock_tuple__bindgen_ty_1 { ipv4: v4 }, size_of_val(&v4))
    };
    let mut tuple = bpf_sock_tuple { __bindgen_anon_1: addresses };
    // SAFETY: the context is the hook's, the tuple outlives the call and is initialised up to `size`.
    unsafe {
        let sk = bpf_sk_lookup_tcp(
            sa.context().as_ptr(),
            &raw mut tuple,
            size as u32,
            i64::from(BPF_F_CURRENT_NETNS) as u64,
            0,
        );
        if sk.is_null() {
            return false;
        }
        bpf_sk_release(sk.cast());
    }
    true
}

/// Remembers the destination on the socket and rewrites it to the agent's listener. Fails closed.
#[inline(always)]
fn capture<const V6: bool>(sa: &SockAddr<'_, V6>, cookie: u64, destination: &Endpoint) -> i32 {
    if !unbind_device(sa, cookie, destination)
        || storage::set(&DESTINATION, sa.socket(), destination).is_err()
    {
        report::count(Counter::ConnectDenied);
        report::event(EventKind::ConnectDenied, report::pid(), cookie, destination, &Endpoint::default());
        return DENY;
    }
    let (listener, counter) = match (V6, destination.ip.is_v4()) {
        (false, _) => (LOOPBACK_V4, Counter::CapturedV4),
        (true, true) => (LOOPBACK_V4, Counter::CapturedMapped),
        (true, false) => (LOOPBACK_V6, Counter::CapturedV6),
    };
    sa.set_ip(&listener);
    sa.set_port(AGENT_PORT);
    report::count(counter);
    ALLOW
}

/// A socket bound to a device cannot reach loopback and would time out: take the binding off. The kernel asks
/// CAP_NET_RAW of the connecting process for that; without it the answer is no.
#[inline(always)]
fn unbind_device<const V6: bool>(sa: &SockAddr<'_, V6>, cookie: u64, destination: &Endpoint) -> bool {
    // SAFETY: the hook's socket.
    if unsafe { crate::ctx::read(&raw const (*sa.socket()).bound_dev_if) } == 0 {
        return true;
    }
    let mut no_device = [0_u8; 4];
    // SAFETY: the context is the hook's, the option value outlives the call.
    let answer = unsafe {
        bpf_setsockopt(
            sa.context().as_ptr(),
            SOL_SOCKET as i32,
            SO_BINDTODEVICE as i32,
            no_device.as_mut_ptr().cast(),
            no_device.len() as i32,
        )
    };
    if answer != 0 {
        return false;
    }
    report::count(Counter::DeviceUnbound);
    report::event(EventKind::DeviceUnbound, report::pid(), cookie, destination, &Endpoint::default());
    true
}

#[inline(always)]
fn log<const V6: bool>(sa: &SockAddr<'_, V6>, node: &NodeConfig, cookie: u64, destination: &Endpoint) {
    if node.debug == 1 {
        info!(sa.context(), "connect in netns {}: port {} to the agent", cookie, destination.port);
    }
}
