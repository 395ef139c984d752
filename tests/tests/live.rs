//! The cluster changes while its pods talk: certificates, labels, endpoints, pods and tokens. What is claimed: traffic
//! goes on, what changed counts at once, and nothing reaches the wrong pod or leaves in plaintext on the way.

mod turmoil;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use turmoil::{
    SOON, at, must_be_clean, say, shop, stream, until_enrolled, until_reached, until_status, warren,
};
use warren_tests::lab::{Lab, Mesh, Node, PodSpec, Proc, ServiceSpec, poll_until};

/// The label that decides whether a pod is in the mesh.
const MESH: &str = "warren.dev/mesh";

/// A certificate of a node's agent.
fn certificate(node: &Node, account: &str) -> Option<Value> {
    let identity = format!("spiffe://cluster.local/ns/shop/sa/{account}");
    let all = node.admin("/v1/certs").ok()?;
    all["certificates"].as_array()?.iter().find(|one| one["identity"] == identity).cloned()
}

#[test]
fn certificates_are_renewed_under_traffic() {
    let lab = shop().controller_arg("--certificate-lifetime").controller_arg("12s");
    lab.test(|lab| {
        lab.start_mesh()?;
        let (client, far, node) = (lab.pod("client"), lab.pod("far"), lab.node("n1"));
        let _server = far.serve(["echo", "--port", "9000"])?;
        until_reached(&client, &at(&far, 9000))?;
        let steady = stream(&client, &at(&far, 9000), &[])?;
        let quick = stream(&client, &at(&far, 9000), &["--reconnect-after", "5"])?;
        let serial = |account: &str, node: &Node| {
            let certificate = certificate(node, account)?;
            (certificate["state"] == "ready").then(|| certificate["serial"].as_str().map(str::to_owned))?
        };
        let mut seen = vec![serial("client", node).context("no certificate")?];
        while seen.len() < 3 {
            let next = poll_until("a renewal", SOON, || {
                serial("client", node).filter(|serial| !seen.contains(serial))
            })?;
            // A new generation has tunnels of its own: the next connection opens one more.
            seen.push(next);
            let before = node.admin("/v1/status")?["tunnels"].as_u64();
            ensure!(before >= Some(1), "no tunnel at all");
            until_reached(&client, &at(&far, 9000))?;
        }
        let tunnels = until_status(node, "tunnels of several generations", |status| {
            status["tunnels"].as_u64() >= Some(2)
        })?;
        println!("serials {seen:?}, {} tunnels", tunnels["tunnels"]);
        // Between the two questions there may be a renewal.
        let mut last = (String::new(), String::new());
        let shown = poll_until("the page to show the newest", SOON, || {
            last = (serial("client", node)?, warren(node, &["certs"]).stdout().ok()?);
            let (newest, page) = &last;
            (*newest != seen[0] && page.contains(newest.get(..8).unwrap_or(newest))).then_some(())
        });
        shown.with_context(|| format!("{} is not in\n{}", last.0, last.1))?;
        must_be_clean(steady, "a connection older than three certificates")?;
        must_be_clean(quick, "new connections")?;
        Ok(())
    });
}

#[test]
fn a_namespace_leaves_the_mesh_and_returns_under_traffic() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let (client, near, far) = (lab.pod("client"), lab.pod("near"), lab.pod("far"));
        let _servers = [near.serve(["echo", "--port", "9000"])?, far.serve(["echo", "--port", "9000"])?];
        let mut streams = Vec::new();
        for to in [at(&near, 9000), at(&far, 9000), format!("[{}]:9000", far.ip6())] {
            until_reached(&client, &to)?;
            streams.push((format!("open before, to {to}"), stream(&client, &to, &[])?));
            streams.push((format!("new ones, to {to}"), stream(&client, &to, &["--reconnect-after", "5"])?));
        }
        for _ in 0..3 {
            lab.enrol("shop", false)?;
            for node in lab.nodes() {
                until_enrolled(node, 0)?;
            }
            lab.enrol("shop", true)?;
            until_enrolled(lab.node("n1"), 2)?;
            until_enrolled(lab.node("n2"), 1)?;
        }
        let failed: Vec<_> = streams
            .into_iter()
            .filter_map(|(what, stream)| must_be_clean(stream, &what).err())
            .map(|error| error.to_string())
            .collect();
        ensure!(failed.is_empty(), "{failed:#?}");
        Ok(())
    });
}

#[test]
fn a_pods_label_overrides_its_namespace_at_once() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let (client, outside, far) = (lab.pod("client"), lab.pod("outside-near"), lab.pod("far"));
        let _server = far.serve(["echo", "--port", "9000"])?;
        let transport = |ip: String, wanted: &str| {
            lab.node("n2").until_flow(&format!("{wanted} from {ip}"), |flow| {
                flow["transport"] == wanted && flow["source"]["address"].to_string().contains(&ip)
            })
        };
        // Out of an enrolled namespace, into it again; and the other way round.
        lab.label_pod("client", MESH, Some("disabled"))?;
        until_enrolled(lab.node("n1"), 1)?;
        until_reached(&client, &at(&far, 9000))?;
        transport(client.ip4().to_string(), "plaintext")?;
        lab.label_pod("client", MESH, None)?;
        until_enrolled(lab.node("n1"), 2)?;
        until_reached(&client, &at(&far, 9000))?;
        transport(client.ip4().to_string(), "hbone")?;
        lab.label_pod("outside-near", MESH, Some("enabled"))?;
        until_enrolled(lab.node("n1"), 3)?;
        until_reached(&outside, &at(&far, 9000))?;
        transport(outside.ip4().to_string(), "hbone")?;
        lab.label_pod("outside-near", MESH, None)?;
        until_enrolled(lab.node("n1"), 2)?;
        until_reached(&outside, &at(&far, 9000))?;
        transport(outside.ip4().to_string(), "plaintext")?;
        Ok(())
    });
}

#[test]
fn endpoints_come_and_go_under_traffic() {
    let lab =
        shop().pod("far-2", |pod| pod.on("n2").namespace("shop").service_account("web").label("app", "web"));
    lab.test(|lab| {
        lab.start_mesh()?;
        let client = lab.pod("client");
        let names = ["near", "far", "far-2"];
        let _servers = names
            .map(|name| lab.pod(name).serve(["echo", "--port", "9000"]))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        let vip = format!("{}:90", lab.vip("web")?.0);
        until_reached(&client, &vip)?;
        let quick = stream(&client, &vip, &["--reconnect-after", "3"])?;
        let steady = stream(&client, &vip, &["--connections", "6"])?;
        let healthy = |count: usize| {
            poll_until(&format!("{count} healthy endpoints"), SOON, || {
                let services = lab.node("n1").admin("/v1/services").ok()?;
                let web = services["services"]
                    .as_array()?
                    .iter()
                    .find(|one| one["service"].to_string().contains("web.shop"))?;
                let endpoints = web["endpoints"].as_array()?;
                (endpoints.iter().filter(|one| one["health"] == "healthy").count() == count).then_some(())
            })
            .with_context(|| format!("{:#}", lab.node("n1").admin("/v1/services").unwrap_or_default()))
        };
        healthy(3)?;
        for name in names {
            lab.set_ready(name, false)?;
            healthy(2)?;
            lab.set_ready(name, true)?;
            healthy(3)?;
        }
        for only in names {
            lab.set_endpoints("web", Some(&[only]))?;
            healthy(1)?;
        }
        lab.set_endpoints("web", None)?;
        healthy(3)?;
        // The last one: a clean refusal, and service again.
        must_be_clean(quick, "new connections while one endpoint at least was ready")?;
        must_be_clean(steady, "connections to endpoints that were taken out")?;
        lab.set_endpoints("web", Some(&[]))?;
        healthy(0)?;
        let none = say(&client, &vip, "hello")?;
        ensure!(none["ok"] == false && none["ms"].as_f64() < Some(3000.0), "nobody there: {none}");
        lab.set_endpoints("web", None)?;
        until_reached(&client, &vip)
    });
}

#[test]
fn a_service_that_changes_its_port_is_reached_at_the_new_one() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let client = lab.pod("client");
        let _servers = [
            lab.pod("near").serve(["echo", "--port", "9000", "--port", "9100"])?,
            lab.pod("far").serve(["echo", "--port", "9000", "--port", "9100"])?,
        ];
        let vip = lab.vip("web")?.0;
        until_reached(&client, &format!("{vip}:90"))?;
        let open = stream(&client, &format!("{vip}:90"), &[])?;
        // The same address, as the lab gives out the lowest free one.
        lab.delete_service("web")?;
        lab.add_service(
            &ServiceSpec::new("web").namespace("shop").port("tcp", 95, 9100).select("app", "web"),
        )?;
        ensure!(lab.vip("web")?.0 == vip, "another address");
        // Deleting and adding are two changes: until the second one has come, the address is nobody's.
        poll_until("the agent to know the new port", SOON, || {
            let services = lab.node("n1").admin("/v1/services").ok()?;
            let text = services.to_string();
            (text.contains("web.shop") && text.contains("\"service_port\":95")).then_some(())
        })
        .with_context(|| format!("{:#}", lab.node("n1").admin("/v1/services").unwrap_or_default()))?;
        until_reached(&client, &format!("{vip}:95"))?;
        poll_until("the old port to be refused", SOON, || {
            (say(&client, &format!("{vip}:90"), "hello").ok()?["ok"] == false).then_some(())
        })?;
        lab.node("n1")
            .until_flow("to the old port", |flow| flow["error"].to_string().contains("has no port 90"))?;
        must_be_clean(open, "a connection through the old port")?;
        Ok(())
    });
}

#[test]
fn a_pod_made_anew_and_a_reused_address_never_get_anothers_connections() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let client = lab.pod("client");
        let spec = |name: &str, account: &str| {
            PodSpec::new(name).on("n2").namespace("shop").service_account(account)
        };
        let serve = |name: &str, label: &str| {
            lab.pod(name).serve(["server-first", "--port", "9000", "--label", label])
        };
        // Who answers at an address, or why nobody does.
        let ask = |to: &str| {
            let line = ["connect", "--to", to, "--read-line", "--timeout-ms", "16000"];
            client.workload(line).json()
        };
        let until_answered = |to: &str, label: &str| {
            let mut last = Value::Null;
            poll_until(&format!("{label} to answer"), SOON, || {
                last = ask(to).ok()?;
                last["line"].as_str()?.contains(label).then_some(())
            })
            .with_context(|| format!("the last: {last}"))
        };
        lab.add_pod(&spec("db-0", "db").number(50))?;
        let first = serve("db-0", "first")?;
        until_enrolled(lab.node("n2"), 2)?;
        let address = at(&lab.pod("db-0"), 9000);
        until_answered(&address, "first")?;

        // The same name and address, another pod.
        let uid = lab.pod("db-0").uid().to_owned();
        lab.delete_pod("db-0")?;
        drop(first);
        lab.add_pod(&spec("db-0", "db").number(50))?;
        ensure!(lab.pod("db-0").uid() != uid && at(&lab.pod("db-0"), 9000) == address);
        let second = serve("db-0", "second")?;
        let start = Instant::now();
        until_answered(&address, "second")?;
        // Less than one attempt that hangs.
        ensure!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());

        // The name lives on elsewhere; its address goes to a pod of another identity.
        lab.delete_pod("db-0")?;
        drop(second);
        lab.add_pod(&spec("db-0", "db").number(51))?;
        lab.add_pod(&spec("thief", "thief").number(50))?;
        let _servers = [serve("db-0", "third")?, serve("thief", "thief")?];
        let service = ServiceSpec::new("db").namespace("shop").port("tcp", 5432, 9000);
        lab.add_service(&service)?;
        lab.set_endpoints("db", Some(&["db-0"]))?;
        let vip = format!("{}:5432", lab.vip("db")?.0);
        let start = Instant::now();
        let mut answered = 0;
        while answered < 20 && start.elapsed() < SOON {
            let answer = ask(&vip)?;
            let line = answer["line"].as_str().unwrap_or_default();
            ensure!(!line.contains("thief"), "the wrong pod answered: {answer}");
            answered += usize::from(line.contains("third"));
        }
        ensure!(answered == 20, "only {answered} answers");
        until_answered(&address, "thief")?;
        let flow = lab.node("n1").until_flow("to the thief", |flow| flow["destination"]["pod"] == "thief")?;
        ensure!(flow["destination"]["identity"] == "spiffe://cluster.local/ns/shop/sa/thief", "{flow:#}");
        Ok(())
    });
}

#[test]
fn a_pod_is_replaced_under_its_services_traffic_and_no_answer_is_wrong() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let client = lab.pod("client");
        let spec =
            |name: &str| PodSpec::new(name).on("n2").namespace("shop").service_account(name).number(60);
        let whoami = |name: &str| lab.pod(name).serve(["http", "--port", "9000", "--label", name]);
        lab.add_service(&ServiceSpec::new("one").namespace("shop").port("http", 80, 9000))?;
        lab.set_endpoints("one", Some(&["one"]))?;
        // Asks for ever and writes down who answered.
        let vip = lab.vip("one")?.0;
        let line = format!("while :; do curl -s --max-time 8 http://{vip}/ | tr '\\n' ' '; echo; done");
        lab.add_pod(&spec("one"))?;
        let mut server = whoami("one")?;
        until_enrolled(lab.node("n2"), 2)?;
        let asking = client.command("sh").args(["-c", &line]).spawn()?;
        let answered =
            |asking: &Proc, by: &str| asking.stdout_so_far().matches(&format!("server={by}")).count();
        for round in 1..=2 {
            let before = answered(&asking, "one");
            poll_until("answers of the right pod", SOON, || {
                (answered(&asking, "one") > before + 3).then_some(())
            })
            .with_context(|| format!("round {round}"))?;
            lab.delete_pod("one")?;
            // Its address goes to another at once; the service's clients must not find that one.
            lab.add_pod(&spec("other"))?;
            let other = whoami("other")?;
            until_enrolled(lab.node("n2"), 2)?;
            lab.delete_pod("other")?;
            drop(other);
            lab.add_pod(&spec("one"))?;
            server = whoami("one")?;
        }
        ensure!(answered(&asking, "other") == 0, "the pod with the reused address answered for the service");
        drop(server);
        Ok(())
    });
}

#[test]
fn exclusions_change_live_and_nothing_else_goes_around_the_mesh() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let (client, far, node) = (lab.pod("client"), lab.pod("far"), lab.node("n1"));
        let _server = far.serve(["echo", "--port", "9000", "--port", "9100"])?;
        until_reached(&client, &at(&far, 9000))?;
        let captured = stream(&client, &at(&far, 9000), &["--reconnect-after", "3", "--pause-ms", "0"])?;
        let excluded = stream(&client, &at(&far, 9100), &["--reconnect-after", "3"])?;
        let plaintext = |port: u16| {
            let flows = lab.node("n2").admin("/v1/flows").ok()?;
            let to = format!(":{port}");
            let is_plain = |flow: &&Value| {
                flow["transport"] == "plaintext"
                    && flow["destination"]["address"].as_str().is_some_and(|address| address.ends_with(&to))
            };
            Some(flows["flows"].as_array()?.iter().filter(is_plain).count())
        };
        for (key, value) in [
            ("warren.dev/exclude-outbound-ports", "9100"),
            ("warren.dev/exclude-outbound-ports", "9100,9101"),
            ("warren.dev/exclude-outbound-cidrs", "10.99.0.0/16"),
            ("warren.dev/exclude-inbound-ports", "9200"),
        ] {
            lab.annotate_pod("client", key, Some(value))?;
            let before = plaintext(9100).context("no flows")?;
            if key.ends_with("outbound-ports") {
                poll_until(&format!("{key}={value} to count"), SOON, || {
                    (plaintext(9100)? > before).then_some(())
                })?;
            }
            until_enrolled(node, 2)?;
        }
        lab.annotate_pod("client", "warren.dev/exclude-outbound-ports", None)?;
        poll_until("the exclusion to end", SOON, || {
            say(&client, &at(&far, 9100), "hello").ok()?;
            let flows = node.admin("/v1/flows").ok()?;
            let newest = flows["flows"].as_array()?.iter().rev().find(|flow| {
                flow["direction"] == "outbound"
                    && flow["destination"]["address"].as_str().is_some_and(|to| to.ends_with(":9100"))
            })?;
            (newest["transport"] == "hbone").then_some(())
        })?;
        must_be_clean(excluded, "the excluded port")?;
        must_be_clean(captured, "the captured port")?;
        // Port 9000 was never excluded.
        ensure!(plaintext(9000) == Some(0), "{:?} connections went around the mesh", plaintext(9000));
        Ok(())
    });
}

#[test]
fn a_new_pod_is_enrolled_within_half_a_second() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let outside = lab.pod("outside-far");
        let _server = outside.serve(["echo", "--port", "9000"])?;
        let mut all = Vec::new();
        for count in 1..=5 {
            let name = format!("new-{count}");
            lab.add_pod(&PodSpec::new(&name).on("n1").namespace("shop").service_account(&name))?;
            let start = Instant::now();
            until_enrolled(lab.node("n1"), 2 + count)?;
            all.push(start.elapsed());
            until_reached(&lab.pod(&name), &at(&outside, 9000))?;
        }
        println!("enrolled after {all:?}");
        // A busy machine may hold one of them up.
        all.sort_unstable();
        ensure!(all[all.len() / 2] < Duration::from_millis(500), "{all:?}");
        ensure!(all.iter().all(|took| *took < Duration::from_secs(5)), "{all:?}");
        Ok(())
    });
}

#[test]
fn a_node_enrols_thirty_pods() {
    let mut lab = Lab::builder().nodes(["n1", "n2"]).namespace("shop", Mesh::Enabled);
    for number in 1..=30 {
        let account = format!("account-{}", number % 7);
        lab =
            lab.pod(&format!("pod-{number}"), |pod| pod.on("n1").namespace("shop").service_account(&account));
    }
    lab.pod("far", |pod| pod.on("n2").namespace("shop")).test(|lab| {
        lab.start_mesh()?;
        let start = Instant::now();
        until_enrolled(lab.node("n1"), 30)?;
        println!("all enrolled {:?} after the agents were ready", start.elapsed());
        let far = lab.pod("far");
        let _server = far.serve(["echo", "--port", "9000"])?;
        for number in 1..=30 {
            let answered = say(&lab.pod(&format!("pod-{number}")), &at(&far, 9000), "hello")?;
            ensure!(answered["text"] == "hello", "pod-{number}: {answered}");
        }
        let certificates = lab.node("n1").admin("/v1/certs")?;
        let count = certificates["certificates"].as_array().map(Vec::len);
        ensure!(count == Some(7), "one certificate per identity: {certificates:#}");
        // The tunnels of 30 pods survive the death of none of the others.
        let start = Instant::now();
        lab.node("n1").agent().kill();
        lab.node("n1").start_agent()?;
        until_enrolled(lab.node("n1"), 30)?;
        println!("and {:?} after a restart", start.elapsed());
        ensure!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        Ok(())
    });
}

#[test]
fn an_agent_whose_token_is_refused_says_so_and_recovers_when_it_is_replaced() {
    shop().test(|lab| {
        let node = lab.node("n1");
        lab.start_controller()?;
        for (what, said) in [("expired", "xpired"), ("of another audience", "udience")] {
            lab.replace_token("n1", |claims| {
                if what == "expired" {
                    claims["exp"] = 1_700_000_000.into();
                } else {
                    claims["aud"] = serde_json::json!(["somebody.else"]);
                }
            })?;
            if !node.agent().is_running() {
                node.agent().spawn()?;
            }
            let status = until_status(node, &format!("that its token is {what}"), |status| {
                status["controller"]["last_error"].as_str().is_some_and(|error| error.contains(said))
            })?;
            ensure!(status["ready"] == false && status["controller"]["connected"] == false, "{status:#}");
            let page = warren(node, &["status"]).stdout()?;
            ensure!(page.contains("not ready") && page.contains(said), "{page}");
        }
        lab.replace_token("n1", |_| {})?;
        node.agent().wait_ready(Duration::from_secs(20))?;
        until_enrolled(node, 2)
    });
}

#[test]
fn the_controller_signs_only_for_pods_of_the_callers_node() {
    shop().test(|lab| {
        // The first node's agent comes with the second one's token.
        lab.replace_token("n1", |claims| claims["kubernetes.io"]["node"]["name"] = "n2".into())?;
        lab.start_mesh()?;
        let (node, far) = (lab.node("n1"), lab.pod("far"));
        let _server = far.serve(["echo", "--port", "9000"])?;
        let refused = poll_until("the refusal", SOON, || {
            let state = certificate(node, "client")?["state"].as_str()?.to_owned();
            state.contains("no running pod on node n2").then_some(state)
        })?;
        println!("{refused}");
        ensure!(
            warren(node, &["certs"]).stdout()?.contains("no running pod"),
            "`warren certs` does not say it"
        );
        // Without a certificate there is no tunnel, and never plaintext.
        let closed = say(&lab.pod("client"), &at(&far, 9000), "in plaintext?")?;
        ensure!(closed["ok"] == false && closed["received"] != 13, "{closed}");
        let flow = node.until_flow("that failed", |flow| flow["error"].is_string())?;
        ensure!(flow["error"].to_string().contains("no running pod on node n2"), "{flow:#}");
        lab.replace_token("n1", |_| {})?;
        until_reached(&lab.pod("client"), &at(&far, 9000))?;
        node.until_flow("through a tunnel", |flow| flow["transport"] == "hbone")?;
        Ok(())
    });
}
