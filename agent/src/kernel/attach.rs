//! Programs onto cgroups.

use super::{
    KernelError,
    check::{Cgroup, Cgroups},
    pins::{self, Pins},
};
use aya::{
    Ebpf,
    programs::{CgroupAttachMode, Program, links::FdLink},
};
use std::{os::fd::AsFd as _, path::Path};

/// Name in the object of the program for pods' network namespaces.
pub(super) const STEER: &str = "steer";

/// Programs of the pods' cgroup. The connect hooks come last: what they redirect needs all the others.
const PODS: &[&str] =
    &["sockops_pods", "getpeername4", "getpeername6", "getsockname4", "getsockname6", "connect4", "connect6"];
const AGENT: &str = "sockops_agent";
const KUBELET: &str = "sockops_kubelet";

/// Has the kernel verify every program.
pub(super) fn load_all(object: &mut Ebpf) -> Result<(), KernelError> {
    for name in PODS.iter().copied().chain([AGENT, KUBELET, STEER]) {
        let refused = |source: aya::programs::ProgramError| KernelError::Program {
            program: name,
            source: source.into(),
        };
        match object.program_mut(name) {
            Some(Program::CgroupSockAddr(program)) => program.load().map_err(refused)?,
            Some(Program::SockOps(program)) => program.load().map_err(refused)?,
            Some(Program::SkLookup(program)) => program.load().map_err(refused)?,
            _ => return Err(KernelError::Missing(name)),
        }
    }
    Ok(())
}

/// Puts the programs onto their cgroups: into the links an earlier agent left, where there are some.
pub(super) fn cgroups(object: &mut Ebpf, cgroups: &Cgroups, pins: &Pins) -> Result<(), KernelError> {
    attach(object, AGENT, &cgroups.agent, pins)?;
    if let Some(kubelet) = &cgroups.kubelet {
        attach(object, KUBELET, kubelet, pins)?;
    }
    for name in PODS {
        attach(object, name, &cgroups.pods, pins)?;
    }
    prune(cgroups, pins)?;
    others(object, pins)
}

/// Puts this agent's program onto the cgroups of earlier agents too: a listener that was handed over stays in the
/// cgroup of the agent that opened it, and so do the connections that come in through it, long after that agent has
/// ended and the cgroup's directory is gone.
fn others(object: &mut Ebpf, pins: &Pins) -> Result<(), KernelError> {
    let program = object.program_mut(AGENT).ok_or(KernelError::Missing(AGENT))?;
    let fd = program.fd().map_err(KernelError::attach(AGENT))?;
    for path in pins.cgroup_links()?.iter().filter(|path| is_of(AGENT, path)) {
        pins::update(path, fd.as_fd(), AGENT)?;
    }
    Ok(())
}

/// Puts the kubelet's program onto another cgroup, and takes it off the one before.
pub(super) fn kubelet(object: &mut Ebpf, cgroup: &Cgroup, pins: &Pins) -> Result<(), KernelError> {
    attach(object, KUBELET, cgroup, pins)?;
    let ours = pins.link(KUBELET, cgroup.id);
    for path in pins.cgroup_links()? {
        if path != ours && is_of(KUBELET, &path) {
            pins::remove_link(&path)?;
        }
    }
    Ok(())
}

/// Whether a pinned link is one of this program.
fn is_of(program: &str, path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(program))
}

fn attach(object: &mut Ebpf, name: &'static str, cgroup: &Cgroup, pins: &Pins) -> Result<(), KernelError> {
    let program = object.program_mut(name).ok_or(KernelError::Missing(name))?;
    let fd = program.fd().and_then(|fd| Ok(fd.try_clone()?)).map_err(KernelError::attach(name))?;
    pins::update_or_pin(&pins.link(name, cgroup.id), fd.as_fd(), name, || link(program, name, cgroup))
}

fn link(program: &mut Program, name: &'static str, cgroup: &Cgroup) -> Result<FdLink, KernelError> {
    // `Single` is no flag at all, and links share a cgroup anyway; `AllowMultiple` is refused for links (EINVAL).
    let mode = CgroupAttachMode::Single;
    let failed = KernelError::attach(name);
    let link = match program {
        Program::CgroupSockAddr(program) => (|| {
            let id = program.attach(&cgroup.dir, mode)?;
            Ok(FdLink::try_from(program.take_link(id)?)?)
        })(),
        Program::SockOps(program) => (|| {
            let id = program.attach(&cgroup.dir, mode)?;
            Ok(FdLink::try_from(program.take_link(id)?)?)
        })(),
        _ => return Err(KernelError::Missing(name)),
    };
    link.map_err(|error: super::error::Cause| failed(error))
}

/// Removes links on cgroups that are configured no more. A link on another agent's cgroup stays while that cgroup has
/// a process or a socket: the predecessor may still work there, and listeners that it opened are handed on.
fn prune(cgroups: &Cgroups, pins: &Pins) -> Result<(), KernelError> {
    let mut ours = vec![pins.link(AGENT, cgroups.agent.id)];
    ours.extend(cgroups.kubelet.iter().map(|kubelet| pins.link(KUBELET, kubelet.id)));
    ours.extend(PODS.iter().map(|name| pins.link(name, cgroups.pods.id)));
    for path in pins.cgroup_links()? {
        if !ours.contains(&path) && (!is_of(AGENT, &path) || pins::is_dead(&path)) {
            pins::remove_link(&path)?;
        }
    }
    Ok(())
}
