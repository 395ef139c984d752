//! A flow that goes on in another process: its record as data, without the workloads, which both know by their UIDs.

use super::flows::Observer;
use super::handle::FlowHandle;
use super::labels::ServiceLabels;
use super::record::{Details, Peer, Record};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use warren_common::model::admin::{Direction, FlowRoute, Transport, Verdict};
use warren_common::model::{Identity, Workload, WorkloadUid};

/// One end of a moved flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MovedPeer {
    address: Option<SocketAddr>,
    workload: Option<WorkloadUid>,
    identity: Option<Identity>,
}

/// The record of a connection that stands, as it goes from an agent to its successor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedFlow {
    direction: Direction,
    /// Microseconds since 1970.
    start_us: u64,
    sent: u64,
    received: u64,
    source: MovedPeer,
    destination: MovedPeer,
    /// Name, namespace, hostname.
    service: Option<[Arc<str>; 3]>,
    endpoint: Option<SocketAddr>,
    transport: Transport,
    verdict: Verdict,
    policy: Option<Arc<str>>,
    dry_run: Option<Arc<str>>,
    #[serde(default)]
    route: Option<Box<FlowRoute>>,
}

impl MovedFlow {
    /// The addresses of both ends, as far as they are known.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        [self.source.address, self.destination.address].into_iter().flatten()
    }
}

impl FlowHandle {
    /// The record as it stands, and the workloads that it names.
    pub fn to_moved(&self) -> (MovedFlow, Vec<Arc<Workload>>) {
        let record = &self.record;
        let details = record.details.lock();
        let (sent, received) = record.bytes.totals();
        let start = record.start.duration_since(UNIX_EPOCH).unwrap_or_default();
        let workloads = [&details.source.workload, &details.destination.workload];
        let moved = MovedFlow {
            direction: record.direction,
            start_us: start.as_micros() as u64,
            sent,
            received,
            source: moved_peer(&details.source),
            destination: moved_peer(&details.destination),
            service: details
                .service
                .as_ref()
                .map(|service| [service.name.clone(), service.namespace.clone(), service.hostname.clone()]),
            endpoint: details.endpoint,
            transport: details.transport,
            verdict: details.verdict,
            policy: details.policy.clone(),
            dry_run: details.dry_run.clone(),
            route: details.route.clone(),
        };
        (moved, workloads.into_iter().flatten().cloned().collect())
    }

    /// The connection goes on in another process: it ends here without having ended. Its bytes until now are counted
    /// here, those from now on there.
    pub fn moved(self) {
        self.gone.set(true);
    }
}

fn moved_peer(peer: &Peer) -> MovedPeer {
    MovedPeer {
        address: peer.address,
        workload: peer.workload.as_ref().map(|workload| workload.uid.clone()),
        identity: peer.identity.clone(),
    }
}

impl Observer {
    /// A connection that another process has begun to observe: it was opened, and its bytes until now were counted, there.
    pub fn resume(
        &self,
        moved: MovedFlow,
        workload: impl Fn(&WorkloadUid) -> Option<Arc<Workload>>,
    ) -> FlowHandle {
        let peer = |peer: MovedPeer| Peer {
            address: peer.address,
            workload: peer.workload.as_ref().and_then(&workload),
            identity: peer.identity,
        };
        let details = Details {
            source: peer(moved.source),
            destination: peer(moved.destination),
            service: moved.service.map(|[name, namespace, hostname]| ServiceLabels {
                name,
                namespace,
                hostname,
            }),
            endpoint: moved.endpoint,
            transport: moved.transport,
            verdict: moved.verdict,
            policy: moved.policy,
            dry_run: moved.dry_run,
            failure: None,
            route: moved.route,
            request: None,
            duration: None,
        };
        let start = UNIX_EPOCH + Duration::from_micros(moved.start_us);
        let series = self.metrics().series(moved.direction, &details, None);
        let record = |id| Record::resumed(id, moved.direction, start, (moved.sent, moved.received), details);
        let record = self.enter(record);
        // Nobody else knows the record yet.
        let _ = record.series.set(series);
        FlowHandle::new(self.clone(), record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{FlowFilter, ObserveConfig};
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn a_flow_is_one_flow_in_two_processes() {
        let [first, second] = [1, 2].map(|_| Observer::new(ObserveConfig::new("n".into())));
        let flow = first.begin(Direction::Inbound, "10.0.0.1:5".parse().ok(), "10.0.0.2:80".parse().ok());
        flow.transport(Transport::Hbone);
        flow.verdict(Verdict::Allowed, &"allow shop/web#0".into());
        flow.source_identity(&Identity::new("cluster.local", "shop", "web").unwrap());
        flow.established();
        flow.bytes().sent.fetch_add(100, Relaxed);
        let before = first.flows(&FlowFilter::default()).flows.remove(0);
        let (moved, workloads) = flow.to_moved();
        assert!(workloads.is_empty());
        let moved: MovedFlow = serde_json::from_slice(&serde_json::to_vec(&moved).unwrap()).unwrap();
        flow.moved();
        let resumed = second.resume(moved, |_| None);
        assert_eq!((first.open_count(), second.open_count()), (0, 1));
        assert!(first.flows(&FlowFilter::default()).flows.is_empty(), "it has not ended");
        let after = second.flows(&FlowFilter::default()).flows.remove(0);
        assert_eq!((after.start, after.bytes_sent), (before.start, 100));
        assert_eq!(
            (after.source, after.policy, after.verdict),
            (before.source, before.policy, before.verdict)
        );
        resumed.bytes().sent.fetch_add(11, Relaxed);
        drop(resumed);
        let count = |observer: &Observer, metric: &str| -> u64 {
            let text = observer.encode_metrics();
            let lines = text.lines().filter(|line| line.starts_with(metric));
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
        };
        for (metric, here, there) in [
            ("istio_tcp_connections_opened_total", 1, 0),
            ("istio_tcp_connections_closed_total", 0, 1),
            ("istio_tcp_received_bytes_total", 100, 11),
            ("istio_tcp_sockets_open", 0, 0),
        ] {
            assert_eq!((count(&first, metric), count(&second, metric)), (here, there), "{metric}");
        }
    }
}
