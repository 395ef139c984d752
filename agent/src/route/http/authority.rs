//! The host of a request, and what becomes of it.

use warren_common::model::Authority;

/// Host and port of what was parsed before; what can't be a port belongs to the host.
pub(super) fn split_port(authority: &str) -> (&str, Option<u16>) {
    Authority::parse(authority).map_or((authority, None), |authority| (authority.host, authority.port))
}

/// The host of a mirrored request: `example.com-shadow:8080` of `example.com:8080`, as Envoy writes it.
pub fn shadow(authority: &str) -> String {
    match split_port(authority) {
        (host, Some(port)) => format!("{host}-shadow:{port}"),
        (host, None) => format!("{host}-shadow"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// Whatever is taken here is taken by those who read it after us, as the same host and port.
        #[test]
        fn other_readers_agree(text in "[a.:@/%0-9~!$&'()*+,;= \\[\\]-]{0,12}") {
            if let Ok(authority) = Authority::parse(&text) {
                let other = http::uri::Authority::try_from(&*text).unwrap();
                proptest::prop_assert_eq!((other.host(), other.port_u16()), (authority.host, authority.port));
                proptest::prop_assert_eq!(split_port(&text), (authority.host, authority.port));
            }
        }
    }

    #[test]
    fn shadows() {
        assert_eq!(shadow("web"), "web-shadow");
        assert_eq!(shadow("web:80"), "web-shadow:80");
        assert_eq!(shadow("[::1]:80"), "[::1]-shadow:80");
    }
}
