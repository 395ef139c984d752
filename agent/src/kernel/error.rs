//! What can go wrong between the agent and the kernel, and what to do about it.

use std::{io, net::IpAddr, path::PathBuf};
use warren_common::abi::MAX_EXCLUDED_PORTS;

/// The cause, from whichever library found it.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An error of the kernel layer.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel lacks what the programs need.
    #[error("kernel {found} is too old: warren needs Linux 6.1 or later")]
    KernelTooOld {
        /// `uname -r`.
        found: String,
    },
    /// A configured cgroup is none, or not of version 2.
    #[error("{} is no cgroup v2 directory: look for the cgroup2 mount in /proc/mounts", path.display())]
    NotCgroup2 {
        /// The configured directory.
        path: PathBuf,
    },
    /// Pins need a BPF file system.
    #[error("{} is not on a BPF file system: mount one with `mount -t bpf bpf /sys/fs/bpf`, or let the agent's \
             pod mount the host's", path.display())]
    NotBpffs {
        /// The configured directory.
        path: PathBuf,
    },
    /// A file or directory could not be used.
    #[error("{what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The embedded object could not be loaded: capabilities are missing, or it was built wrongly.
    #[error("loading the kernel programs (needs CAP_SYS_ADMIN)")]
    Object(#[source] Cause),
    /// The embedded object lacks something: agent and object were built from different sources.
    #[error("the embedded object has no {0}: run `cargo xtask build-ebpf` and rebuild the agent")]
    Missing(&'static str),
    /// The kernel's verifier refused a program.
    #[error("the kernel refused program {program}; please report this with the kernel's version")]
    Program {
        /// Its name.
        program: &'static str,
        /// The verifier's words.
        #[source]
        source: Cause,
    },
    /// A program could not be put in place.
    #[error("attaching program {program}")]
    Attach {
        /// Its name.
        program: &'static str,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A map could not be read or written. "Argument list too long" (E2BIG) means that it is full.
    #[error("map {map}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A socket could not be asked what it is.
    #[error("asking a socket")]
    Socket(#[source] io::Error),
    /// No address, or more than one of a family.
    #[error("a pod has one or two addresses, at most one per family, none of them loopback; found {found:?}")]
    Addresses {
        /// What was given.
        found: Vec<IpAddr>,
    },
    /// More excluded ports than a map entry holds.
    #[error("{found} excluded ports are more than the {MAX_EXCLUDED_PORTS} a pod can have")]
    TooManyPorts {
        /// How many there are.
        found: usize,
    },
    /// A prefix length that its family doesn't have.
    #[error("{address}/{prefix} is no network")]
    Cidr {
        /// The address.
        address: IpAddr,
        /// The prefix length.
        prefix: u8,
    },
    /// An address without a listening socket of the agent.
    #[error("the agent does not listen for {address}: open its inbound listener before enrolling the pod")]
    NoListener {
        /// The pod's address.
        address: IpAddr,
    },
    /// A listener of another network namespace.
    #[error("the listener for {address} is in network namespace {found}, the pod in {expected}")]
    ListenerElsewhere {
        /// The pod's address.
        address: IpAddr,
        /// Cookie of the listener's namespace.
        found: u64,
        /// Cookie of the pod's namespace.
        expected: u64,
    },
}

impl KernelError {
    pub(super) fn map(map: &'static str) -> impl FnOnce(aya::maps::MapError) -> Self {
        move |source| Self::Map { map, source: source.into() }
    }

    pub(super) fn map_io(map: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Map { map, source: source.into() }
    }

    pub(super) fn attach<E: Into<Cause>>(program: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Attach { program, source: source.into() }
    }

    pub(super) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { what, path: path.into(), source }
    }
}
