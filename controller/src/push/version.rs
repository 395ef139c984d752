//! Resources as they are pushed: encoded once for all sessions, versioned by content, with their other names.

use super::table::{Group, Resource};
use crate::resolve;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt::Write;
use warren_common::model::{Identity, ServiceName, TrustBundle, Workload};
use warren_common::proto::{
    ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL, MeshResource, NAMESPACE_TYPE_URL, REVOCATIONS,
    REVOCATIONS_TYPE_URL, TRAFFIC_TYPE_URL, TRUST, TRUST_TYPE_URL, discovery, encode_address,
    encode_authorization, encode_envelope, encode_namespace, encode_revocations, encode_traffic,
    encode_trust, traffic_name,
};

/// Encodes a resource.
///
/// The version is a hash of the content, so that it outlives a restart of the controller and is the same on every
/// replica. It is taken from the model: the wire's maps have no stable order.
pub fn resource(resource: &resolve::Resource) -> Result<Resource, serde_json::Error> {
    match resource {
        resolve::Resource::Address(address) => {
            let (content, addresses) = match address {
                MeshResource::Workload(workload) => (workload_content(workload)?, &workload.addresses),
                MeshResource::Service(service) => (serde_json::to_vec(service)?, &service.addresses),
            };
            // `network/address`; the network of a single-network mesh is empty.
            let aliases = addresses.iter().map(|ip| format!("/{ip}")).collect();
            let any = any(ADDRESS_TYPE_URL, encode_address(address));
            Ok(sealed(address.name(), any, &content, aliases, groups(address)))
        }
        resolve::Resource::Authorization(policy) => {
            let any = any(AUTHORIZATION_TYPE_URL, encode_authorization(policy));
            let content = serde_json::to_vec(policy)?;
            Ok(sealed(policy.name.to_string(), any, &content, Vec::new(), Vec::new()))
        }
        resolve::Resource::Traffic(traffic) => {
            let content = encode_traffic(traffic);
            let any = any(TRAFFIC_TYPE_URL, content.clone());
            Ok(sealed(traffic_name(&traffic.service), any, &content, Vec::new(), Vec::new()))
        }
        resolve::Resource::Namespace(name) => {
            let any = any(NAMESPACE_TYPE_URL, encode_namespace(name));
            Ok(sealed(name.to_string(), any, name.as_bytes(), Vec::new(), Vec::new()))
        }
    }
}

/// Encodes the identities that are revoked; none when none is.
pub fn revocations(revoked: &BTreeSet<Identity>) -> Option<Resource> {
    let content = encode_revocations(revoked);
    let any = any(REVOCATIONS_TYPE_URL, content.clone());
    (!revoked.is_empty()).then(|| sealed(REVOCATIONS.to_owned(), any, &content, Vec::new(), Vec::new()))
}

/// Encodes whom to trust.
pub fn trust(bundle: &TrustBundle) -> Resource {
    let content = encode_trust(bundle);
    sealed(TRUST.to_owned(), any(TRUST_TYPE_URL, content.clone()), &content, Vec::new(), Vec::new())
}

fn any(type_url: &str, value: Vec<u8>) -> prost_types::Any {
    prost_types::Any { type_url: type_url.to_owned(), value }
}

fn sealed(
    name: String,
    any: prost_types::Any,
    content: &[u8],
    aliases: Vec<String>,
    groups: Vec<Group>,
) -> Resource {
    let mut version = String::with_capacity(24);
    for byte in Sha256::digest(content).iter().take(12) {
        // Writing to a String can't fail.
        let _ = write!(version, "{byte:02x}");
    }
    let (shared_version, shared_aliases) =
        (version.as_str().into(), aliases.iter().map(|alias| alias.as_str().into()).collect());
    let body = encode_envelope(&discovery::Resource { version, resource: Some(any), name, aliases });
    Resource { version: shared_version, body, aliases: shared_aliases, groups }
}

/// A workload comes with the services it stands behind, and to the agent of its own node.
fn groups(resource: &MeshResource) -> Vec<Group> {
    let MeshResource::Workload(workload) = resource else { return Vec::new() };
    let services = workload.services.keys().map(|name| Group::Behind(name.to_string().into()));
    let node = (!workload.node.is_empty()).then(|| Group::Node(workload.node.clone()));
    services.chain(node).collect()
}

/// JSON has only text as keys of maps, so the services go as a list.
fn workload_content(workload: &Workload) -> Result<Vec<u8>, serde_json::Error> {
    let services: Vec<(&ServiceName, _)> = workload.services.iter().collect();
    let rest = Workload { services: Default::default(), ..workload.clone() };
    serde_json::to_vec(&(rest, services))
}
