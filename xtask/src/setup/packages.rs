//! The Debian packages that warren's development needs, each with its reason.

use std::path::Path;

use super::Need;
use crate::process::which;

pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
    pub(crate) need: Need,
    proof: Proof,
}

/// How to see that a package's content is there, however it came.
enum Proof {
    Program(&'static str),
    File(&'static str),
}

impl Package {
    pub(crate) fn present(&self) -> bool {
        match self.proof {
            Proof::Program(program) => which(program).is_some(),
            Proof::File(path) => Path::new(path).exists(),
        }
    }
}

const fn program(name: &'static str, program: &'static str, need: Need, why: &'static str) -> Package {
    Package { name, why, need, proof: Proof::Program(program) }
}

const fn file(name: &'static str, path: &'static str, need: Need, why: &'static str) -> Package {
    Package { name, why, need, proof: Proof::File(path) }
}

pub(crate) const PACKAGES: &[Package] = &[
    program("gcc", "cc", Need::Build, "linker, and C compiler for aws-lc (cryptography)"),
    program("g++", "c++", Need::Build, "C++ compiler for aws-lc's build"),
    program("make", "make", Need::Build, "drives aws-lc's build"),
    program("iproute2", "ip", Need::Lab, "makes the lab's links, addresses and routes"),
    program("nftables", "nft", Need::Lab, "service VIPs of the lab's nodes, as kube-proxy has them"),
    program("procps", "ps", Need::Lab, "looks at processes when a test fails"),
    program("curl", "curl", Need::Lab, "the client that people know, run in pods"),
    program("nginx-light", "nginx", Need::Lab, "a real server in the demo's pods"),
    program("python3", "python3", Need::Lab, "servers and clients of the L7 suites"),
    file(
        "python3-grpcio",
        "/usr/lib/python3/dist-packages/grpc/__init__.py",
        Need::Lab,
        "a gRPC server and client of the L7 suites",
    ),
    program(
        "nghttp2-client",
        "h2load",
        Need::Lab,
        "many HTTP/2 requests on few connections, in the L7 suites",
    ),
    program("wrk", "wrk", Need::Lab, "HTTP requests per second and latency"),
    program("tcpdump", "tcpdump", Need::Lab, "proves that nothing but TLS passes between nodes"),
    program("iperf3", "iperf3", Need::Bench, "bulk throughput"),
    program("containerd", "containerd", Need::Kubernetes, "the nodes' container runtime"),
    program("runc", "runc", Need::Kubernetes, "starts containers for containerd"),
    file(
        "containernetworking-plugins",
        "/usr/lib/cni/ptp",
        Need::Kubernetes,
        "the pods' links and addresses, the chain that ours joins",
    ),
    program("conntrack", "conntrack", Need::Kubernetes, "kube-proxy drops stale connections with it"),
    program("openssl", "openssl", Need::Kubernetes, "makes the cluster's certificates"),
    program("binutils", "strip", Need::Kubernetes, "leaves debug information out of images"),
    file("rustc-web", "/usr/bin/rustc", Need::Ebpf, "a rustc whose LLVM matches bpf-linker's"),
    file(
        "libstd-rust-web-dev-bpf",
        "/usr/lib/rustlib/bpfel-unknown-none/lib",
        Need::Ebpf,
        "Rust's core library for the BPF target",
    ),
    file("llvm-22-dev", "/usr/lib/llvm-22/bin/llvm-config", Need::Ebpf, "bpf-linker is built against it"),
];

/// Whether cargo has installed `program`.
pub(crate) fn in_cargo_bin(program: &str) -> bool {
    let home =
        std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    which(program).is_some() || home.is_ok_and(|home| Path::new(&home).join("bin").join(program).exists())
}
