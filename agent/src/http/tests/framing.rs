//! Messages at the edge of HTTP/1.

use super::world::{DIALLED, World, body, run, script, text};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use tokio::io::AsyncWriteExt;

#[test]
fn what_is_ambiguous_is_refused_and_nobody_behind_sees_it() {
    run(async {
        let world = World::simple("web");
        world.answers("web", |_| async { text(200, "seen") });
        let mut seen = 0;
        for bad in [
            "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            "GET / HTTP/1.1\nHost: web\n\n",
            "GET / HTTP/1.1\r\nHost: web\r\nX: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "nonsense\r\n\r\n",
            "GET web HTTP/1.1\r\nHost: web\r\n\r\n",
            "GET /<b> HTTP/1.1\r\nHost: web\r\n\r\n",
        ] {
            let answer = world.say(bad).await;
            assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{bad:?}: {answer}");
            let (status, flags, ..) = world.last();
            assert_eq!((status, &*flags), (400, "DPE"), "{bad:?}");
            seen += 1;
            assert_eq!(world.records().len(), seen, "{bad:?}");
        }
        let many = "a: b\r\n".repeat(200);
        let answer = world.say(&format!("GET / HTTP/1.1\r\nHost: web\r\n{many}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        let long = "a".repeat(100_000);
        let answer = world.say(&format!("GET / HTTP/1.1\r\nHost: web\r\nX: {long}\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        let answer = world.say(&format!("GET /{long} HTTP/1.1\r\nHost: web\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 414 "), "{answer}");
        assert_eq!(world.last().0, 414);
        assert_eq!(world.opened.get(), 0);
    });
}

#[test]
fn a_bad_chunk_ends_the_request_and_the_connection() {
    run(async {
        let world = World::simple("web");
        world.answers("web", |request| async move {
            let read = request.into_body().collect().await;
            text(200, format!("{}", read.is_ok()))
        });
        let bad =
            "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n";
        let answer = world.say(&format!("{bad}GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n")).await;
        assert!(!answer.contains("true") && answer.matches("HTTP/1.1").count() <= 1, "{answer}");
    });
}

#[test]
fn what_is_bad_does_not_become_the_end_of_what_came_before() {
    run(async {
        let world = World::simple("web");
        world.answers("web", |request| async move { text(200, format!("<{}>", body(request).await)) });
        let mut client = world.connect(false);
        client.write_all(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\n").await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        client.write_all(b"helloGET / HTTP/1.1\nHost: web\n\n").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut client, &mut answer).await.unwrap();
        let (good, bad) = answer.split_once("<hello>").unwrap_or_else(|| panic!("{answer}"));
        assert!(good.starts_with("HTTP/1.1 200 ") && bad.starts_with("HTTP/1.1 400 "), "{answer}");
    });
}

#[test]
fn a_chunked_body_passes_with_any_method() {
    run(async {
        let world = World::simple("web");
        world.answers("web", |request| async move { text(200, format!("<{}>", body(request).await)) });
        for method in ["GET", "DELETE", "POST"] {
            let head = format!("{method} / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n");
            let answer = world.say(&format!("{head}3\r\nabc\r\n0\r\n\r\n")).await;
            assert!(answer.ends_with("<abc>"), "{method}: {answer}");
        }
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    run(async {
        let world = World::simple("web");
        world.answers("web", |request| async move {
            let path = request.uri().path().to_owned();
            text(200, format!("{path} {}", body(request).await))
        });
        let answer = world
            .say(
                "POST /1 HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
                 POST /2 HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\nde\
                 GET /3 HTTP/1.1\r\nHost: web\r\n\r\n",
            )
            .await;
        let at = |text: &str| answer.find(text).unwrap_or_else(|| panic!("{text}: {answer}"));
        assert!(at("/1 abc") < at("/2 de") && at("/2 de") < at("/3 "));
        assert_eq!(world.records().len(), 3);
    });
}

#[test]
fn responses_without_a_body_have_none() {
    run(async {
        let world = World::simple("web");
        world.answers("web", |request| async move {
            let status = request.uri().path().trim_start_matches('/').parse().unwrap_or(200);
            let reply = Response::builder().status(status);
            match status {
                204 | 304 => reply.body(Empty::new().boxed()).unwrap(),
                _ => reply.header("content-length", "1000").body(Empty::new().boxed()).unwrap(),
            }
        });
        let answer =
            world.say("HEAD / HTTP/1.1\r\nHost: web\r\n\r\nGET /204 HTTP/1.1\r\nHost: web\r\n\r\n").await;
        let (head, rest) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("content-length: 1000"), "{answer}");
        assert!(rest.starts_with("HTTP/1.1 204 No Content\r\n") && rest.ends_with("\r\n\r\n"), "{answer}");
        let answer = world.say("GET /304 HTTP/1.1\r\nHost: web\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 304 ") && answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(world.records().iter().all(|flow| flow.flags == "-"));
        assert_eq!(world.opened.get(), 1);
    });
}

#[test]
fn responses_that_are_framed_oddly_are_not_passed_on() {
    run(async {
        let world = World::simple("web");
        world.endpoint(
            "web",
            script(|head, mut stream| async move {
                let framing = match head.split(' ').nth(1).unwrap() {
                    "/gzip" => "Transfer-Encoding: gzip, chunked",
                    "/lines" => "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
                    "/end" => "Transfer-Encoding: gzip",
                    "/two" => "Transfer-Encoding: chunked\r\nContent-Length: 2",
                    _ => "transfer-encoding: Chunked",
                };
                let answer = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n2\r\nok\r\n0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }),
        );
        for path in ["/gzip", "/lines", "/end", "/two"] {
            let answer = world.say(&format!("GET {path} HTTP/1.1\r\nHost: web\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 502 "), "{path}: {answer}");
            assert_eq!(world.last().1, "UPE");
        }
        let answer = world.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("ok"), "{answer}");
    });
}

#[test]
fn http_1_0_is_served_and_closed() {
    run(async {
        let world = World::simple("web");
        world.endpoint(
            "web",
            script(|head, mut stream| async move {
                assert!(head.contains(&format!("host: {DIALLED}\r\n")), "{head}");
                // Until the connection ends, as HTTP/1.0 may.
                stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nold times").await.unwrap();
            }),
        );
        let answer = world.say("GET / HTTP/1.0\r\n\r\n").await;
        assert!(answer.contains(" 200 OK\r\n") && answer.ends_with("\r\n\r\nold times"), "{answer}");
    });
}

#[test]
fn an_endpoint_of_http_1_0_is_served_by_a_connection_each() {
    run(async {
        let world = World::simple("web");
        world.endpoint(
            "web",
            script(|head, mut stream| async move {
                assert!(head.starts_with("POST / HTTP/1.1\r\n"), "{head}");
                let mut request = String::new();
                while !request.ends_with("0\r\n\r\n") {
                    request.push(char::from(tokio::io::AsyncReadExt::read_u8(&mut stream).await.unwrap()));
                }
                let answer = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok";
                stream.write_all(answer).await.unwrap();
                let _ended = tokio::io::AsyncReadExt::read_u8(&mut stream).await;
            }),
        );
        for opened in 1..=2 {
            let answer = world
                .say(
                    "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                )
                .await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("ok"), "{answer}");
            assert_eq!(world.opened.get(), opened);
        }
    });
}

#[test]
fn trailers_pass() {
    run(async {
        let world = World::simple("web");
        world.endpoint(
            "web",
            script(|head, mut stream| async move {
                assert!(head.contains("trailer: x-sum") && head.contains("connection: te\r\n"), "{head}");
                let mut request = String::new();
                while !request.ends_with("\r\n\r\n") {
                    request.push(char::from(tokio::io::AsyncReadExt::read_u8(&mut stream).await.unwrap()));
                }
                assert!(request.ends_with("0\r\nx-sum: 1\r\n\r\n"), "{request}");
                let reply = "HTTP/1.1 200 OK\r\nTrailer: x-back\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-back: 2\r\n\r\n";
                stream.write_all(reply.as_bytes()).await.unwrap();
                let _ended = tokio::io::AsyncReadExt::read_u8(&mut stream).await;
            }),
        );
        let answer = world
            .say(
                "POST / HTTP/1.1\r\nHost: web\r\nTE: trailers\r\nConnection: te\r\nTrailer: x-sum\r\n\
                 Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n",
            )
            .await;
        assert!(answer.ends_with("2\r\nok\r\n0\r\nx-back: 2\r\n\r\n"), "{answer}");
        assert_eq!(world.last(), (200, "-".into(), "via_upstream".into(), 1));
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        assert_eq!(world.pool.idle(), 1, "its connection may be used again");
    });
}

#[test]
fn an_early_answer_is_passed_on_while_the_request_still_comes() {
    run(async {
        let world = World::simple("web");
        world.endpoint(
            "web",
            script(|_, mut stream| async move {
                stream.write_all(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig").await.unwrap();
                tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            }),
        );
        let mut client = world.connect(false);
        client
            .write_all(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1000000\r\n\r\nsome")
            .await
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"big") {
            answer.push(tokio::io::AsyncReadExt::read_u8(&mut client).await.unwrap());
        }
        assert!(
            answer.starts_with(StatusCode::PAYLOAD_TOO_LARGE.as_str().as_bytes())
                || answer.starts_with(b"HTTP/1.1 413")
        );
    });
}

#[test]
fn hints_before_the_response_are_left_out() {
    run(async {
        let world = World::simple("web");
        world.endpoint(
            "web",
            script(|_, mut stream| async move {
                for status in ["102 Processing", "103 Early Hints", "100 Continue", "199 What"] {
                    stream
                        .write_all(format!("HTTP/1.1 {status}\r\nLink: </a>\r\n\r\n").as_bytes())
                        .await
                        .unwrap();
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            }),
        );
        let answer = world.say("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        assert_eq!(world.last(), (200, "-".into(), "via_upstream".into(), 1));
    });
}
