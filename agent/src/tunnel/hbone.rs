//! The words of HBONE: request line and headers. Pure; the bytes come from peers and are not trusted.

use http::{HeaderMap, Method, Request, Uri, Version, header::HeaderValue};
use std::net::{IpAddr, SocketAddr};
use warren_common::model::Workload;

/// Names the pod that a stream is meant for, by its `metadata.uid`: an address may be another's by now. Agents that do not
/// know it (ztunnel) neither send nor read it.
const POD_UID_HEADER: &str = "x-warren-pod-uid";

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

/// Says that the client could connect to others too: a pod that is about to go then asks it to.
const ALTERNATIVES_HEADER: &str = "x-warren-alternatives";

/// What is asked of the far agent.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The pod's address and port.
    pub destination: SocketAddr,
    /// The pod's `metadata.uid`, empty if it is not known.
    pub pod_uid: &'a str,
    /// The client's address.
    pub client: SocketAddr,
    /// The client.
    pub source: &'a Workload,
    /// Others could be asked instead.
    pub has_alternatives: bool,
}

/// The request that opens a tunnel's stream.
///
/// `forwarded` (RFC 7239) carries the client's address and port, `baggage` (W3C) what the source is called.
pub fn connect_request(wish: &Wish<'_>) -> Request<()> {
    let Wish { destination, pod_uid, client, source, has_alternatives } = *wish;
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
    if let Ok(value) = HeaderValue::try_from(pod_uid)
        && !pod_uid.is_empty()
    {
        headers.insert(POD_UID_HEADER, value);
    }
    if has_alternatives {
        headers.insert(ALTERNATIVES_HEADER, HeaderValue::from_static("yes"));
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

/// Whether the request is meant for another pod than `pod_uid`. Who does not say for whom means whoever has the address.
pub(super) fn is_meant_for_another(headers: &HeaderMap, pod_uid: &str) -> bool {
    headers.get_all(POD_UID_HEADER).iter().any(|meant| meant.as_bytes() != pod_uid.as_bytes())
}

/// Whether whoever asks could ask others too.
pub(super) fn has_alternatives(headers: &HeaderMap) -> bool {
    headers.contains_key(ALTERNATIVES_HEADER)
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

    #[test]
    fn a_stream_is_for_the_pod_that_it_names() {
        let source = crate::pods::testing::pod("client", "u1", &[], true);
        let to: SocketAddr = "10.1.2.3:80".parse().unwrap();
        let wish = |pod_uid, has_alternatives: bool| {
            let wish = Wish { destination: to, pod_uid, client: to, source: &source, has_alternatives };
            connect_request(&wish)
        };
        let named = wish("u2", true);
        assert!(has_alternatives(named.headers()));
        assert!(!has_alternatives(wish("u2", false).headers()));
        assert!(!is_meant_for_another(named.headers(), "u2"));
        assert!(is_meant_for_another(named.headers(), "u3"));
        assert!(is_meant_for_another(named.headers(), ""));
        let unnamed = wish("", false);
        assert!(!is_meant_for_another(unnamed.headers(), "u3"));
        // Two opinions are one too many.
        let mut both = named;
        both.headers_mut().append(POD_UID_HEADER, HeaderValue::from_static("u3"));
        assert!(is_meant_for_another(both.headers(), "u2") && is_meant_for_another(both.headers(), "u3"));
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
