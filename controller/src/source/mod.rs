//! Where objects come from. Every source yields the same [`Change`]s, in batches.

mod convert;
mod custom;
mod kinds;
pub mod kubernetes;
pub mod manifests;
mod problems;

pub use convert::ConvertError;
pub use kinds::{BUILT_IN_KINDS, CUSTOM_KINDS, MESH_GROUPS, ServedKind};
pub use problems::{Problem, SourceProblems};

use crate::objects::{Key, Object, Refused};

/// One step in the life of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It appeared or became something else.
    Upsert(Object),
    /// It is gone.
    Delete(Key),
    /// It became something that can't be used: the last good version stays.
    Refused(Key, Refused),
}

impl Change {
    /// The object it is about.
    pub fn key(&self) -> Key {
        match self {
            Self::Upsert(object) => object.key(),
            Self::Delete(key) | Self::Refused(key, _) => key.clone(),
        }
    }
}
