//! A kernel for tests that need neither root nor BPF: it records what is asked and answers what it was told.

use super::{Kernel, KernelError, PodCapture};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::BorrowedFd,
    sync::{Mutex, MutexGuard, PoisonError},
};
use warren_common::abi::{COUNTER_COUNT, Counter};

/// A call that changed something, or would have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FakeCall {
    /// [`Kernel::enrol`].
    Enrol {
        /// The pod's cookie.
        cookie: u64,
        /// The pod's addresses.
        addresses: Vec<IpAddr>,
        /// Whether there was a listener for IPv4, and for IPv6.
        listeners: (bool, bool),
        /// Excluded outbound ports.
        exclude_outbound_ports: Vec<u16>,
        /// Excluded inbound ports.
        exclude_inbound_ports: Vec<u16>,
        /// Excluded outbound networks.
        exclude_outbound_cidrs: Vec<(IpAddr, u8)>,
    },
    /// [`Kernel::release`].
    Release {
        /// The pod's cookie.
        cookie: u64,
    },
    /// [`Kernel::present_client`].
    PresentClient {
        /// The client to show.
        client: SocketAddr,
    },
}

/// See the module's documentation.
#[derive(Default)]
pub struct FakeKernel {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    calls: Vec<FakeCall>,
    enrolled: BTreeSet<u64>,
    failures: VecDeque<KernelError>,
    destination: Option<SocketAddr>,
    destinations: HashMap<SocketAddr, SocketAddr>,
    counters: [u64; COUNTER_COUNT],
}

impl FakeKernel {
    /// A kernel that has captured nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every accepted connection asked for this destination, unless [`Self::captured`] knows better.
    pub fn captured_all(&self, destination: SocketAddr) {
        self.state().destination = Some(destination);
    }

    /// The connection from `client` asked for `destination`.
    pub fn captured(&self, client: SocketAddr, destination: SocketAddr) {
        self.state().destinations.insert(client, destination);
    }

    /// The next fallible call fails with this.
    pub fn fail_next(&self, error: KernelError) {
        self.state().failures.push_back(error);
    }

    /// Sets a counter.
    pub fn set_counter(&self, counter: Counter, value: u64) {
        if let Some(slot) = self.state().counters.get_mut(counter as usize) {
            *slot = value;
        }
    }

    /// The calls so far, oldest first.
    pub fn calls(&self) -> Vec<FakeCall> {
        self.state().calls.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, or the failure that was ordered.
    fn call(&self) -> Result<MutexGuard<'_, State>, KernelError> {
        let mut state = self.state();
        state.failures.pop_front().map_or(Ok(state), Err)
    }
}

impl Kernel for FakeKernel {
    fn enrol(&self, pod: &PodCapture<'_>) -> Result<(), KernelError> {
        let mut state = self.call()?;
        state.enrolled.insert(pod.cookie);
        state.calls.push(FakeCall::Enrol {
            cookie: pod.cookie,
            addresses: pod.addresses.to_vec(),
            listeners: (pod.inbound_v4.is_some(), pod.inbound_v6.is_some()),
            exclude_outbound_ports: pod.exclude_outbound_ports.to_vec(),
            exclude_inbound_ports: pod.exclude_inbound_ports.to_vec(),
            exclude_outbound_cidrs: pod.exclude_outbound_cidrs.to_vec(),
        });
        Ok(())
    }

    fn release(&self, cookie: u64) -> Result<(), KernelError> {
        let mut state = self.call()?;
        state.enrolled.remove(&cookie);
        state.calls.push(FakeCall::Release { cookie });
        Ok(())
    }

    fn enrolled(&self) -> Result<Vec<u64>, KernelError> {
        Ok(self.call()?.enrolled.iter().copied().collect())
    }

    fn original_destination(&self, accepted: BorrowedFd<'_>) -> Result<Option<SocketAddr>, KernelError> {
        let state = self.call()?;
        let socket = TcpStream::from(accepted.try_clone_to_owned().map_err(KernelError::Socket)?);
        let client = socket.peer_addr().map_err(KernelError::Socket)?;
        Ok(state.destinations.get(&client).copied().or(state.destination))
    }

    fn present_client(&self, _upstream: BorrowedFd<'_>, client: SocketAddr) -> Result<(), KernelError> {
        self.call()?.calls.push(FakeCall::PresentClient { client });
        Ok(())
    }

    fn counters(&self) -> Result<[u64; COUNTER_COUNT], KernelError> {
        Ok(self.call()?.counters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, os::fd::AsFd as _};

    #[test]
    fn it_answers_by_client_and_fails_once_when_told_to() {
        let kernel = FakeKernel::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let asked = || kernel.original_destination(accepted.as_fd());

        assert_eq!(asked().unwrap(), None);
        kernel.captured_all("10.0.0.1:80".parse().unwrap());
        assert_eq!(asked().unwrap(), Some("10.0.0.1:80".parse().unwrap()));
        kernel.captured(client.local_addr().unwrap(), "10.0.0.2:81".parse().unwrap());
        assert_eq!(asked().unwrap(), Some("10.0.0.2:81".parse().unwrap()));
        kernel.fail_next(KernelError::Missing("nothing"));
        assert!(asked().is_err() && asked().is_ok());

        kernel.release(3).unwrap();
        assert_eq!(kernel.calls(), [FakeCall::Release { cookie: 3 }]);
    }
}
