//! Kubernetes' types to [`crate::objects`]: everything is checked here, once.

use crate::objects::{
    Distribution, Endpoint, EndpointSlice, Map, Name, Namespace, Object, Owner, Phase, Plain, Pod, Service,
    ServicePort, SlicePort, TargetPort,
};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Annotations outside of it are not kept.
const OUR_PREFIX: &str = "warren.dev/";
/// On the API's copy of a static pod: the UID that the kubelet and the container runtime know (`metadata.uid` is the
/// copy's own).
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// Kubernetes' controller for the endpoints of services with a selector.
const SLICES_CONTROLLER: &str = "endpointslice-controller.k8s.io";
const DEFAULT_NAMESPACE: &str = "default";
/// Kubernetes' own default: three hours.
const DEFAULT_AFFINITY_S: u32 = 10_800;

/// Why an object that has the right fields still can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A field that everything hangs on is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// It is not what its kind looks like: an unknown field, a wrong type.
    #[error("{0}")]
    Shape(String),
    /// Two fields that exclude each other, or one without the other that it needs.
    #[error("{0}")]
    Contradiction(&'static str),
    /// A field holds what it must not hold.
    #[error("{field}: {value:?} is not {expected}")]
    Invalid {
        /// Path of the field.
        field: &'static str,
        /// What it holds, shortened.
        value: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// Something is wrong at a place.
    #[error("{path}: {reason}")]
    At {
        /// Path of the field.
        path: String,
        /// What is wrong there.
        reason: String,
    },
    /// One of the rules is wrong.
    #[error("spec.rules[{index}]: {error}")]
    Rule {
        /// Its place, counted from 0.
        index: usize,
        /// What is wrong with it.
        error: Box<ConvertError>,
    },
}

impl ConvertError {
    /// The field that it is about, where it names one.
    pub(super) fn path(&self) -> Option<String> {
        match self {
            Self::Missing(field) | Self::Invalid { field, .. } => Some((*field).to_owned()),
            Self::At { path, .. } => Some(path.clone()),
            Self::Rule { index, error } => {
                Some(format!("spec.rules[{index}].{}", error.path().unwrap_or_default()))
            }
            Self::Shape(_) | Self::Contradiction(_) => None,
        }
    }
}

impl TryFrom<core::Namespace> for Object {
    type Error = ConvertError;

    fn try_from(namespace: core::Namespace) -> Result<Self, ConvertError> {
        let name = cluster_scoped(&namespace.metadata)?.name;
        Ok(Self::Namespace(Namespace { name, labels: shared(namespace.metadata.labels) }))
    }
}

impl TryFrom<core::Node> for Object {
    type Error = ConvertError;

    fn try_from(node: core::Node) -> Result<Self, ConvertError> {
        Ok(Self::Node(Plain { name: cluster_scoped(&node.metadata)?, labels: shared(node.metadata.labels) }))
    }
}

impl TryFrom<core::ServiceAccount> for Object {
    type Error = ConvertError;

    fn try_from(account: core::ServiceAccount) -> Result<Self, ConvertError> {
        Ok(Self::ServiceAccount(Plain {
            name: namespaced(&account.metadata)?,
            labels: shared(account.metadata.labels),
        }))
    }
}

impl TryFrom<core::Pod> for Object {
    type Error = ConvertError;

    fn try_from(pod: core::Pod) -> Result<Self, ConvertError> {
        let name = namespaced(&pod.metadata)?;
        let (spec, status) = (pod.spec.unwrap_or_default(), pod.status.unwrap_or_default());
        let mut texts: Vec<String> = status.pod_ips.unwrap_or_default().into_iter().map(|ip| ip.ip).collect();
        // `status.podIP` alone is what people write by hand.
        texts.extend(status.pod_ip.filter(|ip| !texts.contains(ip)));
        let mut addresses = addresses(texts.iter().filter(|ip| !ip.is_empty()), "status.podIPs")?;
        addresses.sort_by_key(IpAddr::is_ipv6);
        let mut annotations = pod.metadata.annotations.unwrap_or_default();
        let static_uid = annotations.remove(MIRROR_ANNOTATION).filter(|uid| is_static_uid(uid));
        annotations.retain(|key, _| key.starts_with(OUR_PREFIX));
        let conditions = status.conditions.unwrap_or_default();
        Ok(Self::Pod(Pod {
            name,
            uid: static_uid.or(pod.metadata.uid).unwrap_or_default().into(),
            labels: shared(pod.metadata.labels),
            annotations: shared(Some(annotations)),
            owner: owner(pod.metadata.owner_references.unwrap_or_default()),
            node: spec.node_name.unwrap_or_default().into(),
            service_account: non_empty(spec.service_account_name).unwrap_or_else(|| "default".into()),
            hostname: non_empty(spec.hostname).zip(non_empty(spec.subdomain)),
            host_network: spec.host_network.unwrap_or_default(),
            addresses,
            phase: match status.phase.as_deref() {
                Some("Succeeded" | "Failed") => Phase::Ended,
                _ => Phase::Live,
            },
            ready: conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            unheard: is_unheard(&conditions),
            deleting: pod.metadata.deletion_timestamp.is_some(),
        }))
    }
}

impl TryFrom<core::Service> for Object {
    type Error = ConvertError;

    fn try_from(service: core::Service) -> Result<Self, ConvertError> {
        let name = namespaced(&service.metadata)?;
        let spec = service.spec.unwrap_or_default();
        let mut texts = spec.cluster_ips.unwrap_or_default();
        texts.extend(spec.cluster_ip.filter(|ip| !texts.contains(ip)));
        let headless = texts.iter().any(|ip| ip == "None");
        texts.retain(|ip| !ip.is_empty() && ip != "None");
        let ports = spec.ports.unwrap_or_default().into_iter();
        let timeout = spec.session_affinity_config.and_then(|config| config.client_ip?.timeout_seconds);
        let timeout = timeout.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(DEFAULT_AFFINITY_S);
        Ok(Self::Service(Service {
            name,
            external_name: match spec.type_.as_deref() {
                Some("ExternalName") => Some(spec.external_name.unwrap_or_default().into()),
                _ => None,
            },
            headless,
            cluster_ips: addresses(texts.iter(), "spec.clusterIPs")?,
            ports: ports
                .filter(|port| is_tcp(port.protocol.as_deref()))
                .map(service_port)
                .collect::<Result<_, _>>()?,
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
            affinity_s: (spec.session_affinity.as_deref() == Some("ClientIP")).then_some(timeout),
            local_only: spec.internal_traffic_policy.as_deref() == Some("Local"),
            distribution: match spec.traffic_distribution.as_deref() {
                Some("PreferClose" | "PreferSameZone") => Distribution::SameZone,
                Some("PreferSameNode") => Distribution::SameNode,
                _ => Distribution::Any,
            },
        }))
    }
}

impl TryFrom<discovery::EndpointSlice> for Object {
    type Error = ConvertError;

    fn try_from(slice: discovery::EndpointSlice) -> Result<Self, ConvertError> {
        let name = namespaced(&slice.metadata)?;
        let mut labels = slice.metadata.labels.unwrap_or_default();
        let repeats_pods = labels.get(MANAGED_BY_LABEL).is_some_and(|by| by == SLICES_CONTROLLER);
        let service =
            labels.remove(SERVICE_NAME_LABEL).map(|service| Name::new(name.namespace.clone(), service));
        let by_name = slice.address_type == "FQDN";
        let mut ports = Vec::new();
        for slice_port in slice.ports.unwrap_or_default() {
            // A slice port without a number means "all ports" and is not used by Kubernetes itself.
            if let (true, Some(number)) = (is_tcp(slice_port.protocol.as_deref()), slice_port.port) {
                let name = slice_port.name.unwrap_or_default().into();
                ports.push(SlicePort { name, port: port(number, "ports.port")? });
            }
        }
        let endpoints = slice.endpoints.into_iter().filter(|_| !by_name);
        let endpoints = endpoints.map(|entry| endpoint(entry, &name.namespace)).collect::<Result<_, _>>()?;
        Ok(Self::EndpointSlice(EndpointSlice { name, service, repeats_pods, ports, endpoints }))
    }
}

fn endpoint(endpoint: discovery::Endpoint, namespace: &Arc<str>) -> Result<Endpoint, ConvertError> {
    let conditions = endpoint.conditions.unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let pod = endpoint.target_ref.filter(|target| target.kind.as_deref() == Some("Pod")).and_then(|target| {
        let namespace = target.namespace.map_or_else(|| namespace.clone(), Into::into);
        target.name.map(|name| Name::new(namespace, name))
    });
    let hints = endpoint.hints.unwrap_or_default();
    Ok(Endpoint {
        addresses: addresses(endpoint.addresses.iter(), "endpoints.addresses")?,
        pod,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        node: endpoint.node_name.unwrap_or_default().into(),
        zone: endpoint.zone.unwrap_or_default().into(),
        for_zones: hints.for_zones.unwrap_or_default().into_iter().map(|zone| zone.name.into()).collect(),
        for_nodes: hints.for_nodes.unwrap_or_default().into_iter().map(|node| node.name.into()).collect(),
    })
}

fn service_port(entry: core::ServicePort) -> Result<ServicePort, ConvertError> {
    let number = port(entry.port, "spec.ports.port")?;
    let target = match entry.target_port {
        None | Some(IntOrString::Int(0)) => TargetPort::Number(number),
        Some(IntOrString::Int(target)) => TargetPort::Number(port(target, "spec.ports.targetPort")?),
        Some(IntOrString::String(name)) => match name.parse() {
            Ok(target) => TargetPort::Number(target),
            Err(_) => TargetPort::Name(name.into()),
        },
    };
    Ok(ServicePort {
        name: entry.name.unwrap_or_default().into(),
        port: number,
        target,
        app_protocol: non_empty(entry.app_protocol),
    })
}

fn owner(references: Vec<OwnerReference>) -> Option<Owner> {
    let owner = references.into_iter().find(|owner| owner.controller == Some(true))?;
    Some(Owner { kind: owner.kind.into(), name: owner.name.into() })
}

fn cluster_scoped(metadata: &ObjectMeta) -> Result<Name, ConvertError> {
    let name = metadata.name.as_deref().filter(|name| !name.is_empty());
    Ok(Name::new("", name.ok_or(ConvertError::Missing("metadata.name"))?))
}

fn namespaced(metadata: &ObjectMeta) -> Result<Name, ConvertError> {
    let namespace = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    Ok(Name { namespace: namespace.unwrap_or(DEFAULT_NAMESPACE).into(), ..cluster_scoped(metadata)? })
}

pub(super) fn shared(map: Option<BTreeMap<String, String>>) -> Map {
    map.unwrap_or_default().into_iter().map(|(key, value)| (key.into(), value.into())).collect()
}

fn non_empty(text: Option<String>) -> Option<Arc<str>> {
    text.filter(|text| !text.is_empty()).map(Into::into)
}

/// Whether a pod was made unready by Kubernetes' node controller, for want of a sign of life of the node: the condition
/// alone is changed then. A kubelet says why a pod is not ready (`ContainersNotReady`, `ReadinessGatesNotReady`).
fn is_unheard(conditions: &[core::PodCondition]) -> bool {
    let condition = |type_: &str| conditions.iter().find(|condition| condition.type_ == type_);
    condition("ContainersReady").is_some_and(|condition| condition.status == "True")
        && condition("Ready").is_some_and(|ready| {
            ready.status == "False" && ready.reason.as_deref().unwrap_or_default().is_empty()
        })
}

/// The kubelet's UID of a static pod is an MD5 in hexadecimal. Whoever writes another pod's UID (they have dashes) into
/// the annotation does not become that pod.
fn is_static_uid(uid: &str) -> bool {
    uid.len() == 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

fn addresses<'a>(
    texts: impl Iterator<Item = &'a String>,
    field: &'static str,
) -> Result<Vec<IpAddr>, ConvertError> {
    texts.map(|text| text.parse().map_err(|_| invalid(field, text, "an IP address"))).collect()
}

fn port(number: i32, field: &'static str) -> Result<u16, ConvertError> {
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    port.ok_or_else(|| invalid(field, &number.to_string(), "a port number (1 to 65535)"))
}

pub(super) fn invalid(field: &'static str, value: &str, expected: &'static str) -> ConvertError {
    ConvertError::Invalid { field, value: value.chars().take(100).collect(), expected }
}

/// The beginning and the end of a text that quotes what somebody wrote, be it a megabyte.
pub(super) fn shorten(text: &str) -> String {
    const KEEP: usize = 200;
    let length = text.chars().count();
    if length <= 2 * KEEP {
        return text.to_owned();
    }
    let start: String = text.chars().take(KEEP).collect();
    let end: String = text.chars().skip(length - KEEP).collect();
    format!("{start} [...] {end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The UID that a pod with this annotation gets.
    fn uid(mirror: &str) -> Arc<str> {
        let metadata = ObjectMeta {
            name: Some("etcd-n1".to_owned()),
            uid: Some("9d1f35a2-0c43-4a4f-8fd4-6a9a3c7a0c11".to_owned()),
            annotations: Some([(MIRROR_ANNOTATION.to_owned(), mirror.to_owned())].into()),
            ..Default::default()
        };
        match Object::try_from(core::Pod { metadata, ..Default::default() }) {
            Ok(Object::Pod(pod)) => pod.uid,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pod_of_a_silent_node_is_not_one_that_fails() {
        let condition = |type_: &str, status: &str, reason: &str| core::PodCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
            ..Default::default()
        };
        for (containers, ready, reason, expected) in [
            ("True", "False", "", true),
            ("True", "True", "", false),
            ("False", "False", "", false),
            ("False", "False", "ContainersNotReady", false),
            ("True", "False", "ReadinessGatesNotReady", false),
        ] {
            let conditions =
                [condition("ContainersReady", containers, ""), condition("Ready", ready, reason)];
            assert_eq!(is_unheard(&conditions), expected, "{containers} {ready} {reason}");
        }
        assert!(!is_unheard(&[]));
    }

    #[test]
    fn a_static_pod_has_its_kubelets_uid_and_nobody_elses() {
        assert_eq!(&*uid("4b2c0a9d8f1e4a53b6c7d8e9f0a1b2c3"), "4b2c0a9d8f1e4a53b6c7d8e9f0a1b2c3");
        let own = "9d1f35a2-0c43-4a4f-8fd4-6a9a3c7a0c11";
        for other in ["", "4b2c", "7a6b5c4d-0c43-4a4f-8fd4-6a9a3c7a0c11", "../../../kubepods/podx/4b2c0a9d8f"]
        {
            assert_eq!(&*uid(other), own, "{other}");
        }
    }
}
