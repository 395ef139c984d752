use super::*;
use crate::args::{Cli, Command};
use clap::Parser;

fn parse(more: &[&str]) -> FlowsArgs {
    let line = ["warren", "flows"].iter().chain(more);
    let Command::Flows(args) = Cli::try_parse_from(line).unwrap().command else { panic!("another command") };
    args
}

fn agents(namespace: Option<&str>, names: Option<&[&str]>) -> Agents {
    Agents {
        list: vec![],
        cluster: true,
        namespace: namespace.map(ToOwned::to_owned),
        names: names.map(|names| names.iter().map(|&name| name.to_owned()).collect()),
        missing: vec![],
    }
}

fn flow(start: &str, namespace: &str, workload: &str, pod: &str) -> Flow {
    serde_json::from_value(serde_json::json!({
        "id": 1, "node": "n", "direction": "outbound", "state": "closed", "start": start, "duration_ms": 1500.0,
        "source": {"namespace": namespace, "workload": workload, "pod": pod}, "destination": {},
        "transport": "hbone", "verdict": "allowed", "policy": null, "bytes_sent": 0, "bytes_received": 0,
        "flags": "-", "error": null}))
    .unwrap()
}

#[test]
fn filters_become_a_question() {
    let args = parse(&["-n", "shop", "--pod", "web-1", "--failed"]);
    let agents = agents(Some("shop"), None);
    let shown = Shown { args: &args, agents: &agents, width: None };
    assert_eq!(shown.query(&["last=3".into()]), "/v1/flows?namespace=shop&pod=web-1&failed=true&last=3");
    let args = parse(&["--status", "5xx", "--path", "/x*?a", "--method", "GET", "--route", "cart"]);
    let shown = Shown { args: &args, agents: &agents, width: None };
    assert_eq!(shown.query(&[]), "/v1/flows?namespace=shop&status=5xx&path=/x%2A%3Fa&method=GET&route=cart");
}

#[test]
fn what_is_no_name_is_refused() {
    for wrong in ["a&b", "a b", "", "A", "a\r\nb"] {
        assert!(Cli::try_parse_from(["warren", "flows", "-n", wrong]).is_err(), "{wrong:?}");
    }
    assert!(Cli::try_parse_from(["warren", "flows", "--open"]).is_err());
    assert!(Cli::try_parse_from(["warren", "flows", "-n", "a", "-A"]).is_err());
    assert!(Cli::try_parse_from(["warren", "flows", "deploy/cart", "--pod", "x"]).is_err());
}

#[test]
fn a_target_is_matched_in_its_namespace_by_pod_or_workload() {
    let now = "2026-05-04T10:00:00Z";
    let agents = agents(Some("shop"), Some(&["cart", "cart-1"]));
    for (namespace, workload, pod, expected) in [
        ("shop", "cart", "cart-gone", true),
        ("shop", "other", "cart-1", true),
        ("shop", "other", "cart-2", false),
        ("bank", "cart", "cart-1", false),
    ] {
        assert_eq!(
            wanted(&agents, &flow(now, namespace, workload, pod)),
            expected,
            "{namespace} {workload} {pod}"
        );
    }
}

#[test]
fn times_are_compared_as_times() {
    let (early, late) =
        (flow("2026-05-04T10:00:00Z", "a", "b", "c"), flow("2026-05-04T10:00:00.5Z", "a", "b", "c"));
    assert!(began(&early) < began(&late));
    let ended = happened(&FlowEvent::Flow(Box::new(early.clone())));
    assert_eq!(ended - began(&early), time::Duration::milliseconds(1500));
}
