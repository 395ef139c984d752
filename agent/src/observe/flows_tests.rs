use super::super::testing::{call, metric, observer};
use super::super::{FlowFilter, FlowFlag};
use super::*;
use std::task::{Context, Poll, Waker};
use warren_common::model::admin::{FlowEvent, FlowState, Transport, Verdict};

fn all(observer: &Observer) -> Flows {
    observer.flows(&FlowFilter::default())
}

#[test]
fn a_flow_is_open_until_its_handle_is_dropped() {
    let observer = observer(8);
    let flow = call(&observer);
    flow.established();
    flow.bytes().sent.fetch_add(3, Relaxed);
    assert_eq!(observer.open_count(), 1);
    let seen = &all(&observer).flows[0];
    assert_eq!((seen.state, seen.bytes_sent), (FlowState::Open, 3));
    drop(flow);
    assert_eq!(observer.open_count(), 0);
    let seen = all(&observer).flows.remove(0);
    assert_eq!(seen.state, FlowState::Closed);
    assert_eq!(seen.source.pod.as_deref(), Some("client-1"));
    assert_eq!(seen.source.workload.as_deref(), Some("client"));
    assert_eq!(seen.destination.service.as_deref(), Some("web.shop.svc.cluster.local"));
    assert_eq!(seen.destination.endpoint, Some("10.0.2.3:8080".parse().unwrap()));
    assert_eq!((seen.transport, seen.verdict), (Transport::Hbone, Verdict::Allowed));
    assert_eq!(seen.policy.as_deref(), Some("shop/allow-client"));
    assert_eq!((seen.flags.as_str(), seen.error), ("-", None));
}

#[test]
fn the_ring_keeps_the_newest_and_counts_the_rest() {
    let observer = observer(3);
    for _ in 0..10 {
        drop(call(&observer));
    }
    let flows = all(&observer);
    assert_eq!(flows.evicted, 7);
    assert_eq!(flows.flows.iter().map(|flow| flow.id).collect::<Vec<_>>(), [8, 9, 10]);
    assert_eq!(metric(&observer, "warren_flows_evicted_total"), ["warren_flows_evicted_total 7"]);
}

#[test]
fn a_ring_of_nothing_keeps_nothing() {
    let observer = observer(0);
    drop(call(&observer));
    assert_eq!((all(&observer).flows.len(), all(&observer).evicted), (0, 1));
}

#[test]
fn filters_choose() {
    let observer = observer(8);
    drop(call(&observer));
    let broken = call(&observer);
    broken.fail(FlowFlag::Connect, "connection refused");
    broken.fail(FlowFlag::Other, "a consequence");
    drop(broken);
    let _open = observer.begin(Direction::Inbound, None, None);
    let ids = |filter: FlowFilter| observer.flows(&filter).flows.iter().map(|f| f.id).collect::<Vec<_>>();
    assert_eq!(ids(FlowFilter { failed: true, ..FlowFilter::default() }), [2]);
    assert_eq!(ids(FlowFilter { last: Some(2), ..FlowFilter::default() }), [2, 3]);
    assert_eq!(ids(FlowFilter { namespace: Some("shop".into()), ..FlowFilter::default() }), [1, 2]);
    assert_eq!(ids(FlowFilter { namespace: Some("other".into()), ..FlowFilter::default() }), [0_u64; 0]);
    assert_eq!(ids(FlowFilter { pod: Some("web-1".into()), ..FlowFilter::default() }), [1, 2]);
    assert_eq!(ids(FlowFilter { pod: Some("client".into()), ..FlowFilter::default() }), [1, 2]);
    let failed = observer.flows(&FlowFilter { failed: true, ..FlowFilter::default() }).flows.remove(0);
    assert_eq!((failed.flags.as_str(), failed.error.as_deref()), ("CONNECT", Some("connection refused")));
}

fn poll(stream: &mut FlowStream) -> Option<FlowEvent> {
    match stream.poll_next(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(event) => event,
        Poll::Pending => None,
    }
}

#[test]
fn a_follower_sees_ends_and_on_request_beginnings() {
    let observer = observer(8);
    let mut ends = observer.subscribe(FlowFilter::default());
    let mut both = observer.subscribe(FlowFilter { open: true, ..FlowFilter::default() });
    let flow = call(&observer);
    flow.established();
    drop(flow);
    let states = |stream: &mut FlowStream| {
        std::iter::from_fn(|| match poll(stream) {
            Some(FlowEvent::Flow(flow)) => Some(flow.state),
            _ => None,
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(states(&mut ends), [FlowState::Closed]);
    assert_eq!(states(&mut both), [FlowState::Open, FlowState::Closed]);
}

#[test]
fn a_slow_follower_learns_exactly_how_much_it_missed() {
    let observer = observer(8);
    let mut stream = observer.subscribe(FlowFilter::default());
    for _ in 0..1024 + 7 {
        drop(call(&observer));
    }
    let Some(FlowEvent::Flow(first)) = poll(&mut stream) else { panic!("no flow") };
    assert_eq!(first.id, 1);
    // There is room for one: it carries the loss before it.
    drop(call(&observer));
    drop(call(&observer));
    let (mut flows, mut lost) = (1, Vec::new());
    while let Some(event) = poll(&mut stream) {
        match event {
            FlowEvent::Flow(_) => flows += 1,
            FlowEvent::Lost { count } => lost.push((flows, count)),
        }
    }
    assert_eq!(lost, [(1024, 7), (1025, 1)]);
    assert_eq!(flows, 1025);
    assert_eq!(metric(&observer, "warren_flow_events_lost_total"), ["warren_flow_events_lost_total 8"]);
}

#[test]
fn who_stops_following_costs_nothing_more() {
    let observer = observer(8);
    drop(observer.subscribe(FlowFilter::default()));
    for _ in 0..2000 {
        drop(call(&observer));
    }
    assert_eq!(metric(&observer, "warren_flow_events_lost_total"), ["warren_flow_events_lost_total 0"]);
}

#[test]
fn handles_may_move_between_threads() {
    fn sendable<T: Send>(_: T) {}
    let observer = observer(8);
    sendable(call(&observer));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let observer = observer.clone();
            std::thread::spawn(move || (0..500).for_each(|_| call(&observer).established()))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!((observer.open_count(), all(&observer).evicted), (0, 2001 - 8));
    assert!(metric(&observer, "istio_tcp_connections_closed_total")[0].ends_with(" 2000"));
}

#[tokio::test(start_paused = true)]
async fn bytes_of_open_connections_are_reported_in_between() {
    let observer = observer(8);
    let reporter = tokio::spawn(report_bytes(observer.clone(), Duration::from_secs(5)));
    let flow = call(&observer);
    flow.established();
    flow.bytes().sent.fetch_add(10, Relaxed);
    flow.bytes().received.fetch_add(1000, Relaxed);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(metric(&observer, "istio_tcp_sent_bytes_total")[0].ends_with(" 1000"));
    assert!(metric(&observer, "istio_tcp_received_bytes_total")[0].ends_with(" 10"));
    flow.bytes().sent.fetch_add(5, Relaxed);
    drop(flow);
    assert!(metric(&observer, "istio_tcp_received_bytes_total")[0].ends_with(" 15"));
    reporter.abort();
}
