//! Typed handles of the maps.

use super::KernelError;
use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray, RingBuf, SkStorage, SockHash},
};
use warren_common::abi::{COUNTER_COUNT, CidrKey, Endpoint, InboundConfig, Ip, NodeConfig, PodConfig};

/// Every map with a name of its own in the object; all of them are pinned.
pub(super) const PINNED: &[&str] = &[
    "PODS",
    "CIDRS",
    "INBOUND",
    "LISTENERS",
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

fn take(object: &mut Ebpf, name: &'static str) -> Result<Map, KernelError> {
    object.take_map(name).ok_or(KernelError::Missing(name))
}

fn typed<T>(object: &mut Ebpf, name: &'static str) -> Result<T, KernelError>
where
    T: TryFrom<Map, Error = aya::maps::MapError>,
{
    T::try_from(take(object, name)?).map_err(KernelError::map(name))
}
