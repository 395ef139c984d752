//! What rules and backends change on the way there and back, and copies of requests.

use super::world::{World, body, forward, run, text, to};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::rc::Rc;
use tokio::time::{Duration, sleep};

const GET: &str = "GET /a?b=c HTTP/1.1\r\nHost: web:80\r\n\r\n";

fn change(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value})
}

/// A rule with this rewrite and these changes of requests, its own and its backend's.
fn changing(rewrite: &Value, of_rule: &Value, of_backend: &Value) -> Value {
    let mut backend = to("web");
    backend["request_headers"] = of_backend.clone();
    backend["response_headers"] = of_backend.clone();
    let mut rule = forward("web", json!({"backends": [backend], "rewrite": rewrite}));
    rule["request_headers"] = of_rule.clone();
    rule["response_headers"] = of_rule.clone();
    rule
}

#[test]
fn the_host_is_the_rewrites_else_the_rules_else_the_backends() {
    run(async {
        let world = World::simple("web");
        world.answers("web", |request| async move {
            text(200, request.headers()["host"].to_str().unwrap().to_owned())
        });
        let host = |name: &str| match name {
            "" => json!({}),
            name => json!({"set": [change(":authority", name)]}),
        };
        for (rewrite, rule, backend, expected) in [
            ("", "", "", "web:80"),
            ("", "", "backend", "backend"),
            ("", "rule", "", "rule"),
            ("", "rule", "backend", "rule"),
            ("rewrite", "", "", "rewrite"),
            ("rewrite", "", "backend", "rewrite"),
            ("rewrite", "rule", "backend", "rewrite"),
        ] {
            let authority = json!({"authority": rewrite});
            let rewrite = if rewrite.is_empty() { Value::Null } else { authority };
            let mut one = changing(&rewrite, &host(rule), &host(backend));
            // Responses have none.
            one["response_headers"] = json!({});
            one["action"]["forward"]["backends"][0]["response_headers"] = json!({});
            world.change(&json!([one]));
            let answer = world.say(GET).await;
            assert!(answer.ends_with(&format!("\r\n\r\n{expected}")), "{one}: {answer}");
        }
    });
}

#[test]
fn changes_are_the_rules_and_then_the_backends_in_both_directions() {
    run(async {
        let world = World::simple("web");
        let all = |headers: &http::HeaderMap| {
            let of_tests = headers.iter().filter(|(name, _)| name.as_str().starts_with("t-"));
            let mut all: Vec<_> =
                of_tests.map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
            all.sort();
            all.join(" ")
        };
        world.answers("web", move |request| async move {
            let mut answer = text(200, all(request.headers()));
            answer.headers_mut().insert("t-came", "1".parse().unwrap());
            answer
        });
        for (of_rule, of_backend, expected) in [
            (json!({"set": [change("t-a", "rule")]}), json!({}), "t-a=rule t-came=1"),
            (
                json!({"set": [change("t-a", "rule")]}),
                json!({"set": [change("t-a", "backend")]}),
                "t-a=backend t-came=1",
            ),
            (
                json!({"set": [change("t-a", "rule")]}),
                json!({"add": [change("t-a", "backend")]}),
                "t-a=backend t-a=rule t-came=1",
            ),
            (
                json!({"add": [change("t-a", "rule")]}),
                json!({"set": [change("t-a", "backend")]}),
                "t-a=backend t-came=1",
            ),
            (json!({"set": [change("t-a", "rule")]}), json!({"remove": ["t-a"]}), "t-came=1"),
            (
                json!({"remove": ["t-a", "t-came"]}),
                json!({"set": [change("t-a", "backend"), change("t-came", "2")]}),
                "t-a=backend t-came=2",
            ),
        ] {
            world.change(&json!([changing(&Value::Null, &of_rule, &of_backend)]));
            let answer = world.say("GET / HTTP/1.1\r\nHost: web\r\nT-Came: 1\r\n\r\n").await;
            let (head, asked) = answer.split_once("\r\n\r\n").unwrap();
            let answered: Vec<_> = head.lines().filter(|line| line.starts_with("t-")).collect();
            let mut answered: Vec<_> = answered.iter().map(|line| line.replacen(": ", "=", 1)).collect();
            answered.sort();
            assert_eq!((asked, &*answered.join(" ")), (expected, expected), "{of_rule}, {of_backend}");
        }
    });
}

#[test]
fn a_grpc_status_may_be_made_on_purpose() {
    run(async {
        let abort = json!({"http_status": 200, "grpc_status": 14, "per_million": 1_000_000});
        let world = World::new(&json!([forward("web", json!({"fault": {"abort": abort}}))]));
        let grpc =
            "POST /s/m HTTP/1.1\r\nHost: web\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n";
        let answer = world.say(grpc).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        for header in ["grpc-status: 14\r\n", "grpc-message: fault", "content-type: application/grpc\r\n"] {
            assert!(answer.contains(header), "{header}: {answer}");
        }
        assert_eq!(world.last(), (200, "FI".into(), "fault_filter_abort".into(), 0));
        assert_eq!(world.records().pop().unwrap().request.unwrap().grpc_status, Some(14));
        // As Envoy has it, others get the status 200.
        let answer = world.say(GET).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("fault filter abort"),
            "{answer}"
        );
    });
}

/// A world whose `shadow` remembers host and path of what it gets.
fn with_mirror() -> (Rc<World>, Rc<RefCell<Vec<String>>>) {
    let world = World::simple("web");
    let seen: Rc<RefCell<Vec<String>>> = Rc::default();
    world.answers("web", |request| async move { text(200, body(request).await) });
    let copies = Rc::clone(&seen);
    world.answers("shadow", move |request| {
        let host = request.headers()["host"].to_str().unwrap();
        copies.borrow_mut().push(format!("{host} {}", request.uri()));
        async { text(200, "nobody hears this") }
    });
    (world, seen)
}

fn mirror(per_million: u32) -> Value {
    json!({"to": to("shadow")["to"], "per_million": per_million, "shadow_host": true})
}

#[test]
fn copies_are_of_what_the_rule_makes_of_a_request() {
    run(async {
        let (world, seen) = with_mirror();
        let rule = json!({
            "mirrors": [mirror(1_000_000)],
            "rewrite": {"authority": "other:81", "path": {"full": "/new"}},
        });
        world.change(&json!([forward("web", rule)]));
        world.say(GET).await;
        let mut by_headers = forward("web", json!({"mirrors": [mirror(1_000_000)]}));
        by_headers["request_headers"] = json!({"set": [change(":authority", "third")]});
        world.change(&json!([by_headers]));
        world.say(GET).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(*seen.borrow(), ["other-shadow:81 /new?b=c", "third-shadow /a?b=c"]);
    });
}

#[test]
fn as_many_requests_are_copied_as_is_said() {
    run(async {
        let (world, seen) = with_mirror();
        for (per_million, least, most) in [(0, 0, 0), (250_000, 15, 95), (1_000_000, 200, 200)] {
            seen.borrow_mut().clear();
            world.change(&json!([forward("web", json!({"mirrors": [mirror(per_million)]}))]));
            for _ in 0..200 {
                world.say(GET).await;
            }
            sleep(Duration::from_secs(1)).await;
            // Of 200 with a chance of a quarter 50, and next to never less than 15 or more than 95.
            let copied = seen.borrow().len();
            assert!((least..=most).contains(&copied), "{per_million}: {copied}");
        }
    });
}
