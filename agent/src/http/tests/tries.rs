//! Timeouts, retries and connections that are used again.

use super::world::{World, body, forward, run, script, silent, text};
use crate::balance::Circuit;
use crate::route::http::Ended;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::cell::Cell;
use std::rc::Rc;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, sleep};
use warren_common::model::traffic::ConnectionPool;

const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello";

fn retries(attempts: u32, on: &[&str]) -> Value {
    json!({"attempts": attempts, "on": on, "backoff_ms": 25, "other_endpoints": true})
}

#[test]
fn who_does_not_answer_in_time_is_not_waited_for() {
    run(async {
        let world = World::new(&json!([forward("web", json!({"timeout_ms": 1500}))]));
        world.endpoint("web", silent());
        let began = Instant::now();
        let answer = world.say(GET).await;
        assert_eq!(began.elapsed(), Duration::from_millis(1500));
        assert!(
            answer.starts_with("HTTP/1.1 504 ") && answer.ends_with("upstream request timeout"),
            "{answer}"
        );
        assert_eq!(world.last(), (504, "UT".into(), "response_timeout".into(), 1));
    });
}

#[test]
fn a_request_waits_in_its_own_time_until_it_is_known_whether_its_service_is_there() {
    run(async {
        let world = World::new(&json!([forward("web", json!({"timeout_ms": 1500}))]));
        world.answers("web", |_| async { text(200, "hello") });
        for (unknown_for, waits_for, expected) in [(1000, 1000, "200 "), (2000, 1500, "504 ")] {
            world.unknown_for.set(Duration::from_millis(unknown_for));
            let began = Instant::now();
            let answer = world.say(GET).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{answer}");
            let late = began.elapsed().checked_sub(Duration::from_millis(waits_for));
            assert!(late.is_some_and(|late| late < Duration::from_millis(100)), "{answer} {late:?}");
        }
        let (status, flags, details, _) = world.last();
        assert_eq!((status, &*flags, &*details), (504, "UT", "response_timeout"));
    });
}

#[test]
fn the_time_in_which_a_request_comes_is_its_clients() {
    run(async {
        const SECOND: Duration = Duration::from_secs(1);
        // The route's time, or a try's; all of the body comes after so many seconds; is answered after as many.
        for (own, comes, answers, status, after) in [
            (false, 5, 1, 200, 6),
            (false, 5, 10, 504, 7),
            (true, 5, 1, 200, 6),
            (true, 5, 10, 504, 7),
            (false, 0, 10, 504, 2),
        ] {
            let limits = match own {
                false => json!({"timeout_ms": 2000}),
                true => {
                    json!({"retries": {"attempts": 0, "on": [], "backoff_ms": 25, "other_endpoints": true, "per_try_timeout_ms": 2000}})
                }
            };
            let world = World::new(&json!([forward("web", limits)]));
            world.answers("web", move |request| async move {
                let body = body(request).await;
                sleep(SECOND * answers).await;
                text(200, body)
            });
            let mut client = world.connect(false);
            let began = Instant::now();
            let (head, body) = POST.split_at(POST.len() - 3);
            client.write_all(head.as_bytes()).await.unwrap();
            sleep(SECOND * comes).await;
            client.write_all(body.as_bytes()).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = String::new();
            tokio::io::AsyncReadExt::read_to_string(&mut client, &mut answer).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert_eq!(began.elapsed(), SECOND * after, "{own} {comes} {answers}");
        }
        // Nobody reads it: nobody waits for its client.
        let world = World::new(&json!([forward("web", json!({"timeout_ms": 2000}))]));
        world.endpoint("web", silent());
        let _all = world.seats.clone().acquire_many_owned(1000).await.unwrap();
        let began = Instant::now();
        assert!(world.say(POST).await.starts_with("HTTP/1.1 504 "));
        assert_eq!(began.elapsed(), SECOND * 2);
    });
}

#[test]
fn a_try_may_be_slow_when_another_one_is_not() {
    run(async {
        let mut retry = retries(2, &["gateway-error"]);
        retry["per_try_timeout_ms"] = json!(1000);
        let world = World::new(&json!([forward("web", json!({"retries": retry, "timeout_ms": 60_000}))]));
        world.endpoint("web", silent());
        world.answers("web", |request| async move { text(200, body(request).await) });
        let answer = world.say(POST).await;
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
        assert_eq!(world.last(), (200, "-".into(), "via_upstream".into(), 2));
        assert_eq!(world.ended.borrow()[0], Ended::TimedOut);
    });
}

#[test]
fn errors_are_tried_again_as_often_as_may_be() {
    run(async {
        let world = World::new(&json!([forward("web", json!({"retries": retries(3, &["5xx"])}))]));
        let asked = Rc::new(Cell::new(0));
        let count = Rc::clone(&asked);
        world.answers("web", move |request| {
            count.set(count.get() + 1);
            let tries = request.headers()["x-envoy-attempt-count"].to_str().unwrap().to_owned();
            let enough = count.get() > 2;
            async move {
                let body = body(request).await;
                if enough { text(200, format!("{tries} {body}")) } else { text(500, "not yet") }
            }
        });
        assert!(world.say(POST).await.ends_with("\r\n\r\n3 hello"));
        assert_eq!(world.last().3, 3);
        asked.set(-10);
        let answer = world.say(POST).await;
        assert!(answer.starts_with("HTTP/1.1 500 ") && answer.ends_with("not yet"), "{answer}");
        assert_eq!(world.last(), (500, "URX".into(), "via_upstream".into(), 4));
    });
}

#[test]
fn a_request_that_is_tried_again_and_again_is_one_retry_at_a_time() {
    run(async {
        let world = World::new(&json!([forward("web", json!({"retries": retries(3, &["5xx"])}))]));
        let pool = ConnectionPool { max_retries: Some(1), ..ConnectionPool::default() };
        *world.circuit.borrow_mut() = Circuit::new(Some(&pool), None);
        world.answers("web", |request| async move {
            match request.headers()["x-envoy-attempt-count"].to_str().unwrap() {
                "4" => text(200, "fourth"),
                _ => text(500, "not yet"),
            }
        });
        let answer = world.say(GET).await;
        assert!(answer.ends_with("fourth"), "{answer}");
    });
}

#[test]
fn no_more_retries_at_a_time_than_may() {
    run(async {
        let world = World::new(&json!([forward("web", json!({"retries": retries(1, &["5xx"])}))]));
        let pool = ConnectionPool { max_retries: Some(2), ..ConnectionPool::default() };
        *world.circuit.borrow_mut() = Circuit::new(Some(&pool), None);
        // The first try fails at once, the second is slow.
        world.answers("web", |request| async move {
            if request.headers()["x-envoy-attempt-count"] == "1" {
                return text(500, "first");
            }
            sleep(Duration::from_secs(1)).await;
            text(200, "second")
        });
        let all: Vec<_> = (0..5)
            .map(|_| {
                let world = Rc::clone(&world);
                tokio::task::spawn_local(async move { world.say(GET).await })
            })
            .collect();
        let mut answers = Vec::new();
        for one in all {
            answers.push(one.await.unwrap());
        }
        assert_eq!(answers.iter().filter(|answer| answer.ends_with("second")).count(), 2, "{answers:?}");
        let overflowed = world.records().into_iter().filter(|flow| flow.flags.contains("UO"));
        assert_eq!(overflowed.count(), 3);
        assert!(world.say(GET).await.ends_with("second"), "places are free again");
    });
}

#[test]
fn a_body_that_was_not_kept_is_not_sent_again() {
    run(async {
        let world = World::new(&json!([forward("web", json!({"retries": retries(3, &["5xx"])}))]));
        world.answers("web", |request| async move { text(503, body(request).await.len().to_string()) });
        let long = "x".repeat(100_000);
        let answer = world
            .say(&format!("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {}\r\n\r\n{long}", long.len()))
            .await;
        assert!(answer.ends_with("\r\n\r\n100000"), "{answer}");
        assert_eq!(world.last().3, 1);
    });
}

#[test]
fn what_comes_between_two_tries_is_not_lost_to_the_second() {
    run(async {
        const ALL: usize = 200_000;
        const FIRST: usize = 30_000;
        for h2 in [false, true] {
            let world = World::new(&json!([forward("web", json!({"retries": retries(3, &["5xx"])}))]));
            world.h2_endpoints.set(h2);
            // One answers early, and would read on for ever.
            let answered = Rc::new(Notify::new());
            let (tell, read) = (Rc::clone(&answered), Rc::new(Cell::new(0)));
            let count = Rc::clone(&read);
            world.answers("web", move |request| {
                let (tell, count) = (Rc::clone(&tell), Rc::clone(&count));
                async move {
                    let mut body = request.into_body();
                    while count.get() < FIRST {
                        count.set(
                            count.get() + body.frame().await.unwrap().unwrap().into_data().unwrap().len(),
                        );
                    }
                    tell.notify_one();
                    tokio::task::spawn_local(async move {
                        while let Some(Ok(frame)) = body.frame().await {
                            count.set(count.get() + frame.into_data().unwrap().len());
                        }
                    });
                    text(503, "not now")
                }
            });
            world.answers("web", |request| async move { text(200, body(request).await.len().to_string()) });
            for framing in [format!("Content-Length: {ALL}"), "Transfer-Encoding: chunked".to_owned()] {
                read.set(0);
                world.turn.set(0);
                let chunk = |n: usize| match framing.starts_with('T') {
                    true => format!("{n:x}\r\n{}\r\n", "x".repeat(n)),
                    false => "x".repeat(n),
                };
                let end = if framing.starts_with('T') { "0\r\n\r\n" } else { "" };
                let mut client = world.connect(false);
                let head = format!("POST / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n{framing}\r\n\r\n");
                client.write_all(format!("{head}{}", chunk(FIRST)).as_bytes()).await.unwrap();
                answered.notified().await;
                client.write_all(format!("{}{end}", chunk(ALL - FIRST)).as_bytes()).await.unwrap();
                let mut answer = String::new();
                tokio::io::AsyncReadExt::read_to_string(&mut client, &mut answer).await.unwrap();
                assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(&ALL.to_string()), "{answer}");
                assert_eq!(world.last().3, 2);
                assert!(read.get() < ALL, "the first one got no more than it had");
            }
        }
    });
}

#[test]
fn an_endpoint_that_breaks_off_is_a_503_and_another_one_is_tried_where_allowed() {
    run(async {
        let world = World::simple("web");
        world.endpoint("web", script(|_, stream| async move { drop(stream) }));
        let answer = world.say(GET).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        let details = "upstream_reset_before_response_started{connection_termination}";
        assert_eq!(world.last(), (503, "UC".into(), details.into(), 1));
        world.change(&json!([forward("web", json!({"retries": retries(1, &["reset"])}))]));
        world.answers("web", |_| async { text(200, "other") });
        for _ in 0..4 {
            assert!(world.say(GET).await.ends_with("other"));
        }
    });
}

#[test]
fn who_goes_away_without_looking_at_a_request_has_refused_it() {
    run(async {
        let world = World::new(&json!([forward("web", json!({"retries": retries(1, &["refused-stream"])}))]));
        world.h2_endpoints.set(true);
        for reason in [0, 11] {
            world.endpoint(
                "web",
                script(move |_, mut stream| async move {
                    // SETTINGS; then GOAWAY, whose last stream is none.
                    stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
                    sleep(Duration::from_secs(1)).await;
                    let frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, reason];
                    stream.write_all(&frame).await.unwrap();
                    let mut rest = Vec::new();
                    let _ended = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
                }),
            );
            world.answers("web", |_| async { text(200, "other") });
        }
        for _ in 0..2 {
            assert!(world.say(GET).await.ends_with("other"));
            assert_eq!(world.last(), (200, "-".into(), "via_upstream".into(), 2));
        }
        let answered = Ended::Response { status: 200, grpc: None };
        assert_eq!(*world.ended.borrow(), [Ended::Refused, answered, Ended::Refused, answered]);
    });
}

#[test]
fn who_has_failed_is_asked_again_only_where_that_is_said() {
    run(async {
        let mut retry = retries(3, &["5xx"]);
        let world = World::new(&json!([forward("web", json!({"retries": retry.clone()}))]));
        // The first is always asked first, unless it has failed.
        world.in_turn.set(false);
        world.answers("web", |_| async { text(500, "first") });
        world.answers("web", |_| async { text(200, "second") });
        assert!(world.say(GET).await.ends_with("second"));
        assert_eq!(world.last().3, 2);
        retry["other_endpoints"] = json!(false);
        world.change(&json!([forward("web", json!({"retries": retry}))]));
        assert!(world.say(GET).await.ends_with("first"));
        assert_eq!(world.last(), (500, "URX".into(), "via_upstream".into(), 4));
    });
}

#[test]
fn a_response_that_breaks_off_is_cut_and_said_so() {
    run(async {
        let world = World::new(&json!([forward("web", json!({"retries": retries(5, &["5xx", "reset"])}))]));
        world.endpoint(
            "web",
            script(|_, mut stream| async move {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await.unwrap();
            }),
        );
        let answer = world.say(GET).await;
        assert!(answer.ends_with("\r\n\r\nhalf"), "{answer}");
        let details = "upstream_reset_after_response_started{connection_termination}";
        assert_eq!(world.last(), (200, "UC".into(), details.into(), 1));
    });
}

#[test]
fn a_kept_connection_that_was_closed_meanwhile_costs_nobody_a_request() {
    run(async {
        let world = World::simple("web");
        // Answers one request, and closes when the next one comes.
        world.endpoint(
            "web",
            script(|_, mut stream| async move {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                let mut byte = [0];
                let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut byte).await;
            }),
        );
        for _ in 0..3 {
            assert!(world.say(GET).await.ends_with("\r\n\r\nok"));
            assert_eq!(world.last(), (200, "-".into(), "via_upstream".into(), 1));
        }
        assert_eq!(world.opened.get(), 3);
    });
}

#[test]
fn connections_are_kept_and_not_after_an_eviction() {
    run(async {
        let world = World::simple("web");
        world.answers("web", |_| async { text(200, "ok") });
        for _ in 0..3 {
            world.say(GET).await;
        }
        assert_eq!((world.opened.get(), world.pool.idle()), (1, 1));
        world.evict.notify_waiters();
        tokio::task::yield_now().await;
        assert!(world.say(GET).await.ends_with("ok"));
        assert_eq!(world.opened.get(), 2, "the evicted connection is not used");
    });
}

#[test]
fn who_was_not_asked_for_want_of_a_connection_is_not_blamed() {
    run(async {
        let mut retry = retries(1, &["gateway-error"]);
        retry["per_try_timeout_ms"] = json!(1000);
        let world = World::new(&json!([forward("web", json!({"retries": retry, "timeout_ms": 60_000}))]));
        world.answers("web", |_| async { text(200, "ok") });
        let only = world.seats.clone().acquire_many_owned(1000).await.unwrap();
        let answer = world.say(GET).await;
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
        assert_eq!(*world.ended.borrow(), [Ended::Overflow; 2], "tried again, and nobody's fault");
        assert_eq!((world.last().0, world.opened.get()), (504, 0));
        drop(only);
        assert!(world.say(GET).await.ends_with("ok"));
    });
}

#[test]
fn nobody_works_for_a_client_that_has_gone() {
    run(async {
        let world = World::simple("web");
        let cut = Rc::new(Cell::new(false));
        let told = Rc::clone(&cut);
        world.endpoint(
            "web",
            script(move |head, mut stream| {
                let told = Rc::clone(&told);
                async move {
                    let mut byte = [0];
                    if head.contains("/events") {
                        let begun = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
                        stream.write_all(begun).await.unwrap();
                    }
                    told.set(
                        tokio::io::AsyncReadExt::read(&mut stream, &mut byte).await.is_ok_and(|n| n == 0),
                    );
                }
            }),
        );
        for ask in [
            GET,
            "GET / HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            "GET /events HTTP/1.1\r\nHost: web\r\n\r\n",
        ] {
            cut.set(false);
            let mut client = world.connect(false);
            client.write_all(ask.as_bytes()).await.unwrap();
            sleep(Duration::from_secs(5)).await;
            assert!(!cut.get(), "it waits as long as its client");
            world.gone.notify_one();
            let mut answer = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut client, &mut answer).await.unwrap();
            assert_eq!(answer.ends_with(b"data: 1\n\n\r\n"), ask.contains("/events"));
            sleep(Duration::from_millis(1)).await;
            assert!(cut.get(), "the endpoint is told");
            let (_, flags, details, tries) = world.last();
            assert_eq!((&*flags, &*details, tries), ("DC", "downstream_remote_disconnect", 1));
        }
    });
}
