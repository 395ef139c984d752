//! From what the caller says of a pod to what the maps hold.

use super::{KernelError, PodCapture, sys};
use aya::maps::lpm_trie::Key;
use std::{net::IpAddr, os::fd::BorrowedFd};
use warren_common::abi::{CidrKey, InboundConfig, Ip, MAX_EXCLUDED_PORTS, PodConfig, pod_flags};

/// A pod that was found good, in the kernel's words.
pub(super) struct Plan<'a> {
    pub(super) config: PodConfig,
    pub(super) inbound: InboundConfig,
    pub(super) listeners: Vec<(Ip, BorrowedFd<'a>)>,
    pub(super) cidrs: Vec<Key<CidrKey>>,
}

impl<'a> Plan<'a> {
    /// Checks everything that can be checked before the kernel is touched.
    pub(super) fn new(pod: &PodCapture<'a>) -> Result<Self, KernelError> {
        let mut config = PodConfig::default();
        for address in pod.addresses {
            let slot = if address.is_ipv4() { &mut config.ipv4 } else { &mut config.ipv6 };
            if !slot.is_unspecified() || address.is_loopback() || address.is_unspecified() {
                return Err(KernelError::Addresses { found: pod.addresses.to_vec() });
            }
            *slot = (*address).into();
        }
        if pod.addresses.is_empty() {
            return Err(KernelError::Addresses { found: Vec::new() });
        }
        (config.exclude_outbound_ports, config.exclude_outbound_len) = ports(pod.exclude_outbound_ports)?;
        let (exclude_ports, exclude_len) = ports(pod.exclude_inbound_ports)?;
        if !pod.exclude_outbound_cidrs.is_empty() {
            config.flags |= pod_flags::HAS_EXCLUDED_CIDRS;
        }
        let cidrs = pod.exclude_outbound_cidrs.iter().map(|(ip, prefix)| cidr(pod.cookie, *ip, *prefix));
        Ok(Self {
            config,
            inbound: InboundConfig { exclude_len, exclude_ports },
            listeners: listeners(pod)?,
            cidrs: cidrs.collect::<Result<_, _>>()?,
        })
    }
}

/// Each address with the agent's listener for it, which must listen, and in the pod's namespace.
fn listeners<'a>(pod: &PodCapture<'a>) -> Result<Vec<(Ip, BorrowedFd<'a>)>, KernelError> {
    let mut listeners = Vec::new();
    for address in pod.addresses.iter().copied() {
        let listener = if address.is_ipv4() { pod.inbound_v4 } else { pod.inbound_v6 };
        let listener = listener.ok_or(KernelError::NoListener { address })?;
        if !sys::is_listening(listener).map_err(KernelError::Socket)? {
            return Err(KernelError::NoListener { address });
        }
        let found = sys::netns_cookie(listener).map_err(KernelError::Socket)?;
        if found != pod.cookie {
            return Err(KernelError::ListenerElsewhere { address, found, expected: pod.cookie });
        }
        listeners.push((address.into(), listener));
    }
    Ok(listeners)
}

fn ports(list: &[u16]) -> Result<([u16; MAX_EXCLUDED_PORTS], u32), KernelError> {
    let mut ports = [0; MAX_EXCLUDED_PORTS];
    let slots = ports.get_mut(..list.len()).ok_or(KernelError::TooManyPorts { found: list.len() })?;
    slots.copy_from_slice(list);
    Ok((ports, list.len() as u32))
}

/// A key of the map of excluded networks, without the host's bits.
fn cidr(cookie: u64, address: IpAddr, prefix: u8) -> Result<Key<CidrKey>, KernelError> {
    let (width, before) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
    if prefix > width {
        return Err(KernelError::Cidr { address, prefix });
    }
    let bits = before + u32::from(prefix);
    let mut ip = Ip::from(address);
    for (index, word) in ip.words.iter_mut().enumerate() {
        let kept = bits.saturating_sub(32 * index as u32).min(32);
        let mask = u32::MAX.checked_shl(32 - kept).unwrap_or(0);
        *word &= mask.to_be();
    }
    Ok(Key::new(64 + bits, CidrKey { cookie_be: cookie.to_be_bytes(), ip }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str, prefix: u8) -> (u32, IpAddr) {
        let key = cidr(7, address.parse().unwrap(), prefix).unwrap();
        assert_eq!(key.data().cookie_be, 7_u64.to_be_bytes());
        (key.prefix_len(), key.data().ip.into())
    }

    #[test]
    fn networks_lose_their_host_bits() {
        assert_eq!(key("10.1.2.3", 8), (64 + 96 + 8, "10.0.0.0".parse().unwrap()));
        assert_eq!(key("10.1.2.3", 32), (64 + 128, "10.1.2.3".parse().unwrap()));
        assert_eq!(key("10.1.2.3", 0).0, 64 + 96);
        assert_eq!(key("fd00:1:2::3", 33), (64 + 33, "fd00:1::".parse().unwrap()));
        assert_eq!(key("fd00::1", 0), (64, "::".parse().unwrap()));
    }

    #[test]
    fn impossible_prefixes_and_long_lists_are_refused() {
        assert!(matches!(cidr(1, "10.0.0.0".parse().unwrap(), 33), Err(KernelError::Cidr { .. })));
        assert!(matches!(cidr(1, "fd00::".parse().unwrap(), 129), Err(KernelError::Cidr { .. })));
        assert!(matches!(ports(&[1; 17]), Err(KernelError::TooManyPorts { found: 17 })));
        assert_eq!(ports(&[80, 81]).unwrap().1, 2);
    }
}
