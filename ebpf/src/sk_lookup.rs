//! `sk_lookup` in each enrolled pod's network namespace: inbound connections go to the agent's plaintext listener.
//! Runs when a packet meets no established socket, that is once per connection.

use crate::{
    ctx::{AF_INET, AF_INET6, TCP, read, read_ip},
    maps::{INBOUND, LISTENERS, PROBES},
    report,
};
use aya_ebpf::{bindings::sk_action, macros::sk_lookup, programs::SkLookupContext};
use aya_log_ebpf::info;
use warren_common::{
    abi::{Connection, Counter, Endpoint, EventKind, Ip, MAX_EXCLUDED_PORTS},
    ports,
};

/// `lo` has this index in every network namespace.
const LOOPBACK_IFINDEX: u32 = 1;

/// A packet without a socket has arrived in a pod.
#[sk_lookup]
pub(crate) fn steer(ctx: SkLookupContext) -> u32 {
    let raw = ctx.lookup;
    // SAFETY: the program's context.
    let (protocol, ifindex) =
        unsafe { (read(&raw const (*raw).protocol), read(&raw const (*raw).ingress_ifindex)) };
    if protocol != TCP || ifindex == LOOPBACK_IFINDEX {
        return sk_action::SK_PASS;
    }
    let connection = connection(&ctx);
    if let Some(reason) = exception(&connection) {
        report::count(reason);
        return sk_action::SK_PASS;
    }
    if LISTENERS.redirect_sk_lookup(&ctx, connection.local, 0).is_ok() {
        report::count(Counter::InboundCaptured);
        return sk_action::SK_PASS;
    }
    no_agent(&ctx, &connection)
}

/// Why a connection is not the agent's plaintext listener's, if it is not.
#[inline(always)]
fn exception(connection: &Connection) -> Option<Counter> {
    // The pod calls itself by its own address: the interface is not `lo` then. Capturing it would loop for ever.
    if connection.local == connection.remote || connection.local_port == u32::from(ports::HBONE) {
        return Some(Counter::InboundPassed);
    }
    // SAFETY: only presence matters.
    if unsafe { PROBES.get(connection) }.is_some() {
        return Some(Counter::ProbePassed);
    }
    if is_excluded(&connection.local, connection.local_port) { Some(Counter::InboundPassed) } else { None }
}

#[inline(always)]
fn is_excluded(ip: &Ip, port: u32) -> bool {
    // SAFETY: entries are replaced whole; a torn read could only mix two configurations of the same address.
    let Some(config) = (unsafe { INBOUND.get(ip) }) else {
        return false;
    };
    for index in 0..MAX_EXCLUDED_PORTS {
        if index as u32 >= config.exclude_len {
            return false;
        }
        if u32::from(config.exclude_ports[index]) == port {
            return true;
        }
    }
    false
}

/// Fails closed (the client gets a reset), unless the node prefers plaintext to silence.
#[inline(always)]
fn no_agent(ctx: &SkLookupContext, connection: &Connection) -> u32 {
    let node = report::node();
    let (verdict, counter, kind) = if node.fail_open == 1 {
        (sk_action::SK_PASS, Counter::FailedOpen, EventKind::FailedOpen)
    } else {
        (sk_action::SK_DROP, Counter::InboundRefused, EventKind::InboundRefused)
    };
    let family = if connection.local.is_v4() { AF_INET } else { AF_INET6 };
    let destination = Endpoint { ip: connection.local, port: connection.local_port, family };
    let source = Endpoint { ip: connection.remote, port: connection.remote_port, family };
    report::count(counter);
    // No task and no cookie here.
    report::event(kind, 0, 0, &destination, &source);
    if node.debug == 1 {
        info!(ctx, "inbound port {}: no agent listens", connection.local_port);
    }
    verdict
}

/// The connection as the pod sees it; cookie 0.
#[inline(always)]
fn connection(ctx: &SkLookupContext) -> Connection {
    let raw = ctx.lookup;
    // SAFETY: the program's context.
    unsafe {
        let family = read(&raw const (*raw).family);
        Connection {
            cookie: 0,
            local: read_ip(family, &raw const (*raw).local_ip4, &raw const (*raw).local_ip6),
            remote: read_ip(family, &raw const (*raw).remote_ip4, &raw const (*raw).remote_ip6),
            local_port: read(&raw const (*raw).local_port),
            remote_port: u32::from(u16::from_be(read(&raw const (*raw).remote_port))),
        }
    }
}
