//! When things fail: an agent or the controller dies, is restarted, is started twice, or is told nonsense. What is
//! claimed is the table of DESIGN 9: nothing hangs, nothing leaves in plaintext, and what can go on goes on.

mod turmoil;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use turmoil::{
    SOON, Wire, at, must_be_clean, say, shop, stream, until_enrolled, until_reached, until_status, warren,
    warren_path,
};
use warren_tests::lab::{Lab, PodSpec, Proc, ServiceSpec, poll_until};

/// Waits until so many open connections of the first node's pods have brought an answer of five bytes.
fn until_answered(lab: &Lab, count: usize) -> Result<()> {
    poll_until(&format!("{count} answers"), SOON, || {
        let flows = lab.node("n1").admin("/v1/flows").ok()?;
        let answered = flows["flows"].as_array()?.iter().filter(|flow| {
            flow["state"] == "open" && flow["direction"] == "outbound" && flow["bytes_received"] == 5
        });
        (answered.count() == count).then_some(())
    })
}

#[test]
fn connections_of_a_killed_agent_are_reset_at_both_ends() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let (client, near, far) = (lab.pod("client"), lab.pod("near"), lab.pod("far"));
        let _servers = [near.serve(["echo", "--port", "9000"])?, far.serve(["echo", "--port", "9000"])?];
        for killed in ["n1", "n2"] {
            let mut open = Vec::new();
            for (server, uses) in [(&near, "n1"), (&far, "n1 n2")] {
                let to = at(server, 9000);
                let patient =
                    ["connect", "--to", &to, "--send", "hello", "--keep-open", "--timeout-ms", "20000"];
                open.push((uses, client.workload(patient).spawn()?));
            }
            // Their answers have come: they are established end to end.
            until_answered(lab, 2)?;
            let start = Instant::now();
            lab.node(killed).agent().kill();
            for (uses, connection) in open {
                if !uses.contains(killed) {
                    continue;
                }
                let ended = connection.wait(SOON)?.json()?;
                ensure!(start.elapsed() < Duration::from_secs(8), "it hung {:?}", start.elapsed());
                ensure!(ended["error"] == "ECONNRESET", "{killed} killed, the application sees: {ended}");
            }
            lab.node(killed).start_agent()?;
            for server in [&near, &far] {
                until_reached(&client, &at(server, 9000))?;
            }
        }
        Ok(())
    });
}

#[test]
fn pods_of_a_killed_agent_fail_closed_in_every_direction() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let (client, near, far) = (lab.pod("client"), lab.pod("near"), lab.pod("far"));
        let outside = lab.pod("outside-far");
        let mut servers = Vec::new();
        for name in ["client", "near", "far", "outside-near", "outside-far"] {
            servers.push(lab.pod(name).serve(["echo", "--port", "9000"])?);
        }
        until_reached(&client, &at(&far, 9000))?;
        until_reached(&outside, &at(&client, 9000))?;
        lab.node("n1").agent().kill();
        let wire = Wire::capture(lab, "fail-closed", "tcp")?;

        let vip = format!("{}:90", lab.vip("web")?.0);
        let mut targets = vec![vip, format!("[{}]:9000", far.ip6())];
        targets.extend(["near", "far", "outside-near", "outside-far"].map(|name| at(&lab.pod(name), 9000)));
        for to in targets {
            let refused = say(&client, &to, "outbound-in-plaintext")?;
            ensure!(refused["error"] == "ECONNREFUSED", "outbound to {to}: {refused}");
            ensure!(refused["ms"].as_f64() < Some(3000.0), "outbound to {to} was slow: {refused}");
        }
        for from in ["outside-near", "outside-far"] {
            let refused = say(&lab.pod(from), &at(&near, 9000), "inbound-in-plaintext")?;
            ensure!(refused["error"] == "ECONNREFUSED", "{from} inbound: {refused}");
        }
        let tunnel = say(&far, &at(&client, 9000), "tunnel-in-plaintext")?;
        ensure!(
            tunnel["ok"] == false && tunnel["received"] != 19,
            "a tunnel to a pod without agent: {tunnel}"
        );
        // Without waiting for the deadline of a handshake, which is 10 s.
        ensure!(tunnel["ms"].as_f64() < Some(9000.0), "the tunnel's failure was slow: {tunnel}");
        let said = lab.node("n2").until_flow("that failed", |flow| flow["error"].is_string())?;
        ensure!(said["error"].to_string().contains("is the warren agent of that node running"), "{said}");

        // The capture works: it has what pods outside the mesh say.
        let plain = say(&lab.pod("outside-near"), &at(&outside, 9000), "outside-in-plaintext")?;
        ensure!(plain["ok"] == true, "{plain}");
        poll_until("the capture", SOON, || wire.has("outside-in-plaintext").ok()?.then_some(()))?;
        for marker in ["outbound-in-plaintext", "inbound-in-plaintext", "tunnel-in-plaintext"] {
            ensure!(!wire.has(marker)?, "{marker}");
        }
        // Not even the attempt of a connection left the pod: `IP <client> > ...: Flags [S]`.
        let sender = format!("IP {}.", client.ip4());
        let sent: Vec<_> = wire.packets(lab)?.into_iter().filter(|packet| packet.contains(&sender)).collect();
        ensure!(sent.iter().all(|packet| !packet.contains("Flags [S]")), "{sent:#?}");
        Ok(())
    });
}

#[test]
fn a_restarted_agent_has_its_pods_again_at_once() {
    let lab = shop()
        .pod("leaver", |pod| pod.on("n1").namespace("shop"))
        .pod("gone", |pod| pod.on("n1").namespace("shop"));
    lab.test(|lab| {
        lab.start_mesh()?;
        let (node, client, far) = (lab.node("n1"), lab.pod("client"), lab.pod("far"));
        let _servers = [far.serve(["echo", "--port", "9000"])?, client.serve(["echo", "--port", "9000"])?];
        until_enrolled(node, 4)?;
        node.agent().kill();
        lab.label_pod("leaver", "warren.dev/mesh", Some("disabled"))?;
        lab.delete_pod("gone")?;
        let captured = || {
            let pins = lab.dir().join("bpf/n1/pods");
            std::fs::read_dir(pins).map(Iterator::count).unwrap_or_default()
        };
        ensure!(captured() == 4, "a killed agent's captures stay: {}", captured());

        let start = Instant::now();
        node.start_agent()?;
        let took = start.elapsed();
        println!("ready {took:?} after its start");
        ensure!(took < Duration::from_secs(5), "ready only after {took:?}");
        let reached = say(&client, &at(&far, 9000), "hello")?;
        ensure!(reached["text"] == "hello", "as soon as it is ready: {reached}");
        node.until_flow("through a tunnel", |flow| flow["transport"] == "hbone")?;
        until_reached(&far, &at(&client, 9000))?;

        // Released while the agent was away: talks in plaintext as if never enrolled.
        until_reached(&lab.pod("leaver"), &at(&far, 9000))?;
        lab.node("n2").until_flow("in plaintext", |flow| flow["transport"] == "plaintext")?;
        poll_until("stale captures to go", SOON, || (captured() == 2).then_some(()))
            .with_context(|| format!("{} are left", captured()))?;
        until_enrolled(node, 2)
    });
}

#[test]
fn agents_start_from_disk_while_the_controller_is_away() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let (client, far) = (lab.pod("client"), lab.pod("far"));
        let _server = far.serve(["echo", "--port", "9000"])?;
        until_reached(&client, &at(&far, 9000))?;
        for node in lab.nodes() {
            node.agent().stop()?;
        }
        lab.controller().kill();
        for node in lab.nodes() {
            node.start_agent()?;
        }
        let reached = say(&client, &at(&far, 9000), "hello")?;
        ensure!(reached["text"] == "hello", "without a controller: {reached}");
        lab.node("n1").until_flow("through a tunnel", |flow| flow["transport"] == "hbone")?;
        let status = lab.node("n1").admin("/v1/status")?;
        let controller = &status["controller"];
        ensure!(
            controller["from_disk"] == true && controller["connected"] == false && status["ready"] == true,
            "{status:#}"
        );
        let page = warren(lab.node("n1"), &["status"]).stdout()?;
        ensure!(page.contains("saved on disk") && page.contains("not connected"), "{page}");

        lab.start_controller()?;
        until_status(lab.node("n1"), "that the controller is back", |status| {
            status["controller"]["connected"] == true && status["controller"]["from_disk"] == false
        })?;
        Ok(())
    });
}

#[test]
fn a_pod_newer_than_the_saved_configuration_stays_captured_until_the_controller_is_back() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let node = lab.node("n1");
        let outside = lab.pod("outside-far");
        let _server = outside.serve(["echo", "--port", "9000"])?;
        let saved = lab.dir().join("nodes/n1/state/mesh.pb");
        poll_until("the configuration to be saved", SOON, || saved.exists().then_some(()))?;
        let before = std::fs::read(&saved)?;
        let young =
            lab.add_pod(&PodSpec::new("young").on("n1").namespace("shop").service_account("young"))?;
        until_enrolled(node, 3)?;
        node.agent().kill();
        lab.controller().kill();
        // An agent that died before it could save.
        std::fs::write(&saved, before)?;
        node.start_agent()?;
        // For longer than leftovers of an earlier agent are kept.
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(4) {
            let refused = say(&young, &at(&outside, 9000), "in plaintext?")?;
            ensure!(refused["ok"] == false, "after {:?}: {refused}", start.elapsed());
        }
        lab.start_controller()?;
        until_enrolled(node, 3)?;
        until_reached(&young, &at(&outside, 9000))
    });
}

#[test]
fn the_controller_dies_and_comes_back_under_traffic() {
    shop().agent_arg("--log").agent_arg("info,warren_agent=debug").test(|lab| {
        lab.start_mesh()?;
        let (client, far) = (lab.pod("client"), lab.pod("far"));
        let _servers =
            [far.serve(["echo", "--port", "9000"])?, lab.pod("near").serve(["echo", "--port", "9000"])?];
        let vip = format!("{}:90", lab.vip("web")?.0);
        let through_service = stream(&client, &vip, &["--reconnect-after", "3"])?;
        let steady = stream(&client, &at(&far, 9000), &[])?;

        lab.controller().kill();
        let late = ServiceSpec::new("late").namespace("shop").port("tcp", 91, 9000).select("app", "web");
        lab.add_service(&late)?;
        until_status(lab.node("n1"), "that the controller is gone", |s| {
            s["controller"]["connected"] == false
        })?;
        let log_before = log(lab, "n1").len();
        lab.start_controller()?;
        until_reached(&client, &format!("{}:91", lab.vip("late")?.0))?;
        until_status(lab.node("n1"), "that the controller is back", |s| {
            s["controller"]["connected"] == true
        })?;
        // Before it is known it is outside of the mesh, and reached too.
        until_status(lab.node("n1"), "the new service", |s| s["services"] == 2)?;

        // The service and the workloads behind it, and nothing else: 5 workloads and 1 service were known.
        let log = log(lab, "n1");
        let resent: u64 = log[log_before..]
            .lines()
            .filter(|line| line.contains("configuration received"))
            .filter_map(|line| line.split_once("changes=")?.1.split_whitespace().next()?.parse::<u64>().ok())
            .sum();
        ensure!((1..=3).contains(&resent), "{resent} resources were sent after the restart");
        must_be_clean(steady, "an open connection")?;
        let report = must_be_clean(through_service, "new connections")?;
        ensure!(report["connects"].as_u64() > Some(20), "{report}");
        Ok(())
    });
}

fn log(lab: &Lab, node: &str) -> String {
    std::fs::read_to_string(lab.node(node).agent().log_path()).unwrap_or_default()
}

#[test]
fn sigterm_lets_open_connections_finish_and_new_ones_fail() {
    shop().agent_arg("--drain-deadline").agent_arg("20s").test(|lab| {
        lab.start_mesh()?;
        let (client, far) = (lab.pod("client"), lab.pod("far"));
        let _server = far.serve(["echo", "--port", "9000"])?;
        for node in ["n1", "n2"] {
            let to = at(&far, 9000);
            let mut held = client.workload(["hold", "--to", &to, "--count", "20"]).with_stdin().spawn()?;
            held.wait_for("\"open\":20", SOON)?;
            let agent = lab.node(node).agent();
            let stopped = std::thread::scope(|scope| -> Result<Duration> {
                let stop = scope.spawn(|| -> Result<Duration> {
                    let start = Instant::now();
                    agent.stop()?;
                    Ok(start.elapsed())
                });
                poll_until("the agent to drain", SOON, || {
                    agent.log_tail(20).contains("draining").then_some(())
                })?;
                poll_until("new connections to fail", SOON, || {
                    let refused = say(&client, &to, "late").ok()?;
                    (refused["ok"] == false).then_some(())
                })?;
                let held = held.report(SOON)?;
                ensure!(held["ok"] == true, "{node} drains and breaks connections: {held}");
                stop.join().map_err(|_| anyhow::anyhow!("stopping panicked"))?
            })?;
            ensure!(
                stopped < Duration::from_secs(15),
                "it did not end with its last connection: {stopped:?}"
            );
            ensure!(agent.log_tail(5).contains("drained"), "{}", agent.log_tail(5));
            lab.node(node).start_agent()?;
            until_reached(&client, &to)?;
        }
        Ok(())
    });
}

#[test]
fn the_drain_deadline_cuts_connections_off() {
    shop().agent_arg("--drain-deadline").agent_arg("1s").test(|lab| {
        lab.start_mesh()?;
        let (client, far) = (lab.pod("client"), lab.pod("far"));
        let _server = far.serve(["echo", "--port", "9000"])?;
        let to = at(&far, 9000);
        let patient = ["connect", "--to", &to, "--send", "hello", "--keep-open", "--timeout-ms", "20000"];
        let open = client.workload(patient).spawn()?;
        until_answered(lab, 1)?;
        let start = Instant::now();
        lab.node("n1").agent().stop()?;
        let took = start.elapsed();
        ensure!(took > Duration::from_millis(900) && took < Duration::from_secs(10), "{took:?}");
        let cut = open.wait(SOON)?.json()?;
        ensure!(cut["error"] == "ECONNRESET", "cut off, the application sees: {cut}");
        Ok(())
    });
}

#[test]
fn a_second_agent_that_cannot_take_over_refuses_to_start_and_harms_nothing() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let (client, far, node) = (lab.pod("client"), lab.pod("far"), lab.node("n1"));
        let _server = far.serve(["echo", "--port", "9000"])?;
        until_reached(&client, &at(&far, 9000))?;
        let running = stream(&client, &at(&far, 9000), &["--reconnect-after", "10"])?;
        let path = |name: &str| lab.dir().join(name).display().to_string();
        let pods = lab.cgroup().join("n1/pods").display().to_string();
        let start = Instant::now();
        let second = node
            .command(warren_path())
            .args(["agent", "--node", "n1", "--controller", "https://192.168.77.250:15012"])
            .args(["--controller-ca", &path("ca/root-cert.pem"), "--token", &path("tokens/n1")])
            .args(["--pods-cgroup", &pods, "--bpf-dir", &path("bpf/n1")])
            .args(["--state-dir", &path("nodes/n1/state"), "--admin-socket", &path("nodes/n1/admin.sock")])
            // It does not find the first one.
            .args(["--handover-socket", &path("nodes/n1/elsewhere.sock")])
            .run()?;
        ensure!(!second.status.success() && start.elapsed() < Duration::from_secs(5), "{second}");
        let said = second.stderr.clone();
        ensure!(said.contains("15020") && said.contains("already"), "not clear: {said}");
        // The first one's admin socket, programs and traffic are as they were.
        until_enrolled(node, 2)?;
        until_reached(&client, &at(&far, 9000))?;
        must_be_clean(running, "the first agent's traffic")?;
        Ok(())
    });
}

#[test]
fn with_fail_open_pods_talk_in_plaintext_while_no_agent_runs() {
    shop().agent_arg("--fail-open").test(|lab| {
        lab.start_mesh()?;
        let (client, far, node) = (lab.pod("client"), lab.pod("far"), lab.node("n1"));
        let names = ["near", "far", "outside-far"];
        let _servers = names
            .map(|name| lab.pod(name).serve(["echo", "--port", "9000"]))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        ensure!(node.agent().log_tail(50).contains("--fail-open"), "it warns about what it was told");
        node.agent().kill();
        for name in names {
            let answered = say(&client, &at(&lab.pod(name), 9000), "hello")?;
            ensure!(answered["text"] == "hello", "to {name}: {answered}");
        }
        let inbound = say(&lab.pod("outside-far"), &at(&lab.pod("near"), 9000), "hello")?;
        ensure!(inbound["text"] == "hello", "inbound: {inbound}");
        node.start_agent()?;
        until_reached(&client, &at(&far, 9000))?;
        node.until_flow("through a tunnel again", |flow| flow["transport"] == "hbone")?;
        Ok(())
    });
}

#[test]
fn bad_manifests_are_named_and_cost_nothing_else() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let (client, far) = (lab.pod("client"), lab.pod("far"));
        let _servers = [far.serve(["echo", "--port", "9000"])?, lab.pod("near").serve(["echo", "--port", "9000"])?];
        let service = |name: &str, ip: &str, port: &str| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: shop }}\nspec:\n  \
                 clusterIP: {ip}\n  clusterIPs: [{ip}]\n  ports:\n  - name: tcp\n    port: {port}\n    targetPort: 9000\n"
            )
        };
        let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: own-1\n  namespace: shop\n  \
                     labels: { kubernetes.io/service-name: own }\naddressType: IPv4\nports: [{ name: tcp, port: 9000 }]\n";
        let endpoint = format!(
            "endpoints:\n- addresses: [{}]\n  conditions: {{ ready: true }}\n  nodeName: n2\n  targetRef: {{ kind: Pod, name: far, namespace: shop }}\n",
            far.ip4()
        );
        lab.write_manifest("own-slice.yaml", &format!("{slice}{endpoint}"))?;
        lab.write_manifest("own.yaml", &service("own", "10.96.77.1", "70"))?;
        until_reached(&client, "10.96.77.1:70")?;

        // Each breaks another way; the last good version stays.
        let good = service("own", "10.96.77.1", "70");
        let bad = [
            ("bad YAML", good.replace("ports:", "ports: [")),
            ("bad IP", service("own", "10.96.77.999", "70")),
            ("wrong type", service("own", "10.96.77.1", "seventy")),
            ("no kind", good.replace("kind: Service\n", "")),
        ];
        for (what, text) in bad {
            lab.write_manifest("own.yaml", &text)?;
            let problem = poll_until(&format!("{what} to be reported"), SOON, || {
                lab.problems().ok()?.into_iter().find(|problem| problem["place"] == "own.yaml")
            })?;
            ensure!(problem["line"].as_u64() >= Some(1), "{what} has no line: {problem}");
            let reason = problem["reason"].as_str().unwrap_or_default();
            ensure!(!reason.is_empty(), "{what} has no reason: {problem}");
            println!("{what}: {problem}");
            let logged = std::fs::read_to_string(lab.controller().log_path())?;
            ensure!(logged.contains("own.yaml"), "{what} is not in the log");
            // Something else changes meanwhile and arrives.
            let name = what.replace(' ', "-").to_lowercase();
            lab.add_service(&ServiceSpec::new(&name).namespace("shop").port("tcp", 71, 9000).select("app", "web"))?;
            until_reached(&client, &format!("{}:71", lab.vip(&name)?.0))?;
            let kept = say(&client, "10.96.77.1:70", "hello")?;
            ensure!(kept["text"] == "hello", "{what}: the last good version is lost: {kept}");
            lab.write_manifest("own.yaml", &good)?;
            poll_until(&format!("{what} to be forgotten"), SOON, || {
                lab.problems().ok()?.is_empty().then_some(())
            })?;
        }
        lab.write_manifest("own.yaml", &service("own", "10.96.77.1", "75"))?;
        until_reached(&client, "10.96.77.1:75")
    });
}

#[test]
fn nothing_is_ever_on_the_wire_in_plaintext_while_agents_die_and_return() {
    const MARKER: &str = "TOP-SECRET-PAYLOAD-OF-TWO-ENROLLED-PODS";
    shop().test(|lab| {
        lab.start_mesh()?;
        let (client, far) = (lab.pod("client"), lab.pod("far"));
        let _servers = [
            client.serve(["http", "--port", "9000"])?,
            far.serve(["http", "--port", "9000"])?,
            lab.pod("outside-far").serve(["http", "--port", "9000"])?,
        ];
        let wire = Wire::capture(lab, "kill-cycles", "tcp")?;
        let chatter = |from: &str, to: &str| {
            let target = lab.pod(to);
            let line = format!(
                "while :; do for to in {} [{}]; do curl -sg --max-time 2 http://$to:9000/{MARKER} && echo; done; done",
                target.ip4(),
                target.ip6()
            );
            lab.pod(from).command("sh").args(["-c", &line]).spawn()
        };
        let answers = |talk: &Proc| talk.stdout_so_far().matches("server=").count();
        let talks = [chatter("client", "far")?, chatter("far", "client")?];
        for round in 0..3 {
            for node in ["n1", "n2"] {
                let before = talks.each_ref().map(answers);
                poll_until("traffic both ways", Duration::from_secs(20), || {
                    let now = talks.each_ref().map(answers);
                    now.iter().zip(&before).all(|(now, before)| *now >= before + 3).then_some(())
                })
                .with_context(|| format!("round {round}, before {node} dies"))?;
                lab.node(node).agent().kill();
                lab.node(node).start_agent()?;
            }
        }
        drop(talks);
        // The capture has what is said in plaintext, and the tunnels.
        let control = format!("http://{}:9000/OUTSIDE-THE-MESH", lab.pod("outside-far").ip4());
        lab.pod("outside-near").command("curl").args(["-sS", "--max-time", "5", &control]).stdout()?;
        poll_until("the capture", SOON, || wire.has("OUTSIDE-THE-MESH").ok()?.then_some(()))?;
        ensure!(!wire.has(MARKER)?, "the payload was on the wire in plaintext");
        let packets = wire.packets(lab)?;
        let tunnels = packets.iter().filter(|packet| packet.contains(".15008")).count();
        ensure!(tunnels > 100, "only {tunnels} packets of tunnels");
        Ok(())
    });
}
