//! `networking.istio.io/WorkloadEntry`.

use super::Custom;
use super::endpoint::{Endpoint, with_metadata_labels};
use crate::objects::{self, Object};
use crate::source::ConvertError;

/// As the API server hands it out.
pub(in crate::source) type WorkloadEntry = Custom<Endpoint>;

impl TryFrom<WorkloadEntry> for Object {
    type Error = ConvertError;

    fn try_from(mut object: WorkloadEntry) -> Result<Self, ConvertError> {
        let endpoint = object.spec.ok_or(ConvertError::Missing("spec"))?.checked("spec")?;
        let name = object.metadata.name()?;
        let endpoint = with_metadata_labels(endpoint, &mut object.metadata);
        Ok(Self::WorkloadEntry(objects::WorkloadEntry { name, endpoint }))
    }
}
