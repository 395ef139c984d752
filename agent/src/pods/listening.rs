//! A pod's listening sockets: opened in its network namespace, or taken over from an earlier agent.

use crate::accept::{Listener, Netns, NetnsThread};
use parking_lot::Mutex;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use warren_common::model::Workload;
use warren_common::ports;

/// Which of a pod's doors; each has a socket per family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Door {
    /// 15001 on loopback.
    Outbound,
    /// 15006 on loopback; sk_lookup steers connections here.
    Plaintext,
    /// 15008 on all addresses.
    Hbone,
}

/// A door of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Leaf {
    /// Which.
    pub door: Door,
    /// IPv6, else IPv4.
    pub v6: bool,
}

impl Leaf {
    fn address(self) -> SocketAddr {
        let (loopback, any) = if self.v6 {
            (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::UNSPECIFIED.into())
        } else {
            (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into())
        };
        match self.door {
            Door::Outbound => SocketAddr::new(loopback, ports::OUTBOUND),
            Door::Plaintext => SocketAddr::new(loopback, ports::INBOUND_PLAINTEXT),
            Door::Hbone => SocketAddr::new(any, ports::HBONE),
        }
    }
}

/// The listening sockets of a pod, shared by whoever accepts from them, the kernel, and a successor.
#[derive(Clone, Debug)]
pub struct DoorSockets {
    /// Cookie of the network namespace that they are in.
    pub cookie: u64,
    /// Every one.
    pub sockets: BTreeMap<Leaf, Arc<OwnedFd>>,
}

impl DoorSockets {
    /// The pod's plaintext listener, as the kernel needs it to steer connections.
    pub(super) fn plaintext(&self, v6: bool) -> Option<BorrowedFd<'_>> {
        self.sockets.get(&Leaf { door: Door::Plaintext, v6 }).map(|fd| fd.as_fd())
    }

    /// What serves them.
    pub(super) fn listeners(&self) -> PodListeners {
        let of = |door| {
            let ours = self.sockets.iter().filter(move |(leaf, _)| leaf.door == door);
            ours.map(|(_, fd)| Listener::share_of(fd)).collect()
        };
        PodListeners { outbound: of(Door::Outbound), plaintext: of(Door::Plaintext), hbone: of(Door::Hbone) }
    }
}

/// The listeners of one pod.
#[derive(Debug)]
pub struct PodListeners {
    /// 15001 on loopback, one per family.
    pub outbound: Vec<Listener>,
    /// 15006 on loopback, one per family; sk_lookup steers connections here.
    pub plaintext: Vec<Listener>,
    /// 15008 on all addresses, one per family.
    pub hbone: Vec<Listener>,
}

/// Listening sockets by the pods' UIDs: those that this agent serves, or those that it was handed.
#[derive(Clone, Debug, Default)]
pub struct HeldPods(Arc<Mutex<BTreeMap<Arc<str>, DoorSockets>>>);

impl HeldPods {
    /// The sockets of a pod.
    pub fn get(&self, uid: &str) -> Option<DoorSockets> {
        self.0.lock().get(uid).cloned()
    }

    /// Adds a pod, or replaces its sockets.
    pub fn insert(&self, uid: &Arc<str>, sockets: DoorSockets) {
        self.0.lock().insert(Arc::clone(uid), sockets);
    }

    /// Forgets a pod.
    pub fn remove(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// Forgets every pod that `keep` does not want, and says how many are left.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) -> usize {
        let mut pods = self.0.lock();
        pods.retain(|uid, _| keep(uid));
        pods.len()
    }

    /// All of them, as they are now.
    pub fn snapshot(&self) -> Vec<(Arc<str>, DoorSockets)> {
        self.0.lock().iter().map(|(uid, sockets)| (Arc::clone(uid), sockets.clone())).collect()
    }
}

/// A listener could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} inside the pod: {source}; does the application use this port?")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// Listens at all of a pod's doors: with what an earlier agent has handed over, as far as it is what it should be.
///
/// # Errors
/// [`ListenError`].
pub(super) async fn listen(
    thread: &NetnsThread,
    netns: &Arc<Netns>,
    cookie: u64,
    workload: &Workload,
    inherited: Option<&DoorSockets>,
) -> Result<DoorSockets, ListenError> {
    let open = async |leaf: Leaf| {
        let address = leaf.address();
        if let Some(fd) = inherited.and_then(|inherited| inherited.sockets.get(&leaf)) {
            match Listener::adopt(Arc::clone(fd), cookie, address) {
                Ok(listener) => return Ok(listener.share()),
                Err(error) => {
                    tracing::warn!(pod = %workload.name, %error, "a handed over listener is not used")
                }
            }
        }
        let opened = Listener::open(thread, netns, address).await;
        opened.map(|listener| listener.share()).map_err(|source| ListenError { address, source })
    };
    let mut sockets = BTreeMap::new();
    // The application may use either family for its sockets whatever addresses the pod has; a namespace without
    // IPv6 has no ::1.
    for v6 in [false, true] {
        let has_address = workload.addresses.iter().any(|ip| ip.is_ipv6() == v6);
        for door in [Door::Outbound, Door::Plaintext, Door::Hbone] {
            let leaf = Leaf { door, v6 };
            match open(leaf).await {
                Ok(fd) => drop(sockets.insert(leaf, fd)),
                Err(ListenError { ref source, .. }) if !has_address && unsupported(source) => {}
                Err(error) => return Err(error),
            }
            if !has_address {
                break;
            }
        }
    }
    Ok(DoorSockets { cookie, sockets })
}

fn unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}
