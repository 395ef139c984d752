//! Typed handles of the maps.

use super::{KernelError, sys};
use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray, RingBuf, SkStorage, SockHash},
};
use std::path::Path;
use warren_common::abi::{COUNTER_COUNT, CidrKey, Endpoint, InboundConfig, Ip, NodeConfig, PodConfig};

/// Every map with a name of its own in the object; all of them are pinned.
pub(super) const PINNED: &[&str] = &[
    "PODS",
    "CIDRS",
    "INBOUND",
    "LISTENERS",
    "AGENTS",
    "NODE",
    "COUNTERS",
    "EVENTS",
    "ORIGINS",
    "VIEWS",
    "CLIENTS",
    "PROBES",
    "DESTINATION",
    "PEER",
    "ORIGIN",
    "AGENT_PEER",
];

/// Maps that connections read and write, shared by all workers.
pub(super) struct FlowMaps {
    pub(super) origin: SkStorage<MapData, Endpoint>,
    /// Untyped, since aya's typed handle wants exclusive access for writing.
    pub(super) agent_peer: MapData,
    counters: PerCpuArray<MapData, u64>,
}

/// Maps that enrolment writes.
pub(super) struct PodMaps {
    pub(super) pods: HashMap<MapData, u64, PodConfig>,
    pub(super) cidrs: LpmTrie<MapData, CidrKey, u32>,
    pub(super) inbound: HashMap<MapData, Ip, InboundConfig>,
    pub(super) listeners: SockHash<MapData, Ip>,
}

impl FlowMaps {
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, KernelError> {
        let Map::SkStorage(agent_peer) = take(object, "AGENT_PEER")? else {
            return Err(KernelError::Missing("socket storage AGENT_PEER"));
        };
        Ok(Self { origin: typed(object, "ORIGIN")?, agent_peer, counters: typed(object, "COUNTERS")? })
    }

    pub(super) fn counters(&self) -> Result<[u64; COUNTER_COUNT], KernelError> {
        let mut sums = [0; COUNTER_COUNT];
        for (index, sum) in sums.iter_mut().enumerate() {
            let values = self.counters.get(&(index as u32), 0).map_err(KernelError::map("COUNTERS"))?;
            *sum = values.iter().sum();
        }
        Ok(sums)
    }
}

impl PodMaps {
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            pods: typed(object, "PODS")?,
            cidrs: typed(object, "CIDRS")?,
            inbound: typed(object, "INBOUND")?,
            listeners: typed(object, "LISTENERS")?,
        })
    }
}

/// The ring buffer of events.
pub(super) fn events(object: &mut Ebpf) -> Result<RingBuf<MapData>, KernelError> {
    typed(object, "EVENTS")
}

/// Sets what all programs share. They read it at once, also those of an earlier agent.
pub(super) fn set_node(object: &mut Ebpf, node: NodeConfig) -> Result<(), KernelError> {
    let mut map: Array<MapData, NodeConfig> = typed(object, "NODE")?;
    map.set(0, node, 0).map_err(KernelError::map("NODE"))
}

/// Tells the connect hooks whose sockets not to capture: this process's cgroup too, and no longer those of agents that
/// have ended.
pub(super) fn join_agents(object: &mut Ebpf, cgroup: u64) -> Result<(), KernelError> {
    let failed = || KernelError::map("AGENTS");
    let mut agents: HashMap<MapData, u64, u32> = typed(object, "AGENTS")?;
    let known: Vec<_> = agents.iter().collect::<Result<_, _>>().map_err(failed())?;
    for (other, pid) in known {
        if other != cgroup && !sys::process_exists(pid) {
            agents.remove(&other).map_err(failed())?;
        }
    }
    agents.insert(cgroup, std::process::id(), 0).map_err(failed())
}

/// Where an agent with another ABI left the destinations of connections that nobody has accepted yet.
pub(super) fn foreign_origins(maps: &Path) -> Option<SkStorage<MapData, Endpoint>> {
    SkStorage::try_from(Map::SkStorage(MapData::from_pin(maps.join("ORIGIN")).ok()?)).ok()
}

fn take(object: &mut Ebpf, name: &'static str) -> Result<Map, KernelError> {
    object.take_map(name).ok_or(KernelError::Missing(name))
}

fn typed<T>(object: &mut Ebpf, name: &'static str) -> Result<T, KernelError>
where
    T: TryFrom<Map, Error = aya::maps::MapError>,
{
    T::try_from(take(object, name)?).map_err(KernelError::map(name))
}
