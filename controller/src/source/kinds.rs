//! Every kind that is read, in one table: what manifests and the API server call it, and what decodes it.

use super::{ConvertError, convert, custom};
use crate::objects::{Kind, Object};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use serde::de::DeserializeOwned;

/// A kind as the API server serves it.
#[derive(Debug, PartialEq, Eq)]
pub struct ServedKind {
    /// The kind.
    pub kind: Kind,
    /// Its API group, empty for the core.
    pub group: &'static str,
    /// The versions that are understood, the best first. They share one schema.
    pub versions: &'static [&'static str],
    /// Its name in URLs.
    pub plural: &'static str,
}

const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// API groups whose objects are for a mesh, whether they are read or not.
pub const MESH_GROUPS: [&str; 6] = [
    "networking.istio.io",
    "security.istio.io",
    "telemetry.istio.io",
    "extensions.istio.io",
    GATEWAY_API,
    "gateway.networking.x-k8s.io",
];

/// Kinds that every cluster has.
pub const BUILT_IN_KINDS: &[ServedKind] = &[
    ServedKind { kind: Kind::Namespace, group: "", versions: &["v1"], plural: "namespaces" },
    ServedKind { kind: Kind::Node, group: "", versions: &["v1"], plural: "nodes" },
    ServedKind { kind: Kind::ServiceAccount, group: "", versions: &["v1"], plural: "serviceaccounts" },
    ServedKind { kind: Kind::Pod, group: "", versions: &["v1"], plural: "pods" },
    ServedKind { kind: Kind::Service, group: "", versions: &["v1"], plural: "services" },
    ServedKind {
        kind: Kind::EndpointSlice,
        group: "discovery.k8s.io",
        versions: &["v1"],
        plural: "endpointslices",
    },
];

/// Kinds that a cluster has once their CustomResourceDefinitions are installed.
pub const CUSTOM_KINDS: &[ServedKind] = &[
    ServedKind {
        kind: Kind::AuthorizationPolicy,
        group: "security.istio.io",
        versions: &["v1", "v1beta1"],
        plural: "authorizationpolicies",
    },
    ServedKind {
        kind: Kind::PeerAuthentication,
        group: "security.istio.io",
        versions: &["v1", "v1beta1"],
        plural: "peerauthentications",
    },
    ServedKind {
        kind: Kind::ServiceEntry,
        group: "networking.istio.io",
        versions: &["v1", "v1beta1", "v1alpha3"],
        plural: "serviceentries",
    },
    ServedKind {
        kind: Kind::WorkloadEntry,
        group: "networking.istio.io",
        versions: &["v1", "v1beta1", "v1alpha3"],
        plural: "workloadentries",
    },
    ServedKind {
        kind: Kind::VirtualService,
        group: "networking.istio.io",
        versions: &["v1", "v1beta1", "v1alpha3"],
        plural: "virtualservices",
    },
    ServedKind {
        kind: Kind::DestinationRule,
        group: "networking.istio.io",
        versions: &["v1", "v1beta1", "v1alpha3"],
        plural: "destinationrules",
    },
    ServedKind {
        kind: Kind::HTTPRoute,
        group: GATEWAY_API,
        versions: &["v1", "v1beta1"],
        plural: "httproutes",
    },
    ServedKind { kind: Kind::GRPCRoute, group: GATEWAY_API, versions: &["v1"], plural: "grpcroutes" },
    ServedKind {
        kind: Kind::TLSRoute,
        group: GATEWAY_API,
        versions: &["v1", "v1alpha3", "v1alpha2"],
        plural: "tlsroutes",
    },
    ServedKind {
        kind: Kind::TCPRoute,
        group: GATEWAY_API,
        versions: &["v1", "v1alpha2"],
        plural: "tcproutes",
    },
    ServedKind {
        kind: Kind::ReferenceGrant,
        group: GATEWAY_API,
        versions: &["v1", "v1beta1"],
        plural: "referencegrants",
    },
];

impl ServedKind {
    /// The kind that `apiVersion` and `kind` of an object name.
    pub fn find(api_version: &str, kind: &str) -> Option<&'static Self> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        BUILT_IN_KINDS.iter().chain(CUSTOM_KINDS).find(|served| {
            served.kind.as_str() == kind && served.group == group && served.versions.contains(&version)
        })
    }

    /// `Kind (apiVersion)`, with the best version.
    pub fn full_name(&self) -> String {
        let version = self.versions.first().copied().unwrap_or_default();
        let slash = if self.group.is_empty() { "" } else { "/" };
        format!("{} ({}{slash}{version})", self.kind.as_str(), self.group)
    }

    /// An object from what the API server answers. Any value is safe to pass in.
    ///
    /// # Errors
    /// What is wrong with it, in at most a few hundred characters.
    pub fn object(&self, value: serde_json::Value) -> Result<Object, ConvertError> {
        decode(self.kind, Json(value))
    }
}

/// Something that holds an object whose kind is known.
pub(super) trait Decode {
    /// Why it can't be decoded.
    type Error;

    /// Decodes it as a `T`.
    fn decode<T>(self) -> Result<Object, Self::Error>
    where
        T: DeserializeOwned,
        Object: TryFrom<T, Error = ConvertError>;
}

/// Decodes an object of `kind`.
pub(super) fn decode<D: Decode>(kind: Kind, from: D) -> Result<Object, D::Error> {
    match kind {
        Kind::Namespace => from.decode::<core::Namespace>(),
        Kind::Node => from.decode::<core::Node>(),
        Kind::ServiceAccount => from.decode::<core::ServiceAccount>(),
        Kind::Pod => from.decode::<core::Pod>(),
        Kind::Service => from.decode::<core::Service>(),
        Kind::EndpointSlice => from.decode::<discovery::EndpointSlice>(),
        Kind::PeerAuthentication => from.decode::<custom::PeerAuthentication>(),
        Kind::AuthorizationPolicy => from.decode::<custom::AuthorizationPolicy>(),
        Kind::ServiceEntry => from.decode::<custom::ServiceEntry>(),
        Kind::WorkloadEntry => from.decode::<custom::WorkloadEntry>(),
        Kind::VirtualService => from.decode::<custom::VirtualService>(),
        Kind::DestinationRule => from.decode::<custom::DestinationRule>(),
        Kind::HTTPRoute => from.decode::<custom::HTTPRoute>(),
        Kind::GRPCRoute => from.decode::<custom::GRPCRoute>(),
        Kind::TLSRoute => from.decode::<custom::TLSRoute>(),
        Kind::TCPRoute => from.decode::<custom::TCPRoute>(),
        Kind::ReferenceGrant => from.decode::<custom::ReferenceGrant>(),
    }
}

struct Json(serde_json::Value);

impl Decode for Json {
    type Error = ConvertError;

    fn decode<T>(self) -> Result<Object, ConvertError>
    where
        T: DeserializeOwned,
        Object: TryFrom<T, Error = ConvertError>,
    {
        let value: T = serde_json::from_value(self.0)
            .map_err(|error| ConvertError::Shape(convert::shorten(&error.to_string())))?;
        Object::try_from(value)
    }
}
