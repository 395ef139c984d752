//! Agents come and go; what they leave behind, and what they refuse.

use super::{
    agent::{Exclusions, PodListeners},
    app::Seen,
    lab::Lab,
    sys,
};
use std::{
    net::TcpListener,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};
use warren_agent::kernel::{BpfKernel, Kernel as _, KernelError, PodCapture};
use warren_common::abi::{Counter, EventKind};

/// What can't be captured whole is not captured at all.
pub fn broken_pods_are_refused(lab: &mut Lab) {
    let kernel = lab.kernel();
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners = lab.client.listeners.as_ref().unwrap();
    let whole = PodCapture {
        cookie: listeners.cookie,
        netns: lab.client.netns.as_fd(),
        addresses: &lab.client.addresses[..1],
        inbound_v4: Some(listeners.inbound_v4()),
        inbound_v6: None,
        exclude_outbound_ports: &[],
        exclude_inbound_ports: &[],
        exclude_outbound_cidrs: &[],
    };
    let refused = |pod: PodCapture<'_>| kernel.enrol(&pod).unwrap_err();
    assert!(matches!(
        refused(PodCapture { inbound_v4: None, ..whole.clone() }),
        KernelError::NoListener { .. }
    ));
    assert!(matches!(
        refused(PodCapture { inbound_v4: Some(elsewhere.as_fd()), ..whole.clone() }),
        KernelError::ListenerElsewhere { .. }
    ));
    assert!(matches!(refused(PodCapture { addresses: &[], ..whole.clone() }), KernelError::Addresses { .. }));
    assert!(matches!(
        refused(PodCapture { exclude_inbound_ports: &[1; 17], ..whole }),
        KernelError::TooManyPorts { found: 17 }
    ));
    // None of that harmed what was enrolled.
    lab.client.app.client("connect [2001:db8::9]:7002").unwrap();
}

/// Both directions, both families; then a new agent, and everything works as before.
pub fn a_dead_agent_fails_closed(lab: &mut Lab) {
    lab.kill_agent();
    for address in ["10.77.0.2:8080", "[fd77::2]:8081"] {
        for app in [&mut lab.client.app, &mut lab.stranger] {
            let answer = app.client(&format!("connect {address}"));
            assert_eq!(answer.unwrap_err(), "error ConnectionRefused", "{address}");
        }
    }
    lab.start_agent();
    let mut events = lab.kernel().events().unwrap();
    assert!(lab.kernel().events().is_none());
    let refused = std::iter::from_fn(|| events.next_within(Duration::ZERO).unwrap())
        .filter(|event| event.kind == EventKind::InboundRefused as u32);
    assert_eq!(refused.map(|it| it.destination.port).collect::<Vec<_>>(), [8080, 8081]);
    assert_eq!(lab.kernel().enrolled().unwrap().len(), 2);
    end_to_end(lab);
}

fn end_to_end(lab: &mut Lab) {
    for destination in ["10.77.0.2:8080", "[fd77::2]:8081"] {
        let seen = lab.client.app.client(&format!("connect {destination}")).unwrap();
        let dialled = lab.dialled.lock().unwrap().pop_back().unwrap();
        assert_eq!(sys::canonical(seen.told("peer")), dialled, "{destination}");
    }
}

/// An agent whose maps look different can't take the old ones over, but it goes on capturing the pods in them.
pub fn another_abi_carries_pods_over(lab: &mut Lab) {
    lab.kill_agent();
    let dirs = std::fs::read_dir(&lab.config.pin_dir).unwrap().map(|it| it.unwrap().path());
    let maps = dirs.into_iter().find(|it| it.join("PODS").exists()).unwrap();
    let foreign = lab.config.pin_dir.join("0123456789abcdef");
    std::fs::rename(&maps, &foreign).unwrap();
    lab.load();
    assert!(maps.exists() && !foreign.exists());
    assert_eq!(lab.kernel().enrolled().unwrap().len(), 2);
    for destination in ["10.77.0.2:8080", "[fd77::2]:8081"] {
        for app in [&mut lab.client.app, &mut lab.stranger] {
            let answer = app.client(&format!("connect {destination}"));
            assert_eq!(answer.unwrap_err(), "error ConnectionRefused", "{destination}");
        }
    }
    lab.start_agent();
    end_to_end(lab);
}

/// The pod's network namespace is gone: the next agent forgets it, with its listeners and networks.
pub fn dead_pods_are_forgotten(lab: &mut Lab) {
    let netns = sys::new_netns();
    sys::within(&netns, || {
        assert!(
            std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success()
        );
    });
    let listeners = PodListeners::open(&netns, &lab.current, &lab.dialled);
    let addresses = ["10.77.0.3".parse().unwrap()];
    listeners.enrol(&*lab.kernel(), &netns, &addresses, &Exclusions::default()).unwrap();
    assert_eq!(lab.kernel().enrolled().unwrap().len(), 3);
    drop((listeners, netns));
    let deadline = Instant::now() + Duration::from_secs(10);
    // The kernel takes namespaces down from a work queue.
    while lab.kernel().enrolled().unwrap().len() == 3 {
        assert!(Instant::now() < deadline, "the dead pod is still enrolled");
        lab.load();
    }
    lab.start_agent();
    end_to_end(lab);
}

/// Plaintext rather than silence, if the node is told so; and captured again when an agent is back.
pub fn fail_open_passes(lab: &mut Lab) {
    lab.config.fail_open = true;
    lab.start_agent();
    end_to_end(lab);
    let counters = lab.kernel();
    lab.kill_agent();
    let before = counters.counters().unwrap()[Counter::FailedOpen as usize];
    for destination in ["10.77.0.2:8080", "[fd77::2]:8081"] {
        assert!(is_direct(&lab.client.app.client(&format!("connect {destination}")).unwrap()));
    }
    assert!(is_direct(&lab.client.app.client("connect 10.77.0.2:8080 mapped").unwrap()));
    // Each was let pass twice: at the client's end and at the server's.
    assert_eq!(counters.counters().unwrap()[Counter::FailedOpen as usize] - before, 6);
    lab.config.fail_open = false;
    lab.start_agent();
    end_to_end(lab);
}

fn is_direct(seen: &Seen) -> bool {
    sys::canonical(seen.told("peer")) == sys::canonical(seen.own)
}

/// Releasing both pods leaves nothing of them; a pod can come back with other exclusions.
pub fn released_pods_are_left_alone(lab: &mut Lab) {
    let kernel = lab.kernel();
    let cookies = [&lab.client, &lab.server].map(|pod| pod.listeners.as_ref().unwrap().cookie);
    for cookie in cookies {
        kernel.release(cookie).unwrap();
        kernel.release(cookie).unwrap();
    }
    assert!(kernel.enrolled().unwrap().is_empty());
    assert!(is_direct(&lab.client.app.client("connect 10.77.0.2:8080").unwrap()));
    assert!(is_direct(&lab.client.app.client("again 10.77.0.2:8080").unwrap()));

    lab.client.exclusions = Exclusions { outbound_ports: vec![8081], ..Exclusions::default() };
    lab.start_agent();
    let (excluded, _) =
        lab.growth(Counter::Excluded, |lab| lab.client.app.client("connect 10.77.0.2:8081").unwrap());
    let (kept, _) =
        lab.growth(Counter::Excluded, |lab| lab.client.app.client("connect 10.77.0.254:8080").unwrap());
    assert_eq!((excluded, kept), (1, 0), "the networks excluded before are forgotten");
}

/// Nothing is captured, nothing is pinned.
pub fn uninstall_leaves_nothing(lab: &mut Lab) {
    lab.kill_agent();
    BpfKernel::uninstall(&lab.config.pin_dir).unwrap();
    assert!(!lab.config.pin_dir.exists());
    BpfKernel::uninstall(&lab.config.pin_dir).unwrap();
    assert!(is_direct(&lab.client.app.client("connect 10.77.0.2:8080").unwrap()));
    assert!(is_direct(&lab.client.app.client("connect [fd77::2]:8081").unwrap()));
}
