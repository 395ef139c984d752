//! Among equals: by turn, by chance, by what they have to do, by hash.

use super::*;

fn abc() -> Vec<Workload> {
    ["a", "b", "c"].map(workload).into()
}

#[test]
fn one_after_the_other() {
    let group = group(abc(), simple(SimpleBalancer::RoundRobin));
    let turns = |known: &Known, avoid: &[WorkloadUid]| -> String {
        (0..6).map(|n| picked(&group, &Ask { avoid, ..ask(n) }, known)).collect()
    };
    assert_eq!(turns(&Known::default(), &[]), "abcabc");
    assert_eq!(turns(&Known::out(&["b"]), &[]), "acacac", "whoever is left shares it out evenly");
    assert_eq!(turns(&Known::default(), &[WorkloadUid("a".into())]), "bcbcbc");
}

#[test]
fn weights_are_shares() {
    for balancer in [SimpleBalancer::RoundRobin, SimpleBalancer::Random, SimpleBalancer::LeastRequest] {
        let all = vec![weighted("a", 1), weighted("b", 3), weighted("c", 4)];
        let group = group(all, simple(balancer));
        let expected = [("a", 12.5), ("b", 37.5), ("c", 50.0)];
        assert_shares(&group, &Known::default(), &expected, &format!("{balancer:?}"));
        let without = [("a", 25.0), ("b", 75.0)];
        assert_shares(&group, &Known::out(&["c"]), &without, &format!("{balancer:?} without c"));
    }
}

#[test]
fn chance_is_fair() {
    let group = group(abc(), simple(SimpleBalancer::Random));
    let third = 100.0 / 3.0;
    assert_shares(&group, &Known::default(), &[("a", third), ("b", third), ("c", third)], "random");
}

#[test]
fn of_two_the_one_that_has_less_to_do() {
    let pair = group(["a", "b"].map(workload).into(), Balancer::default());
    let mut known = Known { active: HashMap::from([("a".into(), 1)]), ..Known::default() };
    let to_b = (0..1000).filter(|n| picked(&pair, &ask(*n), &known) == "b").count();
    assert!(to_b > 900, "{to_b}: both are nearly always seen");
    // Per weight: 3 of 4 is less than 1 of 1.
    let uneven = group(vec![weighted("a", 1), weighted("b", 4)], Balancer::default());
    known.active = HashMap::from([("a".into(), 1), ("b".into(), 3)]);
    let to_b = (0..1000).filter(|n| picked(&uneven, &ask(*n), &known) == "b").count();
    assert!(to_b > 800, "{to_b}");
    // A slow one gets no queue: 10 endpoints, one of which never answers.
    let ten: Vec<_> = (0..10).map(|n| workload(&format!("w{n}"))).collect();
    let (least, random) =
        (group(ten.clone(), Balancer::default()), group(ten, simple(SimpleBalancer::Random)));
    let stuck = |group: &Group| {
        let mut known = Known::default();
        for n in 0..1000 {
            let name = picked(group, &ask(n), &known);
            if name == "w0" {
                *known.active.entry(name).or_insert(0) += 1;
            }
        }
        known.active["w0"]
    };
    assert!(stuck(&least) <= 20 && stuck(&random) > 60, "{} {}", stuck(&least), stuck(&random));
}

#[test]
fn the_same_hash_finds_the_same_endpoint() {
    for kind in [HashRing::Ring { minimum: 1024 }, HashRing::Maglev { size: 65_537 }] {
        let balancer = Balancer { hash: Some((HashKey::SourceIp, kind)), ..Balancer::default() };
        let ten: Vec<_> = (0..10).map(|n| workload(&format!("w{n}"))).collect();
        let group = group(ten, balancer);
        assert_eq!(group.hash_key(), Some(&HashKey::SourceIp));
        let of = |hash: u64, n: u64, known: &Known| {
            picked(&group, &Ask { hash: Some(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)), ..ask(n) }, known)
        };
        let (all, without) = (Known::default(), Known::out(&["w3"]));
        let mut seen = HashSet::new();
        for hash in 0..500 {
            let own = of(hash, 0, &all);
            assert!((1..5).all(|n| of(hash, n, &all) == own), "{kind:?}");
            match &*own {
                "w3" => assert_ne!(of(hash, 0, &without), "w3"),
                _ => assert_eq!(of(hash, 0, &without), own, "others stay"),
            }
            seen.insert(own);
        }
        assert_eq!(seen.len(), 10);
        // One that has failed for the request stays the one: retryIgnorePreviousHosts is off with a hash.
        let own = of(0, 0, &all);
        let failed = [WorkloadUid(own.as_str().into())];
        let again = Ask { hash: Some(0), avoid: &failed, ..ask(0) };
        assert_eq!(picked(&group, &again, &all), own, "{kind:?}");
        // Without a hash any will do.
        let any: HashSet<_> = (0..200).map(|n| picked(&group, &ask(n), &all)).collect();
        assert_eq!(any.len(), 10);
    }
}

#[test]
fn failed_ones_are_avoided_while_there_are_others() {
    let uid = |name: &str| WorkloadUid(name.into());
    for balancer in [SimpleBalancer::RoundRobin, SimpleBalancer::Random, SimpleBalancer::LeastRequest] {
        let group = group(abc(), simple(balancer));
        let with = |avoid: &[WorkloadUid]| -> HashSet<String> {
            (0..100).map(|n| picked(&group, &Ask { avoid, ..ask(n) }, &Known::default())).collect()
        };
        assert_eq!(with(&[uid("a"), uid("c")]), HashSet::from(["b".into()]), "{balancer:?}");
        assert_eq!(with(&[uid("a"), uid("b"), uid("c")]).len(), 3, "{balancer:?}: better than nothing");
    }
}

#[test]
fn new_endpoints_begin_with_less() {
    let warmup = Warmup { duration_ms: 10_000, minimum_percent: 10.0, aggression: 1.0 };
    for (seconds, aggression, expected) in [
        (0, 1.0, 0.1),
        (1, 1.0, 0.1),
        (5, 1.0, 0.5),
        (9, 1.0, 0.9),
        (10, 1.0, 1.0),
        (11, 1.0, 1.0),
        (1, 2.0, 0.316),
        (0, 0.0, 0.1),
    ] {
        let found = warmth(&Warmup { aggression, ..warmup }, Duration::from_secs(seconds));
        assert!((found - expected).abs() < 0.001, "{seconds} s, {aggression}: {found}");
    }
    for balancer in [SimpleBalancer::RoundRobin, SimpleBalancer::LeastRequest] {
        let group =
            group(["a", "b"].map(workload).into(), Balancer { warmup: Some(warmup), ..simple(balancer) });
        let known = |seconds| Known {
            ages: HashMap::from([("b".into(), Duration::from_secs(seconds))]),
            ..Known::default()
        };
        let share_of_b =
            |seconds| shares(&group, &known(seconds)).iter().find(|(name, _)| name == "b").unwrap().1;
        // A tenth beside a whole, a half beside a whole, two wholes.
        for (seconds, expected) in [(0, 100.0 / 11.0), (5, 100.0 / 3.0), (10, 50.0)] {
            let found = share_of_b(seconds);
            assert!((found - expected).abs() < 1.5, "{balancer:?} {seconds}: {found}");
        }
    }
}

#[test]
fn nobody_is_left() {
    let nobody = group(vec![], Balancer::default()).pick(&ask(1), &Known::default()).unwrap_err();
    assert_eq!(nobody, NoneLeft { known: 0, out: 0 });
    let all_out = group(abc(), Balancer::default()).pick(&ask(1), &Known::out(&["a", "b", "c"])).unwrap_err();
    assert_eq!(all_out.to_string(), "none of 3 endpoints can be used: outlier detection leaves 3 out");
}

#[test]
fn passthrough_is_the_address_that_was_dialled() {
    let at = |name: &str, ip: [u8; 4]| Workload { addresses: vec![ip.into()], ..workload(name) };
    let all = vec![at("a", [10, 0, 0, 1]), at("b", [10, 0, 0, 2])];
    let group = group(all, simple(SimpleBalancer::Passthrough));
    assert!(group.is_passthrough());
    let found = |ip: [u8; 4]| group.at(ip.into()).map(|endpoint| endpoint.workload.name.to_string());
    assert_eq!((found([10, 0, 0, 2]), found([10, 96, 0, 1])), (Some("b".into()), None));
    assert_eq!(shares(&group, &Known::default()).len(), 2, "the service's own address: any");
}
