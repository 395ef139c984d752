//! What servers see of their clients.

use super::{lab::Lab, sys};
use warren_common::abi::Counter;

/// Traps 3 and 4: over v4, v6 and dual-stack listeners, `accept` and `getpeername` show address and port of the
/// client as the network knows it: the client's agent, under the pod's address.
pub fn servers_see_the_true_client(lab: &mut Lab) {
    let destinations = [
        ("10.77.0.2:8080", ""),
        ("10.77.0.2:8080", " mapped"),
        ("10.77.0.2:8081", ""),
        ("[fd77::2]:8081", ""),
        ("[fd77::2]:8082", ""),
    ];
    for (destination, options) in destinations {
        let command = format!("connect {destination}{options}");
        let (shown, seen) = lab.growth(Counter::ClientShown, |lab| lab.client.app.client(&command).unwrap());
        let dialled = lab.dialled.lock().unwrap().pop_back().unwrap();
        assert!(lab.client.addresses.contains(&dialled.ip()), "{dialled}");
        assert_eq!(shown, 1, "{command}");
        assert_eq!(sys::canonical(seen.told("peer")), dialled, "{command}: {seen:?}");
        assert_eq!(sys::canonical(seen.told("accepted")), dialled, "{command}: {seen:?}");
        assert_eq!(sys::canonical(seen.told("own")), destination.parse().unwrap());
        // The listener's own family: a dual-stack one shows v4-mapped addresses.
        assert_eq!(seen.told("peer").is_ipv6(), !destination.ends_with("8080"), "{command}: {seen:?}");
    }
}

/// Trap 3: nobody listens on the port at first; whoever comes later must not be taken for the first client.
pub fn a_failed_connect_leaves_no_client_behind(lab: &mut Lab) {
    let answer = lab.client.app.client("connect 10.77.0.2:8095");
    assert!(answer.as_ref().is_err() || answer.unwrap().line.is_empty());
    lab.server.app.listen("0.0.0.0:8095");
    let (shown, seen) =
        lab.growth(Counter::ClientShown, |lab| lab.server.app.client("connect 10.77.0.2:8095").unwrap());
    assert_eq!((shown, seen.told("peer")), (0, seen.own));
}

/// The same address, the same port: only who opened the connection differs.
pub fn probes_pass_and_strangers_do_not(lab: &mut Lab) {
    for destination in ["10.77.0.2:8080", "[fd77::2]:8081"] {
        let command = format!("connect {destination}");
        let captured = lab.count(Counter::InboundCaptured);
        let (passed, seen) = lab.growth(Counter::ProbePassed, |lab| lab.kubelet.client(&command).unwrap());
        assert_eq!((passed, sys::canonical(seen.told("peer"))), (1, seen.own), "{command}");
        assert_eq!(lab.count(Counter::InboundCaptured), captured);

        let (passed, seen) = lab.growth(Counter::ProbePassed, |lab| lab.stranger.client(&command).unwrap());
        assert_eq!(lab.count(Counter::InboundCaptured), captured + 1);
        assert_eq!((passed, sys::canonical(seen.told("peer"))), (0, seen.own), "{command}");
    }
}
