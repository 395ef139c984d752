use super::*;
use std::collections::{BTreeMap, BTreeSet};
use warren_common::model::TrustReport;

const RULES: Rules = Rules { settle_s: 10, lifetime_s: 100, rotate_at: Some(2.0 / 3.0) };
const LONG: Validity = Validity { from: 0, to: 1_000_000 };

fn progress(nodes: usize, with_bundle: usize, renewed: usize) -> Progress {
    Progress { nodes, with_bundle, renewed, behind: Vec::new() }
}

fn at(phase: Phase, kind: Kind) -> Position {
    Position { phase, kind, since: 1000, until: 1100 }
}

#[test]
fn each_phase_ends_when_its_time_has_come() {
    use Kind::{Root, Signer};
    use Phase::{Distributing, Dropping, Renewing, Steady};
    let all = (3, 3, 3);
    for (phase, kind, (nodes, with_bundle, renewed), now, expected) in [
        // Nothing is old.
        (Steady, Signer, all, 1000, None),
        // Everybody has the roots, but who is not connected has had no time yet.
        (Distributing, Root, all, 1009, None),
        (Distributing, Root, all, 1010, Some(Step::Sign)),
        // One says nothing or something else: as long as a certificate lives.
        (Distributing, Root, (3, 2, 3), 1099, None),
        (Distributing, Root, (3, 2, 3), 1100, Some(Step::Sign)),
        // Whether certificates are renewed plays no role yet.
        (Distributing, Root, (3, 3, 0), 1010, Some(Step::Sign)),
        (Renewing, Root, (3, 3, 2), 1099, None),
        (Renewing, Root, (3, 3, 2), 1100, Some(Step::Drop)),
        (Renewing, Root, all, 1009, None),
        (Renewing, Root, all, 1010, Some(Step::Drop)),
        // Without another root there is nothing to drop.
        (Renewing, Signer, all, 1010, Some(Step::Finish)),
        (Renewing, Signer, (3, 0, 3), 1010, Some(Step::Finish)),
        (Dropping, Root, (3, 2, 3), 1050, None),
        (Dropping, Root, all, 1000, Some(Step::Finish)),
        (Dropping, Root, (3, 2, 3), 1100, Some(Step::Finish)),
        // A mesh without nodes.
        (Distributing, Root, (0, 0, 0), 1009, None),
        (Distributing, Root, (0, 0, 0), 1010, Some(Step::Sign)),
    ] {
        let progress = progress(nodes, with_bundle, renewed);
        let step = next(&at(phase, kind), (LONG, LONG), &progress, &RULES, now);
        assert_eq!(step, expected, "{phase:?} {kind:?} {progress:?} at {now}");
    }
}

#[test]
fn age_begins_a_rotation_and_the_root_comes_first() {
    let young = Validity { from: 0, to: 3000 };
    let old = Validity { from: 0, to: 1500 };
    let none = Rules { rotate_at: None, ..RULES };
    for (root, signer, rules, now, expected) in [
        (young, young, RULES, 1000, None),
        (young, old, RULES, 999, None),
        (young, old, RULES, 1000, Some(Step::Begin(Kind::Signer))),
        (old, young, RULES, 1000, Some(Step::Begin(Kind::Root))),
        (old, old, RULES, 1000, Some(Step::Begin(Kind::Root))),
        (old, old, RULES, 5000, Some(Step::Begin(Kind::Root))),
        (old, old, none, 5000, None),
    ] {
        let steady = Position::steady(0);
        assert_eq!(
            next(&steady, (root, signer), &Progress::default(), &rules, now),
            expected,
            "{root:?} {signer:?}"
        );
        // While one is under way no other begins.
        let busy = Position { since: now, until: now + 100, ..at(Phase::Renewing, Kind::Signer) };
        assert_eq!(next(&busy, (root, signer), &Progress::default(), &rules, now), None);
    }
}

fn report(bundle: &str, signers: &[&str]) -> TrustReport {
    TrustReport {
        bundles: BTreeSet::from([bundle.to_owned()]),
        signers: signers.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_node_is_as_far_as_the_last_of_its_sessions() {
    let roster = Roster::default();
    let seats: Vec<_> =
        ["n1", "n2", "n2", "n3", "n4"].iter().map(|node| roster.join((*node).into())).collect();
    seats[0].report(report("b2", &["s2"]));
    seats[1].report(report("b2", &["s2"]));
    seats[2].report(report("b1", &["s1", "s2"]));
    // Has no pod of the mesh.
    seats[3].report(report("b2", &[]));
    let share = roster.share("b2", "s2", 7);
    let expected =
        [("n1", (true, true)), ("n2", (false, false)), ("n3", (true, true)), ("n4", (false, false))];
    let expected: BTreeMap<_, _> = expected.iter().map(|(node, is)| (node.to_string(), *is)).collect();
    assert_eq!(share.nodes, expected);
    drop(seats);
    assert!(roster.share("b2", "s2", 7).nodes.is_empty());
}

#[test]
fn nodes_that_nobody_hears_of_are_behind() {
    let share = |bundle: &str, nodes: &[(&str, bool, bool)]| Share {
        at: 0,
        bundle: bundle.to_owned(),
        signer: "s2".to_owned(),
        nodes: nodes.iter().map(|(node, has, is)| (node.to_string(), (*has, *is))).collect(),
    };
    let meshed: BTreeSet<_> = ["n1", "n9"].iter().map(ToString::to_string).collect();
    let shares =
        [share("b2", &[("n1", true, true), ("n2", true, false)]), share("b1", &[("n3", true, true)])];
    let progress = Progress::gather(&shares, &meshed, "b2", "s2");
    assert_eq!((progress.nodes, progress.with_bundle, progress.renewed), (4, 2, 2));
    assert_eq!(progress.behind, ["n2: has older certificates", "n3: has other roots", "n9: not connected"]);
    assert!(!progress.all_have_the_bundle() && !progress.all_are_renewed());
    let progress = Progress::gather(&shares[..1], &BTreeSet::new(), "b2", "s2");
    assert!(progress.all_have_the_bundle() && !progress.all_are_renewed());
}

#[test]
fn alarms_come_in_time_and_say_what_to_do() {
    const DAY: i64 = 86_400;
    let years = Validity { from: 0, to: 3650 * DAY };
    let short = Validity { from: 0, to: 1600 };
    for (validity, now, expected) in [
        (years, 3600 * DAY, None),
        (years, 3621 * DAY, Some(("the root ends in 29 days", false))),
        (years, 3645 * DAY, Some(("the root ends in 5 days", true))),
        (years, 3649 * DAY, Some(("the root ends in 24 hours", true))),
        (years, 3650 * DAY, Some(("the root has expired: no certificate can be issued", true))),
        (short, 1200, None),
        (short, 1201, Some(("the root ends in 399 s", false))),
        (short, 1501, Some(("the root ends in 99 s", true))),
    ] {
        let found = alarm("the root", validity, false, now);
        let found = found.as_ref().map(|alarm| (alarm.text.as_str(), alarm.is_urgent));
        assert_eq!(found, expected, "{validity:?} at {now}");
    }
    let of = |what, by_hand| alarm(what, years, by_hand, 3649 * DAY).unwrap().todo;
    assert!(of("the root", false).starts_with("`warren ca rotate --root`"));
    assert!(of("the signing certificate", false).starts_with("`warren ca rotate`"));
    assert!(of("the root", true).contains("root-cert.pem"));
}
