//! How the kinds of [`crate::source::ServedKind`] are read from a cluster.

use super::raw::Raw;
use crate::kubernetes::shorten;
use crate::objects::{Key, Kind, Object, Refused};
use crate::source::custom::{stand_in, unread_route};
use crate::source::kinds::{Decode, decode};
use crate::source::{BUILT_IN_KINDS, CUSTOM_KINDS, Change, ConvertError, ServedKind};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Longest reason for a rejected object (characters).
const LONGEST_REASON: usize = 300;

/// A kind, and how it comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    served: &'static ServedKind,
    /// It comes and goes with a CustomResourceDefinition.
    custom: bool,
}

/// Everything that is read.
pub(super) fn rows() -> impl Iterator<Item = Row> {
    let row = |custom| move |served| Row { served, custom };
    BUILT_IN_KINDS.iter().map(row(false)).chain(CUSTOM_KINDS.iter().map(row(true)))
}

impl Row {
    /// The kind.
    pub(super) fn kind(&self) -> Kind {
        self.served.kind
    }

    /// What people ask the API server for.
    pub(super) fn plural(&self) -> &'static str {
        self.served.plural
    }

    /// How many versions are understood.
    pub(super) fn versions(&self) -> usize {
        self.served.versions.len()
    }

    /// `apiVersion` of its objects in one of its versions, the best being 0; beyond the last the first again.
    pub(super) fn api_version(&self, version: usize) -> String {
        let versions = self.served.versions;
        let version = versions.get(version % versions.len().max(1)).copied().unwrap_or_default();
        match self.served.group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        }
    }

    /// Where its objects of all namespaces are, in one of its versions.
    pub(super) fn path(&self, version: usize) -> String {
        let root = if self.served.group.is_empty() { "api" } else { "apis" };
        format!("/{root}/{}/{}", self.api_version(version), self.served.plural)
    }

    /// The CustomResourceDefinition that it comes and goes with.
    pub(super) fn definition(&self) -> Option<String> {
        self.custom.then(|| format!("{}.{}", self.served.plural, self.served.group))
    }

    /// Only names and labels count: the rest is not even sent.
    pub(super) fn metadata_only(&self) -> bool {
        matches!(self.served.kind, Kind::Namespace | Kind::Node | Kind::ServiceAccount)
    }

    /// An object. The reason why it can't be used is short, whatever it holds.
    pub(super) fn object(&self, raw: &Raw) -> Result<Object, String> {
        let object = match self.metadata_only() {
            true => metadata(raw).and_then(|value| self.served.object(value)),
            false => decode(self.served.kind, raw),
        };
        object.map_err(|error| shorten(&error.to_string(), LONGEST_REASON))
    }

    /// What follows from an object that can't be used: what stands in for one that never could, or a remark on the last good
    /// version.
    pub(super) fn instead(&self, raw: &Raw, why: &str, was_good: bool) -> Option<Change> {
        match self.kind() {
            Kind::AuthorizationPolicy if !was_good => stand_in(&raw.decode().ok()?, why).map(Change::Upsert),
            kind @ (Kind::HTTPRoute | Kind::GRPCRoute | Kind::TLSRoute | Kind::TCPRoute) => {
                let route = unread_route(kind, &raw.decode().ok()?, why)?;
                if !was_good {
                    return Some(Change::Upsert(Object::Route(Box::new(route))));
                }
                let refused = Refused { generation: route.generation, why: why.to_owned() };
                Some(Change::Refused(Key { kind, name: route.name }, refused))
            }
            _ => None,
        }
    }
}

/// Without the `kind` of the envelope, which is `PartialObjectMetadata`.
fn metadata(raw: &Raw) -> Result<serde_json::Value, ConvertError> {
    #[derive(Deserialize)]
    struct Partial {
        metadata: serde_json::Value,
    }
    let partial: Partial = raw.decode().map_err(|error| shape(&error))?;
    Ok(serde_json::json!({ "metadata": partial.metadata }))
}

/// Without the place in the API server's JSON: nobody sees that text, and the place moves with every change of the
/// object's metadata, which would make each a new reason with an event of its own.
fn shape(error: &serde_json::Error) -> ConvertError {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    // Parsers quote what they find.
    ConvertError::Shape(shorten(text.strip_suffix(&place).unwrap_or(&text), LONGEST_REASON))
}

impl Decode for &Raw {
    type Error = ConvertError;

    fn decode<T>(self) -> Result<Object, ConvertError>
    where
        T: DeserializeOwned,
        Object: TryFrom<T, Error = ConvertError>,
    {
        Object::try_from(Raw::decode::<T>(self).map_err(|error| shape(&error))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Name;
    use crate::source::kubernetes::raw::Item;

    #[test]
    fn paths_are_as_the_api_server_has_them() {
        let path = |kind| rows().find(|row| row.kind() == kind).unwrap().path(0);
        for (kind, expected) in [
            (Kind::Pod, "/api/v1/pods"),
            (Kind::EndpointSlice, "/apis/discovery.k8s.io/v1/endpointslices"),
            (Kind::PeerAuthentication, "/apis/security.istio.io/v1/peerauthentications"),
        ] {
            assert_eq!(path(kind), expected);
        }
        let row = rows().find(|row| row.kind() == Kind::PeerAuthentication).unwrap();
        assert_eq!(row.definition().as_deref(), Some("peerauthentications.security.istio.io"));
        assert_eq!(row.api_version(1), "security.istio.io/v1beta1");
        assert_eq!(row.api_version(row.versions()), row.api_version(0));
    }

    #[test]
    fn metadata_alone_is_enough_for_some() {
        let text = r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"n1","labels":{"a":"b"}}}"#;
        let raw = Item::listed(text.to_owned()).unwrap().raw;
        let row = rows().find(|row| row.kind() == Kind::Node).unwrap();
        assert_eq!(row.object(&raw).unwrap().key().name, Name::new("", "n1"));
    }

    #[test]
    fn a_route_that_cannot_be_used_keeps_its_parents_and_its_generation() {
        let text = r#"{"metadata":{"name":"r","namespace":"shop","generation":7},"spec":{"rules":[{"retry":{"attempts":101}}],
            "parentRefs":[{"group":"","kind":"Service","name":"web"}]}}"#;
        let raw = Item::listed(text.to_owned()).unwrap().raw;
        let row = rows().find(|row| row.kind() == Kind::HTTPRoute).unwrap();
        let why = row.object(&raw).unwrap_err();
        assert!(why.contains("attempts"), "{why}");
        let Some(Change::Upsert(Object::Route(route))) = row.instead(&raw, &why, false) else { panic!() };
        assert_eq!((route.services().count(), route.parents.len(), route.generation), (1, 1, 7));
        assert!(route.is_unread() && route.unsupported.as_ref() == Some(&why));
        let key = Key { kind: Kind::HTTPRoute, name: Name::new("shop", "r") };
        let refused = Refused { generation: 7, why: why.clone() };
        assert_eq!(row.instead(&raw, &why, true), Some(Change::Refused(key, refused)));
        let other = rows().find(|row| row.kind() == Kind::Service).unwrap();
        assert_eq!(other.instead(&raw, &why, false), None);
    }

    #[test]
    fn reasons_are_short() {
        let text = format!(
            r#"{{"metadata":{{"name":"x"}},"spec":{{"mtls":{{"mode":"{}"}}}}}}"#,
            "A".repeat(1 << 20)
        );
        let raw = Item::listed(text).unwrap().raw;
        let row = rows().find(|row| row.kind() == Kind::PeerAuthentication).unwrap();
        let reason = row.object(&raw).unwrap_err();
        assert!(reason.len() < 500 && reason.contains("AAAA"), "{reason}");
    }

    #[test]
    fn a_reason_does_not_change_with_the_objects_metadata() {
        let row = rows().find(|row| row.kind() == Kind::PeerAuthentication).unwrap();
        let reason = |version: &str| {
            let text = format!(
                r#"{{"metadata":{{"name":"x","resourceVersion":"{version}"}},"spec":{{"mtls":{{"mode":"MAYBE"}}}}}}"#
            );
            row.object(&Item::listed(text).unwrap().raw).unwrap_err()
        };
        assert_eq!(reason("9"), reason("10"));
        assert!(reason("9").contains("MAYBE") && !reason("9").contains("column"), "{}", reason("9"));
    }
}
