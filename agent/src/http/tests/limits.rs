//! What a pod's requests may take, and what it hears when that is reached.

use super::super::limits::{MAX_HEADERS, MAX_TARGET, SETTLE};
use super::world::{World, body, forward, run, script, text};
use crate::limits::LimitsConfig;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::cell::Cell;
use std::rc::Rc;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::time::{Duration, sleep};

const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

fn refusals(world: &World, name: &str) -> u64 {
    world.limits.refused().into_iter().find_map(|(limit, count)| (limit == name).then_some(count)).unwrap()
}

/// What the last record says went wrong.
fn error(world: &World) -> String {
    world.records().pop().unwrap().error.unwrap().to_string()
}

fn limited(limits: LimitsConfig) -> Rc<World> {
    World::limited(&json!([forward("web", json!({}))]), limits)
}

#[test]
fn one_request_too_many_is_refused_and_the_next_finds_room_again() {
    run(async {
        let world = limited(LimitsConfig { requests_per_pod: 2, ..LimitsConfig::DEFAULT });
        let done = Rc::new(Notify::new());
        let (wait, asked) = (Rc::clone(&done), Cell::new(0));
        world.answers("web", move |_| {
            let wait = Rc::clone(&wait);
            asked.set(asked.get() + 1);
            let waits = asked.get() <= 2;
            async move {
                if waits {
                    wait.notified().await;
                }
                text(200, "")
            }
        });
        let mut waiting = Vec::new();
        for _ in 0..2 {
            let mut client = world.connect(false);
            client.write_all(GET.as_bytes()).await.unwrap();
            waiting.push(client);
        }
        sleep(Duration::from_secs(1)).await;
        let answer = world.say(GET).await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("x-envoy-overloaded: true"),
            "{answer}"
        );
        let (status, flags, _, attempts) = world.last();
        assert_eq!((status, &*flags, attempts), (503, "UO", 0), "it costs no attempt");
        assert!(error(&world).contains("--max-requests-per-pod"), "{}", error(&world));
        assert_eq!((refusals(&world, "requests_per_pod"), world.opened.get()), (1, 2));
        done.notify_waiters();
        sleep(Duration::from_secs(1)).await;
        drop(waiting);
        let answer = world.say(GET).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(refusals(&world, "requests_per_pod"), 1);
    });
}

#[test]
fn a_place_is_given_back_with_the_responses_last_byte() {
    run(async {
        let world = limited(LimitsConfig { requests_per_pod: 1, ..LimitsConfig::DEFAULT });
        world.answers("web", |request| async move { text(200, body(request).await) });
        let answer = world.say(&GET.repeat(20)).await;
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 20, "{answer}");
        assert_eq!(refusals(&world, "requests_per_pod"), 0);
    });
}

#[test]
fn an_upload_that_outlasts_its_response_keeps_its_place_and_not_for_ever() {
    run(async {
        for ends in [true, false] {
            let world = limited(LimitsConfig { requests_per_pod: 1, ..LimitsConfig::DEFAULT });
            let cut = Rc::new(Cell::new(false));
            let told = Rc::clone(&cut);
            world.endpoint(
                "web",
                script(move |_, mut stream| {
                    let told = Rc::clone(&told);
                    async move {
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly").await.unwrap();
                        let mut rest = Vec::new();
                        let _ended = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
                        told.set(true);
                    }
                }),
            );
            world.answers("web", |_| async { text(200, "room") });
            let mut client = world.connect(false);
            client.write_all(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 8\r\n\r\nhalf").await.unwrap();
            sleep(Duration::from_secs(1)).await;
            assert_eq!(world.records().len(), 1, "the response is out");
            let answer = world.say(GET).await;
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            if ends {
                client.write_all(b"half").await.unwrap();
                sleep(Duration::from_secs(1)).await;
            } else {
                sleep(SETTLE).await;
            }
            assert!(world.say(GET).await.ends_with("room"));
            assert_eq!(cut.get(), !ends, "the endpoint hears of it");
        }
    });
}

#[test]
fn heads_that_are_too_large_reach_nobody() {
    run(async {
        let world = limited(LimitsConfig::DEFAULT);
        world.answers("web", |_| async { text(200, "seen") });
        let (target, headers) = ("a".repeat(MAX_TARGET), "a: b\r\n".repeat(MAX_HEADERS));
        let large = format!("X: {}\r\n", "a".repeat(100_000));
        for (request, status, limit) in [
            (format!("GET /{target} HTTP/1.1\r\nHost: web\r\n\r\n"), 414, "target_size"),
            (format!("GET / HTTP/1.1\r\nHost: web\r\n{headers}\r\n"), 431, "header_count"),
            (format!("GET / HTTP/1.1\r\nHost: web\r\n{large}\r\n"), 431, "header_size"),
        ] {
            let answer = world.say(&request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{limit}: {answer}");
            let (said, flags, ..) = world.last();
            assert_eq!((said, &*flags, refusals(&world, limit)), (status, "UO", 1), "{limit}");
            assert!(error(&world).starts_with("too many"), "{}", error(&world));
        }
        assert_eq!(world.opened.get(), 0);
        // As much as there may be passes.
        let (target, headers) = (&target[1..], "a: b\r\n".repeat(MAX_HEADERS - 10));
        let answer = world.say(&format!("GET /{target} HTTP/1.1\r\nHost: web\r\n{headers}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    });
}

#[test]
fn http_2_has_the_same_limits() {
    run(async {
        let world = limited(LimitsConfig::DEFAULT);
        world.answers("web", |_| async { text(200, "seen") });
        let io = TokioIo::new(world.connect(true));
        let executor = super::super::io::OnWorker;
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        tokio::task::spawn_local(connection);
        let long = http::Request::get(format!("http://web/{}", "a".repeat(MAX_TARGET)));
        let many = (0..=MAX_HEADERS).fold(http::Request::get("http://web/"), |request, number| {
            request.header(format!("x-{number}"), "1")
        });
        for (request, status) in [(long, 414), (many, 431), (http::Request::get("http://web/"), 200)] {
            let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
            assert_eq!(sender.send_request(request).await.unwrap().status(), status);
        }
        assert_eq!((refusals(&world, "target_size"), refusals(&world, "header_count")), (1, 1));
    });
}

#[test]
fn without_room_for_its_body_a_request_is_sent_once() {
    for (kept_bytes_per_pod, status, attempts) in [(5, 200, 2), (4, 503, 1)] {
        run(async move {
            let retries =
                json!({"attempts": 2, "on": ["5xx", "reset"], "backoff_ms": 25, "other_endpoints": true});
            let world = World::limited(
                &json!([forward("web", json!({"retries": retries}))]),
                LimitsConfig { kept_bytes_per_pod, ..LimitsConfig::DEFAULT },
            );
            world.endpoint(
                "web",
                script(|_, mut stream| async move {
                    let mut body = [0; 5];
                    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut body).await.unwrap();
                }),
            );
            world.answers("web", |request| async move { text(200, body(request).await) });
            let post = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello";
            let answer = world.say(post).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert_eq!((world.last().0, world.last().3), (status, attempts));
            assert_eq!(refusals(&world, "kept_bytes_per_pod"), u64::from(attempts == 1));
            // What was kept has been given back.
            let answer = world.say(post).await;
            assert!(answer.contains("hello"), "{answer}");
        });
    }
}
