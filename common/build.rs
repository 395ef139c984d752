//! Compiles the wire messages with a protobuf compiler written in Rust, so that no `protoc` is needed. Who wants no wire messages, as
//! the kernel programs, builds no compiler either.

#[cfg(feature = "proto")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = [
        "proto/discovery.proto",
        "proto/workload.proto",
        "proto/authorization.proto",
        "proto/ca.proto",
        "proto/warren.proto",
    ];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(protos, ["proto"])?;
    // Shared between all streams that send them.
    let shared = ".envoy.service.discovery.v3.DeltaDiscoveryResponse.resources";
    tonic_prost_build::configure().bytes(shared).compile_fds(descriptors)?;
    Ok(())
}

#[cfg(not(feature = "proto"))]
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
}
