//! Services and the protocols of their ports.

use super::ResolveConfig;
use crate::objects::{Distribution, Service, ServicePort, TargetPort};
use warren_common::model::{self, AppProtocol, Mode, Scope, ServiceOrigin, Steering};

/// An ExternalName has no addresses and no endpoints: clients find another name's, and are carried there.
pub(super) fn service(config: &ResolveConfig, service: &Service) -> model::Service {
    model::Service {
        name: service.name.name.clone(),
        key: config.service_name(&service.name),
        addresses: service.cluster_ips.clone(),
        ports: service.ports.iter().map(port).collect(),
        publish_not_ready: service.publish_not_ready,
        steering: steering(service),
        origin: ServiceOrigin { external_name: service.external_name.clone(), ..ServiceOrigin::default() },
    }
}

/// The scopes are those that Istio's ambient mode gives its ztunnels.
fn steering(service: &Service) -> Steering {
    const SAME_ZONE: &[Scope] = &[Scope::Network, Scope::Region, Scope::Zone];
    const SAME_NODE: &[Scope] = &[Scope::Network, Scope::Region, Scope::Zone, Scope::Subzone, Scope::Node];
    let (mode, scopes) = match (service.local_only, service.distribution) {
        (true, _) => (Mode::Strict, &[Scope::Node][..]),
        (false, Distribution::SameZone) => (Mode::Failover, SAME_ZONE),
        (false, Distribution::SameNode) => (Mode::Failover, SAME_NODE),
        (false, Distribution::Any) => (Mode::Any, &[][..]),
    };
    Steering { mode, scopes: scopes.to_vec(), affinity_s: service.affinity_s }
}

fn port(port: &ServicePort) -> model::ServicePort {
    let (target_port, target_port_name) = match &port.target {
        TargetPort::Number(number) => (*number, None),
        TargetPort::Name(name) => (0, Some(name.clone())),
    };
    model::ServicePort {
        service_port: port.port,
        target_port,
        target_port_name,
        app_protocol: app_protocol(port.app_protocol.as_deref(), &port.name),
    }
}

/// `appProtocol` beats the port's name; of either the text before the first `-` counts (Istio's rule).
/// What the wire can't say (TCP, TLS ...) and what is not declared is `Unknown`.
pub(super) fn app_protocol(declared: Option<&str>, name: &str) -> AppProtocol {
    let text = declared.unwrap_or(name).to_ascii_lowercase();
    match text.as_str() {
        "kubernetes.io/h2c" => return AppProtocol::Http2,
        "kubernetes.io/ws" => return AppProtocol::Http11,
        // Browsers speak it over HTTP/1.1.
        text if text == "grpc-web" || text.starts_with("grpc-web-") => return AppProtocol::Http11,
        _ => {}
    }
    match text.split('-').next() {
        Some("http" | "http_proxy") => AppProtocol::Http11,
        Some("http2") => AppProtocol::Http2,
        Some("grpc") => AppProtocol::Grpc,
        _ => AppProtocol::Unknown,
    }
}

/// Whether a route of requests can send to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    /// As far as anybody knows.
    Yes,
    /// In TLS.
    InTls,
    /// It declares another protocol.
    No,
}

/// By what a port declares in `appProtocol`. A word without a prefix that nobody knows may mean anything; names with a prefix
/// are exact, and those that are not known are other protocols.
pub(super) fn carries_requests(declared: &str) -> Carries {
    let text = declared.to_ascii_lowercase();
    if app_protocol(Some(&text), "") != AppProtocol::Unknown {
        return Carries::Yes;
    }
    match text.split('-').next().unwrap_or_default() {
        "https" | "tls" | "kubernetes.io/wss" => Carries::InTls,
        "mongo" | "redis" | "mysql" | "udp" => Carries::No,
        _ if text.contains('/') => Carries::No,
        _ => Carries::Yes,
    }
}

/// Which lists of a VirtualService may count for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    /// `http` alone.
    Http,
    /// `tls` and `tcp`.
    Other,
    /// What is spoken is heard: each may count.
    Heard,
}

/// The family of a port, from what [`app_protocol`] looks at; without a word of those that Istio knows, a few ports speak for
/// themselves.
pub(super) fn family(number: u16, declared: Option<&str>, name: &str) -> Family {
    /// SMTP, DNS, MySQL, MongoDB: the server speaks first, or nobody speaks HTTP.
    const WELL_KNOWN: [u16; 4] = [25, 53, 3306, 27_017];
    if app_protocol(declared, name) != AppProtocol::Unknown {
        return Family::Http;
    }
    let text = declared.unwrap_or(name).to_ascii_lowercase();
    match text.split('-').next().unwrap_or_default() {
        "tcp" | "tls" | "https" | "mongo" | "redis" | "mysql" | "udp" | "kubernetes.io/wss" => Family::Other,
        _ if WELL_KNOWN.contains(&number) => Family::Other,
        _ => Family::Heard,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_pick_the_rules() {
        for (number, declared, name, expected) in [
            (80, None, "http", Family::Http),
            (80, None, "grpc-web-x", Family::Http),
            (80, Some("tcp"), "http", Family::Other),
            (80, None, "tcp-db", Family::Other),
            (443, None, "https", Family::Other),
            (443, None, "TLS", Family::Other),
            (80, Some("kubernetes.io/wss"), "", Family::Other),
            (3306, None, "db", Family::Other),
            (3306, None, "http", Family::Http),
            (80, None, "web", Family::Heard),
            (80, None, "", Family::Heard),
        ] {
            assert_eq!(family(number, declared, name), expected, "{number} {declared:?} {name:?}");
        }
    }

    #[test]
    fn routes_of_requests_need_ports_that_carry_them() {
        for (declared, expected) in [
            ("http", Carries::Yes),
            ("HTTP2", Carries::Yes),
            ("grpc", Carries::Yes),
            ("kubernetes.io/h2c", Carries::Yes),
            ("kubernetes.io/ws", Carries::Yes),
            ("tcp", Carries::Yes),
            ("web", Carries::Yes),
            ("https", Carries::InTls),
            ("tls", Carries::InTls),
            ("kubernetes.io/wss", Carries::InTls),
            ("kubernetes.io/other", Carries::No),
            ("example.com/own", Carries::No),
            ("redis", Carries::No),
        ] {
            assert_eq!(carries_requests(declared), expected, "{declared}");
        }
    }

    #[test]
    fn protocols_follow_istios_rule() {
        for (declared, name, expected) in [
            (None, "http", AppProtocol::Http11),
            (None, "HTTP-web", AppProtocol::Http11),
            (None, "http2-x", AppProtocol::Http2),
            (None, "grpc", AppProtocol::Grpc),
            (None, "grpc-web", AppProtocol::Http11),
            (None, "grpc-api", AppProtocol::Grpc),
            (None, "tcp-db", AppProtocol::Unknown),
            (None, "httpx", AppProtocol::Unknown),
            (None, "", AppProtocol::Unknown),
            (Some("tcp"), "http", AppProtocol::Unknown),
            (Some("kubernetes.io/h2c"), "tcp", AppProtocol::Http2),
            (Some("kubernetes.io/ws"), "", AppProtocol::Http11),
            (Some("kubernetes.io/wss"), "http", AppProtocol::Unknown),
        ] {
            assert_eq!(app_protocol(declared, name), expected, "{declared:?} {name:?}");
        }
    }
}
