//! The enrolled pods of this node.

use super::lifetime::Lifetime;
use crate::accept::PodSockets;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use tokio::sync::watch;
use warren_common::model::{Workload, WorkloadUid};

/// An enrolled pod.
#[derive(Debug)]
pub struct Pod {
    /// The workload as it was when the pod was enrolled. Identity and addresses of a pod never change; labels
    /// and health do, so ask the store for those.
    pub workload: Arc<Workload>,
    /// Cookie of its network namespace.
    pub cookie: u64,
    /// Opens sockets in its network namespace.
    pub sockets: PodSockets,
    /// How far its end has come.
    pub lifetime: Lifetime,
}

impl Pod {
    /// The pod's own address of the same family.
    pub fn address_like(&self, ip: IpAddr) -> Option<IpAddr> {
        self.workload.addresses.iter().find(|own| own.is_ipv4() == ip.is_ipv4()).copied()
    }

    /// Whether the address is this pod's.
    pub fn owns(&self, ip: IpAddr) -> bool {
        self.workload.addresses.contains(&ip)
    }

    /// The application's address as peers should see it: one of the pod's own. Captured sockets have a loopback source, and
    /// an application can bind to any address that it gives its namespace: policies must not take it for another's.
    pub fn client_address(&self, accepted_from: SocketAddr) -> SocketAddr {
        SocketAddr::new(own_address(&self.workload.addresses, accepted_from.ip()), accepted_from.port())
    }
}

/// The one of `own` that a socket bound to `bound` speaks for; nobody's, where there is none of that family.
fn own_address(own: &[IpAddr], bound: IpAddr) -> IpAddr {
    let bound = bound.to_canonical();
    let like = || own.iter().find(|own| own.is_ipv4() == bound.is_ipv4());
    let nobodys = match bound {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    own.iter().find(|own| **own == bound).or_else(like).copied().unwrap_or(nobodys)
}

/// Enrolled pods by workload, read without a lock.
#[derive(Debug, Default)]
pub struct PodRegistry {
    pods: ArcSwap<HashMap<WorkloadUid, Arc<Pod>>>,
    changed: watch::Sender<()>,
}

impl PodRegistry {
    /// The enrolled pod of a workload, if it is one of this node: that very pod, not another of its name.
    pub fn get(&self, workload: &Workload) -> Option<Arc<Pod>> {
        let is_it = |pod: &&Arc<Pod>| pod.workload.enrolment.pod_uid == workload.enrolment.pod_uid;
        self.pods.load().get(&workload.uid).filter(is_it).cloned()
    }

    /// Wakes when a pod comes or goes.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether this very pod is enrolled.
    pub fn is_here(&self, name: &WorkloadUid, pod_uid: &str) -> bool {
        self.pods.load().get(name).is_some_and(|pod| *pod.workload.enrolment.pod_uid == *pod_uid)
    }

    /// Every enrolled pod's `metadata.uid`.
    pub fn uids(&self) -> Vec<Arc<str>> {
        self.pods.load().values().map(|pod| Arc::clone(&pod.workload.enrolment.pod_uid)).collect()
    }

    pub(super) fn insert(&self, pod: &Arc<Pod>) {
        self.pods.rcu(|pods| {
            let mut pods = HashMap::clone(pods);
            pods.insert(pod.workload.uid.clone(), Arc::clone(pod));
            pods
        });
        self.changed.send_replace(());
    }

    /// Forgets the pod. Its successor of the same name, which may be here already, stays.
    pub(super) fn remove(&self, pod: &Arc<Pod>) {
        self.pods.rcu(|pods| {
            let mut pods = HashMap::clone(pods);
            if pods.get(&pod.workload.uid).is_some_and(|known| Arc::ptr_eq(known, pod)) {
                pods.remove(&pod.workload.uid);
            }
            pods
        });
        self.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_speaks_for_its_pods_addresses_alone() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let own = ["10.0.0.1", "10.0.0.2", "fd00::1"].map(ip);
        for (bound, shown) in [
            ("127.0.0.1", "10.0.0.1"),
            ("::1", "fd00::1"),
            ("10.0.0.2", "10.0.0.2"),
            ("::ffff:10.0.0.2", "10.0.0.2"),
            // Another pod's, given to this namespace.
            ("10.0.0.9", "10.0.0.1"),
            ("fd00::9", "fd00::1"),
        ] {
            assert_eq!(own_address(&own, ip(bound)), ip(shown), "{bound}");
        }
        assert_eq!(own_address(&own[..2], ip("fd00::9")), ip("::"));
        assert_eq!(own_address(&own[2..], ip("10.0.0.9")), ip("0.0.0.0"));
    }
}
