//! The words of HBONE: request line and headers. Pure; the bytes come from peers and are not trusted.

use http::{Method, Request, Uri, Version, header::HeaderValue};
use std::net::{IpAddr, SocketAddr};
use warren_common::model::Workload;

/// Why a request of a peer is not one for a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HboneError {
    /// Not CONNECT.
    #[error("the method is {0}, only CONNECT opens a tunnel")]
    Method(String),
    /// The authority is missing or no address.
    #[error("the authority {0:?} is not an IP address and a port")]
    Authority(String),
}

/// The request that opens a tunnel's stream to `destination`.
///
/// `forwarded` (RFC 7239) carries the client's address and port, `baggage` (W3C) what the source is called.
pub fn connect_request(destination: SocketAddr, client: SocketAddr, source: &Workload) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = Version::HTTP_2;
    // An IP address with a port is always a valid authority.
    *request.uri_mut() = Uri::try_from(destination.to_string()).unwrap_or_default();
    let headers = request.headers_mut();
    if let Ok(value) = HeaderValue::try_from(format!("for=\"{client}\"")) {
        headers.insert(http::header::FORWARDED, value);
    }
    if let Ok(value) = HeaderValue::try_from(baggage(source)) {
        headers.insert("baggage", value);
    }
    request
}

/// The address that a CONNECT request asks for.
///
/// # Errors
/// [`HboneError`].
pub fn parse_authority(method: &Method, uri: &Uri) -> Result<SocketAddr, HboneError> {
    if method != Method::CONNECT {
        return Err(HboneError::Method(method.as_str().chars().take(40).collect()));
    }
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let shown = || HboneError::Authority(authority.chars().take(200).collect());
    let address: SocketAddr = authority.parse().map_err(|_| shown())?;
    if address.port() == 0 || address.ip().is_unspecified() {
        return Err(shown());
    }
    Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// The client named by a `forwarded` header: `for="10.1.2.3:4567"`, `for="[fd00::1]:4567"`, or without a port.
/// Several elements: the first. None when there is none that is an address.
pub fn parse_forwarded(value: &str) -> Option<(IpAddr, Option<u16>)> {
    let element = value.split(',').next()?;
    let node = element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    })?;
    let node = node.trim_matches('"');
    if let Ok(address) = node.parse::<SocketAddr>() {
        return Some((address.ip().to_canonical(), Some(address.port())));
    }
    let ip = node.strip_prefix('[').and_then(|v6| v6.strip_suffix(']')).unwrap_or(node);
    ip.parse::<IpAddr>().ok().map(|ip| (ip.to_canonical(), None))
}

/// The source's names as ztunnel writes them into `baggage`.
fn baggage(source: &Workload) -> String {
    use warren_common::model::WorkloadKind;
    let kind = match source.kind {
        WorkloadKind::Deployment => "deployment",
        WorkloadKind::CronJob => "cronjob",
        WorkloadKind::Pod => "pod",
        WorkloadKind::Job => "job",
    };
    format!(
        "k8s.cluster.name={},k8s.namespace.name={},k8s.{kind}.name={},service.name={},service.version={}",
        source.cluster, source.namespace, source.owner, source.canonical_name, source.canonical_revision
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn authorities() {
        let parse = |method, authority: &str| parse_authority(&method, &Uri::try_from(authority).unwrap());
        assert_eq!(parse(Method::CONNECT, "10.1.2.3:80").unwrap().to_string(), "10.1.2.3:80");
        assert_eq!(parse(Method::CONNECT, "[fd00::1]:80").unwrap().to_string(), "[fd00::1]:80");
        assert_eq!(parse(Method::CONNECT, "[::ffff:10.1.2.3]:80").unwrap().to_string(), "10.1.2.3:80");
        assert!(matches!(parse(Method::GET, "10.1.2.3:80"), Err(HboneError::Method(_))));
        for bad in ["web.shop:80", "10.1.2.3", "10.1.2.3:0", "0.0.0.0:80", "10.1.2.3:99999"] {
            let uri = Uri::try_from(bad);
            assert!(uri.is_err() || parse_authority(&Method::CONNECT, &uri.unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn forwarded() {
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        assert_eq!(parse_forwarded("for=\"10.1.2.3:45\""), Some((ip("10.1.2.3"), Some(45))));
        assert_eq!(parse_forwarded("For=10.1.2.3"), Some((ip("10.1.2.3"), None)));
        assert_eq!(
            parse_forwarded("by=x; for=\"[fd00::1]:45\";proto=http, for=1.1.1.1"),
            Some((ip("fd00::1"), Some(45)))
        );
        assert_eq!(parse_forwarded("for=\"[fd00::1]\""), Some((ip("fd00::1"), None)));
        assert_eq!(parse_forwarded("for=unknown"), None);
        assert_eq!(parse_forwarded(""), None);
    }

    proptest! {
        #[test]
        fn any_header_parses_or_not_without_panic(value in ".{0,200}") {
            let _ = parse_forwarded(&value);
        }

        #[test]
        fn what_we_write_we_read(octets: [u8; 4], port in 1u16..) {
            let client = SocketAddr::new(octets.into(), port);
            prop_assert_eq!(parse_forwarded(&format!("for=\"{client}\"")), Some((client.ip(), Some(port))));
        }
    }
}
