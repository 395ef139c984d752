//! One log line per request, target `access`: Envoy's keys, after the two peers as connections have them. `src.addr` is Envoy's
//! `downstream_remote_address`, `dst.addr` its `upstream_host`, `error` its `upstream_transport_failure_reason`. Three are left out:
//! no client's TLS ends here (`requested_server_name`), no request's connection is ended by a filter
//! (`connection_termination_details`), and a request of many on a tunnel has no address of its own (`upstream_local_address`).

use super::record::{Details, Record, rfc3339_ms};
use super::request::RequestDetails;
use tracing::event;
use warren_common::model::admin::Direction;

/// INFO for a request that an application answered, WARN for one that was answered or ended otherwise.
pub(super) fn closed(record: &Record, details: &Details, request: &RequestDetails) {
    let (source, destination) = (&details.source, &details.destination);
    let (received, sent) = record.bytes.totals();
    let seen = &request.seen;
    let flags = request.flags_text();
    let error = details.failure.as_ref().map(|(_, error)| &**error);
    macro_rules! line {
        ($level:expr) => {
            event!(
                target: "access",
                $level,
                src.addr = source.address.map(display),
                src.workload = source.workload.as_ref().map(|w| display(&w.name)),
                src.namespace = source.workload.as_ref().map(|w| display(&w.namespace)),
                src.identity = source.identity.as_ref().map(display),
                dst.addr = details.endpoint.or(destination.address).map(display),
                dst.service = details.service.as_ref().map(|s| display(&s.hostname)),
                dst.workload = destination.workload.as_ref().map(|w| display(&w.name)),
                dst.namespace = destination.workload.as_ref().map(|w| display(&w.namespace)),
                dst.identity = destination.identity.as_ref().map(display),
                downstream_local_address = destination.address.map(display),
                direction = match record.direction {
                    Direction::Outbound => "outbound",
                    Direction::Inbound => "inbound",
                },
                method = &*seen.method,
                path = &*seen.path,
                authority = &*seen.authority,
                protocol = &*seen.protocol,
                response_code = seen.status,
                grpc_status = seen.grpc_status,
                response_flags = &*flags,
                response_code_details = &*seen.details,
                route_name = seen.route.as_deref(),
                upstream_cluster = seen.cluster.as_deref(),
                attempts = seen.attempts,
                bytes_received = received,
                bytes_sent = sent,
                upstream_service_time = seen.upstream_ms,
                request_id = seen.request_id.as_deref(),
                trace_id = request.trace.map(display),
                user_agent = seen.user_agent.as_deref(),
                x_forwarded_for = seen.forwarded_for.as_deref(),
                start_time = rfc3339_ms(record.start),
                duration = format!("{}ms", details.duration.unwrap_or_default().as_millis()),
                error,
                "request complete"
            )
        };
    }
    match &*flags {
        "-" => line!(tracing::Level::INFO),
        _ => line!(tracing::Level::WARN),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{identity, observer, service, workload};
    use super::super::{FlowFlag, ResponseFlag, TraceId};
    use serde_json::Value;
    use std::io::Write;
    use std::sync::atomic::Ordering::Relaxed;
    use std::sync::{Arc, Mutex};
    use warren_common::model::admin::{Direction, Transport};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The line of a request of which everything is known, as text or as JSON.
    fn line(json: bool) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let format = tracing_subscriber::fmt().without_time().with_ansi(false);
        let format = format.with_writer(move || writer.clone());
        match json {
            true => tracing::subscriber::with_default(format.json().flatten_event(true).finish(), request),
            false => tracing::subscriber::with_default(format.finish(), request),
        }
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    }

    fn request() {
        let (client, service_address) = ("10.0.1.2:40000", "10.96.0.7:80");
        let flow = observer(1).begin_request(
            Direction::Outbound,
            Some(client.parse().unwrap()),
            Some(service_address.parse().unwrap()),
        );
        flow.source_workload(&workload("client"));
        flow.source_identity(&identity("client"));
        flow.service(&service());
        flow.endpoint("10.0.2.3:8080".parse().unwrap());
        flow.destination_workload(&workload("web"));
        flow.destination_identity(&identity("web"));
        flow.transport(Transport::Hbone);
        flow.bytes().sent.store(120, Relaxed);
        flow.bytes().received.store(340, Relaxed);
        let parent = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let headers = [(parent.0.parse().unwrap(), parent.1.parse().unwrap())].into_iter().collect();
        flow.request(|request| {
            request.trace = TraceId::of(&headers);
            let seen = &mut request.seen;
            seen.protocol = "HTTP/1.1".into();
            seen.method = "GET".into();
            seen.path = "/cart?id=\"1\"".into();
            seen.authority = "web.shop".into();
            seen.request_id = Some("r-1".into());
            seen.user_agent = Some("curl/8".into());
            seen.forwarded_for = Some("192.0.2.1".into());
            seen.route = Some("all".into());
            seen.cluster = Some("outbound|80||web.shop.svc.cluster.local".into());
            seen.attempts = 2;
            seen.status = 503;
            seen.upstream_ms = Some(7);
            seen.details = "via_upstream".into();
            request.flag(ResponseFlag::RetriesExceeded);
        });
        flow.fail(FlowFlag::Connect, "connection refused");
    }

    /// Envoy's keys, ours for the same, and the value.
    const KEYS: &[(&str, &str, &str)] = &[
        ("route_name", "route_name", "all"),
        ("method", "method", "GET"),
        ("path", "path", "/cart?id=\"1\""),
        ("protocol", "protocol", "HTTP/1.1"),
        ("response_code", "response_code", "503"),
        ("response_flags", "response_flags", "URX"),
        ("response_code_details", "response_code_details", "via_upstream"),
        ("bytes_received", "bytes_received", "120"),
        ("bytes_sent", "bytes_sent", "340"),
        ("upstream_service_time", "upstream_service_time", "7"),
        ("x_forwarded_for", "x_forwarded_for", "192.0.2.1"),
        ("user_agent", "user_agent", "curl/8"),
        ("request_id", "request_id", "r-1"),
        ("authority", "authority", "web.shop"),
        ("upstream_host", "dst.addr", "10.0.2.3:8080"),
        ("upstream_cluster", "upstream_cluster", "outbound|80||web.shop.svc.cluster.local"),
        ("downstream_local_address", "downstream_local_address", "10.96.0.7:80"),
        ("downstream_remote_address", "src.addr", "10.0.1.2:40000"),
        ("upstream_transport_failure_reason", "error", "connection refused"),
        ("(trace)", "trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("(peer)", "src.identity", "spiffe://cluster.local/ns/shop/sa/client"),
        ("(peer)", "dst.identity", "spiffe://cluster.local/ns/shop/sa/web"),
    ];

    #[test]
    fn a_json_line_has_envoys_keys() {
        let line: Value = serde_json::from_str(&line(true)).unwrap();
        for (theirs, ours, value) in KEYS {
            let found = match &line[ours] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            assert_eq!(found, *value, "{theirs} as {ours}: {line}");
        }
        assert!(line["response_code"].is_number() && line["bytes_sent"].is_number(), "{line}");
        let start = line["start_time"].as_str().unwrap();
        assert!(start.len() == 24 && start.ends_with('Z'), "milliseconds: {line}");
        assert!(line["duration"].as_str().is_some_and(|duration| duration.ends_with("ms")), "{line}");
    }

    #[test]
    fn a_text_line_has_the_same() {
        let line = line(false);
        assert!(line.starts_with(" WARN access: request complete "), "{line}");
        for (theirs, ours, value) in KEYS {
            let quoted = format!(" {ours}={value:?}");
            assert!(line.contains(&quoted) || line.contains(&format!(" {ours}={value}")), "{theirs}: {line}");
        }
    }
}
