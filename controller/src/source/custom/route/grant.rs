//! `ReferenceGrant`.

use super::super::fields::{Fields, Notes, text};
use super::super::{Custom, MAX_TEXT};
use crate::objects::{self, GrantFrom, GrantTo, Object};
use crate::source::ConvertError;
use serde_json::Value;
use std::sync::Arc;

/// As the API server hands it out.
#[derive(serde::Deserialize)]
#[serde(transparent)]
pub(in crate::source) struct ReferenceGrant(Custom<Value>);

impl TryFrom<ReferenceGrant> for Object {
    type Error = ConvertError;

    fn try_from(ReferenceGrant(object): ReferenceGrant) -> Result<Self, ConvertError> {
        let name = object.metadata.name()?;
        let notes = Notes::default();
        let (from, to) = {
            let mut spec = Fields::of(object.spec.ok_or(ConvertError::Missing("spec"))?, "spec", &notes)?;
            let from = spec.list("from", 16, |mut entry| {
                Ok(GrantFrom {
                    group: group(&mut entry)?,
                    kind: entry.required("kind", MAX_TEXT)?,
                    namespace: entry.required("namespace", MAX_TEXT)?,
                })
            })?;
            let to = spec.list("to", 16, |mut entry| {
                Ok(GrantTo {
                    group: group(&mut entry)?,
                    kind: entry.required("kind", MAX_TEXT)?,
                    name: entry.text("name", MAX_TEXT)?,
                })
            })?;
            if from.is_empty() || to.is_empty() {
                return Err(ConvertError::Contradiction("spec: it needs from and to"));
            }
            (from, to)
        };
        let notes = notes.into_inner();
        Ok(Self::ReferenceGrant(objects::ReferenceGrant { name, from, to, notes }))
    }
}

/// Must be there, be it empty.
fn group(fields: &mut Fields<'_>) -> Result<Arc<str>, ConvertError> {
    let value = fields.take("group").ok_or_else(|| fields.wrong("group", "it is missing"))?;
    text(value, MAX_TEXT).map_err(|reason| fields.wrong("group", reason))
}
