//! Resources as they are pushed: encoded, versioned by content, with their aliases.

use super::table::Resource;
use crate::resolve;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use warren_common::model::{ServiceName, Workload};
use warren_common::proto::{MeshResource, encode_address, encode_namespace};

/// Encodes a resource.
///
/// The version is a hash of the content, so that it outlives a restart of the controller and is the same on every
/// replica. It is taken from the model: the wire's maps have no stable order.
pub fn resource(resource: &resolve::Resource) -> Result<Resource, serde_json::Error> {
    let (content, body, addresses) = match resource {
        resolve::Resource::Address(address) => {
            let (content, addresses) = match address {
                MeshResource::Workload(workload) => (workload_content(workload)?, &workload.addresses[..]),
                MeshResource::Service(service) => (serde_json::to_vec(service)?, &service.addresses[..]),
            };
            (content, encode_address(address), addresses)
        }
        resolve::Resource::Namespace(name) => (name.as_bytes().to_vec(), encode_namespace(name), &[][..]),
    };
    let digest = Sha256::digest(&content);
    let mut version = String::with_capacity(24);
    for byte in digest.iter().take(12) {
        // Writing to a String can't fail.
        let _ = write!(version, "{byte:02x}");
    }
    // `network/address`; the network of a single-network mesh is empty.
    let aliases = addresses.iter().map(|ip| format!("/{ip}").into()).collect();
    Ok(Resource { version: version.into(), body: body.into(), aliases })
}

/// JSON has only text as keys of maps, so the services go as a list.
fn workload_content(workload: &Workload) -> Result<Vec<u8>, serde_json::Error> {
    let services: Vec<(&ServiceName, _)> = workload.services.iter().collect();
    let rest = Workload { services: Default::default(), ..workload.clone() };
    serde_json::to_vec(&(rest, services))
}
