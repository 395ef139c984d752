//! Routes and DestinationRules of connections that are not HTTP, against real servers and clients.

#[path = "l7/talk.rs"]
mod talk;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use warren_tests::checks;
use warren_tests::lab::{Cmd, Lab, Proc, ServiceSpec, object, poll_until, run_checks};

const SERVER: &str = include_str!("l4_routes/server.py");
const CLIENT: &str = include_str!("l4_routes/client.py");
/// A change of the configuration takes effect within a second; a busy machine may be slower.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn connections_are_routed_at_the_clients_node() {
    Lab::builder()
        .two_versions()
        .pod("other", |pod| pod.on("n1").namespace("shop").label("app", "other"))
        .service("db", |service| {
            let service = service.namespace("shop").port("tcp-db", 5432, 9000).port("tls-edge", 443, 9443);
            service.port("auto", 7000, 9000).port("http", 80, 8080).select("app", "web")
        })
        .service("one", |service| {
            let service = service.namespace("shop").port("tcp", 5432, 9000).port("tls", 443, 9443);
            service.select("version", "v1")
        })
        .service("two", |service| {
            let service = service.namespace("shop").port("tcp", 5432, 9000).port("tls", 443, 9443);
            service.select("version", "v2")
        })
        .test(|lab| {
            lab.start_mesh()?;
            let certificate = certificate(lab)?;
            let mut servers = Vec::new();
            for name in ["near", "far"] {
                servers.push(server(lab, name, &["9000"])?);
                servers.push(server(lab, name, &["9443", &certificate.to_string_lossy()])?);
                servers.push(talk::server(lab, name)?);
            }
            run_checks(
                lab,
                checks![
                    without_rules_nothing_is_said,
                    one_client_has_one_endpoint_by_its_address,
                    no_more_connections_than_a_rule_allows,
                    connections_end_when_a_rule_says_so,
                    a_rule_about_requests_is_one_where_the_port_says_http,
                    shares_of_connections_are_as_the_weights_say,
                    what_leads_nowhere_is_reset,
                    ports_and_labels_of_clients_decide,
                    names_of_servers_decide,
                    a_server_that_speaks_first_is_not_waited_for,
                    who_refuses_is_left_out,
                ],
            )
        });
}

fn server(lab: &Lab, name: &str, args: &[&str]) -> Result<Proc> {
    lab.pod(name).serve_python(SERVER, [&[name], args].concat())
}

/// A key and a certificate that nobody trusts, in one file.
fn certificate(lab: &Lab) -> Result<PathBuf> {
    let made = rcgen::generate_simple_self_signed(["db.example".to_owned()])?;
    let path = lab.dir().join("server.pem");
    std::fs::write(&path, made.signing_key.serialize_pem() + &made.cert.pem())?;
    Ok(path)
}

fn client(lab: &Lab, pod: &str, args: &[&str]) -> Cmd {
    lab.pod(pod).python(CLIENT).resolve_names().within(Duration::from_secs(120)).args(args)
}

/// Whom connections lead to, in their order.
fn seen(lab: &Lab, pod: &str, args: &[&str]) -> Result<Vec<String>> {
    let report = client(lab, pod, &[&["count"], args].concat()).json()?;
    let names = report["seen"].as_array().context("no list")?;
    Ok(names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

fn counts(seen: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for name in seen {
        *counts.entry(name.as_str()).or_default() += 1;
    }
    counts
}

/// Whether all of so many connections lead to this one that it is not by chance.
fn all(lab: &Lab, pod: &str, args: &[&str], name: &str) -> Option<()> {
    let (host, port, more) = (args[0], args[1], &args[2..]);
    let seen = seen(lab, pod, &[&[host, port, "24"], more].concat()).ok()?;
    seen.iter().all(|one| one == name).then_some(())
}

fn until_all(lab: &Lab, pod: &str, args: &[&str], name: &str) -> Result<()> {
    poll_until(&format!("{pod} to reach {name} by {args:?}"), SOON, || all(lab, pod, args, name))
}

fn destination_rule(lab: &Lab, policy: &Value) -> Result<()> {
    let spec = json!({ "host": "db", "trafficPolicy": policy });
    lab.write_object("rule.yaml", "DestinationRule", "shop/db", &spec)
}

fn virtual_service(lab: &Lab, more: &Value) -> Result<()> {
    let spec = extended(json!({ "hosts": ["db"] }), more)?;
    lab.write_object("route.yaml", "VirtualService", "shop/db", &spec)
}

/// A spec with more fields.
fn extended(mut spec: Value, more: &Value) -> Result<Value> {
    let more = more.as_object().context("no spec")?.clone();
    spec.as_object_mut().context("no spec")?.extend(more);
    Ok(spec)
}

fn attached(lab: &Lab, kind: &str, more: &Value) -> Result<()> {
    all_attached(lab, kind, &[("db", more)])
}

/// Several of a kind; files have no age, so that the first by name is the oldest.
fn all_attached(lab: &Lab, kind: &str, routes: &[(&str, &Value)]) -> Result<()> {
    let mut text = String::new();
    for (name, more) in routes {
        let parents = json!([{ "group": "", "kind": "Service", "name": "db" }]);
        let spec = extended(json!({ "parentRefs": parents }), more)?;
        text += &format!("---\n{}\n", object(kind, &format!("shop/{name}"), &spec));
    }
    lab.write_manifest("route.yaml", &text)
}

/// Runs a check, and takes the rules back.
fn with_rules(lab: &Lab, check: impl FnOnce() -> Result<()>) -> Result<()> {
    let done = check();
    for file in ["rule.yaml", "route.yaml"] {
        let _not_there = lab.remove_manifest(file);
    }
    // In force no more: both endpoints are used again, and no rule is named.
    poll_until("the rules to be gone", SOON, || {
        let watch = lab.node("n1").watch_flows().ok()?;
        seen(lab, "client", &["db", "5432", "1"]).ok()?;
        let flow = watch.try_expect(&[("/state", "closed"), ("/direction", "outbound")])?;
        flow["route"].is_null().then_some(())
    })?;
    done
}

fn without_rules_nothing_is_said(lab: &Lab) -> Result<()> {
    let watch = lab.node("n1").watch_flows()?;
    let seen = seen(lab, "client", &["db", "5432", "40"])?;
    let counts = counts(&seen);
    ensure!(counts.get("near") > Some(&4) && counts.get("far") > Some(&4), "{counts:?}");
    let flow = watch.expect(&[("/direction", "outbound"), ("/state", "closed")])?;
    ensure!(flow["route"].is_null(), "{flow}");
    Ok(())
}

fn one_client_has_one_endpoint_by_its_address(lab: &Lab) -> Result<()> {
    with_rules(lab, || {
        destination_rule(lab, &json!({ "loadBalancer": { "consistentHash": { "useSourceIp": true } } }))?;
        poll_until("all connections to have one endpoint", SOON, || {
            let seen = seen(lab, "client", &["db", "5432", "24"]).ok()?;
            (counts(&seen).len() == 1 && !seen[0].is_empty()).then_some(())
        })?;
        let watch = lab.node("n1").watch_flows()?;
        seen(lab, "client", &["db", "5432", "1"])?;
        let objects = "DestinationRule shop/db";
        let flow = watch.expect(&[("/route/objects", objects), ("/state", "closed"), ("/flags", "-")])?;
        ensure!(flow["route"]["cluster"] == "outbound|5432||db.shop.svc.cluster.local", "{flow}");
        Ok(())
    })
}

fn no_more_connections_than_a_rule_allows(lab: &Lab) -> Result<()> {
    with_rules(lab, || {
        destination_rule(lab, &json!({ "connectionPool": { "tcp": { "maxConnections": 2 } } }))?;
        let mut held = client(lab, "client", &["hold", "db", "5432", "2"]).with_stdin().spawn()?;
        held.wait_for("held", Duration::from_secs(30))?;
        poll_until("the third to be refused", SOON, || {
            let watch = lab.node("n1").watch_flows().ok()?;
            // What was open before the rule is not counted.
            if seen(lab, "client", &["db", "5432", "1"]).ok()?[0].is_empty() {
                let flow = watch.try_expect(&[("/flags", "UO"), ("/state", "closed")])?;
                return flow["error"].as_str()?.contains("2 connections").then_some(());
            }
            held.close_stdin();
            held = client(lab, "client", &["hold", "db", "5432", "2"]).with_stdin().spawn().ok()?;
            held.wait_for("held", Duration::from_secs(30)).ok()?;
            None
        })?;
        // Limits are each client's own.
        ensure!(!seen(lab, "other", &["db", "5432", "1"])?[0].is_empty());
        held.close_stdin();
        held.wait(Duration::from_secs(30))?;
        poll_until("a place to be free again", SOON, || {
            (!seen(lab, "client", &["db", "5432", "1"]).ok()?[0].is_empty()).then_some(())
        })
    })
}

fn connections_end_when_a_rule_says_so(lab: &Lab) -> Result<()> {
    for (field, flag, least) in [("idleTimeout", "SI", 2.0), ("maxConnectionDuration", "DT", 2.0)] {
        with_rules(lab, || {
            destination_rule(lab, &json!({ "connectionPool": { "tcp": { field: "2s" } } }))?;
            poll_until(&format!("{field} to be in force"), SOON, || {
                let watch = lab.node("n1").watch_flows().ok()?;
                seen(lab, "client", &["db", "5432", "1"]).ok()?;
                watch.try_expect(&[("/route/objects", "DestinationRule shop/db")]).map(drop)
            })?;
            let watch = lab.node("n1").watch_flows()?;
            // Several, so that both ways to an endpoint are gone.
            let waiting: Vec<_> = (0..4)
                .map(|_| client(lab, "client", &["wait", "db", "5432", "1"]).spawn())
                .collect::<Result<_>>()?;
            for one in waiting {
                let ended = one.report(Duration::from_secs(60))?;
                ensure!(ended["end"] == "ConnectionResetError", "{ended}");
                ensure!(ended["after"].as_f64() >= Some(least - 0.5), "{ended}");
            }
            let flow = watch.expect(&[("/flags", flag), ("/direction", "outbound")])?;
            ensure!(flow["error"].as_str().unwrap_or_default().contains(field), "{flow}");
            Ok(())
        })?;
    }
    Ok(())
}

fn a_rule_about_requests_is_one_where_the_port_says_http(lab: &Lab) -> Result<()> {
    with_rules(lab, || {
        let hash = json!({ "consistentHash": { "httpHeaderName": "x-user" } });
        destination_rule(lab, &json!({ "loadBalancer": hash }))?;
        poll_until("requests to have flows of their own", SOON, || {
            let watch = lab.node("n1").watch_flows().ok()?;
            talk::asked(lab, "http://db/who", &["-H", "x-user: a"]).ok()?;
            watch.try_expect(&[("/request/path", "/who"), ("/request/status", "200")]).map(drop)
        })?;
        talk::users_keep_their_endpoint(lab, "http://db/who")
    })
}

fn shares_of_connections_are_as_the_weights_say(lab: &Lab) -> Result<()> {
    with_rules(lab, || {
        let to = |name: &str, weight: u32| json!({ "name": name, "port": 5432, "weight": weight });
        attached(lab, "TCPRoute", &json!({ "rules": [{ "backendRefs": [to("one", 3), to("two", 1)] }] }))?;
        let watch = lab.node("n1").watch_flows()?;
        poll_until("the route to be in force", SOON, || {
            seen(lab, "client", &["db", "5432", "1"]).ok()?;
            watch.try_expect(&[("/route/objects", "TCPRoute shop/db")]).map(drop)
        })?;
        let watch = lab.node("n1").watch_flows()?;
        let seen = seen(lab, "client", &["db", "5432", "400"])?;
        let counts = counts(&seen);
        let (near, far) = (counts.get("near").copied().unwrap_or(0), counts.get("far").copied().unwrap_or(0));
        ensure!(near + far == 400, "{counts:?}");
        // Nearly six deviations of a binomial distribution are 50.
        ensure!((50..=150).contains(&far), "{far} of 400 went to where a quarter should");
        let flow =
            watch.expect(&[("/destination/service", "two.shop.svc.cluster.local"), ("/flags", "-")])?;
        let route = &flow["route"];
        ensure!(route["rule"] == "db" && route["objects"] == "TCPRoute shop/db", "{flow}");
        ensure!(route["cluster"] == "outbound|5432||two.shop.svc.cluster.local", "{flow}");
        Ok(())
    })
}

fn what_leads_nowhere_is_reset(lab: &Lab) -> Result<()> {
    with_rules(lab, || {
        let nobody = json!({ "rules": [{ "backendRefs": [{ "name": "nobody", "port": 80 }] }] });
        attached(lab, "TCPRoute", &nobody)?;
        let watch = lab.node("n1").watch_flows()?;
        until_all(lab, "client", &["db", "5432"], "")?;
        let flow = watch.expect(&[("/flags", "NC"), ("/state", "closed")])?;
        ensure!(
            flow["error"].as_str().unwrap_or_default().contains("there is no Service shop/nobody"),
            "{flow}"
        );
        Ok(())
    })?;
    // Of two routes the older one counts, and only the share of what is not there is reset.
    with_rules(lab, || {
        let to = |name: &str, weight: u32| json!({ "name": name, "port": 5432, "weight": weight });
        let old = json!({ "rules": [{ "backendRefs": [to("two", 3), to("nobody", 1)] }] });
        let young = json!({ "rules": [{ "backendRefs": [to("one", 1)] }] });
        all_attached(lab, "TCPRoute", &[("a-db", &old), ("b-db", &young)])?;
        poll_until("a connection to be reset", SOON, || {
            seen(lab, "client", &["db", "5432", "8"]).ok()?.iter().any(String::is_empty).then_some(())
        })?;
        let seen = seen(lab, "client", &["db", "5432", "200"])?;
        let counts = counts(&seen);
        let reset = counts.get("").copied().unwrap_or(0);
        // Nearly six deviations of a binomial distribution are 36.
        ensure!((14..=86).contains(&reset), "{reset} of 200 were reset where a quarter should");
        ensure!(counts.get("far") == Some(&(200 - reset)), "{counts:?}");
        Ok(())
    })
}

fn to(host: &str, port: u16) -> Value {
    json!([{ "destination": { "host": host, "port": { "number": port } } }])
}

fn ports_and_labels_of_clients_decide(lab: &Lab) -> Result<()> {
    with_rules(lab, || {
        virtual_service(
            lab,
            &json!({ "tcp": [
                { "match": [{ "port": 7000 }], "route": to("one", 5432) },
                { "match": [{ "sourceLabels": { "app": "other" }, "port": 5432 }], "route": to("two", 5432) },
            ] }),
        )?;
        until_all(lab, "other", &["db", "5432"], "far")?;
        for pod in ["client", "other"] {
            ensure!(all(lab, pod, &["db", "7000"], "near").is_some(), "{pod} by port 7000");
        }
        // Nothing holds it: the service is as it was.
        let seen = seen(lab, "client", &["db", "5432", "40"])?;
        ensure!(counts(&seen).len() == 2, "{:?}", counts(&seen));
        Ok(())
    })
}

fn names_of_servers_decide(lab: &Lab) -> Result<()> {
    with_rules(lab, || {
        let names = |names: &[&str]| json!([{ "port": 443, "sniHosts": names }]);
        virtual_service(
            lab,
            &json!({ "hosts": ["db", "a.example", "*.wild.example"], "tls": [
                { "match": names(&["a.example"]), "route": to("one", 443) },
                { "match": names(&["*.wild.example"]), "route": to("two", 443) },
            ] }),
        )?;
        until_all(lab, "client", &["db", "443", "a.example"], "near")?;
        until_all(lab, "client", &["db", "443", "b.wild.example"], "far")?;
        let watch = lab.node("n1").watch_flows()?;
        ensure!(all(lab, "client", &["db", "443", "b.example"], "").is_some(), "no rule holds it");
        let flow = watch.expect(&[("/flags", "NR"), ("/state", "closed")])?;
        ensure!(flow["error"].as_str().unwrap_or_default().contains("VirtualService shop/db"), "{flow}");
        Ok(())
    })?;
    with_rules(lab, || {
        let route = json!({
            "hostnames": ["a.example"],
            "rules": [{ "backendRefs": [{ "name": "two", "port": 443 }] }],
        });
        attached(lab, "TLSRoute", &route)?;
        until_all(lab, "client", &["db", "443", "a.example"], "far")?;
        ensure!(all(lab, "client", &["db", "443", "b.example"], "").is_some(), "no route holds it");
        let watch = lab.node("n1").watch_flows()?;
        let plain = client(lab, "client", &["say", "db", "443", "1"]).json()?;
        ensure!(plain["end"] == "ConnectionResetError", "what is no TLS has no name: {plain}");
        watch.expect(&[("/flags", "NR"), ("/state", "closed")])?;
        Ok(())
    })?;
    // Of patterns the longer one counts, of equal names the older route's.
    with_rules(lab, || {
        let tls = |name: &str, to: &str| json!({ "hostnames": [name], "rules": [{ "backendRefs": [{ "name": to, "port": 443 }] }] });
        let routes = [
            ("a-wide", &tls("*.example", "one")),
            ("b-narrow", &tls("*.wild.example", "two")),
            ("c-old", &tls("same.test", "two")),
            ("d-young", &tls("same.test", "one")),
        ];
        all_attached(lab, "TLSRoute", &routes)?;
        until_all(lab, "client", &["db", "443", "a.example"], "near")?;
        until_all(lab, "client", &["db", "443", "a.wild.example"], "far")?;
        until_all(lab, "client", &["db", "443", "same.test"], "far")
    })
}

fn a_server_that_speaks_first_is_not_waited_for(lab: &Lab) -> Result<()> {
    with_rules(lab, || {
        let names = json!([{ "sniHosts": ["a.example"] }]);
        virtual_service(
            lab,
            &json!({
                "hosts": ["db", "a.example"],
                "tls": [{ "match": names, "route": to("one", 443) }],
                "tcp": [{ "match": [{ "port": 7000 }], "route": to("two", 5432) }],
            }),
        )?;
        // Its name comes before the client has said anything.
        until_all(lab, "client", &["db", "7000"], "far")?;
        until_all(lab, "client", &["db", "443", "a.example"], "near")
    })
}

/// Last, for a server goes.
fn who_refuses_is_left_out(lab: &Lab) -> Result<()> {
    let half = ServiceSpec::new("half").namespace("shop").port("tcp", 6000, 6000).select("app", "web");
    lab.add_service(&half)?;
    let mut servers = BTreeMap::new();
    for name in ["near", "far"] {
        servers.insert(name.to_owned(), server(lab, name, &["6000"])?);
    }
    let policy = json!({
        "loadBalancer": { "consistentHash": { "useSourceIp": true } },
        "outlierDetection": {
            "consecutive5xxErrors": 3, "interval": "1s", "baseEjectionTime": "100s",
            "maxEjectionPercent": 100,
        },
    });
    let rule = json!({ "host": "half", "trafficPolicy": policy });
    lab.write_object("half.yaml", "DestinationRule", "shop/half", &rule)?;
    // By address: a client that is refused by the first of a name's addresses tries the next.
    let half = lab.vip("half")?.0.to_string();
    let mut first = String::new();
    poll_until("all connections to have one endpoint", SOON, || {
        let seen = seen(lab, "client", &[&half, "6000", "24"]).ok()?;
        first.clone_from(&seen[0]);
        (counts(&seen).len() == 1 && !first.is_empty()).then_some(())
    })?;
    drop(servers.remove(&first));
    let other = if first == "near" { "far" } else { "near" };
    let seen = seen(lab, "client", &[&half, "6000", "12"])?;
    // After the third failure there is another one to go to, so that the third connection goes well.
    let (refused, rest) = seen.split_at(2);
    ensure!(refused.iter().all(String::is_empty), "the hash leads to who refuses: {seen:?}");
    ensure!(rest.iter().all(|name| name == other), "who refused three times is left out: {seen:?}");
    Ok(())
}
