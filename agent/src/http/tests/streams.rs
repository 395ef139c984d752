//! HTTP/2, gRPC and back-pressure.

use super::world::{PIPE, World, body, forward, h2, post, run, script, text};
use crate::limits::LimitsConfig;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, sleep, timeout};

/// More than a stream's window.
const LARGE: &str = match std::str::from_utf8(&[b'x'; 1 << 20]) {
    Ok(text) => text,
    Err(_) => "",
};

#[test]
fn http_2_clients_reach_http_1_endpoints_many_requests_at_a_time() {
    run(async {
        let world = World::simple("web");
        world.answers("web", |request| async move {
            let host = request.headers()["host"].to_str().unwrap().to_owned();
            sleep(Duration::from_secs(1)).await;
            text(200, format!("{host} {}", body(request).await))
        });
        let mut client = h2(world.connect(true)).await;
        let requests: Vec<_> = (0..20).map(|_| client.send_request(post("/x", "hello"))).collect();
        for request in requests {
            let response = request.await.unwrap();
            assert_eq!(response.status(), 200);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, "web hello");
        }
        assert_eq!(world.opened.get(), 20);
        assert!(world.records().iter().all(|flow| &*flow.request.as_ref().unwrap().protocol == "HTTP/2"));
    });
}

/// How many requests may be unread on a connection that still serves another, by what its pod may leave unread.
const UNREAD: [(usize, usize); 2] = [(LimitsConfig::DEFAULT.unread_bytes_per_pod, 99), (0, 15)];

fn may_leave_unread(unread_bytes_per_pod: usize) -> Rc<World> {
    let limits = LimitsConfig { unread_bytes_per_pod, ..LimitsConfig::DEFAULT };
    World::limited(&json!([forward("web", json!({}))]), limits)
}

#[test]
fn uploads_that_nobody_reads_hold_up_no_other_request() {
    for (bytes, count) in UNREAD {
        run(async {
            let world = may_leave_unread(bytes);
            world.answers("web", |request| async move {
                if request.uri().path() == "/unread" {
                    std::future::pending::<()>().await;
                }
                text(200, body(request).await)
            });
            let mut client = h2(world.connect(true)).await;
            let unread: Vec<_> = (0..count).map(|_| client.send_request(post("/unread", LARGE))).collect();
            let unread = tokio::task::spawn_local(futures_util::future::join_all(unread));
            sleep(Duration::from_secs(1)).await;
            let other = async {
                let response = client.send_request(post("/", "hello")).await.unwrap();
                assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
            };
            timeout(Duration::from_secs(60), other).await.unwrap();
            unread.abort();
        });
    }
}

#[test]
fn downloads_that_nobody_reads_hold_up_no_other_request() {
    for (bytes, count) in UNREAD {
        run(async {
            let world = may_leave_unread(bytes);
            world.h2_endpoints.set(true);
            world.answers("web", |request| async move {
                text(200, if request.uri().path() == "/unread" { LARGE } else { "hello" })
            });
            let mut unread = Vec::new();
            for _ in 0..count {
                let mut client = world.connect(false);
                client.write_all(b"GET /unread HTTP/1.1\r\nHost: web\r\n\r\n").await.unwrap();
                unread.push(client);
                sleep(Duration::from_secs(1)).await;
            }
            let other =
                timeout(Duration::from_secs(60), world.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n")).await;
            assert!(other.unwrap().ends_with("hello"));
            assert_eq!(world.opened.get(), 1, "all on one connection");
        });
    }
}

#[test]
fn a_length_that_is_said_twice_is_refused() {
    run(async {
        let world = World::simple("web");
        world.answers("web", |request| async move { text(200, body(request).await) });
        let mut client = h2(world.connect(true)).await;
        for (count, status) in [(1, 200), (2, 400)] {
            let mut request = post("/", "hello");
            for _ in 0..count {
                request.headers_mut().append("content-length", "5".parse().unwrap());
            }
            assert_eq!(client.send_request(request).await.unwrap().status(), status);
            assert_eq!(world.last().0, status);
        }
    });
}

#[test]
fn the_head_of_an_answer_of_ours_has_no_body() {
    run(async {
        let reply = json!({"status": 404, "body": b"nothing here".to_vec()});
        let world = World::new(&json!([{"name": "all", "action": {"reply": reply}}]));
        let mut client = h2(world.connect(true)).await;
        let head = Request::head("http://web/").body(Full::default()).unwrap();
        let response = client.send_request(head).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-length"]),
            (404, &"12".parse().unwrap())
        );
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 0);
        let answer = world.say("HEAD / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        assert!(answer.contains("content-length: 12\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    });
}

#[test]
fn grpc_passes_with_its_trailers_over_one_connection() {
    const MESSAGE: &str = "\0\0\0\0\x02hi";
    run(async {
        let world = World::simple("web");
        world.h2_endpoints.set(true);
        world.answers("web", |request| async move {
            assert_eq!(request.headers()["te"], "trailers");
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "5".parse().unwrap());
            let sent = body(request).await;
            let frames =
                vec![Ok::<_, Infallible>(Frame::data(Bytes::from(sent))), Ok(Frame::trailers(trailers))];
            Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed())
        });
        let mut client = h2(world.connect(true)).await;
        for _ in 0..3 {
            let mut request = post("/shop.Cart/Get", MESSAGE);
            request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            request.headers_mut().insert("te", "trailers".parse().unwrap());
            let response = client.send_request(request).await.unwrap();
            let collected = response.into_body().collect().await.unwrap();
            assert_eq!(collected.trailers().unwrap()["grpc-status"], "5");
            assert_eq!(collected.to_bytes(), MESSAGE);
        }
        assert_eq!(world.opened.get(), 1);
        let request = world.records().pop().unwrap().request.unwrap();
        assert!(request.grpc);
        assert_eq!(request.grpc_status, Some(5));
        let metrics = world.observer.encode_metrics();
        for name in ["istio_request_messages_total", "istio_response_messages_total"] {
            let counted = metrics.lines().find(|line| line.starts_with(name)).unwrap();
            assert!(counted.ends_with(" 3"), "{counted}");
        }
    });
}

/// hyper keeps the socket of HTTP/2 in a task of its own, which must not outlive the permit.
#[test]
fn an_open_stream_ends_with_the_permit_of_its_connection() {
    run(async {
        let world = World::simple("web");
        world.h2_endpoints.set(true);
        world.answers("web", |_| async {
            let ticks = futures_util::stream::unfold((), |()| async {
                sleep(Duration::from_millis(100)).await;
                Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"tick"))), ()))
            });
            Response::new(StreamBody::new(ticks).boxed())
        });
        let mut client = world.connect(false);
        client.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"tick\r\n") {
            answer.push(client.read_u8().await.unwrap());
        }
        world.evict.notify_waiters();
        let ended = timeout(Duration::from_secs(10), client.read_to_end(&mut answer)).await;
        let _reset = ended.expect("the client's side has ended");
        let (status, flags, _, _) = world.last();
        assert_eq!((status, &*flags), (200, "UC"));
    });
}

#[test]
fn connect_is_passed_on() {
    run(async {
        let world = World::simple("web");
        world.endpoint(
            "web",
            script(|head, mut stream| async move {
                assert!(head.starts_with("CONNECT far:443 HTTP/1.1\r\n"), "{head}");
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let (mut read, mut write) = tokio::io::split(stream);
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            }),
        );
        let answer = world.say("CONNECT far:443 HTTP/1.1\r\nHost: far:443\r\n\r\n\x16\x03hello").await;
        assert!(answer.ends_with("\r\n\r\n\x16\x03hello"), "{answer}");
    });
}

#[test]
fn a_slow_reader_holds_a_fast_writer_back() {
    run(async {
        let world = World::simple("web");
        let written = Rc::new(Cell::new(0_usize));
        let count = Rc::clone(&written);
        world.endpoint(
            "web",
            script(move |_, mut stream| {
                let count = Rc::clone(&count);
                async move {
                    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                    while stream.write_all(&[0; 1024]).await.is_ok() {
                        count.set(count.get() + 1024);
                    }
                }
            }),
        );
        let mut client = world.connect(false);
        client.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").await.unwrap();
        sleep(Duration::from_secs(10)).await;
        assert!(
            written.get() < 1 << 20,
            "{} bytes were taken from a server whose client reads nothing",
            written.get()
        );
        let mut buffer = vec![0; 64 << 10];
        let mut read = 0;
        while read < 8 << 20 {
            read += client.read(&mut buffer).await.unwrap();
        }
        drop(client);
        sleep(Duration::from_secs(1)).await;
        let (status, flags, details, _) = world.last();
        assert_eq!((status, &*flags, &*details), (200, "DC", "downstream_remote_disconnect"));
        assert!(written.get() < read + (1 << 20) + PIPE);
    });
}

#[test]
fn a_slow_server_holds_a_fast_client_back() {
    run(async {
        let world = World::simple("web");
        world.endpoint(
            "web",
            script(|_, stream| async move {
                sleep(Duration::from_secs(100)).await;
                drop(stream);
            }),
        );
        let mut client = world.connect(false);
        client.write_all(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 100000000\r\n\r\n").await.unwrap();
        let mut written = 0;
        let writing = async {
            loop {
                client.write_all(&[0; 1024]).await.unwrap();
                written += 1024;
            }
        };
        let _ = timeout(Duration::from_secs(10), writing).await;
        assert!(written < 1 << 20, "{written} bytes were taken from a client whose server reads nothing");
    });
}
