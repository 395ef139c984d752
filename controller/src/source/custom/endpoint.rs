//! What a WorkloadEntry and an endpoint of a ServiceEntry have in common.

use super::{MAX_TEXT, Metadata};
use crate::objects::{EntryAddress, EntryEndpoint};
use crate::source::ConvertError;
use crate::source::convert::{invalid, shared};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// As Istio's API has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::source) struct Endpoint {
    #[serde(default)]
    address: String,
    #[serde(default)]
    ports: BTreeMap<String, u32>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    network: String,
    #[serde(default)]
    locality: String,
    #[serde(default)]
    weight: u32,
    #[serde(default)]
    service_account: String,
}

impl Endpoint {
    /// `field` is where it stands, for errors.
    pub(super) fn checked(self, field: &'static str) -> Result<EntryEndpoint, ConvertError> {
        let texts = [&self.address, &self.network, &self.locality, &self.service_account];
        if let Some(long) = texts.into_iter().chain(self.labels.values()).find(|text| text.len() > MAX_TEXT) {
            return Err(invalid(field, long, "short enough (256 bytes)"));
        }
        if self.labels.len() > 256 || self.ports.len() > 128 {
            return Err(invalid(field, "too many entries", "at most 256 labels and 128 ports"));
        }
        let mut ports = BTreeMap::new();
        for (name, number) in self.ports {
            ports.insert(Arc::from(name), port(number, field)?);
        }
        let mut parts = self.locality.split('/').map(Arc::from);
        let locality = std::array::from_fn(|_| parts.next().unwrap_or_default());
        if parts.next().is_some() {
            return Err(invalid(field, &self.locality, "a locality (region/zone/subzone)"));
        }
        Ok(EntryEndpoint {
            address: address(&self.address, field)?,
            ports,
            labels: shared(Some(self.labels)),
            network: self.network.into(),
            locality,
            weight: self.weight.max(1),
            service_account: if self.service_account.is_empty() {
                "default".into()
            } else {
                self.service_account.into()
            },
        })
    }
}

fn address(text: &str, field: &'static str) -> Result<EntryAddress, ConvertError> {
    if text.starts_with("unix://") {
        return Err(invalid(field, text, "reachable: Unix sockets are in no pod's network namespace"));
    }
    match text.parse() {
        Ok(ip) => Ok(EntryAddress::Ip(ip)),
        Err(_) if text.is_empty() => Err(ConvertError::Contradiction(
            "an endpoint needs an address: gateways of networks are not known",
        )),
        Err(_) => Ok(EntryAddress::Name(host(text, field)?)),
    }
}

/// A DNS name in lower case; a leading `*.` is left to the caller.
pub(super) fn host(text: &str, field: &'static str) -> Result<Arc<str>, ConvertError> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(invalid(field, text, "a DNS name"));
    }
    Ok(name.to_ascii_lowercase().into())
}

pub(super) fn port(number: u32, field: &'static str) -> Result<u16, ConvertError> {
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    port.ok_or_else(|| invalid(field, &number.to_string(), "a port number (1 to 65535)"))
}

/// Labels of an object's metadata are labels of the workload too; those of its spec come first.
pub(super) fn with_metadata_labels(mut endpoint: EntryEndpoint, metadata: &mut Metadata) -> EntryEndpoint {
    for (key, value) in metadata.labels() {
        endpoint.labels.entry(key).or_insert(value);
    }
    endpoint
}
