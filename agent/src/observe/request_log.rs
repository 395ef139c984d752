//! One log line per request, target `access`: Envoy's keys in dots, after the two peers as connections have them.

use super::record::{Details, Record};
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
                response_flags = flags.as_str(),
                response_code_details = &*seen.details,
                route_name = seen.route.as_deref(),
                upstream_cluster = seen.cluster.as_deref(),
                attempts = seen.attempts,
                bytes_received = received,
                bytes_sent = sent,
                upstream_service_time = seen.upstream_ms,
                request_id = seen.request_id.as_deref(),
                user_agent = seen.user_agent.as_deref(),
                x_forwarded_for = seen.forwarded_for.as_deref(),
                duration = format!("{}ms", details.duration.unwrap_or_default().as_millis()),
                error,
                "request complete"
            )
        };
    }
    match flags.as_str() {
        "-" => line!(tracing::Level::INFO),
        _ => line!(tracing::Level::WARN),
    }
}
