//! Many connections at once.

use super::lab::Lab;
use warren_common::abi::Counter;

/// The requirement is none lost, on one thread and on eight.
pub fn twenty_thousand_connects_lose_nothing(lab: &mut Lab) {
    for (destination, threads) in [("192.0.2.9:7001", 1), ("192.0.2.9:7001", 8), ("[2001:db8::9]:7002", 8)] {
        let answer = lab.client.app.ask(&format!("flood {destination} 20000 {threads}"));
        println!("# {destination}, {threads} threads: {answer} per connect and answer");
        assert!(answer.starts_with("misses=0 "), "{answer}");
    }
    assert_eq!(lab.count(Counter::OriginMissing), 0);
    assert_eq!(lab.count(Counter::ConnectDenied), 1, "only the one refused on purpose");
}

/// Programs and links are swapped while connections come in; the listeners stay the same here.
pub fn a_new_agent_takes_over_under_load(lab: &mut Lab) {
    lab.client.app.send("flood 192.0.2.9:7001 20000 8");
    for _ in 0..5 {
        lab.start_agent();
    }
    let answer = lab.client.app.answer();
    assert!(answer.starts_with("misses=0 "), "{answer}");
}
