//! `istio.workload.Address` to and from workloads and services.

use super::authorization::policy_name;
use super::error::WireError;
use super::extension;
use super::generated::warren::{ServiceExtension, WorkloadExtension};
use super::generated::workload as wire;
use super::{peer_authentication, steering};
use crate::model::{
    AppProtocol, Enrolment, Health, Identity, Placement, PolicyName, PortMapping, Service, ServiceName,
    ServiceOrigin, ServicePort, TunnelProtocol, Workload, WorkloadKind, WorkloadUid,
};
use prost::Message;
use std::net::IpAddr;
use std::sync::Arc;

/// Type URL of [`MeshResource`] on the wire.
pub const ADDRESS_TYPE_URL: &str = "type.googleapis.com/istio.workload.Address";

const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// A resource of the type `istio.workload.Address`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeshResource {
    /// A workload.
    Workload(Box<Workload>),
    /// A service.
    Service(Box<Service>),
}

impl MeshResource {
    /// The resource's name on the wire: a workload's uid, a service's `namespace/hostname`.
    pub fn name(&self) -> String {
        match self {
            Self::Workload(workload) => workload.uid.to_string(),
            Self::Service(service) => service.key.to_string(),
        }
    }
}

/// Encodes a resource as the bytes of its message.
pub fn encode_address(resource: &MeshResource) -> Vec<u8> {
    let kind = match resource {
        MeshResource::Workload(workload) => wire::address::Type::Workload(workload_to_wire(workload)),
        MeshResource::Service(service) => wire::address::Type::Service(service_to_wire(service)),
    };
    wire::Address { r#type: Some(kind) }.encode_to_vec()
}

/// Decodes and checks a resource.
///
/// # Errors
/// When the bytes are no message, or a field that everything hangs on is missing or out of range.
pub fn decode_address(bytes: &[u8]) -> Result<MeshResource, WireError> {
    match wire::Address::decode(bytes)?.r#type.ok_or(WireError::Missing("type"))? {
        wire::address::Type::Workload(workload) => {
            Ok(MeshResource::Workload(Box::new(workload_from_wire(workload)?)))
        }
        wire::address::Type::Service(service) => {
            Ok(MeshResource::Service(Box::new(service_from_wire(service)?)))
        }
    }
}

fn workload_to_wire(workload: &Workload) -> wire::Workload {
    let enrolment = &workload.enrolment;
    let extension = WorkloadExtension {
        labels: workload.labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        pod_uid: enrolment.pod_uid.to_string(),
        enrolled: enrolment.enrolled,
        exclude_outbound_ports: enrolment.exclude_outbound_ports.iter().map(|p| u32::from(*p)).collect(),
        exclude_inbound_ports: enrolment.exclude_inbound_ports.iter().map(|p| u32::from(*p)).collect(),
        exclude_outbound_cidrs: enrolment
            .exclude_outbound_cidrs
            .iter()
            .map(|(ip, len)| format!("{ip}/{len}"))
            .collect(),
        peer_authentication: peer_authentication::to_wire(&workload.peer_authentication),
        hints: workload
            .placement
            .hints
            .iter()
            .map(|(name, hints)| (name.to_string(), steering::hints_to_wire(hints)))
            .collect(),
        terminating: workload.health == Health::Terminating,
    };
    let tunnel = match workload.tunnel {
        TunnelProtocol::None => wire::TunnelProtocol::None,
        TunnelProtocol::Hbone => wire::TunnelProtocol::Hbone,
    };
    let kind = match workload.kind {
        WorkloadKind::Deployment => wire::WorkloadType::Deployment,
        WorkloadKind::CronJob => wire::WorkloadType::Cronjob,
        WorkloadKind::Pod => wire::WorkloadType::Pod,
        WorkloadKind::Job => wire::WorkloadType::Job,
    };
    let status = match workload.health {
        Health::Healthy => wire::WorkloadStatus::Healthy,
        Health::Terminating | Health::Unhealthy => wire::WorkloadStatus::Unhealthy,
    };
    let network_mode =
        if workload.host_network { wire::NetworkMode::HostNetwork } else { wire::NetworkMode::Standard };
    wire::Workload {
        uid: workload.uid.to_string(),
        name: workload.name.to_string(),
        namespace: workload.namespace.to_string(),
        addresses: workload.addresses.iter().map(|ip| ip_to_wire(*ip)).collect(),
        tunnel_protocol: tunnel.into(),
        trust_domain: elide(workload.identity.trust_domain(), DEFAULT_TRUST_DOMAIN),
        service_account: elide(workload.identity.service_account(), DEFAULT_SERVICE_ACCOUNT),
        node: workload.node.to_string(),
        canonical_name: workload.canonical_name.to_string(),
        canonical_revision: workload.canonical_revision.to_string(),
        workload_type: kind.into(),
        workload_name: workload.owner.to_string(),
        authorization_policies: workload.authorization_policies.iter().map(ToString::to_string).collect(),
        status: status.into(),
        cluster_id: workload.cluster.to_string(),
        services: workload
            .services
            .iter()
            .map(|(name, ports)| (name.to_string(), port_list(ports)))
            .collect(),
        network_mode: network_mode.into(),
        network: workload.placement.network.to_string(),
        hostname: workload.placement.hostname.as_deref().unwrap_or_default().to_owned(),
        locality: steering::locality_to_wire(&workload.placement.locality),
        capacity: (workload.placement.weight != 1).then_some(workload.placement.weight),
        extensions: vec![extension::pack(&extension)],
        ..Default::default()
    }
}

fn workload_from_wire(workload: wire::Workload) -> Result<Workload, WireError> {
    let (kind, tunnel, status, mode) =
        (workload.workload_type(), workload.tunnel_protocol(), workload.status(), workload.network_mode());
    let is_ours = extension::is_in::<WorkloadExtension>(&workload.extensions);
    let extension = extension::unpack::<WorkloadExtension>(&workload.extensions)?;
    let identity = Identity::new(
        or_default(&workload.trust_domain, DEFAULT_TRUST_DOMAIN),
        &workload.namespace,
        or_default(&workload.service_account, DEFAULT_SERVICE_ACCOUNT),
    )?;
    let mut services = std::collections::BTreeMap::new();
    for (name, ports) in workload.services {
        let ports: Result<_, _> = ports.ports.iter().map(port_mapping).collect();
        services.insert(service_name(&name)?, ports?);
    }
    Ok(Workload {
        uid: WorkloadUid(required(workload.uid, "uid")?),
        name: workload.name.into(),
        namespace: workload.namespace.into(),
        addresses: workload.addresses.iter().map(|bytes| ip_from_wire(bytes)).collect::<Result<_, _>>()?,
        identity,
        node: workload.node.into(),
        host_network: mode == wire::NetworkMode::HostNetwork,
        tunnel: if tunnel == wire::TunnelProtocol::Hbone {
            TunnelProtocol::Hbone
        } else {
            TunnelProtocol::None
        },
        health: match status {
            wire::WorkloadStatus::Healthy => Health::Healthy,
            wire::WorkloadStatus::Unhealthy if extension.terminating => Health::Terminating,
            wire::WorkloadStatus::Unhealthy => Health::Unhealthy,
        },
        owner: workload.workload_name.into(),
        kind: match kind {
            wire::WorkloadType::Deployment => WorkloadKind::Deployment,
            wire::WorkloadType::Cronjob => WorkloadKind::CronJob,
            wire::WorkloadType::Pod => WorkloadKind::Pod,
            wire::WorkloadType::Job => WorkloadKind::Job,
        },
        canonical_name: workload.canonical_name.into(),
        canonical_revision: workload.canonical_revision.into(),
        cluster: workload.cluster_id.into(),
        services: services.into(),
        labels: Arc::new(extension.labels.into_iter().map(|(k, v)| (k.into(), v.into())).collect()),
        enrolment: Enrolment {
            pod_uid: extension.pod_uid.into(),
            enrolled: extension.enrolled,
            exclude_outbound_ports: ports(&extension.exclude_outbound_ports, "exclude_outbound_ports")?,
            exclude_inbound_ports: ports(&extension.exclude_inbound_ports, "exclude_inbound_ports")?,
            exclude_outbound_cidrs: extension
                .exclude_outbound_cidrs
                .iter()
                .map(|c| cidr(c))
                .collect::<Result<_, _>>()?,
        },
        peer_authentication: peer_authentication::from_wire(extension.peer_authentication)?,
        authorization_policies: policies(&workload.authorization_policies, is_ours)?,
        placement: Placement {
            network: workload.network.into(),
            locality: steering::locality_from_wire(workload.locality),
            hostname: (!workload.hostname.is_empty()).then(|| workload.hostname.into()),
            weight: workload.capacity.unwrap_or(1),
            hints: extension
                .hints
                .into_iter()
                .map(|(name, hints)| Ok((service_name(&name)?, steering::hints_from_wire(hints))))
                .collect::<Result<_, WireError>>()?,
        },
    })
}

/// Our controller says what PeerAuthentications mean in the extension, where it comes with the object's name: the policies
/// that say the same to a ztunnel are not needed then.
fn policies(names: &[String], is_ours: bool) -> Result<Vec<PolicyName>, WireError> {
    let mut policies = names.iter().map(|name| policy_name(name)).collect::<Result<Vec<_>, _>>()?;
    policies.retain(|name| !(is_ours && name.is_converted()));
    Ok(policies)
}

fn service_to_wire(service: &Service) -> wire::Service {
    wire::Service {
        name: service.name.to_string(),
        namespace: service.key.namespace.to_string(),
        hostname: service.key.hostname.to_string(),
        addresses: service
            .addresses
            .iter()
            .map(|ip| wire::NetworkAddress { network: String::new(), address: ip_to_wire(*ip) })
            .collect(),
        ports: service.ports.iter().map(service_port_to_wire).collect(),
        subject_alt_names: service.origin.subject_alt_names.iter().map(ToString::to_string).collect(),
        load_balancing: steering::load_balancing_to_wire(service),
        ip_families: ip_families(&service.addresses).into(),
        extensions: steering::service_extension(service).iter().map(extension::pack).collect(),
        ..Default::default()
    }
}

fn service_from_wire(service: wire::Service) -> Result<Service, WireError> {
    let extension = extension::unpack::<ServiceExtension>(&service.extensions)?;
    let load_balancing = service.load_balancing.unwrap_or_default();
    Ok(Service {
        name: service.name.into(),
        key: ServiceName {
            namespace: required(service.namespace, "namespace")?,
            hostname: required(service.hostname, "hostname")?,
        },
        addresses: service.addresses.iter().map(|a| ip_from_wire(&a.address)).collect::<Result<_, _>>()?,
        ports: service.ports.iter().map(service_port_from_wire).collect::<Result<_, _>>()?,
        publish_not_ready: load_balancing.health_policy() == wire::load_balancing::HealthPolicy::AllowAll,
        steering: steering::steering_from_wire(&load_balancing, &extension),
        origin: ServiceOrigin {
            subject_alt_names: service.subject_alt_names.into_iter().map(Into::into).collect(),
            ..steering::origin_from_wire(extension)
        },
    })
}

fn ip_families(addresses: &[IpAddr]) -> wire::IpFamilies {
    match (addresses.iter().any(IpAddr::is_ipv4), addresses.iter().any(IpAddr::is_ipv6)) {
        (true, true) => wire::IpFamilies::Dual,
        (true, false) => wire::IpFamilies::Ipv4Only,
        (false, true) => wire::IpFamilies::Ipv6Only,
        (false, false) => wire::IpFamilies::Automatic,
    }
}

fn service_port_to_wire(port: &ServicePort) -> wire::Port {
    let app_protocol = match port.app_protocol {
        AppProtocol::Unknown => wire::AppProtocol::Unknown,
        AppProtocol::Http11 => wire::AppProtocol::Http11,
        AppProtocol::Http2 => wire::AppProtocol::Http2,
        AppProtocol::Grpc => wire::AppProtocol::Grpc,
    };
    wire::Port {
        service_port: port.service_port.into(),
        target_port: port.target_port.into(),
        app_protocol: app_protocol.into(),
        target_port_name: port.target_port_name.as_deref().unwrap_or_default().to_owned(),
    }
}

fn service_port_from_wire(port: &wire::Port) -> Result<ServicePort, WireError> {
    Ok(ServicePort {
        service_port: port_number(port.service_port, "ports.service_port")?,
        target_port: port_number(port.target_port, "ports.target_port")?,
        target_port_name: (!port.target_port_name.is_empty()).then(|| port.target_port_name.as_str().into()),
        app_protocol: match port.app_protocol() {
            wire::AppProtocol::Unknown => AppProtocol::Unknown,
            wire::AppProtocol::Http11 => AppProtocol::Http11,
            wire::AppProtocol::Http2 => AppProtocol::Http2,
            wire::AppProtocol::Grpc => AppProtocol::Grpc,
        },
    })
}

fn port_list(ports: &[PortMapping]) -> wire::PortList {
    let port = |mapping: &PortMapping| wire::Port {
        service_port: mapping.service_port.into(),
        target_port: mapping.target_port.into(),
        ..Default::default()
    };
    wire::PortList { ports: ports.iter().map(port).collect() }
}

fn port_mapping(port: &wire::Port) -> Result<PortMapping, WireError> {
    Ok(PortMapping {
        service_port: port_number(port.service_port, "services.service_port")?,
        target_port: port_number(port.target_port, "services.target_port")?,
    })
}

fn service_name(text: &str) -> Result<ServiceName, WireError> {
    let (namespace, hostname) = text
        .split_once('/')
        .filter(|(namespace, hostname)| !namespace.is_empty() && !hostname.is_empty())
        .ok_or_else(|| invalid("services", text, "namespace/hostname"))?;
    Ok(ServiceName { namespace: namespace.into(), hostname: hostname.into() })
}

pub(super) fn ip_to_wire(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn ip_from_wire(bytes: &[u8]) -> Result<IpAddr, WireError> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(v4.into());
    }
    let v6 = <[u8; 16]>::try_from(bytes);
    v6.map(|octets| IpAddr::from(octets).to_canonical())
        .map_err(|_| invalid("addresses", &format!("{} bytes", bytes.len()), "4 or 16 bytes"))
}

fn cidr(text: &str) -> Result<(IpAddr, u8), WireError> {
    let error = || invalid("exclude_outbound_cidrs", text, "address/prefix length");
    let (ip, len) = text.split_once('/').ok_or_else(error)?;
    let ip: IpAddr = ip.parse().map_err(|_| error())?;
    let len: u8 = len.parse().map_err(|_| error())?;
    if len > if ip.is_ipv4() { 32 } else { 128 } {
        return Err(error());
    }
    Ok((ip, len))
}

fn ports(values: &[u32], field: &'static str) -> Result<Vec<u16>, WireError> {
    values.iter().map(|port| port_number(*port, field)).collect()
}

pub(super) fn port_number(value: u32, field: &'static str) -> Result<u16, WireError> {
    u16::try_from(value).map_err(|_| invalid(field, &value.to_string(), "a port"))
}

fn required(value: String, field: &'static str) -> Result<Arc<str>, WireError> {
    if value.is_empty() { Err(WireError::Missing(field)) } else { Ok(value.into()) }
}

fn elide(value: &str, default: &str) -> String {
    if value == default { String::new() } else { value.to_owned() }
}

fn or_default<'a>(value: &'a str, default: &'a str) -> &'a str {
    if value.is_empty() { default } else { value }
}

pub(super) fn invalid(field: &'static str, value: &str, expected: &'static str) -> WireError {
    WireError::Invalid { field, value: value.chars().take(200).collect(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Hints, Locality, Mode, MtlsRule, PeerAuthentication, Scope, Steering};
    use proptest::prelude::*;

    fn workload() -> Workload {
        let name = ServiceName { namespace: "shop".into(), hostname: "web.shop.svc.cluster.local".into() };
        Workload {
            uid: WorkloadUid("Kubernetes//Pod/shop/web-1".into()),
            name: "web-1".into(),
            namespace: "shop".into(),
            addresses: vec!["10.244.1.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            identity: Identity::new("cluster.local", "shop", "web").unwrap(),
            node: "n1".into(),
            host_network: false,
            tunnel: TunnelProtocol::Hbone,
            health: Health::Unhealthy,
            owner: "web".into(),
            kind: WorkloadKind::Deployment,
            canonical_name: "web".into(),
            canonical_revision: "v1".into(),
            cluster: "Kubernetes".into(),
            services: Arc::new([(name, vec![PortMapping { service_port: 80, target_port: 8080 }])].into()),
            labels: Arc::new([("app".into(), "web".into())].into()),
            enrolment: Enrolment {
                pod_uid: "1234".into(),
                enrolled: true,
                exclude_outbound_ports: vec![25],
                exclude_inbound_ports: vec![9100],
                exclude_outbound_cidrs: vec![("10.0.0.0".parse().unwrap(), 8)],
            },
            peer_authentication: PeerAuthentication {
                all: MtlsRule { strict: true, rule: "PeerAuthentication shop/default".into() },
                ports: [(9090, MtlsRule { strict: false, rule: "PeerAuthentication shop/web".into() })]
                    .into(),
            },
            authorization_policies: vec!["shop/deny-all".parse().unwrap(), "root/all".parse().unwrap()],
            placement: Placement {
                network: "n".into(),
                locality: Locality { region: "r".into(), zone: "z".into(), subzone: "s".into() },
                hostname: Some("web-1.web.shop.svc.cluster.local".into()),
                weight: 0,
                hints: [(
                    ServiceName { namespace: "shop".into(), hostname: "db.shop.svc".into() },
                    Hints { zones: vec!["z".into()], nodes: vec!["n1".into()] },
                )]
                .into(),
            },
        }
    }

    #[test]
    fn workload_survives_the_wire() {
        let resource = MeshResource::Workload(Box::new(workload()));
        assert_eq!(decode_address(&encode_address(&resource)).unwrap(), resource);
    }

    #[test]
    fn workload_survives_json() {
        let text = serde_json::to_string(&workload()).unwrap();
        assert_eq!(serde_json::from_str::<Workload>(&text).unwrap(), workload());
    }

    #[test]
    fn service_survives_the_wire() {
        let resource = MeshResource::Service(Box::new(Service {
            name: "web".into(),
            key: ServiceName { namespace: "shop".into(), hostname: "web.shop.svc.cluster.local".into() },
            addresses: vec!["10.96.0.1".parse().unwrap()],
            ports: vec![ServicePort {
                service_port: 80,
                target_port: 0,
                target_port_name: Some("http".into()),
                app_protocol: AppProtocol::Http11,
            }],
            publish_not_ready: true,
            steering: Steering {
                mode: Mode::Failover,
                scopes: vec![
                    Scope::Network,
                    Scope::Region,
                    Scope::Zone,
                    Scope::Subzone,
                    Scope::Node,
                    Scope::Cluster,
                ],
                affinity_s: Some(10_800),
            },
            origin: ServiceOrigin {
                external_name: Some("example.com".into()),
                exported_to: Some(vec!["shop".into()]),
                subject_alt_names: vec!["spiffe://td/ns/a/sa/b".into()],
            },
        }));
        assert_eq!(decode_address(&encode_address(&resource)).unwrap(), resource);
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        let mut message = workload_to_wire(&workload());
        message.addresses[0] = vec![1, 2, 3];
        assert!(matches!(workload_from_wire(message), Err(WireError::Invalid { field: "addresses", .. })));
        let mut message = workload_to_wire(&workload());
        message.namespace = "Not A Namespace".into();
        assert!(matches!(workload_from_wire(message), Err(WireError::Identity(_))));
        let mut message = workload_to_wire(&workload());
        message.uid.clear();
        assert!(matches!(workload_from_wire(message), Err(WireError::Missing("uid"))));
        let mut message = workload_to_wire(&workload());
        message.authorization_policies.push("a policy".into());
        assert!(matches!(workload_from_wire(message), Err(WireError::Invalid { field: "name", .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode_address(&bytes);
        }
    }
}
