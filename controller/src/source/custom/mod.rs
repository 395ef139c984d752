//! Objects of custom kinds, read strictly: a field or a value that is not known makes the object an error with
//! a reason. What is left out silently would be a policy that does not hold. Of routes, traffic policies and entries an unknown
//! field is noted with its path, and the rest applies ([`fields`]): without it they would still do more than nothing.

mod authorization_policy;
mod destination_rule;
mod duration;
mod endpoint;
mod fields;
mod metadata;
mod peer_authentication;
mod route;
mod service_entry;
mod virtual_service;
mod visibility;
mod workload_entry;

pub(super) use authorization_policy::{AuthorizationPolicy, stand_in};
pub(super) use destination_rule::DestinationRule;
pub(super) use peer_authentication::PeerAuthentication;
pub(super) use route::{GRPCRoute, HTTPRoute, ReferenceGrant, TCPRoute, TLSRoute, unread_route};
pub(super) use service_entry::ServiceEntry;
pub(super) use virtual_service::VirtualService;
pub(super) use workload_entry::WorkloadEntry;

use crate::objects::Map;
use metadata::Metadata;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

/// Longest text that any field needs (DNS names are the longest), in bytes.
const MAX_TEXT: usize = 256;

/// What is around every `spec`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Custom<Spec> {
    #[serde(default, rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(default, rename = "kind")]
    _kind: IgnoredAny,
    metadata: Metadata,
    spec: Option<Spec>,
    /// Ours and others' to write, never to read.
    #[serde(default, rename = "status")]
    _status: IgnoredAny,
}

/// `{matchLabels: {}}`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MatchLabels {
    #[serde(default)]
    match_labels: BTreeMap<String, String>,
}

/// A selector's labels, checked as Istio's validation does.
fn selector_labels(
    labels: BTreeMap<String, String>,
    field: &'static str,
) -> Result<Map, super::ConvertError> {
    for (key, value) in &labels {
        if key.is_empty() || key.len() > MAX_TEXT || key.contains('*') {
            return Err(super::convert::invalid(
                field,
                key,
                "the key of a label (wildcards are not allowed)",
            ));
        }
        if value.len() > 63 || value.contains('*') {
            return Err(super::convert::invalid(
                field,
                value,
                "the value of a label (wildcards are not allowed)",
            ));
        }
    }
    Ok(super::convert::shared(Some(labels)))
}

#[cfg(test)]
mod authorization_policy_tests;
#[cfg(test)]
mod tests;
