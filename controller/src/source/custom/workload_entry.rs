//! `networking.istio.io/WorkloadEntry`.

use super::Custom;
use super::endpoint::{endpoint, with_metadata_labels};
use super::fields::{Fields, Notes};
use crate::objects::{self, Object};
use crate::source::ConvertError;
use serde_json::Value;

/// As the API server hands it out.
#[derive(serde::Deserialize)]
#[serde(transparent)]
pub(in crate::source) struct WorkloadEntry(Custom<Value>);

impl TryFrom<WorkloadEntry> for Object {
    type Error = ConvertError;

    fn try_from(WorkloadEntry(mut object): WorkloadEntry) -> Result<Self, ConvertError> {
        let name = object.metadata.name()?;
        let notes = Notes::default();
        let spec = object.spec.ok_or(ConvertError::Missing("spec"))?;
        let read = endpoint(Fields::of(spec, "spec", &notes)?)?;
        let endpoint = with_metadata_labels(read, &mut object.metadata);
        Ok(Self::WorkloadEntry(objects::WorkloadEntry { name, endpoint, notes: notes.into_inner() }))
    }
}
