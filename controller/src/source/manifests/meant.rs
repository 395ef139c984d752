//! What somebody may have meant who names a kind that there is not. Pure.

use super::super::kinds::{BUILT_IN_KINDS, CUSTOM_KINDS, ServedKind};
use warren_common::model::distance;

/// Kinds that exist and are not read: no mistakes.
const OTHERS: [&str; 18] = [
    "BackendTLSPolicy",
    "EnvoyFilter",
    "Gateway",
    "GatewayClass",
    "ListenerSet",
    "ProxyConfig",
    "RequestAuthentication",
    "Sidecar",
    "Telemetry",
    "TrafficExtension",
    "UDPRoute",
    "WasmPlugin",
    "WorkloadGroup",
    "XBackend",
    "XBackendTrafficPolicy",
    "XListenerSet",
    "XMesh",
    "IstioOperator",
];

/// The kind that is meant by an `apiVersion` and a `kind` that name none that is read; none where they may well name another.
pub(super) fn meant(version: &str, kind: &str) -> Option<&'static ServedKind> {
    if OTHERS.contains(&kind) {
        return None;
    }
    let group = version.rsplit_once('/').map_or(version, |(group, _)| group);
    let is_core = version == "v1";
    let custom = CUSTOM_KINDS.iter().filter(|served| {
        let far = distance(&served.kind.as_str().to_ascii_lowercase(), &kind.to_ascii_lowercase());
        match far {
            // Other meshes and proxies have kinds of these names too.
            0 => is_core || is_like(group, served.group),
            // Here every kind is known.
            far => far <= 2 && group == served.group,
        }
    });
    let built_in = BUILT_IN_KINDS.iter().filter(|served| {
        let own = if is_core { served.group.is_empty() } else { group == served.group };
        own && served.kind.as_str().eq_ignore_ascii_case(kind)
    });
    custom.chain(built_in).next()
}

/// Whether a group looks as if this one was meant.
fn is_like(group: &str, served: &str) -> bool {
    group == served
        || group.contains("istio")
        || served.starts_with(group)
        || served.ends_with(&format!(".{group}"))
        || distance(group, served) <= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told_from_other_kinds() {
        for (version, kind, expected) in [
            ("networking.istio/v1", "VirtualService", Some("VirtualService")),
            ("networking.istio.io", "VirtualService", Some("VirtualService")),
            ("networking.istio.io/v2", "VirtualService", Some("VirtualService")),
            ("security.istio.io/v1", "VirtualService", Some("VirtualService")),
            ("v1", "VirtualService", Some("VirtualService")),
            ("networking.istio.io/v1", "Virtualservice", Some("VirtualService")),
            ("networking.istio.io/v1", "VirtualServices", Some("VirtualService")),
            ("networking.istio.io/v1", "DestinatonRule", Some("DestinationRule")),
            ("gateway.networking.k8s.io/v1", "HttpRoute", Some("HTTPRoute")),
            ("networking.k8s.io/v1", "HTTPRoute", Some("HTTPRoute")),
            ("v1", "service", Some("Service")),
            ("discovery.k8s.io/v1", "Endpointslice", Some("EndpointSlice")),
            // These are others'.
            ("appmesh.k8s.aws/v1beta2", "VirtualService", None),
            ("policy.linkerd.io/v1alpha1", "AuthorizationPolicy", None),
            ("policy.linkerd.io/v1beta3", "HTTPRoute", None),
            ("serving.knative.dev/v1", "Service", None),
            ("networking.istio.io/v1", "Gateway", None),
            ("gateway.networking.k8s.io/v1", "UDPRoute", None),
            ("networking.istio.io/v1", "Brandnew", None),
            ("v1", "ConfigMap", None),
            ("apps/v1", "Deployment", None),
            ("", "", None),
        ] {
            assert_eq!(meant(version, kind).map(|served| served.kind.as_str()), expected, "{version} {kind}");
        }
    }
}
