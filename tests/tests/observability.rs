//! What people see of the mesh: flow records, the debug commands, metrics, readiness. All from outside, as they do.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use warren_tests::checks;
use warren_tests::lab::{Lab, Mesh, Node, poll_until, run_checks};

/// Istio's standard TCP labels, all of them.
const LABELS: [&str; 23] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_flags",
    "connection_security_policy",
];
const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/frontend";
const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/backend";

#[test]
fn people_see_what_happens() {
    Lab::builder()
        .nodes(["n1", "n2"])
        .namespace("shop", Mesh::Enabled)
        .pod("client", |pod| {
            pod.on("n1")
                .namespace("shop")
                .service_account("frontend")
                .label("app", "client")
                .label("version", "v1")
        })
        .pod("near", |pod| {
            pod.on("n1")
                .namespace("shop")
                .service_account("backend")
                .label("app", "near")
                .owner("near-5d4c8b7f9")
        })
        .pod("far", |pod| {
            pod.on("n2")
                .namespace("shop")
                .service_account("backend")
                .label("app", "far")
                .label("version", "v2")
        })
        .pod("outside", |pod| pod.on("n2"))
        .service("remote", |service| service.namespace("shop").port("tcp", 80, 9000).select("app", "far"))
        .test(|lab| {
            lab.start_mesh()?;
            let _servers = ["far", "near", "outside"]
                .iter()
                .map(|name| lab.pod(name).serve(["echo", "--port", "9000"]))
                .collect::<Result<Vec<_>>>()?;
            run_checks(
                lab,
                checks![
                    a_tunnelled_connection_is_recorded_on_both_nodes,
                    a_connection_on_one_node_is_recorded_from_both_sides,
                    a_connection_out_of_the_mesh_is_recorded_as_plaintext,
                    an_open_connection_is_shown_as_open,
                    metrics_have_the_standard_labels_and_the_right_values,
                    same_node_and_plaintext_are_told_apart_in_metrics,
                    the_status_command_tells_how_the_agent_is,
                    the_flows_command_tells_who_talks_to_whom,
                    the_flows_command_follows,
                    the_workloads_command_lists_workloads,
                    the_services_command_lists_services,
                    the_certs_command_lists_certificates,
                    commands_without_an_agent_say_so,
                    an_agent_says_that_it_is_ready,
                ],
            )
        });
}

/// The client sends 5 bytes and reads them back.
fn hello(lab: &Lab, to: &str) -> Result<Value> {
    let seen = lab.pod("client").workload(["connect", "--to", to, "--send", "hello"]).json()?;
    ensure!(seen["ok"] == true && seen["text"] == "hello", "{seen}");
    Ok(seen)
}

fn expect(flow: &Value, fields: &[(&str, Value)]) -> Result<()> {
    for (pointer, wanted) in fields {
        let found = flow.pointer(pointer).with_context(|| format!("no {pointer}: {flow}"))?;
        ensure!(found == wanted, "{pointer} is {found}, not {wanted}: {flow}");
    }
    Ok(())
}

fn a_tunnelled_connection_is_recorded_on_both_nodes(lab: &Lab) -> Result<()> {
    let (client, server) = (lab.node("n1").watch_flows()?, lab.node("n2").watch_flows()?);
    let vip = format!("{}:80", lab.vip("remote")?.0);
    let seen = hello(lab, &vip)?;
    let endpoint = format!("{}:9000", lab.pod("far").ip4());
    let common = [
        ("/source/address", seen["sockname"].clone()),
        ("/source/pod", "client".into()),
        ("/source/workload", "client".into()),
        ("/source/namespace", "shop".into()),
        ("/source/identity", CLIENT.into()),
        ("/destination/pod", "far".into()),
        ("/destination/namespace", "shop".into()),
        ("/destination/identity", SERVER.into()),
        ("/transport", "hbone".into()),
        ("/verdict", "allowed".into()),
        ("/bytes_sent", 5.into()),
        ("/bytes_received", 5.into()),
        ("/flags", "-".into()),
        ("/error", Value::Null),
    ];
    let out = client.expect(&[("/direction", "outbound"), ("/state", "closed")])?;
    expect(&out, &common)?;
    expect(
        &out,
        &[
            ("/node", "n1".into()),
            ("/destination/address", vip.into()),
            ("/destination/service", "remote.shop.svc.cluster.local".into()),
            ("/destination/endpoint", endpoint.clone().into()),
        ],
    )?;
    let inward = server.expect(&[("/direction", "inbound"), ("/state", "closed")])?;
    expect(&inward, &common)?;
    expect(
        &inward,
        &[
            ("/node", "n2".into()),
            ("/destination/address", endpoint.into()),
            ("/policy", "allow (no ALLOW policy)".into()),
        ],
    )?;
    for flow in [&out, &inward] {
        let duration = flow["duration_ms"].as_f64().unwrap_or(-1.0);
        ensure!(duration > 0.0 && duration < 5000.0, "{flow}");
        let start = flow["start"].as_str().unwrap_or_default();
        ensure!(start.ends_with('Z') && start.len() == 27, "not RFC 3339 with microseconds: {flow}");
    }
    Ok(())
}

fn a_connection_on_one_node_is_recorded_from_both_sides(lab: &Lab) -> Result<()> {
    let (flows, other) = (lab.node("n1").watch_flows()?, lab.node("n2").watch_flows()?);
    hello(lab, &format!("{}:9000", lab.pod("near").ip4()))?;
    for direction in ["outbound", "inbound"] {
        let flow = flows.expect(&[("/direction", direction), ("/state", "closed")])?;
        expect(
            &flow,
            &[
                ("/source/identity", CLIENT.into()),
                ("/destination/identity", SERVER.into()),
                // The ReplicaSet's hash is not part of the name of what people deploy.
                ("/destination/workload", "near".into()),
                ("/transport", "same-node".into()),
                ("/verdict", "allowed".into()),
                ("/bytes_sent", 5.into()),
                ("/bytes_received", 5.into()),
            ],
        )?;
    }
    other.expect_none()
}

fn a_connection_out_of_the_mesh_is_recorded_as_plaintext(lab: &Lab) -> Result<()> {
    let (flows, other) = (lab.node("n1").watch_flows()?, lab.node("n2").watch_flows()?);
    hello(lab, &format!("{}:9000", lab.pod("outside").ip4()))?;
    let flow = flows.expect(&[("/direction", "outbound"), ("/state", "closed")])?;
    expect(
        &flow,
        &[
            ("/transport", "plaintext".into()),
            ("/source/pod", "client".into()),
            ("/destination/pod", "outside".into()),
            ("/source/identity", Value::Null),
            ("/destination/identity", Value::Null),
            ("/bytes_sent", 5.into()),
        ],
    )?;
    other.expect_none()
}

fn an_open_connection_is_shown_as_open(lab: &Lab) -> Result<()> {
    let node = lab.node("n1");
    let flows = node.watch_flows()?;
    let to = format!("{}:9000", lab.pod("far").ip4());
    let args = ["hold", "--count", "3", "--to", &to];
    let mut hold = lab.pod("client").workload(args).with_stdin().spawn()?;
    hold.wait_for("\"open\":3", Duration::from_secs(5))?;
    let open: Vec<_> = flows.seen()?.into_iter().filter(|flow| flow["state"] == "open").collect();
    ensure!(open.len() == 3, "{open:?}");
    expect(&open[0], &[("/bytes_sent", 12.into()), ("/bytes_received", 12.into())])?;
    ensure!(node.admin("/v1/status")?["open_flows"] == 3);
    ensure!(node.metric("istio_tcp_sockets_open", &["reporter=\"source\""])? == 3.0);
    ensure!(hold.report(Duration::from_secs(5))?["ok"] == true);
    until_quiet(node)
}

/// Waits until no connection is open: all are counted then.
fn until_quiet(node: &Node) -> Result<()> {
    poll_until("the connections to close", Duration::from_secs(20), || {
        (node.admin("/v1/status").ok()?["open_flows"] == 0).then_some(())
    })
}

/// The series of a family with their labels.
fn series(node: &Node, family: &str) -> Result<Vec<(BTreeMap<String, String>, f64)>> {
    let text = node.metrics()?;
    let lines = text.lines().filter_map(|line| line.strip_prefix(family)?.strip_prefix('{'));
    lines
        .map(|line| {
            let (labels, value) = line.rsplit_once("} ").with_context(|| format!("malformed: {line}"))?;
            let pairs = labels.split("\",").map(|pair| {
                let (name, value) = pair.split_once("=\"").with_context(|| format!("malformed: {line}"))?;
                Ok((name.to_owned(), value.trim_end_matches('"').to_owned()))
            });
            Ok((pairs.collect::<Result<_>>()?, value.parse()?))
        })
        .collect()
}

/// The sum of the series with these labels.
fn sum(node: &Node, family: &str, wanted: &[(&str, &str)]) -> Result<f64> {
    let all = series(node, family)?;
    let fits = |labels: &BTreeMap<String, String>| {
        wanted.iter().all(|(name, value)| labels.get(*name).is_some_and(|found| found == value))
    };
    Ok(all.iter().filter(|(labels, _)| fits(labels)).map(|(_, value)| value).sum())
}

/// Ten connections of 5 bytes to, 5 bytes back: what each side counts of them.
fn counted(lab: &Lab, node: &str, to: &str, wanted: &[(&str, &str)]) -> Result<()> {
    const FAMILIES: [(&str, f64); 4] = [
        ("istio_tcp_connections_opened_total", 10.0),
        ("istio_tcp_connections_closed_total", 10.0),
        ("istio_tcp_sent_bytes_total", 50.0),
        ("istio_tcp_received_bytes_total", 50.0),
    ];
    let node = lab.node(node);
    let read = || FAMILIES.map(|(family, _)| sum(node, family, wanted).unwrap_or(f64::NAN));
    until_quiet(node)?;
    let before = read();
    for _ in 0..10 {
        hello(lab, to)?;
    }
    let done = poll_until("the metrics to count", Duration::from_secs(20), || {
        let now = read();
        let grown = |at: usize| now[at] - before[at];
        (0..FAMILIES.len()).all(|at| grown(at) == FAMILIES[at].1).then_some(())
    });
    done.with_context(|| {
        format!("{wanted:?}: before {before:?}, now {:?}\n{}", read(), node.metrics().unwrap_or_default())
    })
}

fn metrics_have_the_standard_labels_and_the_right_values(lab: &Lab) -> Result<()> {
    let vip = format!("{}:80", lab.vip("remote")?.0);
    for (node, reporter) in [("n1", "source"), ("n2", "destination")] {
        counted(
            lab,
            node,
            &vip,
            &[
                ("reporter", reporter),
                ("source_workload", "client"),
                ("source_workload_namespace", "shop"),
                ("source_principal", CLIENT),
                ("source_app", "client"),
                ("source_version", "v1"),
                ("source_canonical_service", "client"),
                ("source_canonical_revision", "v1"),
                ("destination_workload", "far"),
                ("destination_workload_namespace", "shop"),
                ("destination_principal", SERVER),
                ("destination_app", "far"),
                ("destination_version", "v2"),
                ("destination_service", "remote.shop.svc.cluster.local"),
                ("destination_service_name", "remote"),
                ("destination_service_namespace", "shop"),
                ("destination_canonical_service", "far"),
                ("destination_canonical_revision", "v2"),
                ("request_protocol", "tcp"),
                ("response_flags", "-"),
                ("connection_security_policy", "mutual_tls"),
            ],
        )?;
    }
    for node in lab.nodes() {
        for family in ["istio_tcp_connections_opened_total", "istio_tcp_sent_bytes_total"] {
            for (labels, _) in series(node, family)? {
                let mut found: Vec<_> = labels.keys().map(String::as_str).collect();
                let mut wanted = LABELS.to_vec();
                found.sort_unstable();
                wanted.sort_unstable();
                ensure!(found == wanted, "{family}: {found:?}");
            }
        }
    }
    Ok(())
}

fn same_node_and_plaintext_are_told_apart_in_metrics(lab: &Lab) -> Result<()> {
    let near = format!("{}:9000", lab.pod("near").ip4());
    for reporter in ["source", "destination"] {
        let labels = [
            ("reporter", reporter),
            ("source_principal", CLIENT),
            ("destination_principal", SERVER),
            ("destination_workload", "near"),
            ("connection_security_policy", "mutual_tls"),
        ];
        counted(lab, "n1", &near, &labels)?;
    }
    let outside = format!("{}:9000", lab.pod("outside").ip4());
    let labels = [
        ("reporter", "source"),
        ("source_workload", "client"),
        ("source_principal", "unknown"),
        ("destination_workload", "outside"),
        ("destination_principal", "unknown"),
        ("connection_security_policy", "unknown"),
    ];
    counted(lab, "n1", &outside, &labels)
}

/// What a command prints, as a table and as JSON.
fn both_forms(node: &Node, command: &str) -> Result<(String, Value)> {
    let table = node.warren([command]).stdout()?;
    let json = node.warren([command, "-o", "json"]).stdout()?;
    let json = serde_json::from_str(&json).with_context(|| format!("{command}: not JSON: {json}"))?;
    Ok((table, json))
}

fn mentions(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "no {word:?} in:\n{text}");
    }
    Ok(())
}

fn the_status_command_tells_how_the_agent_is(lab: &Lab) -> Result<()> {
    let (table, json) = both_forms(lab.node("n1"), "status")?;
    mentions(&table, &["n1", "ready", "controller", "connected", "client", "near", "enrolled"])?;
    expect(
        &json,
        &[
            ("/node", "n1".into()),
            ("/ready", true.into()),
            ("/controller/connected", true.into()),
            ("/services", 1.into()),
            ("/kernel/origin_missing", 0.into()),
        ],
    )?;
    let pods = json["pods"].as_array().context("no pods")?;
    ensure!(pods.len() == 2 && pods.iter().all(|pod| pod["state"] == "enrolled"), "{json}");
    Ok(())
}

fn the_flows_command_tells_who_talks_to_whom(lab: &Lab) -> Result<()> {
    let node = lab.node("n1");
    let watch = node.watch_flows()?;
    let closed = format!("{}:9999", lab.pod("far").ip4());
    lab.pod("client").workload(["connect", "--to", &closed]).json()?;
    hello(lab, &format!("{}:80", lab.vip("remote")?.0))?;
    watch.expect(&[("/destination/address", &closed), ("/state", "closed")])?;
    watch.expect(&[("/destination/service", "remote.shop.svc.cluster.local"), ("/state", "closed")])?;
    let table = node.warren(["flows"]).stdout()?;
    mentions(&table, &["shop/client", "remote.shop.svc.cluster.local:80", "mTLS tunnel", "allowed", "5 B"])?;
    let failed = node.warren(["flows", "--failed", "--last", "1", "-o", "wide"]).stdout()?;
    mentions(&failed, &[&closed, "CONNECT", "refused", "likely:"])?;
    let json = node.warren(["flows", "-o", "json", "--pod", "far"]).stdout()?;
    for line in json.lines() {
        let event: Value = serde_json::from_str(line)?;
        let flow = event.get("flow").unwrap_or(&event);
        ensure!(flow["destination"]["pod"] == "far" && flow["node"] == "n1", "{line}");
    }
    ensure!(json.lines().count() > 10, "{json}");
    Ok(())
}

fn the_flows_command_follows(lab: &Lab) -> Result<()> {
    let mut follow = lab.node("n2").warren(["flows", "-f", "-o", "json", "--pod", "far"]).spawn()?;
    let to = format!("{}:9000", lab.pod("far").ip4());
    // The stream says nothing when it begins: connect until it shows one.
    poll_until("a followed flow", Duration::from_secs(10), || {
        let port = hello(lab, &to).ok()?["sockname"].as_str()?.to_owned();
        follow.wait_for(&port, Duration::from_millis(300)).ok()
    })?;
    ensure!(follow.is_running(), "{}", follow.stdout_so_far());
    Ok(())
}

fn the_workloads_command_lists_workloads(lab: &Lab) -> Result<()> {
    let (table, json) = both_forms(lab.node("n1"), "workloads")?;
    mentions(&table, &["NAMESPACE", "client", "far", "outside", "hbone", "none", "backend"])?;
    let all = json["workloads"].as_array().context("no workloads")?;
    let far = all.iter().find(|one| one["name"] == "far").context("far")?;
    expect(far, &[("/node", "n2".into()), ("/tunnel", "hbone".into()), ("/identity", SERVER.into())])
}

fn the_services_command_lists_services(lab: &Lab) -> Result<()> {
    let vip = lab.vip("remote")?.0.to_string();
    let (table, json) = both_forms(lab.node("n1"), "services")?;
    mentions(&table, &["remote", &vip, "1/1", "remote.shop.svc.cluster.local"])?;
    let wide = lab.node("n1").warren(["services", "-o", "wide"]).stdout()?;
    mentions(&wide, &["far", &lab.pod("far").ip4().to_string()])?;
    expect(
        &json["services"][0],
        &[("/endpoints/0/workload", "far".into()), ("/endpoints/0/node", "n2".into())],
    )
}

fn the_certs_command_lists_certificates(lab: &Lab) -> Result<()> {
    let (table, json) = both_forms(lab.node("n1"), "certs")?;
    mentions(&table, &[CLIENT, SERVER, "ready", "TRUSTED ROOT", "warren root"])?;
    let found = json["certificates"].as_array().context("no certificates")?;
    ensure!(found.len() == 2 && found.iter().all(|one| one["state"] == "ready"), "{json}");
    // The other node has no pod of the client's identity, so no certificate of it.
    let (_, other) = both_forms(lab.node("n2"), "certs")?;
    ensure!(!other.to_string().contains(CLIENT), "{other}");
    Ok(())
}

fn commands_without_an_agent_say_so(lab: &Lab) -> Result<()> {
    for command in ["status", "flows", "workloads", "services", "certs"] {
        let nowhere = lab.dir().join("no-agent.sock");
        let done = lab.node("n1").warren([command]).env("WARREN_ADMIN_SOCKET", &nowhere).run()?;
        ensure!(!done.status.success(), "{done}");
        mentions(&done.stderr, &["no-agent.sock"])?;
        ensure!(!done.stderr.contains("panicked"), "{done}");
    }
    Ok(())
}

fn an_agent_says_that_it_is_ready(lab: &Lab) -> Result<()> {
    for node in lab.nodes() {
        let (status, text) = node.readiness()?;
        ensure!(status == 200, "{status} {text}");
    }
    let text = lab.node("n1").metrics()?;
    mentions(&text, &["istio_build", "warren_kernel_events_total{name=\"captured_v4\"}", "# EOF"])
}
