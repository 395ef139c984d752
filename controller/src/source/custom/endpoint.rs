//! What a WorkloadEntry and an endpoint of a ServiceEntry have in common.

use super::fields::{Fields, port_of, wrong};
use super::{MAX_TEXT, Metadata};
use crate::objects::{EntryAddress, EntryEndpoint};
use crate::source::ConvertError;
use crate::source::convert::invalid;
use std::sync::Arc;

/// Reads an endpoint as Istio's API has it.
pub(super) fn endpoint(mut fields: Fields<'_>) -> Result<EntryEndpoint, ConvertError> {
    let address = address(fields.text("address", MAX_TEXT)?, &fields)?;
    let ports =
        fields.entries("ports", 128, |path, name, value| Ok((name.into(), port_of(path, &value)?)))?;
    let locality = fields.text("locality", MAX_TEXT)?.unwrap_or_default();
    let mut parts = locality.split('/').map(Arc::from);
    let of_locality = std::array::from_fn(|_| parts.next().unwrap_or_default());
    if parts.next().is_some() {
        let reason = format!("{locality:?} is not a locality (region/zone/subzone)");
        return Err(fields.wrong("locality", reason));
    }
    Ok(EntryEndpoint {
        address,
        ports: ports.into_iter().collect(),
        labels: fields.labels("labels")?,
        network: fields.text("network", MAX_TEXT)?.unwrap_or_default(),
        locality: of_locality,
        weight: fields.number32("weight", u32::MAX)?.unwrap_or_default().max(1),
        service_account: fields.text("serviceAccount", MAX_TEXT)?.unwrap_or_else(|| "default".into()),
    })
}

fn address(text: Option<Arc<str>>, fields: &Fields<'_>) -> Result<EntryAddress, ConvertError> {
    let Some(text) = text else {
        let reason = "an endpoint needs an address: gateways of networks are not known";
        return Err(wrong(fields.path(), reason));
    };
    if text.starts_with("unix://") {
        let reason = format!("{text:?} cannot be reached: Unix sockets are in no pod's network namespace");
        return Err(fields.wrong("address", reason));
    }
    match text.parse() {
        Ok(ip) => Ok(EntryAddress::Ip(ip)),
        Err(_) => {
            let name = host(&text, "address");
            let name =
                name.map_err(|_| fields.wrong("address", format_args!("{text:?} is not a DNS name")))?;
            Ok(EntryAddress::Name(name))
        }
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

/// Labels of an object's metadata are labels of the workload too; those of its spec come first.
pub(super) fn with_metadata_labels(mut endpoint: EntryEndpoint, metadata: &mut Metadata) -> EntryEndpoint {
    for (key, value) in metadata.labels() {
        endpoint.labels.entry(key).or_insert(value);
    }
    endpoint
}
