//! Other protocols after a switch, and HTTP/2 by one.

use super::super::io::OnWorker;
use super::super::limits::{IDLE, LAST_CALL, LEAVE};
use super::world::{Server, World, h2, post, run, script, text};
use crate::route::http::Ended;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, split};
use tokio::time::{Duration, Instant, sleep, timeout};

#[test]
fn a_websocket_is_joined_with_its_server_and_a_bad_h2c_is_not() {
    run(async {
        let world = World::simple("web");
        world.endpoint(
            "web",
            script(|head, mut stream| async move {
                if !head.contains("upgrade: websocket\r\n") {
                    assert!(!head.to_lowercase().contains("upgrade"), "{head}");
                    return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
                }
                stream
                    .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi!")
                    .await
                    .unwrap();
                let (mut read, mut write) = split(stream);
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            }),
        );
        let ask = |protocol: &str| {
            format!(
                "GET /chat HTTP/1.1\r\nHost: web\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: x\r\n\r\n"
            )
        };
        let answer = world.say(&format!("{}\x01\x02frames", ask("websocket"))).await;
        assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
        assert!(
            answer.contains("upgrade: websocket\r\n") && answer.ends_with("\r\n\r\nhi!\x01\x02frames"),
            "{answer}"
        );
        let flow = world.records().pop().unwrap();
        assert_eq!((flow.request.unwrap().status, flow.flags.as_str()), (101, "-"));
        let answer = world.say(&format!("{}GET / HTTP/1.1\r\nHost: web\r\n\r\n", ask("h2c"))).await;
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    });
}

#[test]
fn another_protocol_that_nobody_asked_for_is_not_passed_on() {
    run(async {
        let world = World::simple("web");
        world.endpoint(
            "web",
            script(|_, mut stream| async move {
                let answer =
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                let _ended = stream.read_u8().await;
            }),
        );
        for ask in ["GET / HTTP/1.1\r\nHost: web", "CONNECT far:443 HTTP/1.1\r\nHost: far:443"] {
            let answer = world.say(&format!("{ask}\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
            assert_eq!((world.last().0, &*world.last().1), (502, "UPE"));
        }
        let mut client = h2(world.connect(true)).await;
        assert_eq!(client.send_request(post("/", "")).await.unwrap().status(), 502);
        assert_eq!((world.last().0, &*world.last().1), (502, "UPE"));
    });
}

#[test]
fn a_connection_that_has_switched_ends_with_its_permit() {
    run(async {
        let world = World::simple("web");
        let cut = Rc::new(Cell::new(false));
        let told = Rc::clone(&cut);
        world.endpoint(
            "web",
            script(move |_, mut stream| {
                let told = Rc::clone(&told);
                async move {
                    stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi!").await.unwrap();
                    let (mut read, mut write) = split(stream);
                    let _ended = tokio::io::copy(&mut read, &mut write).await;
                    told.set(true);
                }
            }),
        );
        let mut client = world.connect(false);
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nabc")
            .await
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"hi!abc") {
            answer.push(client.read_u8().await.unwrap());
        }
        assert!(!cut.get());
        world.evict.notify_waiters();
        let ended = timeout(Duration::from_secs(10), client.read_to_end(&mut answer)).await;
        ended.expect("the client's side has ended").unwrap();
        sleep(Duration::from_secs(1)).await;
        assert!(cut.get(), "the endpoint's side has ended");
        let (status, flags, details, _) = world.last();
        assert_eq!((status, &*flags, &*details), (101, "UC", "upgraded_connection_reset"));
    });
}

/// Whose server has told what it can do.
async fn settled(world: &Rc<World>) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
    let mut client = h2(world.connect(true)).await;
    assert_eq!(client.send_request(post("/first", "")).await.unwrap().status(), 200);
    client
}

#[test]
fn streams_of_http_2_become_other_protocols_with_servers_of_http_1() {
    run(async {
        let world = World::simple("web");
        world.endpoint(
            "web",
            script(|head, mut stream| async move {
                let answer = match head.split("\r\n").next().unwrap() {
                    "GET /chat HTTP/1.1" => {
                        for line in
                            ["connection: upgrade", "upgrade: websocket", "sec-websocket-key: ", "host: web"]
                        {
                            assert!(head.contains(&format!("\r\n{line}")), "{head}");
                        }
                        "101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket"
                    }
                    "CONNECT far:443 HTTP/1.1" => "200 OK",
                    _ => "200 OK\r\nContent-Length: 0\r\nConnection: close",
                };
                stream.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).await.unwrap();
                let (mut read, mut write) = split(stream);
                let _ended = tokio::io::copy(&mut read, &mut write).await;
                let _ended = write.shutdown().await;
            }),
        );
        let mut client = settled(&world).await;
        let mut socket = Request::connect("http://web/chat").body(Full::default()).unwrap();
        socket.extensions_mut().insert(Protocol::from_static("websocket"));
        let tunnel = Request::connect("far:443").body(Full::default()).unwrap();
        for (path, request) in [("/chat", socket), ("", tunnel)] {
            let response = client.send_request(request).await.unwrap();
            assert_eq!(response.status(), 200);
            assert!(!response.headers().contains_key("upgrade"));
            let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
            // Quiet for longer than a connection may be without a request.
            sleep(IDLE * 2 + Duration::from_secs(1)).await;
            stream.write_all(b"frames").await.unwrap();
            let mut frames = [0; 6];
            stream.read_exact(&mut frames).await.unwrap();
            assert_eq!(&frames, b"frames");
            stream.shutdown().await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            assert!(rest.is_empty());
            drop(stream);
            sleep(Duration::from_secs(1)).await;
            let flow = world.records().pop().unwrap();
            let request = flow.request.unwrap();
            assert_eq!((&*request.path, request.status, &*flow.flags), (path, 200, "-"));
            assert_eq!(&*request.protocol, "HTTP/2");
        }
    });
}

#[test]
fn a_stream_that_is_another_protocols_outlasts_the_leave_of_its_connection() {
    run(async {
        let world = World::simple("web");
        world.endpoint(
            "web",
            script(|_, mut stream| async move {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let (mut read, mut write) = split(stream);
                let _ended = tokio::io::copy(&mut read, &mut write).await;
            }),
        );
        let mut client = h2(world.connect(true)).await;
        let response = client.send_request(Request::connect("far:443").body(Full::default()).unwrap());
        let mut stream = TokioIo::new(hyper::upgrade::on(response.await.unwrap()).await.unwrap());
        drop(world.open.take());
        sleep(LEAVE * 3).await;
        stream.write_all(b"still").await.unwrap();
        let mut still = [0; 5];
        stream.read_exact(&mut still).await.unwrap();
        assert_eq!(&still, b"still");
    });
}

#[test]
fn who_does_not_become_another_protocol_is_answered() {
    run(async {
        let world = World::simple("web");
        world.answers("web", |request| async move {
            match request.uri().path() {
                "/chat" => text(403, "no"),
                _ => text(200, "a page"),
            }
        });
        let mut client = h2(world.connect(true)).await;
        client.send_request(post("/first", "")).await.unwrap();
        // A success would say that the stream is another protocol's.
        for (path, status, expected) in [("/chat", 403, "no"), ("/page", 502, "protocol error")] {
            let mut socket = Request::connect(format!("http://web{path}")).body(Full::default()).unwrap();
            socket.extensions_mut().insert(Protocol::from_static("websocket"));
            let response = client.send_request(socket).await.unwrap();
            assert_eq!(response.status(), status);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert!(body.ends_with(expected.as_bytes()), "{body:?}");
        }
        assert_eq!((world.last().0, &*world.last().1), (502, "UPE"));
    });
}

/// A server of HTTP/2 that takes WebSockets where it is told so, and says back what comes on them.
fn echoes(world: &World, takes: bool) {
    world.h2_endpoints.set(true);
    world.endpoint(
        "web",
        Rc::new(move |stream| {
            let service = service_fn(|mut request: Request<Incoming>| async move {
                if request.uri().path() == "/no" {
                    return Ok(text(403, "no"));
                }
                let is_socket = request.extensions().get::<Protocol>().is_some_and(|protocol| {
                    assert_eq!(protocol.as_str(), "websocket");
                    assert_eq!(request.uri().path_and_query().unwrap(), "/chat?room=1");
                    assert_eq!(request.headers()["sec-websocket-version"], "13");
                    for gone in ["connection", "upgrade", "sec-websocket-key", "host"] {
                        assert!(!request.headers().contains_key(gone), "{gone}");
                    }
                    true
                });
                if request.method() == Method::CONNECT {
                    assert!(is_socket || request.uri() == "far:443");
                    let stream = hyper::upgrade::on(&mut request);
                    tokio::task::spawn_local(async move {
                        let (mut read, mut write) = split(TokioIo::new(stream.await.unwrap()));
                        let _ended = tokio::io::copy(&mut read, &mut write).await;
                        let _ended = write.shutdown().await;
                    });
                }
                Ok::<_, Infallible>(text(200, ""))
            });
            Box::pin(async move {
                // Later than the first request.
                sleep(Duration::from_secs(1)).await;
                let mut server = hyper::server::conn::http2::Builder::new(OnWorker);
                if takes {
                    server.enable_connect_protocol();
                }
                let _ended = server.serve_connection(TokioIo::new(stream), service).await;
            })
        }),
    );
}

const SOCKET: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn clients_of_http_1_have_other_protocols_with_servers_of_http_2() {
    run(async {
        let world = World::simple("web");
        echoes(&world, true);
        let answer = world.say(&format!("{SOCKET}frames")).await;
        assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
        for line in [
            "connection: upgrade",
            "upgrade: websocket",
            "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        ] {
            assert!(answer.contains(&format!("\r\n{line}\r\n")), "{line}: {answer}");
        }
        assert!(answer.ends_with("\r\n\r\nframes"), "{answer}");
        let flow = world.records().pop().unwrap();
        let request = flow.request.unwrap();
        assert_eq!((request.status, &*flow.flags, &*request.method), (101, "-", "GET"));
        let answer = world.say("CONNECT far:443 HTTP/1.1\r\nHost: far:443\r\n\r\nbytes").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nbytes"), "{answer}");
        // All of it over one connection, which is still good for requests.
        assert!(world.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await.starts_with("HTTP/1.1 200 "));
        assert_eq!(world.opened.get(), 1);
        // An answer that is none of the protocol's is passed on.
        let no = SOCKET.replace("/chat?room=1", "/no").replace("websocket\r\n", "other\r\n");
        assert!(world.say(&no).await.starts_with("HTTP/1.1 403 "));
    });
}

#[test]
fn streams_of_http_2_become_other_protocols_with_servers_of_http_2() {
    run(async {
        let world = World::simple("web");
        echoes(&world, true);
        let mut client = settled(&world).await;
        let mut socket = Request::connect("http://web/chat?room=1").body(Full::default()).unwrap();
        socket.extensions_mut().insert(Protocol::from_static("websocket"));
        socket.headers_mut().insert("sec-websocket-version", HeaderValue::from_static("13"));
        let tunnel = Request::connect("far:443").body(Full::default()).unwrap();
        for request in [socket, tunnel] {
            let response = client.send_request(request).await.unwrap();
            assert_eq!(response.status(), 200);
            assert!(!response.headers().contains_key("sec-websocket-accept"));
            let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
            stream.write_all(b"frames").await.unwrap();
            let mut frames = [0; 6];
            stream.read_exact(&mut frames).await.unwrap();
            assert_eq!(&frames, b"frames");
        }
        assert_eq!(world.opened.get(), 1);
    });
}

#[test]
fn a_stream_that_has_switched_ends_with_the_permit_of_its_connection() {
    run(async {
        let world = World::simple("web");
        echoes(&world, true);
        let mut client = world.connect(false);
        client.write_all(format!("{SOCKET}abc").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nabc") {
            answer.push(client.read_u8().await.unwrap());
        }
        world.evict.notify_waiters();
        let ended = timeout(Duration::from_secs(10), client.read_to_end(&mut answer)).await;
        ended.expect("the client's side has ended").unwrap();
        let (status, flags, details, _) = world.last();
        assert_eq!((status, &*flags, &*details), (101, "UC", "upgraded_connection_reset"));
    });
}

#[test]
fn a_server_of_http_2_that_takes_no_other_protocol_is_asked_for_none() {
    run(async {
        let world = World::simple("web");
        echoes(&world, false);
        let answer = world.say(SOCKET).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        assert_eq!((world.last().0, &*world.last().1), (502, "UPE"));
        assert!(world.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await.starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn what_http_2_cannot_ask_for_is_not_asked() {
    run(async {
        let world = World::simple("web");
        echoes(&world, true);
        let with = |line: &str| SOCKET.replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"));
        let connect = "CONNECT far:443 HTTP/1.1\r\nHost: far:443\r\n";
        for ask in [
            with("Content-Length: 4") + "body",
            with("Sec-WebSocket-Key: again"),
            SOCKET.replace("Upgrade: websocket", "Upgrade: a, b"),
            SOCKET.replace("GET", "POST"),
            format!("{connect}Content-Length: 4\r\n\r\nbody"),
            format!("{connect}Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
        ] {
            let answer = world.say(&ask).await;
            assert!(answer.starts_with("HTTP/1.1 502 "), "{ask}: {answer}");
            assert_eq!(*world.ended.borrow().last().unwrap(), Ended::Overflow, "the endpoint is not blamed");
        }
        assert_eq!(world.opened.get(), 0);
        let mut client = settled(&world).await;
        for protocol in ["h2c", "HTTP/2.0", "a, b"] {
            let mut socket = Request::connect("http://web/chat").body(Full::default()).unwrap();
            socket.extensions_mut().insert(Protocol::from(protocol));
            assert_eq!(client.send_request(socket).await.unwrap().status(), 400, "{protocol}");
        }
    });
}

/// The next try is somebody else's.
#[test]
fn a_server_that_does_not_begin_http_2_is_none() {
    run(async {
        let silent: Server = Rc::new(|stream| {
            Box::pin(async move {
                sleep(Duration::from_secs(3600)).await;
                drop(stream);
            })
        });
        let mute: Server = Rc::new(|stream| Box::pin(async move { drop(stream) }));
        for (server, words) in
            [(silent, "has not begun HTTP/2 within 10 s"), (mute, "ended the connection instead")]
        {
            for ask in [SOCKET, "GET / HTTP/1.1\r\nHost: web\r\n\r\n"] {
                let world = World::simple("web");
                world.h2_endpoints.set(true);
                world.endpoint("web", Rc::clone(&server));
                let began = Instant::now();
                assert!(world.say(ask).await.starts_with("HTTP/1.1 503 "));
                assert!(began.elapsed() < Duration::from_secs(60));
                let (status, flags, ..) = world.last();
                assert!(status == 503 && flags.starts_with("UF"), "{status} {flags}");
                let why = world.records().pop().unwrap().error.unwrap();
                assert!(why.contains(words), "{why}");
                assert!(world.ended.borrow().iter().all(|ended| *ended == Ended::NoConnection));
            }
        }
    });
}

/// Requests that come before it has begun HTTP/2 wait for it together, and it is there for others when one of them goes.
#[test]
fn a_connection_that_has_not_begun_is_joined_and_outlasts_who_opened_it() {
    run(async {
        let world = World::simple("web");
        // Begins after a second.
        echoes(&world, true);
        let mut client = h2(world.connect(true)).await;
        client.ready().await.unwrap();
        let first = client.send_request(post("/", ""));
        let gone = timeout(Duration::from_millis(500), first).await;
        assert!(gone.is_err(), "it has not begun");
        let others: Vec<_> = (0..50).map(|_| client.send_request(post("/", ""))).collect();
        for response in futures_util::future::join_all(others).await {
            assert_eq!(response.unwrap().status(), 200);
        }
        assert_eq!(world.opened.get(), 1);
    });
}

/// What it does not begin fails all that wait for it at once, and not one after the other.
#[test]
fn who_waits_for_a_connection_together_hears_of_its_end_together() {
    run(async {
        let world = World::simple("web");
        world.h2_endpoints.set(true);
        world.endpoint(
            "web",
            Rc::new(|stream| {
                Box::pin(async move {
                    sleep(Duration::from_secs(1)).await;
                    drop(stream);
                })
            }),
        );
        let mut client = h2(world.connect(true)).await;
        client.ready().await.unwrap();
        let began = Instant::now();
        let asked: Vec<_> = (0..20).map(|_| client.send_request(post("/", ""))).collect();
        for response in futures_util::future::join_all(asked).await {
            assert_eq!(response.unwrap().status(), 503);
        }
        // Three tries each, and each of them together.
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert!(world.opened.get() <= 9, "{} connections for 60 tries", world.opened.get());
    });
}

/// More than it takes at a time, and before it has said how many that is.
#[test]
fn a_server_of_http_2_gets_no_more_at_a_time_than_it_takes() {
    run(async {
        let world = World::simple("web");
        world.h2_endpoints.set(true);
        let (now, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let (counted, seen) = (Rc::clone(&now), Rc::clone(&most));
        world.endpoint(
            "web",
            Rc::new(move |stream| {
                let (now, most) = (Rc::clone(&counted), Rc::clone(&seen));
                let service = service_fn(move |_: Request<Incoming>| {
                    let (now, most) = (Rc::clone(&now), Rc::clone(&most));
                    async move {
                        now.set(now.get() + 1);
                        most.set(most.get().max(now.get()));
                        sleep(Duration::from_secs(1)).await;
                        now.set(now.get() - 1);
                        Ok::<_, Infallible>(text(200, "done"))
                    }
                });
                Box::pin(async move {
                    sleep(Duration::from_secs(1)).await;
                    let mut server = hyper::server::conn::http2::Builder::new(OnWorker);
                    server.max_concurrent_streams(2);
                    let _ended = server.serve_connection(TokioIo::new(stream), service).await;
                })
            }),
        );
        let mut client = h2(world.connect(true)).await;
        client.ready().await.unwrap();
        let asked: Vec<_> = (0..8).map(|_| client.send_request(post("/", ""))).collect();
        for response in futures_util::future::join_all(asked).await {
            assert_eq!(response.unwrap().status(), 200);
        }
        assert!(most.get() <= 2 * world.opened.get(), "{} on {}", most.get(), world.opened.get());
    });
}

/// A frame of HTTP/2: kind, flags, stream and payload.
type Frame = (u8, u8, u32, Vec<u8>);

async fn read_frame(io: &mut DuplexStream) -> Frame {
    let mut head = [0; 9];
    io.read_exact(&mut head).await.unwrap();
    let [high, middle, low, kind, flags, stream @ ..] = head;
    let mut payload = vec![0; usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)];
    io.read_exact(&mut payload).await.unwrap();
    (kind, flags, u32::from_be_bytes(stream), payload)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_uint(payload.len() as u64, 3);
    frame.put_u8(kind);
    frame.put_u8(flags);
    frame.put_u32(stream);
    frame.put_slice(payload);
    frame
}

const H2C: &str = "GET /first HTTP/1.1\r\nHost: web\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
                   HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nX-Mine: 1\r\n\r\n";

/// A client's connection whose request for HTTP/2 was granted.
async fn asked_for_h2c(world: &Rc<World>) -> DuplexStream {
    let mut client = world.connect(false);
    client.write_all(H2C.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("upgrade: h2c\r\n"), "{head}");
    client
}

async fn begin_h2(client: &mut DuplexStream) {
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    client.write_all(&frame(4, 0, 0, &[0, 3, 0, 0, 0, 100])).await.unwrap();
}

#[test]
fn a_request_that_asked_for_http_2_is_served_though_its_connection_is_to_leave() {
    run(async {
        let world = World::simple("web");
        world.answers("web", |_| async { text(200, "first") });
        let mut client = asked_for_h2c(&world).await;
        let mut late = asked_for_h2c(&world).await;
        drop(world.open.take());
        sleep(Duration::from_secs(1)).await;
        begin_h2(&mut client).await;
        let body = loop {
            let (kind, _, stream, payload) = read_frame(&mut client).await;
            if (kind, stream) == (0, 1) {
                break payload;
            }
        };
        assert_eq!(body, b"first");
        // Who says nothing is not waited for.
        sleep(LAST_CALL).await;
        assert_eq!(late.read(&mut [0]).await.unwrap(), 0);
    });
}

#[test]
fn a_connection_becomes_one_of_http_2_and_its_first_request_a_stream() {
    run(async {
        let world = World::simple("web");
        world.answers("web", |request| async move {
            for gone in ["connection", "upgrade", "http2-settings"] {
                assert!(!request.headers().contains_key(gone), "{gone}");
            }
            let mine = request.headers().get("x-mine").is_some();
            text(
                200,
                format!("{} {} {mine}", request.uri().path(), request.headers()["host"].to_str().unwrap()),
            )
        });
        let mut client = asked_for_h2c(&world).await;
        begin_h2(&mut client).await;
        // Another request, its fields from the static table (RFC 7541, A): GET, http, and two literals.
        let mut block = vec![0x82, 0x86];
        for (index, value) in [(4, &b"/second"[..]), (1, b"web")] {
            block.extend([index, value.len() as u8]);
            block.extend(value);
        }
        client.write_all(&frame(1, 0x5, 3, &block)).await.unwrap();
        let (mut bodies, mut acks) = ([Vec::new(), Vec::new()], 0);
        let mut open = 2;
        while open > 0 {
            let (kind, flags, stream, payload) = read_frame(&mut client).await;
            match kind {
                0 => bodies[stream as usize / 2].extend(payload),
                4 => acks += usize::from(flags & 1 == 1),
                3 | 7 => panic!("{kind} {payload:?}"),
                _ => {}
            }
            open -= usize::from(matches!(kind, 0 | 1) && flags & 1 == 1);
        }
        assert_eq!(
            bodies.map(|body| String::from_utf8(body).unwrap()),
            ["/first web true", "/second web false"]
        );
        assert_eq!(acks, 1, "for the one SETTINGS that came");
        let records = world.records();
        assert_eq!(records.len(), 2, "the question is no request of its own");
        assert!(records.iter().all(|flow| flow.request.as_ref().unwrap().protocol == "HTTP/2".into()));
    });
}

#[test]
fn who_asks_for_http_2_and_begins_with_something_else_is_cut_off() {
    run(async {
        let world = World::simple("web");
        world.answers("web", |_| async { text(200, "done") });
        let answer = world.say(&format!("{H2C}GET / HTTP/1.1\r\nHost: web\r\n\r\n..............")).await;
        assert!(answer.starts_with("HTTP/1.1 101 ") && answer.matches("HTTP/1.1").count() == 1, "{answer}");
        let record = world.records().pop().unwrap();
        assert_eq!((&*record.flags, &*record.request.unwrap().details), ("DPE", "http2.codec_error"));
        // Who has a body to send is answered in HTTP/1.1, as is who does not say how HTTP/2 is to be.
        let with_body = H2C.replace("\r\n\r\n", "\r\nContent-Length: 4\r\n\r\nbody");
        let without_settings = H2C.replace("HTTP2-Settings: ", "X-Settings: ");
        for ask in [with_body, without_settings] {
            assert!(world.say(&ask).await.starts_with("HTTP/1.1 200 "), "{ask}");
        }
    });
}
