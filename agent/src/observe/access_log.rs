//! One log line per connection, target `access`, with ztunnel's field names and order.
//!
//! `bytes_sent` and `bytes_recv` are from the logging side's point of view, as in ztunnel: on `outbound` lines
//! sent is what the client sent, on `inbound` lines what the server answered.

use super::record::{Details, Record};
use std::net::SocketAddr;
use std::time::Duration;
use tracing::{Level, enabled, event};
use warren_common::model::admin::{Direction, Transport, Verdict};
use warren_common::ports;

/// At DEBUG: the connection stands.
pub(super) fn opened(record: &Record) {
    if enabled!(target: "access", Level::DEBUG) {
        let details = record.details.lock();
        let (source, destination) = (&details.source, &details.destination);
        event!(
            target: "access",
            Level::DEBUG,
            src.addr = source.address.map(display),
            src.workload = source.workload.as_ref().map(|w| display(&w.name)),
            dst.addr = destination.address.map(display),
            dst.workload = destination.workload.as_ref().map(|w| display(&w.name)),
            direction = direction(record.direction),
            "connection opened"
        );
    }
}

/// INFO for a connection that ended well, WARN for one that was denied, ERROR for one that failed.
pub(super) fn closed(record: &Record, details: &Details) {
    let (source, destination) = (&details.source, &details.destination);
    let (sent, received) = record.bytes.totals();
    let (sent, received) = match record.direction {
        Direction::Outbound => (sent, received),
        Direction::Inbound => (received, sent),
    };
    let target = details.endpoint.or(destination.address);
    let hbone = target.filter(|_| details.transport == Transport::Hbone);
    let dialled = hbone.map(|target| SocketAddr::new(target.ip(), ports::HBONE)).or(target);
    let error = details.failure.as_ref().map(|(_, error)| &**error);
    macro_rules! line {
        ($level:expr, $error:expr, $message:literal) => {
            event!(
                target: "access",
                $level,
                src.addr = source.address.map(display),
                src.workload = source.workload.as_ref().map(|w| display(&w.name)),
                src.namespace = source.workload.as_ref().map(|w| display(&w.namespace)),
                src.identity = source.identity.as_ref().map(display),
                dst.addr = dialled.map(display),
                dst.hbone_addr = hbone.map(display),
                dst.service = details.service.as_ref().map(|s| display(&s.hostname)),
                dst.workload = destination.workload.as_ref().map(|w| display(&w.name)),
                dst.namespace = destination.workload.as_ref().map(|w| display(&w.namespace)),
                dst.identity = destination.identity.as_ref().map(display),
                direction = direction(record.direction),
                bytes_sent = sent,
                bytes_recv = received,
                policy = details.policy.as_deref(),
                dry_run = details.dry_run.as_deref(),
                duration = milliseconds(details.duration.unwrap_or_default()),
                error = $error,
                $message
            )
        };
    }
    match (details.verdict, error) {
        (Verdict::Denied, Some(error)) => line!(Level::WARN, error, "connection failed"),
        (Verdict::Denied, None) => {
            let rule = details.policy.as_deref().unwrap_or("no rule allows it");
            line!(Level::WARN, format_args!("denied by policy: {rule}"), "connection failed");
        }
        (_, Some(error)) => line!(Level::ERROR, error, "connection complete"),
        (_, None) => line!(Level::INFO, None::<&str>, "connection complete"),
    }
}

const fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Outbound => "outbound",
        Direction::Inbound => "inbound",
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

#[cfg(test)]
mod tests {
    use super::super::FlowFlag;
    use super::super::testing::{call, observer};
    use std::io::Write;
    use std::sync::atomic::Ordering::Relaxed;
    use std::sync::{Arc, Mutex};
    use warren_common::model::admin::{Direction, Verdict};

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

    fn logged(work: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let format = tracing_subscriber::fmt().without_time().with_ansi(false);
        let subscriber = format.with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, work);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let (line, duration) = text.split_once(" duration=").unwrap_or((&text, ""));
        format!("{line} {}", duration.split_once(' ').map_or("", |(_, rest)| rest).trim_end())
            .trim_end()
            .to_owned()
    }

    #[test]
    fn an_outbound_line_reads_like_ztunnels() {
        let line = logged(|| {
            let flow = call(&observer(1));
            flow.bytes().sent.store(10, Relaxed);
            flow.bytes().received.store(20, Relaxed);
        });
        assert_eq!(
            line,
            " INFO access: connection complete src.addr=10.0.1.2:40000 src.workload=client-1 src.namespace=shop \
             src.identity=spiffe://cluster.local/ns/shop/sa/client dst.addr=10.0.2.3:15008 \
             dst.hbone_addr=10.0.2.3:8080 dst.service=web.shop.svc.cluster.local dst.workload=web-1 \
             dst.namespace=shop dst.identity=spiffe://cluster.local/ns/shop/sa/web direction=\"outbound\" \
             bytes_sent=10 bytes_recv=20 policy=\"shop/allow-client\""
        );
    }

    #[test]
    fn an_inbound_line_sends_the_answer() {
        let line = logged(|| {
            let flow = observer(1).begin(Direction::Inbound, None, Some("[fd00::3]:8080".parse().unwrap()));
            flow.bytes().received.store(20, Relaxed);
        });
        let fields = "dst.addr=[fd00::3]:8080 direction=\"inbound\" bytes_sent=20 bytes_recv=0";
        assert_eq!(line, format!(" INFO access: connection complete {fields}"));
    }

    #[test]
    fn failures_are_errors_and_denials_warnings() {
        let failed = logged(|| call(&observer(1)).fail(FlowFlag::Connect, "connection refused"));
        assert!(failed.starts_with("ERROR access: connection complete"), "{failed}");
        assert!(failed.ends_with("error=\"connection refused\""), "{failed}");
        let denied = logged(|| call(&observer(1)).verdict(Verdict::Denied, &"shop/deny".into()));
        assert!(denied.starts_with(" WARN access: connection failed"), "{denied}");
        assert!(denied.ends_with("error=denied by policy: shop/deny"), "{denied}");
    }
}
