//! By where endpoints are, by labels, and what happens when some are out.

use super::*;
use warren_common::model::{Health as Ready, Mode, Scope};

fn failing_over(locality: LocalityBalancing, outliers: Option<Outliers>) -> Effective {
    policy(Balancer { locality: Some(locality), ..simple(SimpleBalancer::Random) }, outliers)
}

fn enabled() -> LocalityBalancing {
    LocalityBalancing { enabled: true, ..LocalityBalancing::default() }
}

fn world() -> Vec<Workload> {
    vec![
        at("here", "r1/z1/s1"),
        at("zone", "r1/z1/s2"),
        at("region", "r1/z2/s1"),
        at("r2", "r2/z1/s1"),
        at("r3", "r3/z1/s1"),
    ]
}

fn in_world(policy: &Effective) -> Group {
    group_for(&at("client", "r1/z1/s1"), &service(), world(), policy)
}

#[test]
fn the_nearest_first_then_the_next() {
    let near = in_world(&failing_over(enabled(), Some(outliers())));
    for (out, expected) in [
        (&[][..], &["here"][..]),
        (&["here"], &["zone"]),
        (&["here", "zone"], &["region"]),
        (&["here", "zone", "region"], &["r2", "r3"]),
    ] {
        let found: Vec<_> = shares(&near, &Known::out(out)).into_iter().map(|(name, _)| name).collect();
        assert_eq!(found, expected, "without {out:?}");
    }
    // A failover of the client's region puts the others behind the one it names.
    let failover = vec![RegionFailover { from: "r1".into(), to: "r3".into() }];
    let named = in_world(&failing_over(LocalityBalancing { failover, ..enabled() }, Some(outliers())));
    let without = Known::out(&["here", "zone", "region"]);
    assert_eq!(shares(&named, &without).len(), 1);
    assert_eq!(picked(&named, &ask(1), &without), "r3");
}

/// From failures to another region and back, with time that passes as it is told.
#[test]
fn outliers_drive_failover() {
    struct Seen<'a>(&'a Detector, Instant, &'a Ages);
    impl Health for Seen<'_> {
        fn out(&self) -> usize {
            self.0.out()
        }
        fn is_out(&self, endpoint: &WorkloadUid) -> bool {
            self.0.is_out(endpoint)
        }
        fn active(&self, _: &WorkloadUid) -> u32 {
            0
        }
        fn age(&self, endpoint: &WorkloadUid) -> Option<Duration> {
            self.2.of(endpoint, self.1)
        }
    }
    let near = in_world(&failing_over(enabled(), Some(outliers())));
    let mut now = Instant::now();
    let mut detector = Detector::new(outliers(), now);
    let ages = Ages::default();
    let goes_to = |detector: &Detector, now| {
        let picked = near.pick(&ask(1), &Seen(detector, now, &ages)).unwrap();
        picked.workload.uid.clone()
    };
    for (name, next) in [("here", "zone"), ("zone", "region"), ("region", "r2 or r3")] {
        let failing = goes_to(&detector, now);
        assert_eq!(&*failing.0, name);
        for n in 1..=5 {
            assert_eq!(goes_to(&detector, now), failing, "{n} failures before it goes to {next}");
            let out = detector.report(&failing, Signal::Status(503), near.endpoints().len(), now);
            assert_eq!(out.is_some(), n == 5);
        }
    }
    assert!(matches!(&*goes_to(&detector, now).0, "r2" | "r3"));
    // They come back at the first sweep after their time.
    for (seconds, name) in [(29, "r"), (10, "here")] {
        now += Duration::from_secs(seconds);
        detector.sweep(now);
        assert!(goes_to(&detector, now).0.starts_with(name), "{name}");
    }
}

#[test]
fn localities_count_only_with_outlier_detection_and_while_enabled() {
    let all = |policy: &Effective| shares(&in_world(policy), &Known::default()).len();
    assert_eq!(all(&failing_over(enabled(), None)), 5);
    assert_eq!(all(&failing_over(LocalityBalancing::default(), Some(outliers()))), 5);
    // Istio's default, where nothing is said.
    assert_eq!(all(&policy(simple(SimpleBalancer::Random), Some(outliers()))), 1);
    assert_eq!(all(&policy(simple(SimpleBalancer::Random), None)), 5);
}

/// A level gives away what its healthy share, times 1.4, lacks of the whole.
#[test]
fn traffic_spills() {
    let ten = |prefix: &str, zone: &str| -> Vec<Workload> {
        (0..10).map(|n| at(&format!("{prefix}{n}"), zone)).collect()
    };
    let all = [ten("a", "r1/z1"), ten("b", "r1/z2")].concat();
    let group =
        group_for(&at("client", "r1/z1"), &service(), all, &failing_over(enabled(), Some(outliers())));
    for (out, share) in [(0, 100.0), (2, 100.0), (3, 98.0), (5, 70.0), (8, 28.0), (10, 0.0)] {
        let names: Vec<_> = (0..out).map(|n| format!("a{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let shares = shares(&group, &Known::out(&names));
        let near: f64 = shares.iter().filter(|(name, _)| name.starts_with('a')).map(|(_, share)| share).sum();
        assert!((near - share).abs() < 1.5, "{out} of 10 out: {near} %, not {share} %");
        assert!(!shares.iter().any(|(name, _)| names.contains(&&**name)));
    }
}

#[test]
fn labels_in_the_order_in_which_they_count() {
    let label = |version: &str, tier: &str| {
        [("version".to_owned(), version.to_owned()), ("tier".to_owned(), tier.to_owned())]
    };
    let one = |name: &str, version: &str, tier: &str| {
        let labels = label(version, tier);
        let labels: Vec<_> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        with_labels(name, &labels)
    };
    let client = one("client", "v1", "front");
    let endpoints = || {
        vec![
            one("both", "v1", "front"),
            one("first", "v1", "back"),
            one("second", "v2", "front"),
            with_labels("none", &[]),
        ]
    };
    for (labels, places) in [
        (&["version", "tier"][..], [0, 1, 2, 2]),
        (&["tier", "version"], [0, 2, 1, 2]),
        (&["version=v2"], [1, 1, 0, 1]),
        (&["kubernetes.io/hostname", "version"], [0, 0, 1, 1]),
    ] {
        let failover_priority = labels.iter().map(|label| (*label).into()).collect();
        let setting = LocalityBalancing { failover_priority, ..enabled() };
        let order = Order::new(&setting, &client.placement.locality, true);
        let found: Vec<_> = endpoints().iter().map(|endpoint| order.place(&client, endpoint)).collect();
        assert_eq!(found, places.map(Place::Level), "{labels:?}");
    }
}

#[test]
fn shares_by_locality() {
    let share = |from: &str, to: &[(&str, u32)]| LocalityShare {
        from: from.into(),
        to: to.iter().map(|(to, percent)| ((*to).into(), *percent)).collect(),
    };
    let distribute =
        vec![share("r9/*", &[("r9/*", 100)]), share("r1/z1/*", &[("r1/z1/*", 80), ("r1/z2/*", 20)])];
    let spread = failing_over(LocalityBalancing { distribute, ..enabled() }, Some(outliers()));
    let group = in_world(&spread);
    assert_shares(&group, &Known::default(), &[("here", 40.0), ("region", 20.0), ("zone", 40.0)], "80 to 20");
    // Half of the large part is out: it bears 80 * 0.7.
    let without = Known::out(&["here"]);
    assert_shares(&group, &without, &[("region", 26.3), ("zone", 73.7)], "56 to 20");
    let elsewhere = group_for(&at("client", "r5"), &service(), world(), &spread);
    assert_eq!(shares(&elsewhere, &Known::default()).len(), 5, "no entry for this client");
}

#[test]
fn with_too_few_left_all_are_used() {
    let four: Vec<_> = ["a", "b", "c", "d"].map(workload).into();
    let panicking = |percent| {
        let outliers = Outliers { min_health_percent: percent, ..outliers() };
        let policy = policy(simple(SimpleBalancer::Random), Some(outliers));
        group_for(&workload("client"), &service(), four.clone(), &policy)
    };
    for (percent, out, used) in [
        (50, &["a", "b"][..], 2),
        (50, &["a", "b", "c"], 4),
        (50, &["a", "b", "c", "d"], 4),
        (0, &["a", "b", "c"], 1),
        (10, &["a", "b", "c"], 1),
    ] {
        assert_eq!(shares(&panicking(percent), &Known::out(out)).len(), used, "{percent} % {out:?}");
    }
    assert!(panicking(0).pick(&ask(1), &Known::out(&["a", "b", "c", "d"])).is_err());
}

#[test]
fn subsets_readiness_and_the_services_own_steering() {
    let names = |group: &Group| -> String {
        group.endpoints().iter().map(|endpoint| &*endpoint.workload.name).collect()
    };
    let v = |name: &str, version: &str, ready| Workload {
        health: ready,
        ..with_labels(name, &[("version", version)])
    };
    let all = vec![
        v("a", "v1", Ready::Healthy),
        v("b", "v2", Ready::Healthy),
        v("c", "v1", Ready::Unhealthy),
        v("d", "v2", Ready::Terminating),
        v("e", "v3", Ready::Terminating),
    ];
    let of = |version: Option<&str>| {
        let mut policy = policy(Balancer::default(), None);
        policy.labels = version.map(|version| ("version".into(), version.into())).into_iter().collect();
        group_for(&workload("client"), &service(), all.clone(), &policy)
    };
    for (version, expected) in
        [(None, "ab"), (Some("v1"), "a"), (Some("v2"), "b"), (Some("v3"), "e"), (Some("v4"), "")]
    {
        assert_eq!(names(&of(version)), expected, "{version:?}");
    }
    assert_eq!(of(None).endpoints()[0].port, 8080);
    let steered = |mode| Service {
        steering: Steering { mode, scopes: vec![Scope::Region, Scope::Zone], affinity_s: None },
        ..service()
    };
    let client = at("client", "r1/z1/s1");
    let strict = group_for(&client, &steered(Mode::Strict), world(), &policy(Balancer::default(), None));
    assert_eq!(names(&strict), "herezone");
    // PreferClose has an order without outlier detection; a DestinationRule's setting replaces it.
    let close =
        group_for(&client, &steered(Mode::Failover), world(), &policy(simple(SimpleBalancer::Random), None));
    assert_eq!(shares(&close, &Known::default()).len(), 2);
    let flat = failing_over(LocalityBalancing::default(), None);
    let flat = group_for(&client, &steered(Mode::Failover), world(), &flat);
    assert_eq!(shares(&flat, &Known::default()).len(), 5);
}
