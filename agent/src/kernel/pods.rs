//! Enrolment of pods. One pod changes at a time; the order of the steps is what keeps connections from slipping by:
//! listeners, then sk_lookup, then the connect hooks; and back in reverse.

use super::{
    KernelError, PodCapture,
    attach::{self, STEER},
    check::Cgroup,
    maps::PodMaps,
    pins::{self, Pins},
    plan::Plan,
};
use aya::{
    Ebpf,
    maps::{MapError, lpm_trie::Key},
    programs::{Program, SkLookup, links::FdLink},
};
use std::{
    collections::HashMap,
    os::fd::{AsFd as _, BorrowedFd},
};
use warren_common::abi::{CidrKey, Ip};

/// The enrolled pods, with everything that enrolling takes.
pub(super) struct Pods {
    object: Ebpf,
    maps: PodMaps,
    pins: Pins,
    /// Addresses of every enrolled pod: two pods may share one while the first is dying.
    addresses: HashMap<u64, Vec<Ip>>,
}

impl Pods {
    /// Takes over the pods that the maps know, and forgets those whose network namespace is gone.
    pub(super) fn new(object: Ebpf, maps: PodMaps, pins: Pins) -> Result<Self, KernelError> {
        let mut pods = Self { object, maps, pins, addresses: HashMap::new() };
        for entry in pods.maps.pods.iter() {
            let (cookie, config) = entry.map_err(KernelError::map("PODS"))?;
            let addresses = [config.ipv4, config.ipv6].into_iter().filter(|ip| !ip.is_unspecified());
            pods.addresses.insert(cookie, addresses.collect());
        }
        for (cookie, path) in pods.pins.pod_links()? {
            if pins::is_dead(&path) {
                pods.release(cookie)?;
            }
        }
        Ok(pods)
    }

    /// Probes come from this cgroup now.
    pub(super) fn follow_kubelet(&mut self, cgroup: &Cgroup) -> Result<(), KernelError> {
        attach::kubelet(&mut self.object, cgroup, &self.pins)
    }

    pub(super) fn cookies(&self) -> Result<Vec<u64>, KernelError> {
        self.maps.pods.keys().collect::<Result<_, _>>().map_err(KernelError::map("PODS"))
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
        self.addresses.insert(cookie, plan.listeners.iter().map(|(ip, _)| *ip).collect());
        for (ip, listener) in &plan.listeners {
            self.maps.inbound.insert(ip, plan.inbound, 0).map_err(KernelError::map("INBOUND"))?;
            self.maps.listeners.insert(ip, *listener, 0).map_err(KernelError::map("LISTENERS"))?;
        }
        self.steer(cookie, pod.netns)?;
        for cidr in &plan.cidrs {
            self.maps.cidrs.insert(cidr, 1, 0).map_err(KernelError::map("CIDRS"))?;
        }
        self.maps.pods.insert(cookie, plan.config, 0).map_err(KernelError::map("PODS"))?;
        self.forget_cidrs(cookie, &plan.cidrs)
    }

    /// Puts sk_lookup onto the pod's namespace, or this agent's program into the link that is there.
    fn steer(&mut self, cookie: u64, netns: BorrowedFd<'_>) -> Result<(), KernelError> {
        let Some(Program::SkLookup(program)) = self.object.program_mut(STEER) else {
            return Err(KernelError::Missing(STEER));
        };
        let fd = program.fd().and_then(|fd| Ok(fd.try_clone()?)).map_err(KernelError::attach(STEER))?;
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
