//! What rides in the `extensions` of the wire's messages.

use super::error::WireError;
use super::generated::warren::{ServiceExtension, WorkloadExtension};
use super::generated::workload as wire;
use prost::Message;

/// One of ours.
pub(super) trait Extension: Message + Default {
    /// Its name among the others.
    const NAME: &'static str;
    /// Its type's URL.
    const TYPE_URL: &'static str;
}

impl Extension for WorkloadExtension {
    const NAME: &'static str = "warren.dev/workload";
    const TYPE_URL: &'static str = "type.googleapis.com/warren.v1.WorkloadExtension";
}

impl Extension for ServiceExtension {
    const NAME: &'static str = "warren.dev/service";
    const TYPE_URL: &'static str = "type.googleapis.com/warren.v1.ServiceExtension";
}

pub(super) fn pack<E: Extension>(extension: &E) -> wire::Extension {
    let config = prost_types::Any { type_url: E::TYPE_URL.to_owned(), value: extension.encode_to_vec() };
    wire::Extension { name: E::NAME.to_owned(), config: Some(config) }
}

/// Whether the sender knows this extension.
pub(super) fn is_in<E: Extension>(extensions: &[wire::Extension]) -> bool {
    extensions.iter().any(|extension| extension.name == E::NAME)
}

/// A ztunnel control plane sends no extension of ours: everything in it has its default then.
pub(super) fn unpack<E: Extension>(extensions: &[wire::Extension]) -> Result<E, WireError> {
    let ours = extensions.iter().find(|extension| extension.name == E::NAME);
    match ours.and_then(|extension| extension.config.as_ref()) {
        Some(config) => Ok(E::decode(config.value.as_slice())?),
        None => Ok(E::default()),
    }
}
