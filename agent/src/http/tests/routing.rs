//! What rules say happens.

use super::world::{World, body, forward, run, text, to};
use serde_json::json;
use std::cell::RefCell;
use std::rc::Rc;
use tokio::time::{Duration, Instant, sleep};

const GET: &str = "GET /a?b=c HTTP/1.1\r\nHost: web\r\n\r\n";

/// Echoes the request's head as text.
fn echo(request: &http::Request<hyper::body::Incoming>) -> String {
    let mut text = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        text += &format!("{name}: {}\n", value.to_str().unwrap());
    }
    text
}

#[test]
fn a_request_is_passed_on_with_what_a_mesh_adds_and_without_what_was_for_us() {
    run(async {
        let world = World::simple("web");
        world.answers("web", |request| async move { text(200, echo(&request)) });
        let answer = world
            .say(
                "GET /a/./b/../c?q=1 HTTP/1.1\r\nHost: web:80\r\nConnection: close, x-mine\r\nX-Mine: 1\r\n\
                 Expect: 100-continue\r\nX-Other: 2\r\n\r\n",
            )
            .await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("x-envoy-upstream-service-time: 0\r\n"), "{answer}");
        let asked = answer.split("\r\n\r\n").nth(1).unwrap();
        assert!(asked.starts_with("GET /a/c?q=1\n"), "{asked}");
        for header in [
            "host: web:80",
            "x-other: 2",
            "x-forwarded-proto: http",
            "x-envoy-attempt-count: 1",
            "x-request-id: ",
        ] {
            assert!(asked.contains(header), "{header}: {asked}");
        }
        assert!(!asked.contains("x-mine") && !asked.contains("expect"), "{asked}");
        let flow = world.records().pop().unwrap();
        let request = flow.request.unwrap();
        assert_eq!(flow.flags, "-");
        assert_eq!(
            (&*request.method, &*request.path, &*request.authority),
            ("GET", "/a/./b/../c?q=1", "web:80")
        );
        assert_eq!((request.status, request.attempts, &*request.details), (200, 1, "via_upstream"));
        assert_eq!(request.route.as_deref(), Some("all"));
        assert_eq!(request.objects.as_deref(), Some("VirtualService shop/web"));
        assert_eq!(request.cluster.as_deref(), Some("outbound|80||web"));
        assert!(request.request_id.is_some());
    });
}

#[test]
fn rules_match_split_rewrite_and_change_headers() {
    run(async {
        let world = World::new(&json!([
            {
                "name": "v2",
                "matches": [{"path": {"prefix": "/v2/"}, "headers": [{"name": "user", "value": {"exact": "jason"}}]}],
                "action": {"forward": {
                    "backends": [to("v2")],
                    "rewrite": {"authority": "other:81", "path": {"prefix": "/"}},
                }},
                "request_headers": {"set": [{"name": "x-set", "value": "%REQ(user)%"}], "add": [], "remove": ["user"]},
                "response_headers": {"add": [{"name": "x-by", "value": "rule"}], "set": [], "remove": ["x-secret"]},
            },
            {"name": "gone", "matches": [{"path": {"exact": "/gone"}}], "action": {"reply": {"status": 410, "body": [98, 121, 101]}}},
            {
                "name": "moved",
                "matches": [{"path": {"exact": "/old"}}],
                "action": {"redirect": {"status": 301, "path": {"full": "/new"}, "port": "of_request"}},
            },
            {
                "name": "split",
                "matches": [{"path": {"exact": "/split"}}],
                "action": {"forward": {"backends": [to("v1"), {"weight": 0, "to": to("v2")["to"]}]}},
            },
        ]));
        world.answers("v1", |_| async { text(200, "v1") });
        world.answers("v2", |request| async move {
            let mut reply = text(200, echo(&request));
            reply.headers_mut().insert("x-secret", "1".parse().unwrap());
            reply
        });
        let answer = world.say("GET /v2/x?y HTTP/1.1\r\nHost: web\r\nUser: jason\r\n\r\n").await;
        assert!(answer.contains("x-by: rule\r\n") && !answer.contains("x-secret"), "{answer}");
        assert!(answer.contains("GET /x?y\n") && answer.contains("host: other:81"), "{answer}");
        assert!(answer.contains("x-set: jason") && !answer.contains("user:"), "{answer}");
        assert!(answer.contains("x-envoy-original-path: /v2/x?y"), "{answer}");
        let answer = world.say("GET /gone HTTP/1.1\r\nHost: web\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 410 Gone\r\n") && answer.ends_with("\r\n\r\nbye"), "{answer}");
        assert_eq!(world.last(), (410, "-".into(), "direct_response".into(), 0));
        let answer = world.say("GET /old?q HTTP/1.1\r\nHost: web:8080\r\n\r\n").await;
        assert!(answer.contains("location: http://web:8080/new?q\r\n"), "{answer}");
        for _ in 0..5 {
            assert!(world.say("GET /split HTTP/1.1\r\nHost: web\r\n\r\n").await.ends_with("v1"));
        }
        let answer = world.say("GET /v2/x HTTP/1.1\r\nHost: web\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
        assert_eq!(world.last(), (404, "NR".into(), "route_not_found".into(), 0));
    });
}

#[test]
fn what_leads_nowhere_says_so() {
    run(async {
        let broken =
            json!({"weight": 1, "to": {"broken": {"wanted": "Service shop/gone", "why": "there is none"}}});
        let world = World::new(&json!([
            {"name": "b", "matches": [{"path": {"exact": "/broken"}}], "action": {"forward": {"backends": [broken]}}},
            forward("nobody", json!({})),
        ]));
        let answer = world.say("GET /broken HTTP/1.1\r\nHost: web\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert_eq!(world.last(), (503, "NC".into(), "cluster_not_found".into(), 0));
        assert!(
            world
                .records()
                .pop()
                .unwrap()
                .error
                .unwrap()
                .contains("Service shop/gone leads nowhere: there is none")
        );
        let answer = world.say(GET).await;
        assert!(answer.ends_with("no healthy upstream"), "{answer}");
        assert_eq!(world.last(), (503, "UH".into(), "no_healthy_upstream".into(), 0));
        let grpc =
            "POST /s/m HTTP/1.1\r\nHost: web\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n";
        let answer = world.say(grpc).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("grpc-status: 14\r\n"),
            "{answer}"
        );
        assert_eq!(world.records().pop().unwrap().request.unwrap().grpc_status, Some(14));
    });
}

#[test]
fn rules_that_cannot_be_applied_let_nothing_through() {
    run(async {
        let world = World::simple("web");
        world.answers("web", |_| async { text(200, "hello") });
        *world.broken.borrow_mut() = Some("rule 0 of VirtualService shop/web: no header".to_owned());
        let answer = world.say(GET).await;
        assert!(answer.starts_with("HTTP/1.1 500 ") && !answer.contains("hello"), "{answer}");
        assert_eq!(world.last(), (500, "NC".into(), "route_not_usable".into(), 0));
        let error = world.records().pop().unwrap().error.unwrap();
        assert!(error.contains("rule 0 of VirtualService shop/web"), "{error}");
        assert_eq!(world.opened.get(), 0);
        let grpc =
            "POST /s/m HTTP/1.1\r\nHost: web\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n";
        let answer = world.say(grpc).await;
        assert!(answer.contains("grpc-status: 14\r\n"), "{answer}");
        // With rules again it goes on.
        *world.broken.borrow_mut() = None;
        assert!(world.say(GET).await.ends_with("hello"));
    });
}

#[test]
fn faults_are_made_on_purpose() {
    run(async {
        let world = World::new(&json!([forward(
            "web",
            json!({"fault": {
                "delay": {"delay_ms": 7000, "per_million": 1_000_000},
                "abort": {"http_status": 555, "per_million": 1_000_000},
            }})
        )]));
        let began = Instant::now();
        let answer = world.say(GET).await;
        assert_eq!(began.elapsed(), Duration::from_secs(7));
        assert!(answer.starts_with("HTTP/1.1 555 ") && answer.ends_with("fault filter abort"), "{answer}");
        assert_eq!(world.last(), (555, "DI,FI".into(), "fault_filter_abort".into(), 0));
    });
}

#[test]
fn copies_go_to_mirrors_and_their_answers_nowhere() {
    run(async {
        let mirror = json!({"to": to("shadow")["to"], "per_million": 1_000_000, "shadow_host": true});
        let world = World::new(&json!([forward("web", json!({"mirrors": [mirror]}))]));
        let seen: Rc<RefCell<Vec<String>>> = Rc::default();
        world.answers("web", |request| async move { text(200, body(request).await) });
        let copies = Rc::clone(&seen);
        world.answers("shadow", move |request| {
            let copies = Rc::clone(&copies);
            async move {
                let host = request.headers()["host"].to_str().unwrap().to_owned();
                let body = body(request).await;
                copies.borrow_mut().push(format!("{host} {body}"));
                text(500, "nobody hears this")
            }
        });
        let answer = world.say("POST / HTTP/1.1\r\nHost: web:80\r\nContent-Length: 5\r\n\r\nhello").await;
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(*seen.borrow(), ["web-shadow:80 hello"]);
        // More than is kept is not copied, and arrives all the same.
        let long = "x".repeat(100_000);
        let answer = world
            .say(&format!("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {}\r\n\r\n{long}", long.len()))
            .await;
        assert!(answer.ends_with(&long));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(seen.borrow().len(), 1);
    });
}

#[test]
fn changed_rules_hold_from_the_next_request_on_the_same_connection() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    run(async {
        let world = World::simple("v1");
        world.answers("v1", |_| async { text(200, "v1") });
        world.answers("v2", |_| async { text(200, "v2") });
        let mut client = world.connect(false);
        let mut answer = async |wanted: &str| {
            client.write_all(GET.as_bytes()).await.unwrap();
            let mut read = Vec::new();
            while !read.ends_with(wanted.as_bytes()) {
                read.push(client.read_u8().await.unwrap());
            }
        };
        answer("\r\n\r\nv1").await;
        world.change(&json!([forward("v2", json!({}))]));
        answer("\r\n\r\nv2").await;
        answer("\r\n\r\nv2").await;
        assert_eq!(world.opened.get(), 2, "connections to endpoints are kept");
    });
}

#[test]
fn preflights_are_answered_here() {
    run(async {
        let mut rule = forward("web", json!({}));
        rule["cors"] =
            json!({"origins": [{"exact": "https://shop"}], "methods": ["GET", "PUT"], "max_age_s": 60});
        let world = World::new(&json!([rule]));
        world.answers("web", |_| async { text(200, "hello") });
        let answer = world
            .say("OPTIONS / HTTP/1.1\r\nHost: web\r\nOrigin: https://shop\r\nAccess-Control-Request-Method: PUT\r\n\r\n")
            .await;
        assert!(answer.contains("access-control-allow-methods: GET,PUT\r\n"), "{answer}");
        assert_eq!(world.last().0, 200);
        let answer = world.say("GET / HTTP/1.1\r\nHost: web\r\nOrigin: https://shop\r\n\r\n").await;
        assert!(
            answer.contains("access-control-allow-origin: https://shop\r\n") && answer.ends_with("hello"),
            "{answer}"
        );
    });
}
