//! Capture in the kernel: the only code that names aya.
//!
//! [`Kernel`] is what the rest of the agent sees; [`BpfKernel`] does it with the programs of `ebpf/`, [`FakeKernel`]
//! with a list of recorded calls.
//!
//! What lives longer than the agent (all under one directory on a bpffs):
//!
//! ```text
//! PIN_DIR/<abi>/MAP             maps, shared by every object with the same layout of keys and values
//! PIN_DIR/links/PROGRAM-CGROUP  programs on cgroups, named by the cgroup's id
//! PIN_DIR/pods/COOKIE           sk_lookup on a pod's network namespace, named by its cookie
//! ```
//!
//! While nobody runs, the pinned links go on capturing, and connections fail closed. A new agent loads its own
//! programs, takes the maps over if the ABI is the same, and swaps the programs inside the links (`BPF_LINK_UPDATE`,
//! Linux 5.7): no connection falls between old and new.
//!
//! Invariant: `PODS` holds a pod only after its listeners and its sk_lookup link are in place.
// The bpf(2) syscalls that aya lacks (`sys`) and what they need.
#![allow(unsafe_code, reason = "system calls without a safe wrapper; all of them in `sys`")]

mod attach;
mod check;
mod error;
mod events;
mod fake;
mod load;
mod log;
mod maps;
mod pins;
mod plan;
mod pods;
mod sys;

pub use error::KernelError;
pub use events::{EventSource, decode};
pub use fake::{FakeCall, FakeKernel};
pub use load::BpfKernel;

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::BorrowedFd,
    path::PathBuf,
};
use warren_common::abi::COUNTER_COUNT;

/// The kernel's side of capture.
pub trait Kernel: Send + Sync + 'static {
    /// Starts capturing a pod's traffic, or updates what is captured. The caller already listens: outbound on
    /// loopback port 15001 of every family that the pod has, inbound on the sockets it passes.
    ///
    /// # Errors
    /// A pod that can't be captured whole is not captured at all: nothing is left behind, unless it was
    /// enrolled before; then the old state keeps working as far as it goes.
    fn enrol(&self, pod: &PodCapture<'_>) -> Result<(), KernelError>;

    /// Stops capturing. A pod that is not enrolled is no error.
    ///
    /// # Errors
    /// When the kernel refuses; the pod may then be captured in part.
    fn release(&self, cookie: u64) -> Result<(), KernelError>;

    /// Cookies of the enrolled pods, also those that an earlier agent enrolled: after a restart, enrol or release
    /// each.
    ///
    /// # Errors
    /// When the map can't be read.
    fn enrolled(&self) -> Result<Vec<u64>, KernelError>;

    /// The destination the application asked for; `None`: this connection was not captured (somebody dialled
    /// 15001), close it.
    ///
    /// One system call, no allocation.
    ///
    /// # Errors
    /// When the kernel can't be asked, for example because the descriptor is no socket.
    fn original_destination(&self, accepted: BorrowedFd<'_>) -> Result<Option<SocketAddr>, KernelError>;

    /// Shows the application the true client on the socket that we are about to connect.
    ///
    /// # Errors
    /// When the kernel can't remember it; the application would see the agent's address.
    fn present_client(&self, upstream: BorrowedFd<'_>, client: SocketAddr) -> Result<(), KernelError>;

    /// What the programs counted so far, indexed by [`warren_common::abi::Counter`], summed over CPUs.
    ///
    /// # Errors
    /// When the map can't be read.
    fn counters(&self) -> Result<[u64; COUNTER_COUNT], KernelError>;
}

/// A pod whose traffic to capture.
#[derive(Clone, Debug)]
pub struct PodCapture<'a> {
    /// Cookie of the pod's network namespace (`SO_NETNS_COOKIE` of any socket in it).
    pub cookie: u64,
    /// The pod's network namespace.
    pub netns: BorrowedFd<'a>,
    /// The pod's addresses: at most one per family.
    pub addresses: &'a [IpAddr],
    /// The agent's listening socket for plaintext inbound IPv4, in the pod's namespace.
    pub inbound_v4: Option<BorrowedFd<'a>>,
    /// The same for IPv6.
    pub inbound_v6: Option<BorrowedFd<'a>>,
    /// Destination ports that are not captured, at most [`warren_common::abi::MAX_EXCLUDED_PORTS`].
    pub exclude_outbound_ports: &'a [u16],
    /// The pod's own ports that clients reach directly, at most [`warren_common::abi::MAX_EXCLUDED_PORTS`].
    pub exclude_inbound_ports: &'a [u16],
    /// Destination networks that are not captured: address and prefix length.
    pub exclude_outbound_cidrs: &'a [(IpAddr, u8)],
}

/// What the kernel layer must know of the node.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// cgroup v2 directory above all pods (`kubepods` on Kubernetes).
    pub pods_cgroup: PathBuf,
    /// cgroup v2 directory that the agent's processes are in (not one above it).
    pub agent_cgroup: PathBuf,
    /// cgroup v2 directory of the kubelet; without it, probes are captured as any other connection.
    pub kubelet_cgroup: Option<PathBuf>,
    /// Where pins live, on a bpffs; beneath `/sys/fs/bpf` it is mounted if need be.
    pub pin_dir: PathBuf,
    /// With no agent listening, connections pass in plaintext instead of failing.
    pub fail_open: bool,
    /// Programs log what they do, through the `log` crate.
    pub debug: bool,
}
