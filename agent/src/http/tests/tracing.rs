//! What traces are made of goes through as it came.

use super::world::{World, run, text};
use http::HeaderMap;
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::rc::Rc;

/// What applications and their collectors pass on (Istio's list): never ours to change.
const HEADERS: &[(&str, &str)] = &[
    ("x-request-id", "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("tracestate", "vendor=a,other=b"),
    ("baggage", "user=alice"),
    ("b3", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1"),
    ("x-b3-traceid", "4bf92f3577b34da6a3ce929d0e0e4736"),
    ("x-b3-spanid", "00f067aa0ba902b7"),
    ("x-b3-parentspanid", "05e3ac9a4f6e3b90"),
    ("x-b3-sampled", "1"),
    ("x-b3-flags", "1"),
    ("x-datadog-trace-id", "1"),
    ("x-datadog-parent-id", "2"),
    ("x-datadog-sampling-priority", "1"),
    ("sw8", "1-a-b-3-c"),
    ("x-client-trace-id", "abc"),
    ("x-envoy-force-trace", "true"),
];

/// A world whose endpoint keeps the headers of what it is asked.
fn keeping(h2: bool) -> (Rc<World>, Rc<RefCell<HeaderMap>>) {
    let world = World::simple("web");
    world.h2_endpoints.set(h2);
    let seen = Rc::new(RefCell::new(HeaderMap::new()));
    let kept = Rc::clone(&seen);
    world.answers("web", move |request| {
        *kept.borrow_mut() = request.headers().clone();
        async { text(200, "") }
    });
    (world, seen)
}

#[test]
fn headers_of_traces_pass_and_lead_from_durations_to_the_trace() {
    run(async {
        let (world, seen) = keeping(false);
        // A client that names them in Connection does not make us drop the id that logs are joined by.
        let mut ask = "GET / HTTP/1.1\r\nHost: web\r\nConnection: x-request-id\r\n".to_owned();
        for (name, value) in HEADERS {
            ask += &format!("{name}: {value}\r\n");
        }
        world.say(&(ask + "\r\n")).await;
        for (name, value) in HEADERS {
            assert_eq!(seen.borrow()[*name], value, "{name}");
        }
        let request = world.records().pop().unwrap().request.unwrap();
        assert_eq!(request.request_id.as_deref(), Some(HEADERS[0].1));
        let metrics = world.observer.encode_metrics();
        let exemplar = "# {trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\"}";
        assert_eq!(metrics.matches(exemplar).count(), 1, "{metrics}");
    });
}

#[test]
fn http_2_carries_them_too_and_what_has_no_id_gets_one() {
    run(async {
        let (world, seen) = keeping(true);
        let executor = super::super::io::OnWorker;
        let io = TokioIo::new(world.connect(true));
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        tokio::task::spawn_local(connection);
        for headers in [&HEADERS[1..], &[]] {
            let mut request = http::Request::get("http://web/");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
            sender.send_request(request).await.unwrap();
            let seen = seen.borrow();
            for (name, value) in headers {
                assert_eq!(seen[*name], value, "{name}");
            }
            assert_eq!(seen["x-request-id"].len(), 36, "a UUID");
            assert_eq!(seen.contains_key("traceparent"), !headers.is_empty(), "no trace is made up");
        }
    });
}
