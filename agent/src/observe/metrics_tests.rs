use super::super::testing::{call, identity, metric, observer, workload};
use super::super::{FlowFlag, Observer};
use warren_common::model::admin::{Direction, Transport, Verdict};

const OPENED: &str = "istio_tcp_connections_opened_total";

fn opened(observer: &Observer) -> String {
    metric(observer, OPENED).remove(0)
}

#[test]
fn labels_are_istios_tcp_set() {
    let observer = observer(8);
    call(&observer).established();
    let expected = [
        r#"reporter="source",source_workload="client",source_canonical_service="client""#,
        r#"source_canonical_revision="v1",source_workload_namespace="shop""#,
        r#"source_principal="spiffe://cluster.local/ns/shop/sa/client",source_app="client""#,
        r#"source_version="v1",source_cluster="Kubernetes",destination_workload="web""#,
        r#"destination_workload_namespace="shop""#,
        r#"destination_principal="spiffe://cluster.local/ns/shop/sa/web",destination_app="web""#,
        r#"destination_version="v1",destination_service="web.shop.svc.cluster.local""#,
        r#"destination_canonical_service="web",destination_canonical_revision="v1""#,
        r#"destination_service_name="web",destination_service_namespace="shop""#,
        r#"destination_cluster="Kubernetes",request_protocol="tcp",response_flags="-""#,
        r#"connection_security_policy="mutual_tls""#,
    ];
    assert_eq!(opened(&observer), format!("{OPENED}{{{}}} 1", expected.join(",")));
}

#[test]
fn what_is_not_known_is_unknown() {
    let observer = observer(8);
    observer.begin(Direction::Outbound, None, Some("192.0.2.9:443".parse().unwrap())).established();
    let line = opened(&observer);
    for expected in [
        r#"source_workload="unknown""#,
        r#"source_canonical_revision="latest""#,
        r#"source_principal="unknown""#,
        r#"destination_service="unknown""#,
        r#"destination_service_name="PassthroughCluster""#,
        r#"connection_security_policy="unknown""#,
    ] {
        assert!(line.contains(expected), "{expected} is not in {line}");
    }
    assert!(!line.contains("192.0.2.9"), "an address in {line}");
}

#[test]
fn an_inbound_connection_is_counted_for_the_service_behind_its_port() {
    let observer = observer(8);
    let flow = observer.begin(Direction::Inbound, None, Some("10.0.2.3:8080".parse().unwrap()));
    flow.source_identity(&identity("client"));
    flow.destination_workload(&workload("web"));
    flow.established();
    let line = opened(&observer);
    for expected in [
        r#"reporter="destination""#,
        r#"source_workload="unknown""#,
        r#"source_workload_namespace="shop""#,
        r#"destination_service="web.shop.svc.cluster.local""#,
        r#"destination_service_name="web""#,
    ] {
        assert!(line.contains(expected), "{expected} is not in {line}");
    }
}

#[test]
fn same_node_is_mutual_only_with_both_identities() {
    for (proven, policy) in [(true, "mutual_tls"), (false, "unknown")] {
        let observer = observer(8);
        let flow = observer.begin(Direction::Outbound, None, None);
        flow.transport(Transport::SameNode);
        flow.source_identity(&identity("client"));
        if proven {
            flow.destination_identity(&identity("web"));
        }
        flow.established();
        assert!(opened(&observer).contains(&format!("connection_security_policy=\"{policy}\"")));
    }
}

#[test]
fn failures_count_on_their_own_with_their_flag() {
    let observer = observer(8);
    let denied = call(&observer);
    denied.verdict(Verdict::Denied, &"shop/deny-all".into());
    drop(denied);
    let broken = call(&observer);
    broken.established();
    broken.fail(FlowFlag::Other, "connection reset");
    drop(broken);
    let failed = metric(&observer, "istio_tcp_connections_failed_total");
    assert_eq!(failed.len(), 2);
    assert_eq!(failed.iter().filter(|line| line.contains(r#"response_flags="DENY""#)).count(), 1);
    // Only what was opened is closed, and under the same labels.
    assert!(opened(&observer).ends_with(" 1"));
    assert_eq!(metric(&observer, OPENED).len(), 1);
    assert!(metric(&observer, "istio_tcp_connections_closed_total")[0].ends_with(" 1"));
}

#[test]
fn the_node_is_described() {
    let observer = observer(8);
    observer.kernel_counters_from(|| vec![("captured_v4", 5), ("event_lost", 0)]);
    let _open = call(&observer);
    let text = observer.encode_metrics();
    for line in [
        "istio_tcp_sockets_open{reporter=\"source\"} 1",
        "istio_tcp_sockets_open{reporter=\"destination\"} 0",
        &format!("istio_build{{component=\"warren\",tag=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
        "warren_kernel_events_total{name=\"captured_v4\"} 5",
        "# TYPE istio_tcp_connections_opened counter",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn the_number_of_series_is_bounded() {
    let observer = observer(8);
    for n in 0..super::MAX_SERIES + 5 {
        let flow = observer.begin(Direction::Outbound, None, None);
        flow.source_workload(&workload(&format!("w{n}")));
        flow.established();
    }
    assert_eq!(metric(&observer, OPENED).len(), super::MAX_SERIES + 1);
    assert_eq!(metric(&observer, "warren_metric_series_overflow"), ["warren_metric_series_overflow_total 5"]);
}

#[test]
fn denials_are_counted_by_policy_and_their_number_is_bounded() {
    let observer = observer(8);
    let flow = call(&observer);
    flow.denied(&"deny shop/a#0".into(), &"shop/a".into());
    call(&observer).evicted(&"deny shop/a#1".into(), &"shop/a".into());
    assert_eq!(
        metric(&observer, "warren_policy_denials_total"),
        [r#"warren_policy_denials_total{policy="shop/a"} 1"#]
    );
    assert_eq!(
        metric(&observer, "warren_policy_evictions_total"),
        [r#"warren_policy_evictions_total{policy="shop/a"} 1"#]
    );
    for number in 0..2000 {
        flow.denied(&"r".into(), &format!("shop/p{number}").into());
    }
    let lines = metric(&observer, "warren_policy_denials_total");
    assert_eq!(lines.len(), 1001);
    assert!(
        lines.contains(&r#"warren_policy_denials_total{policy="other"} 1001"#.to_owned()),
        "{}",
        lines[0]
    );
}
