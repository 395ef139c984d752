//! What is captured, what is not, and what the client sees.

use super::{lab::Lab, sys};
use std::net::{SocketAddr, TcpStream};
use warren_common::abi::Counter;

/// A destination that the agent answers, in the two families and as v4 over a v6 socket.
const KINDS: &[(&str, &str, Counter)] = &[
    ("192.0.2.9:7001", "", Counter::CapturedV4),
    ("[2001:db8::9]:7002", "", Counter::CapturedV6),
    ("192.0.2.9:7003", " mapped", Counter::CapturedMapped),
];

/// The agent learns where to; the application sees its own addresses, as without a mesh.
pub fn destinations_are_remembered(lab: &mut Lab) {
    for (destination, options, counter) in KINDS {
        let command = format!("connect {destination}{options}");
        let (captured, seen) = lab.growth(*counter, |lab| lab.client.app.client(&command).unwrap());
        assert_eq!(captured, 1, "{command}");
        assert_eq!(seen.line, format!("agent destination={destination}"));
        assert_eq!(sys::canonical(seen.peer), destination.parse().unwrap());
        assert!(lab.client.addresses.contains(&sys::canonical(seen.own).ip()), "{seen:?}");
        assert_eq!(seen.peer.is_ipv6(), !options.is_empty() || destination.contains('['), "{seen:?}");
    }
    assert_eq!(lab.count(Counter::OriginMissing), 0);
}

/// Trap 2: connect, dissolve, connect elsewhere, captured or not.
pub fn a_reused_socket_shows_its_new_destination(lab: &mut Lab) {
    let app = &mut lab.client.app;
    app.listen("127.0.0.1:8090");
    app.client("connect 192.0.2.9:7001").unwrap();
    let seen = app.client("again 192.0.2.10:7002").unwrap();
    assert_eq!(
        (seen.peer, seen.line.as_str()),
        addresses("192.0.2.10:7002", "agent destination=192.0.2.10:7002")
    );
    let seen = app.client("again 127.0.0.1:8090").unwrap();
    assert_eq!(seen.peer, "127.0.0.1:8090".parse().unwrap());
    assert!(seen.own.ip().is_loopback() && seen.told("accepted") == seen.own, "{seen:?}");
}

fn addresses<'a>(peer: &str, line: &'a str) -> (SocketAddr, &'a str) {
    (peer.parse().unwrap(), line)
}

/// Trap 1: by its own address, by loopback, by "this host".
pub fn a_pod_may_call_itself(lab: &mut Lab) {
    lab.client.app.listen("[::]:8091");
    for address in ["10.77.0.1", "[fd77::1]", "127.0.0.1", "[::1]", "0.0.0.0", "[::]"] {
        let command = format!("connect {address}:8091");
        let (local, seen) = lab.growth(Counter::LocalConnect, |lab| lab.client.app.client(&command).unwrap());
        assert_eq!(local, 1, "{command}");
        assert_eq!(sys::canonical(seen.told("peer")), seen.own, "{command}");
    }
    let (local, seen) = lab
        .growth(Counter::LocalConnect, |lab| lab.client.app.client("connect 10.77.0.1:8091 mapped").unwrap());
    assert_eq!((local, seen.told("peer")), (1, seen.own));
}

/// Trap 5: who may, is unbound; who may not, is told so instead of timing out.
pub fn bound_devices_are_unbound_or_refused(lab: &mut Lab) {
    for destination in ["192.0.2.9:7001", "[2001:db8::9]:7002"] {
        let command = format!("connect {destination} device");
        let (unbound, seen) =
            lab.growth(Counter::DeviceUnbound, |lab| lab.client.app.client(&command).unwrap());
        assert_eq!((unbound, seen.line), (1, format!("agent destination={destination}")));
    }
    let command = "connect 192.0.2.9:7001 nobody device";
    let (denied, answer) = lab.growth(Counter::ConnectDenied, |lab| lab.client.app.client(command));
    assert_eq!((denied, answer.unwrap_err().as_str()), (1, "error PermissionDenied"));
}

/// Trap 6: the socket that the application holds is not the one that was captured.
pub fn mptcp_clients_are_captured(lab: &mut Lab) {
    for destination in ["192.0.2.9:7001", "[2001:db8::9]:7002"] {
        match lab.client.app.client(&format!("connect {destination} mptcp")) {
            Ok(seen) => {
                assert_eq!(seen.line, format!("agent destination={destination}"));
                assert_eq!(seen.peer, destination.parse().unwrap(), "getpeername of {destination}");
                assert!(lab.client.addresses.contains(&seen.own.ip()), "{seen:?}");
            }
            Err(error) if !std::path::Path::new("/proc/sys/net/mptcp").exists() => {
                println!("# SKIPPED: this kernel has no MPTCP ({error})");
            }
            Err(error) => panic!("MPTCP to {destination}: {error}"),
        }
    }
}

/// Trap 9: this process is the agent, its socket is in the pod's namespace.
pub fn the_agents_own_sockets_are_not_captured(lab: &mut Lab) {
    for destination in ["10.77.0.2:8080", "[fd77::2]:8081"] {
        let destination: SocketAddr = destination.parse().unwrap();
        let before = lab.kernel();
        let before = warren_agent::kernel::Kernel::counters(&*before).unwrap();
        let stream = sys::within(&lab.client.netns, || TcpStream::connect(destination).unwrap());
        assert_eq!(stream.peer_addr().unwrap(), destination);
        for counter in [Counter::CapturedV4, Counter::CapturedV6, Counter::LocalConnect] {
            assert_eq!(lab.count(counter), before[counter as usize]);
        }
    }
}

/// Excluded ports and networks outbound, excluded ports inbound: end to end without an agent.
pub fn exclusions_are_left_alone(lab: &mut Lab) {
    // The server's agent still sees the first of these; the node is in an excluded network.
    for (destination, direct) in
        [("10.77.0.2:9001", false), ("10.77.0.254:8080", true), ("[fd77::fe]:8080", true)]
    {
        let command = format!("connect {destination}");
        let (excluded, seen) = lab.growth(Counter::Excluded, |lab| lab.client.app.client(&command).unwrap());
        assert_eq!(excluded, 1, "{command}");
        assert_eq!(seen.peer, destination.parse().unwrap());
        assert_eq!(sys::canonical(seen.told("peer")), seen.own, "{command}, direct: {direct}");
    }
    let (passed, seen) =
        lab.growth(Counter::InboundPassed, |lab| lab.stranger.client("connect 10.77.0.2:9002").unwrap());
    assert_eq!((passed, sys::canonical(seen.told("peer"))), (1, seen.own));
}
