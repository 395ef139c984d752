//! Routes that can't be used: who they are for, so that their status can say why.

use super::super::fields::{Fields, Notes};
use crate::objects::{Kind, Name, Route};
use serde_json::Value;

/// A route without its rules; none when not even its name can be read.
pub(in crate::source) fn unread_route(kind: Kind, object: &Value, why: &str) -> Option<Route> {
    let metadata = &object["metadata"];
    let name = Name::new(metadata["namespace"].as_str()?, metadata["name"].as_str()?);
    let notes = Notes::default();
    let parents = object["spec"]["parentRefs"].as_array().into_iter().flatten().take(super::MAX_PARENTS);
    let parents = parents
        .filter_map(|parent| super::parent(Fields::of(parent.clone(), "spec.parentRefs", &notes).ok()?).ok());
    Some(Route {
        kind,
        name,
        created: None,
        generation: metadata["generation"].as_i64().unwrap_or_default(),
        parents: parents.collect(),
        hostnames: Vec::new(),
        rules: Vec::new(),
        unsupported: Some(why.to_owned()),
        newer: None,
        notes: Vec::new(),
    })
}
