//! Enrolment of pods. One pod changes at a time; the order of the steps is what keeps connections from slipping by:
//! listeners, then sk_lookup, then the connect hooks; and back in reverse.

use super::{
    KernelError, PodCapture,
    attach::STEER,
    maps::PodMaps,
    pins::{self, Pins},
    sys,
};
use aya::{
    Ebpf,
    maps::{MapError, lpm_trie::Key},
    programs::{Program, SkLookup, links::FdLink},
};
use std::{
    collections::HashMap,
    net::IpAddr,
    os::fd::{AsFd as _, BorrowedFd},
};
use warren_common::abi::{CidrKey, InboundConfig, Ip, MAX_EXCLUDED_PORTS, PodConfig, pod_flags};

/// The enrolled pods, with everything that enrolling takes.
pub(super) struct Pods {
    object: Ebpf,
    maps: PodMaps,
    pins: Pins,
    /// Addresses of every enrolled pod: two pods may share one while the first is dying.
    addresses: HashMap<u64, Vec<Ip>>,
}

/// A pod that was found good, in the kernel's words.
struct Plan<'a> {
    config: PodConfig,
    inbound: InboundConfig,
    listeners: Vec<(Ip, BorrowedFd<'a>)>,
    cidrs: Vec<Key<CidrKey>>,
}

impl Pods {
    /// Takes over the pods that the maps know, and forgets those whose network namespace is gone.
    pub(super) fn new(object: Ebpf, maps: PodMaps, pins: Pins) -> Result<Self, KernelError> {
        let mut pods = Self {
            object,
            maps,
            pins,
            addresses: HashMap::new(),
        };
        for entry in pods.maps.pods.iter() {
            let (cookie, config) = entry.map_err(KernelError::map("PODS"))?;
            let addresses = [config.ipv4, config.ipv6]
                .into_iter()
                .filter(|ip| !ip.is_unspecified());
            pods.addresses.insert(cookie, addresses.collect());
        }
        for (cookie, path) in pods.pins.pod_links()? {
            if pins::is_dead(&path) {
                pods.release(cookie)?;
            }
        }
        Ok(pods)
    }

    pub(super) fn cookies(&self) -> Result<Vec<u64>, KernelError> {
        self.maps
            .pods
            .keys()
            .collect::<Result<_, _>>()
            .map_err(KernelError::map("PODS"))
    }

    pub(super) fn enrol(&mut self, pod: &PodCapture<'_>) -> Result<(), KernelError> {
        let plan = Plan::new(pod)?;
        let before = self.addresses.get(&pod.cookie).cloned();
        let done = self.apply(pod, &plan);
        if done.is_err() && before.is_none() {
            // A pod is captured whole or not at all. The first error is the one to tell.
            let _ = self.release(pod.cookie);
            return done;
        }
        let gone: Vec<Ip> = before
            .into_iter()
            .flatten()
            .filter(|ip| plan.listeners.iter().all(|(kept, _)| kept != ip))
            .collect();
        self.forget_addresses(&gone)?;
        done
    }

    fn apply(&mut self, pod: &PodCapture<'_>, plan: &Plan<'_>) -> Result<(), KernelError> {
        let cookie = pod.cookie;
        self.addresses
            .insert(cookie, plan.listeners.iter().map(|(ip, _)| *ip).collect());
        for (ip, listener) in &plan.listeners {
            self.maps
                .inbound
                .insert(ip, plan.inbound, 0)
                .map_err(KernelError::map("INBOUND"))?;
            self.maps
                .listeners
                .insert(ip, *listener, 0)
                .map_err(KernelError::map("LISTENERS"))?;
        }
        self.steer(cookie, pod.netns)?;
        for cidr in &plan.cidrs {
            self.maps
                .cidrs
                .insert(cidr, 1, 0)
                .map_err(KernelError::map("CIDRS"))?;
        }
        self.maps
            .pods
            .insert(cookie, plan.config, 0)
            .map_err(KernelError::map("PODS"))?;
        self.forget_cidrs(cookie, &plan.cidrs)
    }

    /// Puts sk_lookup onto the pod's namespace, or this agent's program into the link that is there.
    fn steer(&mut self, cookie: u64, netns: BorrowedFd<'_>) -> Result<(), KernelError> {
        let Some(Program::SkLookup(program)) = self.object.program_mut(STEER) else {
            return Err(KernelError::Missing(STEER));
        };
        let fd = program
            .fd()
            .and_then(|fd| Ok(fd.try_clone()?))
            .map_err(KernelError::attach(STEER))?;
        pins::update_or_pin(&self.pins.pod(cookie), fd.as_fd(), STEER, || link(program, netns))
    }

    pub(super) fn release(&mut self, cookie: u64) -> Result<(), KernelError> {
        absent_is_fine(self.maps.pods.remove(&cookie)).map_err(KernelError::map("PODS"))?;
        pins::remove_link(&self.pins.pod(cookie))?;
        let addresses = self.addresses.remove(&cookie).unwrap_or_default();
        self.forget_addresses(&addresses)?;
        self.forget_cidrs(cookie, &[])
    }

    /// Removes listeners and inbound exceptions of addresses that no enrolled pod has.
    fn forget_addresses(&mut self, addresses: &[Ip]) -> Result<(), KernelError> {
        for ip in addresses {
            if self.addresses.values().flatten().any(|used| used == ip) {
                continue;
            }
            absent_is_fine(self.maps.listeners.remove(ip)).map_err(KernelError::map("LISTENERS"))?;
            absent_is_fine(self.maps.inbound.remove(ip)).map_err(KernelError::map("INBOUND"))?;
        }
        Ok(())
    }

    /// Removes a pod's excluded networks but those to keep.
    fn forget_cidrs(&mut self, cookie: u64, keep: &[Key<CidrKey>]) -> Result<(), KernelError> {
        let same =
            |a: &Key<CidrKey>, b: &Key<CidrKey>| a.prefix_len() == b.prefix_len() && a.data() == b.data();
        let mut gone = Vec::new();
        for key in self.maps.cidrs.keys() {
            let key = key.map_err(KernelError::map("CIDRS"))?;
            if key.data().cookie_be == cookie.to_be_bytes() && !keep.iter().any(|kept| same(kept, &key)) {
                gone.push(key);
            }
        }
        for key in gone {
            absent_is_fine(self.maps.cidrs.remove(&key)).map_err(KernelError::map("CIDRS"))?;
        }
        Ok(())
    }
}

fn link(program: &mut SkLookup, netns: BorrowedFd<'_>) -> Result<FdLink, KernelError> {
    let id = program.attach(netns).map_err(KernelError::attach(STEER))?;
    Ok(program.take_link(id).map_err(KernelError::attach(STEER))?.into())
}

fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

impl<'a> Plan<'a> {
    fn new(pod: &PodCapture<'a>) -> Result<Self, KernelError> {
        let mut config = PodConfig::default();
        for address in pod.addresses {
            let slot = if address.is_ipv4() {
                &mut config.ipv4
            } else {
                &mut config.ipv6
            };
            if !slot.is_unspecified() || address.is_loopback() || address.is_unspecified() {
                return Err(KernelError::Addresses {
                    found: pod.addresses.to_vec(),
                });
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
        let cidrs = pod
            .exclude_outbound_cidrs
            .iter()
            .map(|(ip, prefix)| cidr(pod.cookie, *ip, *prefix));
        Ok(Self {
            config,
            inbound: InboundConfig {
                exclude_len,
                exclude_ports,
            },
            listeners: listeners(pod)?,
            cidrs: cidrs.collect::<Result<_, _>>()?,
        })
    }
}

/// Each address with the agent's listener for it, which must listen, and in the pod's namespace.
fn listeners<'a>(pod: &PodCapture<'a>) -> Result<Vec<(Ip, BorrowedFd<'a>)>, KernelError> {
    let mut listeners = Vec::new();
    for address in pod.addresses.iter().copied() {
        let listener = if address.is_ipv4() {
            pod.inbound_v4
        } else {
            pod.inbound_v6
        };
        let listener = listener.ok_or(KernelError::NoListener { address })?;
        if !sys::is_listening(listener).map_err(KernelError::Socket)? {
            return Err(KernelError::NoListener { address });
        }
        let found = sys::netns_cookie(listener).map_err(KernelError::Socket)?;
        if found != pod.cookie {
            return Err(KernelError::ListenerElsewhere {
                address,
                found,
                expected: pod.cookie,
            });
        }
        listeners.push((address.into(), listener));
    }
    Ok(listeners)
}

fn ports(list: &[u16]) -> Result<([u16; MAX_EXCLUDED_PORTS], u32), KernelError> {
    let mut ports = [0; MAX_EXCLUDED_PORTS];
    let slots = ports
        .get_mut(..list.len())
        .ok_or(KernelError::TooManyPorts { found: list.len() })?;
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
    Ok(Key::new(
        64 + bits,
        CidrKey {
            cookie_be: cookie.to_be_bytes(),
            ip,
        },
    ))
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
        assert!(matches!(
            cidr(1, "10.0.0.0".parse().unwrap(), 33),
            Err(KernelError::Cidr { .. })
        ));
        assert!(matches!(
            cidr(1, "fd00::".parse().unwrap(), 129),
            Err(KernelError::Cidr { .. })
        ));
        assert!(matches!(
            ports(&[1; 17]),
            Err(KernelError::TooManyPorts { found: 17 })
        ));
        assert_eq!(ports(&[80, 81]).unwrap().1, 2);
    }
}
