//! Loading, taking over, and removing.

use super::{
    EventSource, Kernel, KernelConfig, KernelError, PodCapture, attach, check, log, maps,
    maps::FlowMaps,
    pins::{self, Pins},
    pods::Pods,
    sys,
};
use aya::{
    EbpfLoader,
    maps::{HashMap, MapData, MapError, SkStorage},
};
use std::{
    net::SocketAddr,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    sync::{Mutex, PoisonError},
};
use warren_common::abi::{COUNTER_COUNT, Endpoint, NodeConfig, PodConfig};

/// The programs of `ebpf/`, as `cargo xtask build-ebpf` left them.
static OBJECT: &[u8] = aya::include_bytes_aligned!("object/warren.bpf.o");

/// Capture by the kernel programs.
pub struct BpfKernel {
    flows: FlowMaps,
    /// Connections may have been established under another ABI's programs and wait in a listener that was handed over.
    foreign_origins: Vec<SkStorage<MapData, Endpoint>>,
    pods: Mutex<Pods>,
    events: Mutex<Option<EventSource>>,
}

impl BpfKernel {
    /// Loads the embedded programs, takes over what an earlier agent left under `pin_dir`, and puts the programs
    /// onto their cgroups. Pods that were enrolled stay so; their connections fail closed until each is enrolled
    /// again with this agent's listeners.
    ///
    /// # Errors
    /// A node that can't run the programs; the message says what to change. What an earlier agent left stays.
    pub fn load(config: &KernelConfig) -> Result<Self, KernelError> {
        check::kernel_version()?;
        let cgroups = check::Cgroups::open(config)?;
        let pins = Pins::open(&config.pin_dir)?;

        let has_mptcp = u8::from(check::has_mptcp());
        let mut loader = EbpfLoader::new();
        loader.override_global("HAS_MPTCP", &has_mptcp, true);
        for name in maps::PINNED {
            loader.map_pin_path(name, pins.maps().join(name));
        }
        let mut object = loader.load(OBJECT).map_err(|error| KernelError::Object(error.into()))?;
        attach::load_all(&mut object)?;

        let flows = FlowMaps::take(&mut object)?;
        let events = EventSource::new(maps::events(&mut object)?);
        maps::set_node(
            &mut object,
            NodeConfig { fail_open: u32::from(config.fail_open), debug: u32::from(config.debug) },
        )?;
        maps::join_agents(&mut object, cgroups.agent.id)?;
        if config.debug {
            log::forward(&mut object);
        }
        let mut pod_maps = maps::PodMaps::take(&mut object)?;
        let foreign = pins.foreign_maps()?;
        let foreign_origins = foreign.iter().filter_map(|dir| maps::foreign_origins(dir)).collect();
        for dir in &foreign {
            carry_over(dir, &mut pod_maps.pods)?;
        }
        attach::cgroups(&mut object, &cgroups, &pins)?;
        let pods = Pods::new(object, pod_maps, pins)?;
        for dir in &foreign {
            pins::remove_all(dir)?;
        }
        Ok(Self { flows, foreign_origins, pods: Mutex::new(pods), events: Mutex::new(Some(events)) })
    }

    /// Names the layout of the maps: two agents with the same one share them.
    pub fn abi() -> &'static str {
        pins::abi_hash().unwrap_or("unknown")
    }

    /// Removes every program and map under `pin_dir`. Enrolled pods are captured no more.
    ///
    /// # Errors
    /// When a pin can't be removed.
    pub fn uninstall(pin_dir: &Path) -> Result<(), KernelError> {
        pins::uninstall(pin_dir)
    }

    /// From now on the connections of this cgroup, and of no other, are probes.
    ///
    /// # Errors
    /// When it is no cgroup, or the kernel refuses; the one before stays.
    pub fn follow_kubelet(&self, cgroup: &Path) -> Result<(), KernelError> {
        let cgroup = check::Cgroup::open(cgroup)?;
        self.pods().follow_kubelet(&cgroup)
    }

    /// The events of the programs; the first caller gets them.
    pub fn events(&self) -> Option<EventSource> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn pods(&self) -> std::sync::MutexGuard<'_, Pods> {
        // A panic in between leaves maps as a failed enrolment would; the next enrolment repairs them.
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An object with another ABI has enrolled pods: keep capturing them, with no exclusions, until they are enrolled
/// again. Invariant over all ABIs: the keys of `PODS` are 64-bit cookies.
fn carry_over(maps: &Path, pods: &mut HashMap<MapData, u64, PodConfig>) -> Result<(), KernelError> {
    let Ok(old) = MapData::from_pin(maps.join("PODS")) else {
        return Ok(());
    };
    for cookie in sys::map_keys(old.fd().as_fd()).map_err(KernelError::map_io("PODS"))? {
        if matches!(pods.get(&cookie, 0), Err(MapError::KeyNotFound)) {
            pods.insert(cookie, PodConfig::default(), 0).map_err(KernelError::map("PODS"))?;
        }
    }
    Ok(())
}

impl Kernel for BpfKernel {
    fn enrol(&self, pod: &PodCapture<'_>) -> Result<(), KernelError> {
        self.pods().enrol(pod)
    }

    fn release(&self, cookie: u64) -> Result<(), KernelError> {
        self.pods().release(cookie)
    }

    fn enrolled(&self) -> Result<Vec<u64>, KernelError> {
        self.pods().cookies()
    }

    fn original_destination(&self, accepted: BorrowedFd<'_>) -> Result<Option<SocketAddr>, KernelError> {
        for origin in std::iter::once(&self.flows.origin).chain(&self.foreign_origins) {
            match origin.get(&accepted, 0) {
                Ok(endpoint) => return Ok(Some(endpoint.into())),
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(KernelError::map("ORIGIN")(error)),
            }
        }
        Ok(None)
    }

    fn present_client(&self, upstream: BorrowedFd<'_>, client: SocketAddr) -> Result<(), KernelError> {
        sys::store_on_socket(self.flows.agent_peer.fd().as_fd(), upstream, &Endpoint::from(client))
            .map_err(KernelError::map_io("AGENT_PEER"))
    }

    fn counters(&self) -> Result<[u64; COUNTER_COUNT], KernelError> {
        self.flows.counters()
    }
}
