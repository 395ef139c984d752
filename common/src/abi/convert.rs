//! Between the ABI's addresses and the standard library's.

use super::{Endpoint, Ip};
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

impl From<IpAddr> for Ip {
    fn from(ip: IpAddr) -> Self {
        let octets = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(octets.chunks_exact(4)) {
            *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Self { words }
    }
}

impl From<Ip> for IpAddr {
    /// v4-mapped addresses become IPv4.
    fn from(ip: Ip) -> Self {
        let mut octets = [0; 16];
        for (bytes, word) in octets.chunks_exact_mut(4).zip(ip.words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        Self::V6(Ipv6Addr::from(octets)).to_canonical()
    }
}

impl From<SocketAddr> for Endpoint {
    /// The family is the canonical address's: a v4-mapped address counts as `AF_INET`.
    fn from(addr: SocketAddr) -> Self {
        let ip = Ip::from(addr.ip());
        Self { ip, port: u32::from(addr.port()), family: if ip.is_v4() { 2 } else { 10 } }
    }
}

impl From<Endpoint> for SocketAddr {
    fn from(endpoint: Endpoint) -> Self {
        // Ports are 16 bits on the wire; the upper half of the field is always zero.
        Self::new(endpoint.ip.into(), endpoint.port as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn v4_survives_the_round_trip(octets: [u8; 4], port: u16) {
            let addr = SocketAddr::new(IpAddr::from(octets), port);
            prop_assert_eq!(SocketAddr::from(Endpoint::from(addr)), addr);
            prop_assert!(Endpoint::from(addr).ip.is_v4());
            prop_assert_eq!(Ip::from(addr.ip()).is_loopback(), addr.ip().is_loopback());
        }

        #[test]
        fn v6_survives_the_round_trip(octets: [u8; 16], port: u16) {
            let addr = SocketAddr::new(IpAddr::from(octets).to_canonical(), port);
            prop_assert_eq!(SocketAddr::from(Endpoint::from(addr)), addr);
        }
    }

    #[test]
    fn special_addresses_are_told_apart() {
        let ip = |s: &str| Ip::from(s.parse::<IpAddr>().unwrap());
        assert!(
            ip("127.9.9.9").is_loopback() && ip("::1").is_loopback() && ip("::ffff:127.0.0.1").is_loopback()
        );
        assert!(!ip("10.0.0.1").is_loopback() && !ip("::2").is_loopback() && !ip("::").is_loopback());
        assert!(ip("0.0.0.0").is_unspecified() && ip("::").is_unspecified() && !ip("::1").is_unspecified());
    }
}
