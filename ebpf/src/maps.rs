//! Every map. The keys and values are the ABI; a change here or there changes the ABI's hash, and with it the
//! directory the maps are pinned in.
//!
//! Sizes: a node has at most some hundreds of pods and a pod at most two addresses. `ORIGINS` and `CLIENTS` hold
//! handshakes in flight (milliseconds), `VIEWS` open MPTCP connections, `PROBES` open connections of the kubelet.
//! They are LRU maps only so that a leak can't stop traffic; in normal operation nothing is ever evicted. The
//! free list is shared (no `BPF_F_NO_COMMON_LRU`): per-CPU lists would evict at 1/nr_cpus of the size when
//! a single CPU does all the connecting.

use aya_ebpf::{
    Global,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SkStorage, SockHash},
    macros::btf_map,
};
use warren_common::abi::{
    COUNTER_COUNT, CidrKey, Connection, Endpoint, Event, InboundConfig, Ip, NodeConfig, PodConfig,
};

/// Enrolled pods by network namespace cookie.
#[btf_map]
pub(crate) static PODS: HashMap<u64, PodConfig, 4096> = HashMap::new();

/// Excluded outbound CIDRs of all pods; the value has no meaning.
#[btf_map]
pub(crate) static CIDRS: LpmTrie<CidrKey, u32, 16384> = LpmTrie::new();

/// Inbound exceptions by pod address. An address without an entry has none.
#[btf_map]
pub(crate) static INBOUND: HashMap<Ip, InboundConfig, 8192> = HashMap::new();

/// The agent's plaintext-inbound listeners by pod address (sk_lookup can't ask for the netns cookie).
/// The kernel removes a listener when its socket closes.
#[btf_map]
pub(crate) static LISTENERS: SockHash<Ip, 8192> = SockHash::new();

/// The agents of this node, by cgroup id: their own connects are never captured. More than one while one takes over
/// from another. The value is the agent's process id, by which the next one sees who has gone.
#[btf_map]
pub(crate) static AGENTS: HashMap<u64, u32, 16> = HashMap::new();

/// Settings of the node, at index 0.
#[btf_map]
pub(crate) static NODE: Array<NodeConfig, 1> = Array::new();

/// One count per `abi::Counter`.
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<u64, COUNTER_COUNT> = PerCpuArray::new();

/// The rare and the wrong.
#[btf_map]
pub(crate) static EVENTS: RingBuf<Event, { 256 * 1024 }> = RingBuf::new();

/// Original destinations between the client's SYN and the agent's accepted socket, keyed as the client sees
/// the (redirected) connection.
#[btf_map]
pub(crate) static ORIGINS: LruHashMap<Connection, Endpoint, 65536> = LruHashMap::new();

/// Original destinations of open MPTCP connections: their user-visible socket has no storage of ours, only its
/// first subflow has. Keyed like [`ORIGINS`].
#[btf_map]
pub(crate) static VIEWS: LruHashMap<Connection, Endpoint, 8192> = LruHashMap::new();

/// True clients between the agent's SYN and the application's accepted socket, keyed as the application sees it.
#[btf_map]
pub(crate) static CLIENTS: LruHashMap<Connection, Endpoint, 65536> = LruHashMap::new();

/// The kubelet's open connections, keyed as the pod sees them, cookie 0; the value has no meaning.
#[btf_map]
pub(crate) static PROBES: LruHashMap<Connection, u32, 8192> = LruHashMap::new();

/// On a captured client socket: where the application wanted to go.
#[btf_map]
pub(crate) static DESTINATION: SkStorage<Endpoint> = SkStorage::new();

/// On a socket that an application accepted: its true client.
#[btf_map]
pub(crate) static PEER: SkStorage<Endpoint> = SkStorage::new();

/// On a socket that the agent accepted: where the application wanted to go. Read by the agent, by fd.
#[btf_map]
pub(crate) static ORIGIN: SkStorage<Endpoint> = SkStorage::new();

/// On a socket that the agent is about to connect: the client to present. Written by the agent, by fd.
#[btf_map]
pub(crate) static AGENT_PEER: SkStorage<Endpoint> = SkStorage::new();

/// 1: the kernel knows MPTCP (`/proc/sys/net/mptcp`). Without it the verifier refuses the helper that asks, so
/// the branch must be dead; the loader sets this before the programs are verified.
#[unsafe(no_mangle)]
pub(crate) static HAS_MPTCP: Global<u8> = Global::new(0);
