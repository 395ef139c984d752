//! How long connections are kept, how many there are, and who waits for one.

use super::super::io::OnWorker;
use super::super::limits::{IDLE, LAST_CALL, LEAVE};
use super::super::pool::Terms;
use super::world::{World, h2, run, script, text};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const SECOND: Duration = Duration::from_secs(1);

/// A service whose answers take as long as the path says, in seconds.
fn slow_service(h2: bool, terms: Terms) -> Rc<World> {
    let world = World::simple("web");
    world.h2_endpoints.set(h2);
    world.terms.set(terms);
    world.answers("web", |request| async move {
        let seconds = request.uri().path().trim_matches('/').parse().unwrap_or(0);
        sleep(SECOND * seconds).await;
        text(200, "done")
    });
    world
}

/// Whether it was answered.
async fn get(client: &mut SendRequest<Empty<Bytes>>, path: &str) -> bool {
    let request = Request::get(format!("http://web/{path}")).body(Empty::new()).unwrap();
    match client.send_request(request).await {
        Ok(response) => response.into_body().collect().await.is_ok(),
        Err(_) => false,
    }
}

/// The answer to one request on a connection that stays.
async fn ask(client: &mut DuplexStream, request: &str) -> String {
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"done") {
        answer.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_connection_carries_as_many_requests_as_it_may() {
    run(async {
        for h2 in [false, true] {
            for (max_uses, opened) in [(None, 1), (Some(1), 6), (Some(2), 3), (Some(4), 2)] {
                let world = slow_service(h2, Terms { max_uses, ..Terms::DEFAULT });
                for _ in 0..6 {
                    assert!(world.say(GET).await.ends_with("done"));
                }
                assert_eq!(world.opened.get(), opened, "{max_uses:?} {h2}");
            }
        }
    });
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    run(async {
        for h2 in [false, true] {
            for (idle, pause, opened) in [
                (Terms::DEFAULT.idle, IDLE - SECOND, 1),
                (Terms::DEFAULT.idle, IDLE, 2),
                (Some(SECOND * 10), SECOND * 9, 1),
                (Some(SECOND * 10), SECOND * 10, 2),
                (None, IDLE * 100, 1),
            ] {
                let world = slow_service(h2, Terms { idle, ..Terms::DEFAULT });
                world.say(GET).await;
                sleep(pause).await;
                world.say(GET).await;
                assert_eq!(world.opened.get(), opened, "{idle:?} {pause:?} {h2}");
            }
        }
        // Also where nobody asks again.
        let world = slow_service(false, Terms { idle: Some(SECOND), ..Terms::DEFAULT });
        world.say(GET).await;
        assert_eq!(world.pool.idle(), 1);
        sleep(SECOND * 10).await;
        assert_eq!(world.pool.idle(), 0);
    });
}

#[test]
fn an_old_connection_ends_after_its_last_request() {
    run(async {
        for h2 in [false, true] {
            let world = slow_service(h2, Terms { max_age: Some(SECOND * 10), ..Terms::DEFAULT });
            let long = "GET /8 HTTP/1.1\r\nHost: web\r\n\r\n";
            // It is 8 s old, then 16 s: what had begun is answered.
            assert!(world.say(long).await.ends_with("done") && world.say(long).await.ends_with("done"));
            assert_eq!(world.opened.get(), 1, "{h2}");
            world.say(GET).await;
            assert_eq!(world.opened.get(), 2, "{h2}");
        }
    });
}

#[test]
fn a_connection_that_will_be_cut_gets_no_more_requests() {
    run(async {
        for h2 in [false, true] {
            let world = slow_service(h2, Terms::DEFAULT);
            world.say(GET).await;
            world.say(GET).await;
            assert_eq!(world.opened.get(), 1, "{h2}");
            world.ending.set(true);
            world.say(GET).await;
            assert_eq!(world.opened.get(), 2, "{h2}");
            world.ending.set(false);
            // What was opened while it was so is not kept either.
            world.say(GET).await;
            world.say(GET).await;
            assert_eq!(world.opened.get(), 3, "{h2}");
        }
    });
}

#[test]
fn an_http_2_connection_carries_no_more_at_a_time_than_it_may() {
    run(async {
        for (max_streams, opened) in [(1, 6), (4, 2), (100, 1)] {
            let world = slow_service(true, Terms { max_streams, ..Terms::DEFAULT });
            let mut client = h2(world.connect(true)).await;
            // The first one is there before the others come.
            assert!(get(&mut client, "").await);
            let many = (0..6).map(|_| {
                let mut client = client.clone();
                spawn_local(async move { get(&mut client, "1").await })
            });
            for one in many.collect::<Vec<_>>() {
                assert!(one.await.unwrap());
            }
            assert_eq!(world.opened.get(), opened, "{max_streams}");
        }
    });
}

#[test]
fn an_http_2_endpoint_gets_no_more_at_a_time_than_it_takes() {
    run(async {
        let world = World::simple("web");
        world.h2_endpoints.set(true);
        world.endpoint(
            "web",
            Rc::new(|stream| {
                Box::pin(async move {
                    let service = hyper::service::service_fn(|_| async {
                        sleep(SECOND).await;
                        Ok::<_, std::convert::Infallible>(text(200, "done"))
                    });
                    let mut h2 = hyper::server::conn::http2::Builder::new(OnWorker);
                    let _ended =
                        h2.max_concurrent_streams(2).serve_connection(TokioIo::new(stream), service).await;
                })
            }),
        );
        let mut client = h2(world.connect(true)).await;
        // The first one is there before the others come, and its endpoint has said what it takes.
        assert!(get(&mut client, "").await);
        let began = Instant::now();
        let mut all = Vec::new();
        for _ in 0..4 {
            let mut client = client.clone();
            all.push(spawn_local(async move { get(&mut client, "").await }));
            // Long enough for a new one to be told, too.
            sleep(SECOND / 100).await;
        }
        for one in all {
            assert!(one.await.unwrap());
        }
        assert!(began.elapsed() < SECOND * 2, "nobody waited for another: {:?}", began.elapsed());
        assert_eq!(world.opened.get(), 2);
    });
}

/// The world's seats, as many as `connections`, for which `waiting` requests may wait.
fn limited(h2: bool, connections: usize, waiting: usize) -> Rc<World> {
    let world = slow_service(h2, Terms { max_streams: 2, ..Terms::DEFAULT });
    world.seats.forget_permits(Semaphore::MAX_PERMITS);
    world.may_wait.forget_permits(Semaphore::MAX_PERMITS);
    world.seats.add_permits(connections);
    world.may_wait.add_permits(waiting);
    world
}

#[test]
fn who_can_open_no_connection_waits_for_one_that_is_free() {
    run(async {
        let world = limited(false, 2, 10);
        let mut client = h2(world.connect(true)).await;
        let began = Instant::now();
        let all: Vec<_> = (0..6)
            .map(|_| {
                let mut client = client.clone();
                spawn_local(async move { get(&mut client, "1").await })
            })
            .collect();
        for one in all {
            assert!(one.await.unwrap());
        }
        assert_eq!((world.opened.get(), began.elapsed()), (2, SECOND * 3), "three rounds of two");
        // Streams of HTTP/2 connections are waited for as well.
        let world = limited(true, 1, 10);
        let mut other = h2(world.connect(true)).await;
        assert!(get(&mut other, "").await);
        let began = Instant::now();
        let all: Vec<_> = (0..6)
            .map(|_| {
                let mut client = other.clone();
                spawn_local(async move { get(&mut client, "1").await })
            })
            .collect();
        for one in all {
            assert!(one.await.unwrap());
        }
        assert_eq!((world.opened.get(), began.elapsed()), (1, SECOND * 3));
        assert!(get(&mut client, "").await);
    });
}

#[test]
fn the_last_bytes_of_a_connection_keep_its_place_from_nobody() {
    run(async {
        let world = World::simple("web");
        world.seats.forget_permits(Semaphore::MAX_PERMITS);
        world.seats.add_permits(1);
        world.terms.set(Terms { max_uses: Some(1), ..Terms::DEFAULT });
        world.endpoint(
            "web",
            script(|_, mut stream| async move {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await.unwrap();
                // It hears that the connection has ended, and does not end it.
                sleep(SECOND * 100).await;
            }),
        );
        let began = Instant::now();
        for _ in 0..3 {
            assert!(world.say(GET).await.ends_with("done"));
        }
        assert_eq!((world.opened.get(), began.elapsed()), (3, Duration::ZERO));
    });
}

#[test]
fn no_more_wait_than_may() {
    run(async {
        let world = limited(false, 1, 1);
        let long = |world: &Rc<World>| {
            let world = Rc::clone(world);
            spawn_local(async move { world.say("GET /5 HTTP/1.1\r\nHost: web\r\n\r\n").await })
        };
        let first = long(&world);
        sleep(SECOND).await;
        let second = long(&world);
        sleep(SECOND).await;
        let began = Instant::now();
        let answer = world.say(GET).await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("x-envoy-overloaded: true"),
            "{answer}"
        );
        assert_eq!(began.elapsed(), Duration::ZERO, "refused at once");
        assert_eq!(world.last().1, "UO");
        assert!(first.await.unwrap().ends_with("done") && second.await.unwrap().ends_with("done"));
        assert_eq!(world.opened.get(), 1);
    });
}

#[test]
fn a_clients_connection_without_requests_ends() {
    run(async {
        let world = slow_service(false, Terms::DEFAULT);
        let began = Instant::now();
        let mut nothing = world.connect(false);
        let mut some = world.connect(false);
        sleep(SECOND * 100).await;
        ask(&mut some, "GET /50 HTTP/1.1\r\nHost: web\r\n\r\n").await;
        let mut rest = Vec::new();
        nothing.read_to_end(&mut rest).await.unwrap();
        assert_eq!(began.elapsed(), IDLE);
        some.read_to_end(&mut rest).await.unwrap();
        assert_eq!(began.elapsed(), IDLE + SECOND * 150);
        assert!(rest.is_empty());
        let mut client = h2(world.connect(true)).await;
        assert!(get(&mut client, "").await);
        sleep(IDLE + SECOND).await;
        assert!(client.is_closed());
    });
}

#[test]
fn who_is_to_leave_is_told_and_loses_nothing() {
    run(async {
        let world = slow_service(false, Terms::DEFAULT);
        let (mut busy, mut idle) = (world.connect(false), world.connect(false));
        let mut two = h2(world.connect(true)).await;
        for client in [&mut busy, &mut idle] {
            assert!(!ask(client, GET).await.contains("connection: close"));
        }
        let mut under_way = two.clone();
        let under_way = spawn_local(async move { get(&mut under_way, "10").await });
        sleep(SECOND).await;
        drop(world.open.take());
        let began = Instant::now();
        assert!(ask(&mut busy, GET).await.contains("connection: close"), "its last one");
        let mut rest = Vec::new();
        busy.read_to_end(&mut rest).await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
        idle.read_to_end(&mut rest).await.unwrap();
        assert_eq!((began.elapsed(), rest.len()), (LAST_CALL, 0));
        assert!(!get(&mut two, "").await, "HTTP/2 knows at once");
        assert!(under_way.await.unwrap(), "and ends what it had begun");
    });
}

#[test]
fn an_http_2_client_that_answers_no_more_does_not_stay() {
    run(async {
        let world = slow_service(false, Terms::DEFAULT);
        let mut client = world.connect(true);
        // The preface, and empty SETTINGS; then it reads, and never says anything again.
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let began = Instant::now();
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(
            began.elapsed(),
            IDLE + LEAVE,
            "not before, for clients read when they wait for an answer"
        );
    });
}
