//! Two pods and a node, as network namespaces on one bridge, with their cgroups.

use super::{
    agent::{Current, Dialled, Exclusions, PodListeners},
    app::App,
    sys,
};
use std::{
    fs::{self, File},
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};
use warren_agent::kernel::{BpfKernel, Kernel as _, KernelConfig};
use warren_common::abi::Counter;

/// One pod, its application, and the agent's listeners in it.
pub struct Pod {
    pub app: App,
    pub netns: File,
    pub addresses: Vec<IpAddr>,
    pub exclusions: Exclusions,
    pub listeners: Option<PodListeners>,
}

pub struct Lab {
    // Fields are dropped in this order: processes first, cgroups last.
    pub client: Pod,
    pub server: Pod,
    /// In the node's namespace: the kubelet, and somebody else.
    pub kubelet: App,
    pub stranger: App,
    pub current: Current,
    pub dialled: Dialled,
    pub config: KernelConfig,
    _pins: tempfile::TempDir,
    _cgroups: Cgroups,
}

/// Why the lab can't be built here.
pub fn available() -> Result<(), String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = status.lines().any(|it| it.starts_with("Uid:") && it.split_whitespace().nth(2) == Some("0"));
    if !root {
        return Err("not root".into());
    }
    cgroup2_mount().ok_or("no cgroup2 mount in /proc/mounts")?;
    Command::new("ip").arg("-V").output().map_err(|error| format!("no ip command: {error}"))?;
    Ok(())
}

fn cgroup2_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mount = mounts.lines().find(|it| it.split(' ').nth(2) == Some("cgroup2"))?;
    mount.split(' ').nth(1).map(PathBuf::from)
}

impl Lab {
    pub fn new() -> Self {
        let pins = tempfile::tempdir().unwrap();
        sys::private_bpffs(pins.path().to_str().unwrap());
        let cgroups = Cgroups::new();
        let app = |cgroup: &str, netns: &File| App::start(cgroups.path(cgroup).to_str().unwrap(), netns);

        let node = sys::new_netns();
        let pod = |cgroup: &str, addresses: [&str; 2], exclusions| {
            let netns = sys::new_netns();
            Pod {
                app: app(cgroup, &netns),
                netns,
                addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
                exclusions,
                listeners: None,
            }
        };
        let client_exclusions = Exclusions {
            outbound_ports: vec![9001],
            inbound_ports: vec![],
            cidrs: vec![("10.77.0.254".parse().unwrap(), 32), ("fd77::fe".parse().unwrap(), 128)],
        };
        let server_exclusions = Exclusions { inbound_ports: vec![9002], ..Exclusions::default() };
        let client = pod("pods/client", ["10.77.0.1", "fd77::1"], client_exclusions);
        let server = pod("pods/server", ["10.77.0.2", "fd77::2"], server_exclusions);
        wire(&node, &[&client, &server]);

        let mut lab = Self {
            kubelet: app("kubelet", &node),
            stranger: app("stranger", &node),
            client,
            server,
            current: Current::default(),
            dialled: Dialled::default(),
            config: KernelConfig {
                pods_cgroup: cgroups.path("pods"),
                // Beneath the pods' cgroup, as on Kubernetes.
                agent_cgroup: cgroups.path("pods/agent"),
                kubelet_cgroup: Some(cgroups.path("kubelet")),
                pin_dir: pins.path().join("warren"),
                fail_open: false,
                debug: false,
            },
            _pins: pins,
            _cgroups: cgroups,
        };
        for address in ["0.0.0.0:8080", "[::]:8081", "[fd77::2]:8082", "0.0.0.0:9001", "0.0.0.0:9002"] {
            lab.server.app.listen(address);
        }
        for address in ["10.77.0.254:8080", "[fd77::fe]:8080"] {
            lab.stranger.listen(address);
        }
        lab.start_agent();
        lab
    }

    /// Loads the kernel layer, or takes over what is pinned, and enrols both pods.
    pub fn start_agent(&mut self) {
        let start = Instant::now();
        self.load();
        println!("# load and attach: {:?}", start.elapsed());
        let kernel = self.kernel();
        for pod in [&mut self.client, &mut self.server] {
            let listeners = pod
                .listeners
                .get_or_insert_with(|| PodListeners::open(&pod.netns, &self.current, &self.dialled));
            listeners.enrol(&*kernel, &pod.netns, &pod.addresses, &pod.exclusions).unwrap();
        }
    }

    /// Loads the kernel layer in place of the one before.
    pub fn load(&mut self) {
        let kernel = BpfKernel::load(&self.config).unwrap_or_else(|error| panic!("{error}: {error:?}"));
        *self.current.write().unwrap() = Some(Arc::new(kernel));
    }

    /// What a killed agent leaves: pins, and nobody who listens.
    pub fn kill_agent(&mut self) {
        self.client.listeners = None;
        self.server.listeners = None;
        *self.current.write().unwrap() = None;
    }

    pub fn kernel(&self) -> Arc<BpfKernel> {
        self.current.read().unwrap().clone().unwrap()
    }

    pub fn count(&self, counter: Counter) -> u64 {
        self.kernel().counters().unwrap()[counter as usize]
    }

    /// By how much a counter grows meanwhile.
    pub fn growth<T>(&mut self, counter: Counter, work: impl FnOnce(&mut Self) -> T) -> (u64, T) {
        let before = self.count(counter);
        let result = work(self);
        (self.count(counter) - before, result)
    }
}

/// Connects the pods to the node's bridge.
fn wire(node: &File, pods: &[&Pod]) {
    let ip = |netns: &File, arguments: &str| {
        let status = sys::within(netns, || Command::new("ip").args(arguments.split(' ')).status().unwrap());
        assert!(status.success(), "ip {arguments}");
    };
    let up = |netns: &File, device: &str, addresses: &[String]| {
        ip(netns, "link set lo up");
        for address in addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            ip(netns, &format!("address add {address} dev {device}{nodad}"));
        }
        ip(netns, &format!("link set {device} up"));
    };
    ip(node, "link add br0 type bridge");
    up(node, "br0", &["10.77.0.254/24".into(), "fd77::fe/64".into()]);
    for (index, pod) in pods.iter().enumerate() {
        let peer = format!("link add pod{index} type veth peer name eth0 netns {}", pod.app.pid());
        ip(node, &peer);
        ip(node, &format!("link set pod{index} master br0 up"));
        let prefix = |it: &IpAddr| format!("{it}/{}", if it.is_ipv4() { 24 } else { 64 });
        up(&pod.netns, "eth0", &pod.addresses.iter().map(prefix).collect::<Vec<_>>());
    }
}

/// The lab's cgroups; this process is in one of them while they exist.
struct Cgroups {
    base: PathBuf,
    home: PathBuf,
}

const CGROUPS: &[&str] = &["", "pods", "pods/client", "pods/server", "pods/agent", "kubelet", "stranger"];

impl Cgroups {
    fn new() -> Self {
        let mount = cgroup2_mount().unwrap();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|it| it.strip_prefix("0::/")).unwrap();
        let cgroups = Self {
            base: mount.join(format!("warren-kernel-test-{}", std::process::id())),
            home: mount.join(own),
        };
        for name in CGROUPS {
            fs::create_dir(cgroups.path(name)).unwrap();
        }
        move_into(&cgroups.path("pods/agent"));
        cgroups
    }

    fn path(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        move_into(&self.home);
        let deadline = Instant::now() + Duration::from_secs(5);
        for name in CGROUPS.iter().rev() {
            // A process that was killed leaves its cgroup a little later.
            while fs::remove_dir(self.path(name)).is_err() && Instant::now() < deadline {
                std::thread::yield_now();
            }
        }
    }
}

fn move_into(cgroup: &Path) {
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).unwrap();
}
