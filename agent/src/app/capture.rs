//! The kernel's side: in which cgroups, and what it reports.

use super::{AppError, Config, io};
use crate::cgroup::{self, Hierarchy, KubeletCgroup, KubeletError, Source};
use crate::kernel::{BpfKernel, Kernel, KernelConfig};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use warren_common::runtime::DrainWatch;

/// Capture, ready for pods.
pub(super) struct Capture {
    pub(super) kernel: Arc<dyn Kernel>,
    /// The cgroup above all pods.
    pub(super) pods_cgroup: PathBuf,
    /// Whose connections are probes.
    pub(super) kubelet: watch::Receiver<Result<KubeletCgroup, KubeletError>>,
}

/// Finds the cgroups and loads the kernel programs onto them. Once the drain begins they are left as they are: a
/// successor may have put its own in their place.
pub(super) fn start(config: &Config, mut drain: DrainWatch) -> Result<Capture, AppError> {
    let hierarchy = Hierarchy::open(&config.proc_dir)?;
    let agent_cgroup = hierarchy.own()?;
    let pods_cgroup = match &config.pods_cgroup {
        Some(given) => given.clone(),
        None => hierarchy.pods(&agent_cgroup)?,
    };
    cgroup::not_above(&agent_cgroup, &pods_cgroup)?;
    let source = match &config.kubelet_cgroup {
        Some(given) => Source::Given(given.clone()),
        None => Source::Detected { hierarchy, pods: pods_cgroup.clone(), agent: agent_cgroup.clone() },
    };
    let found = source.look(None);
    tracing::info!(agent = %agent_cgroup.display(), pods = %pods_cgroup.display(), "cgroups");
    match &found {
        Ok(kubelet) => tracing::info!(kubelet = %kubelet.path.display(), "probes from this cgroup pass"),
        Err(reason) => {
            tracing::warn!(%reason, "probes are captured, and STRICT refuses them; name the kubelet's cgroup with --kubelet-cgroup")
        }
    }
    let kernel = Arc::new(BpfKernel::load(&KernelConfig {
        pods_cgroup: pods_cgroup.clone(),
        agent_cgroup,
        kubelet_cgroup: found.as_ref().ok().map(|kubelet| kubelet.path.clone()),
        pin_dir: config.bpf_dir.clone(),
        fail_open: config.fail_open,
        debug: config.kernel_debug,
    })?);
    if config.fail_open {
        tracing::warn!("--fail-open: when this agent is down, enrolled pods talk in plaintext");
    }
    report_events(&kernel)?;
    let (known, kubelet) = watch::channel(found);
    let probes = Arc::clone(&kernel);
    let following = cgroup::follow(source, known, move |path| match probes.follow_kubelet(path) {
        Ok(()) => {
            tracing::info!(kubelet = %path.display(), "the kubelet has moved; probes from this cgroup pass")
        }
        Err(error) => {
            tracing::warn!(kubelet = %path.display(), %error, "cannot tell the kubelet's new probes")
        }
    });
    tokio::spawn(async move {
        tokio::select! {
            () = following => {}
            () = drain.started() => {}
        }
    });
    Ok(Capture { kernel, pods_cgroup, kubelet })
}

/// Logs what the kernel programs report: each kind at most once a second, with how many there were.
fn report_events(kernel: &BpfKernel) -> Result<(), AppError> {
    let Some(mut events) = kernel.events() else { return Ok(()) };
    let report = move || {
        let mut quiet_until: HashMap<u32, (Instant, u64)> = HashMap::new();
        loop {
            let event = match events.next_within(Duration::from_secs(3600)) {
                Ok(Some(event)) => event,
                Ok(None) => continue,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return tracing::error!(%error, "events of the kernel programs are not read any more");
                }
            };
            let now = Instant::now();
            let (until, suppressed) = quiet_until.entry(event.kind).or_insert((now, 0));
            if now < *until {
                *suppressed += 1;
                continue;
            }
            let kind = warren_common::abi::EventKind::from_raw(event.kind);
            let (source, destination) = (SocketAddr::from(event.source), SocketAddr::from(event.destination));
            tracing::warn!(?kind, pid = event.pid, cookie = event.cookie, %source, %destination, suppressed, "kernel event");
            (*until, *suppressed) = (now + Duration::from_secs(1), 0);
        }
    };
    std::thread::Builder::new()
        .name("kernel-events".to_owned())
        .spawn(report)
        .map_err(io("starting the events thread"))?;
    Ok(())
}
