//! `metadata`, as far as it is read.

use super::MAX_TEXT;
use crate::objects::{Created, Map, Name};
use crate::source::ConvertError;
use crate::source::convert::{invalid, shared};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const DEFAULT_NAMESPACE: &str = "default";

/// Every field that Kubernetes knows; what is not read is skipped, what is not known is a mistake.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<String>,
    annotations: Option<Annotations>,
    #[serde(default, rename = "deletionGracePeriodSeconds")]
    _deletion_grace_period_seconds: IgnoredAny,
    #[serde(default, rename = "deletionTimestamp")]
    _deletion_timestamp: IgnoredAny,
    #[serde(default, rename = "finalizers")]
    _finalizers: IgnoredAny,
    #[serde(default, rename = "generateName")]
    _generate_name: IgnoredAny,
    generation: Option<i64>,
    #[serde(default, rename = "managedFields")]
    _managed_fields: IgnoredAny,
    #[serde(default, rename = "ownerReferences")]
    _owner_references: IgnoredAny,
    #[serde(default, rename = "resourceVersion")]
    _resource_version: IgnoredAny,
    #[serde(default, rename = "selfLink")]
    _self_link: IgnoredAny,
    #[serde(default, rename = "uid")]
    _uid: IgnoredAny,
}

/// The one that is read.
#[derive(Default, Deserialize)]
struct Annotations {
    #[serde(rename = "istio.io/dry-run")]
    dry_run: Option<String>,
}

impl Metadata {
    pub(super) fn name(&self) -> Result<Name, ConvertError> {
        let part = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let name = part(&self.name).ok_or(ConvertError::Missing("metadata.name"))?;
        let namespace = part(&self.namespace).unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        for (field, text) in [("metadata.name", &name), ("metadata.namespace", &namespace)] {
            if text.len() > MAX_TEXT {
                return Err(invalid(field, text, "a name of at most 253 characters"));
            }
        }
        Ok(Name::new(namespace, name))
    }

    pub(super) fn created(&self) -> Result<Created, ConvertError> {
        let Some(text) = &self.creation_timestamp else { return Ok(None) };
        let time = OffsetDateTime::parse(text, &Rfc3339);
        let time = time.map_err(|_| invalid("metadata.creationTimestamp", text, "a time (RFC 3339)"))?;
        Ok(Some(time.unix_timestamp()))
    }

    /// Counts the changes of `spec`; 0 in files.
    pub(super) fn generation(&self) -> i64 {
        self.generation.unwrap_or_default()
    }

    /// The annotation `istio.io/dry-run`, a truth value as Go reads it.
    pub(super) fn dry_run(&self) -> Result<bool, ConvertError> {
        match self.annotations.as_ref().and_then(|annotations| annotations.dry_run.as_deref()) {
            None | Some("false" | "False" | "FALSE" | "f" | "F" | "0") => Ok(false),
            Some("true" | "True" | "TRUE" | "t" | "T" | "1") => Ok(true),
            Some(other) => {
                Err(invalid("metadata.annotations[istio.io/dry-run]", other, "\"true\" or \"false\""))
            }
        }
    }

    /// Takes them out.
    pub(super) fn labels(&mut self) -> Map {
        shared(self.labels.take())
    }
}
