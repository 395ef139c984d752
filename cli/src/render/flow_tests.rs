use super::*;

const TUNNELLED: &str = r#"{
    "id": 7, "node": "node-a", "direction": "outbound", "state": "closed",
    "start": "2026-05-04T13:23:43.791042Z", "duration_ms": 12.4,
    "source": {"address": "10.0.1.2:40000", "workload": "client", "pod": "client-1", "namespace": "shop",
               "identity": "spiffe://cluster.local/ns/shop/sa/client", "service": null, "endpoint": null},
    "destination": {"address": "10.96.0.7:80", "workload": "web", "pod": "web-1", "namespace": "shop",
                    "identity": "spiffe://cluster.local/ns/shop/sa/web",
                    "service": "web.shop.svc.cluster.local", "endpoint": "10.0.2.3:8080"},
    "transport": "hbone", "verdict": "allowed", "policy": "shop/allow-client",
    "bytes_sent": 78, "bytes_received": 15360, "flags": "-", "error": null
}"#;

fn sample() -> Flow {
    serde_json::from_str(TUNNELLED).unwrap()
}

fn plain(sample: &Flow) -> String {
    flow(sample, false, None, Style::plain(true))
}

#[test]
fn a_good_connection_is_one_line() {
    assert_eq!(
        plain(&sample()),
        "13:23:43.791 out shop/client-1 → web.shop.svc.cluster.local:80 (shop/web-1 10.0.2.3:8080)  \
         ✓ mTLS tunnel  allowed by shop/allow-client, 78 B sent, 15 KiB received, 12 ms\n"
    );
}

#[test]
fn ascii_terminals_are_served() {
    let text = flow(&sample(), false, None, Style::plain(false));
    assert!(text.is_ascii() && text.contains("client-1 -> web") && text.contains("ok mTLS tunnel"), "{text}");
}

#[test]
fn a_failure_says_why_and_what_likely_lies_behind() {
    let mut failed = sample();
    failed.flags = "CONNECT".into();
    failed.error = Some("connection timed out".into());
    failed.policy = None;
    failed.verdict = Verdict::None;
    assert_eq!(
        plain(&failed),
        "13:23:43.791 out shop/client-1 → web.shop.svc.cluster.local:80 (shop/web-1 10.0.2.3:8080)  \
         mTLS tunnel  not judged, 78 B sent, 15 KiB received, 12 ms\n    \
         ✗ CONNECT: connection timed out\n      \
         likely: maybe a NetworkPolicy or firewall blocks port 15008 (HBONE) between the nodes\n"
    );
}

#[test]
fn a_denial_names_the_rule_and_a_stranger_his_address() {
    let mut denied = sample();
    denied.direction = Direction::Inbound;
    denied.source = FlowPeer { address: denied.source.address, ..FlowPeer::default() };
    denied.destination.service = None;
    denied.destination.endpoint = None;
    denied.destination.address = Some("[fd00::3]:8080".parse().unwrap());
    denied.transport = Transport::Plaintext;
    denied.verdict = Verdict::Denied;
    denied.policy = Some("shop/strict".into());
    denied.flags = "DENY".into();
    assert_eq!(
        plain(&denied),
        "13:23:43.791 in  10.0.1.2:40000 → shop/web-1:8080 ([fd00::3]:8080)  ! plaintext  \
         DENIED by shop/strict, 78 B sent, 15 KiB received, 12 ms\n    ✗ DENY\n      \
         likely: the rule shop/strict decided; who calls and which port is what it looked at\n"
    );
}

#[test]
fn wide_adds_who_they_are() {
    let text = flow(&sample(), true, None, Style::plain(true));
    assert!(text.ends_with(
        "    flow 7 on node-a, began 2026-05-04T13:23:43.791042Z, spiffe://cluster.local/ns/shop/sa/client → \
         spiffe://cluster.local/ns/shop/sa/web\n"
    ));
}

#[test]
fn an_open_flow_says_so() {
    let mut open = sample();
    open.state = FlowState::Open;
    assert!(plain(&open).ends_with("open for 12 ms\n"));
}

#[test]
fn losses_are_told() {
    let text = lost(3, None, Style::plain(true));
    assert_eq!(text, "... 3 flows were not shown: they ended faster than this reader took them\n");
    assert!(evicted(1).starts_with("1 older flow is no longer kept"));
}

#[test]
fn merged_records_say_whose_they_are() {
    let text = flow(&sample(), false, Some(8), Style::plain(false));
    assert!(text.starts_with("13:23:43.791 node-a   out shop/client-1 -> "), "{text}");
    assert!(lost(2, Some("node-a"), Style::plain(false)).starts_with("... 2 flows of node-a were not shown"));
}

#[test]
fn rules_of_policies_are_named_without_repeating_the_verdict() {
    let mut judged = sample();
    for (verdict, rule, expected) in [
        (Verdict::Allowed, "allow shop/web#1", "allowed by shop/web#1"),
        (Verdict::Allowed, "allow (no ALLOW policy)", "allowed (no ALLOW policy)"),
        (Verdict::Denied, "deny shop/deny-all#0", "DENIED by shop/deny-all#0"),
        (Verdict::Denied, "deny (no ALLOW rule matched)", "DENIED (no ALLOW rule matched)"),
        (Verdict::Denied, "PeerAuthentication shop/default", "DENIED by PeerAuthentication shop/default"),
    ] {
        judged.verdict = verdict;
        judged.policy = Some(rule.into());
        let text = plain(&judged);
        assert!(text.contains(&format!("{expected}, ")), "{text}");
    }
    judged.dry_run = Some("deny shop/next#0".into());
    assert!(plain(&judged).ends_with("\n    dry run: deny shop/next#0\n"));
}
