//! A cluster on one machine: nodes and pods as network namespaces and cgroups, manifests instead of an API server.
//!
//! ```text
//!   fabric netns:  br0 ---- ctl (192.168.77.250, the controller)
//!                   |  \
//!   node netns:   n1    n2   (192.168.77.N, fd77::N; nftables for service VIPs)
//!                 /|    |\
//!   pod netns:   a b    c d  (10.244.N.x, fd00:10:244:N::x; default route to the node)
//! ```
//!
//! Invariant: nothing of a lab is in the host's network namespace, and everything it makes is told to its janitor
//! before it is made. So labs run side by side, and nothing stays when the owner dies.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

mod builder;
mod cgroup;
mod change;
mod checks;
mod command;
mod daemon;
mod flows;
mod http;
mod janitor;
mod manifests;
mod netns;
mod network;
mod node;
mod pod;
mod poll;
mod rules;
mod sandbox;
mod services;
mod token;
mod world;

pub use builder::{LabBuilder, MESH_LABEL, Mesh, PodSpec, ServiceSpec, cannot_run};
pub use checks::{Check, run_checks};
pub use command::{Cmd, Finished, Place, Proc};
pub use daemon::Daemon;
pub use flows::FlowWatch;
pub use netns::NetNs;
pub use node::Node;
pub use pod::Pod;
pub use poll::poll_until;
pub use rules::{marker, object};
pub use sandbox::{PluginOutcome, Sandbox};
pub use token::Tokens;

use janitor::{Handle, Janitor};
use manifests::Manifests;
use network::{CTL, Member};
use world::{NodeRecord, ServiceRecord, World};

/// The port of the controller.
const CONTROLLER_PORT: u16 = 15012;

/// A running lab; dropping it removes everything.
#[derive(Debug)]
pub struct Lab {
    id: String,
    dir: PathBuf,
    cgroup: PathBuf,
    fabric: Place,
    ctl: Place,
    controller: Daemon,
    nodes: Vec<Node>,
    tokens: Tokens,
    state: Mutex<State>,
    janitor: Mutex<Janitor>,
}

/// What changes while the lab lives.
#[derive(Debug)]
struct State {
    world: World,
    manifests: Manifests,
    pods: BTreeMap<String, Pod>,
}

impl Lab {
    /// Describes a new lab.
    #[must_use]
    pub fn builder() -> LabBuilder {
        LabBuilder::default()
    }

    fn make(plan: &LabBuilder) -> Result<Self> {
        if let Some(reason) = cannot_run() {
            bail!("no lab: {reason}");
        }
        let janitor = Janitor::hire(&helper_path())?;
        let (id, cgroup) = claim_id(&janitor)?;
        let dir = std::env::temp_dir().join(format!("warren-{id}"));
        janitor.will_remove(&Handle::Dir(dir.clone()))?;
        make_dirs(&dir, &plan.nodes)?;
        let bpf = dir.join("bpf");
        janitor.will_remove(&Handle::Mount(bpf.clone()))?;
        crate::sys::mount(Path::new("none"), &bpf, "bpf", 0).context("cannot mount a bpf file system")?;

        let names: Vec<_> = ["fabric", "ctl"]
            .into_iter()
            .chain(plan.nodes.iter().map(String::as_str))
            .chain(plan.pods.iter().map(|pod| pod.name.as_str()))
            .map(|name| format!("w{id}-{name}"))
            .collect();
        for name in &names {
            janitor.will_remove(&Handle::NetNs(name.clone()))?;
        }
        netns::prepare()?;
        let mut made = netns::create(&names, network::SETTINGS)?.into_iter();
        let mut next = || made.next().context("a namespace is missing");
        let (fabric, ctl) = (next()?, next()?);

        let members: Vec<_> = plan
            .nodes
            .iter()
            .zip(1..)
            .map(|(name, number)| Ok(Member { number, name: name.clone(), netns: next()? }))
            .collect::<Result<_>>()?;
        let pod_spaces: Vec<_> = plan.pods.iter().map(|_| next()).collect::<Result<_>>()?;

        let logs = dir.join("logs");
        let place = |label: &str, netns: &NetNs| -> Result<Place> {
            let group = cgroup.join(label);
            cgroup::create(&group)?;
            Ok(Place::new(label, netns, group, None, &logs))
        };
        let (fabric, ctl) = (place("fabric", &fabric)?, place("ctl", &ctl)?);
        let mut world = World::default();
        for (name, labels) in &plan.namespaces {
            world.namespaces.insert(name.clone(), labels.clone());
        }
        let mut nodes = Vec::new();
        for member in &members {
            world.nodes.push(node_record(member)?);
            nodes.push(Node::new(&dir, &cgroup.join(&member.name), member, plan)?);
        }
        let tokens = Tokens::generate()?;
        fs::write(dir.join("jwks.json"), serde_json::to_string_pretty(&tokens.jwks())?)?;
        for node in &world.nodes {
            let token = tokens.sign(&Tokens::agent_claims(&node.name, &node.uid))?;
            fs::write(dir.join("tokens").join(&node.name), token)?;
        }
        let controller = controller(&dir, &ctl, plan);
        let manifests = Manifests::new(dir.join("manifests"));
        let state = Mutex::new(State { world, manifests, pods: BTreeMap::new() });
        let janitor = Mutex::new(janitor);
        let lab = Self { id, dir, cgroup, fabric, ctl, controller, nodes, tokens, state, janitor };
        lab.populate(plan, &members, &pod_spaces)?;
        Ok(lab)
    }

    /// Pods, services, the network, and the manifests that tell of them.
    fn populate(&self, plan: &LabBuilder, nodes: &[Member], spaces: &[NetNs]) -> Result<()> {
        let mut state = self.state();
        for spec in &plan.services {
            change::insert_service(&mut state.world, spec)?;
        }
        let mut links = Vec::new();
        for (spec, netns) in plan.pods.iter().zip(spaces) {
            links.push(self.place_pod(&mut state, spec, netns)?);
        }
        let mut members = nodes.to_vec();
        members.push(Member { number: CTL, name: "ctl".to_owned(), netns: self.ctl.netns().clone() });
        network::build(self.fabric.netns(), &members, nodes, &links)?;
        self.publish(&mut state)
    }

    /// Makes manifests, hosts files and node rules say what the world says.
    fn publish(&self, state: &mut State) -> Result<()> {
        services::write_hosts(&self.dir, &state.world)?;
        services::apply_rules(self.nodes.iter().map(|node| node.place().netns()), &state.world)?;
        state.manifests.sync(&state.world)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the controller and all agents and waits until they are ready.
    pub fn start_mesh(&self) -> Result<()> {
        self.controller.start()?;
        for node in &self.nodes {
            node.agent().spawn()?;
        }
        self.nodes.iter().try_for_each(|node| node.agent().wait_ready(Duration::from_secs(20)))
    }

    /// Starts the controller and waits until it is ready.
    pub fn start_controller(&self) -> Result<()> {
        self.controller.start()
    }

    /// The controller, in the `ctl` namespace on the fabric.
    #[must_use]
    pub fn controller(&self) -> &Daemon {
        &self.controller
    }

    /// A node by name.
    ///
    /// # Panics
    /// When the lab has no such node: the test is wrong.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a name that the test itself chose")]
    pub fn node(&self, name: &str) -> &Node {
        let found = self.nodes.iter().find(|node| node.name() == name);
        found.ok_or_else(|| format!("the lab has no node {name}")).expect("a node of this lab")
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A pod by name.
    ///
    /// # Panics
    /// When the lab has no such pod: the test is wrong.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a name that the test itself chose")]
    pub fn pod(&self, name: &str) -> Pod {
        let found = self.state().pods.get(name).cloned();
        found.ok_or_else(|| format!("the lab has no pod {name}")).expect("a pod of this lab")
    }

    /// A service's addresses; `name` or `namespace/name`.
    pub fn vip(&self, service: &str) -> Result<(Ipv4Addr, Ipv6Addr)> {
        self.service(service).map(|record| (record.ip4, record.ip6))
    }

    fn service(&self, name: &str) -> Result<ServiceRecord> {
        let state = self.state();
        let key = state.world.service_key(name)?;
        Ok(state.world.services[&key].clone())
    }

    /// Where all traffic between nodes passes: `lab.fabric().command("tcpdump").args(["-i", "br0"])`.
    #[must_use]
    pub fn fabric(&self) -> &Place {
        &self.fabric
    }

    /// The controller's place.
    #[must_use]
    pub fn ctl(&self) -> &Place {
        &self.ctl
    }

    /// One of the commands that ask the controller: `lab.warren_ca(["status"])`.
    #[must_use]
    pub fn warren_ca<A: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Cmd {
        let command = self.ctl.command(warren_path()).arg("ca").args(args);
        command.env("WARREN_CONTROLLER_SOCKET", controller_socket(&self.dir))
    }

    /// Asks the controller's admin socket, as in `lab.controller_admin("/v1/routes")`.
    pub fn controller_admin(&self, path: &str) -> Result<serde_json::Value> {
        http::get_json(&controller_socket(&self.dir), path)
    }

    /// The signer of the agents' tokens.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The lab's directory: manifests, logs, tokens, the CA.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The short name that makes this lab's namespaces and cgroups unique.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The cgroup that contains all of the lab's processes.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Removes everything now, whatever still runs in it: for an owner that must end at once.
    pub fn remove_now(&self) -> Result<()> {
        // A program without a log does not start: from here on only what starts at this moment does, and the janitor
        // ends that too. An error means that the lab is gone already.
        let _ = fs::rename(self.dir.join("logs"), self.dir.join("logs-of-the-removed"));
        self.janitor.lock().unwrap_or_else(PoisonError::into_inner).finish()
    }

    /// The ends of the daemons' logs, for a failed test.
    #[must_use]
    pub fn log_tails(&self) -> String {
        let agents = self.nodes.iter().map(Node::agent);
        let daemons = std::iter::once(&self.controller).chain(agents);
        let tail =
            |daemon: &Daemon| format!("--- {}\n{}\n", daemon.log_path().display(), daemon.log_tail(40));
        daemons.filter(|daemon| daemon.log_path().exists()).map(tail).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprint!("{}", self.log_tails());
        }
        // Their children first, so that the janitor finds no zombies of ours.
        self.controller.kill();
        self.nodes.iter().for_each(|node| node.agent().kill());
        self.state().pods.clear();
        let mut janitor = self.janitor.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = janitor.finish() {
            eprintln!("lab w{}: {error:#}", self.id);
        }
    }
}

/// An id that no living lab has: its cgroup is the proof, since making a directory is atomic.
fn claim_id(janitor: &Janitor) -> Result<(String, PathBuf)> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let root = cgroup::root()?;
    for _ in 0..1000 {
        let id = format!("{}{}", base36(std::process::id()), base36(COUNTER.fetch_add(1, Ordering::Relaxed)));
        let path = root.join(format!("warren-{id}"));
        match fs::create_dir(&path) {
            Ok(()) => {
                janitor.will_remove(&Handle::Cgroup(path.clone()))?;
                return Ok((id, path));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("cannot make {}", path.display())),
        }
    }
    bail!("too many labs of earlier processes are left in {}", root.display())
}

fn base36(mut number: u32) -> String {
    let mut digits = Vec::new();
    loop {
        digits.extend(char::from_digit(number % 36, 36));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

fn make_dirs(dir: &Path, nodes: &[String]) -> Result<()> {
    let fixed = ["manifests", "hosts", "logs", "ca", "tokens", "bpf"].map(str::to_owned);
    for name in fixed.into_iter().chain(nodes.iter().map(|node| format!("nodes/{node}/state"))) {
        let path = dir.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    Ok(())
}

fn node_record(member: &Member) -> Result<NodeRecord> {
    Ok(NodeRecord {
        name: member.name.clone(),
        uid: new_uid()?,
        ip4: network::fabric4(member.number),
        ip6: network::fabric6(member.number),
        number: member.number,
    })
}

fn new_uid() -> Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/uuid").context("no random uuid")?;
    Ok(text.trim().to_owned())
}

fn controller(dir: &Path, ctl: &Place, plan: &LabBuilder) -> Daemon {
    let in_dir = |name: &str| dir.join(name).display().to_string();
    let (manifests, ca, jwks) = (in_dir("manifests"), in_dir("ca"), in_dir("jwks.json"));
    let listen = format!("0.0.0.0:{CONTROLLER_PORT}");
    let admin = controller_socket(dir).display().to_string();
    let fixed = [
        ["--manifests", &manifests],
        ["--listen", &listen],
        ["--ca-dir", &ca],
        ["--jwks", &jwks],
        ["--trust-domain", &plan.trust_domain],
        ["--admin-socket", &admin],
    ];
    let mut args = vec!["controller".to_owned()];
    args.extend(fixed.iter().flatten().map(|arg| (*arg).to_owned()));
    args.extend(plan.controller_args.iter().cloned());
    let root = root_certificate(dir);
    let netns = ctl.netns().clone();
    let address = SocketAddr::from((network::fabric4(CTL), CONTROLLER_PORT));
    let socket = controller_socket(dir);
    let ready = move || {
        root.exists()
            && netns.enter(|| TcpStream::connect(address).is_ok()).unwrap_or(false)
            && UnixStream::connect(&socket).is_ok()
    };
    Daemon::new(ctl.clone(), args, dir.join("logs/controller.log"), Box::new(ready))
}

/// The controller's admin socket.
fn controller_socket(dir: &Path) -> PathBuf {
    dir.join("controller.sock")
}

/// Where the controller puts the root certificate that agents trust.
fn root_certificate(dir: &Path) -> PathBuf {
    dir.join("ca/root-cert.pem")
}

/// The helper program `warren-workload`, built beside whatever runs now.
pub(crate) fn helper_path() -> PathBuf {
    beside_us("warren-workload")
}

/// The binary under test.
pub(crate) fn warren_path() -> PathBuf {
    std::env::var_os("WARREN_BIN").map_or_else(|| beside_us("warren"), PathBuf::from)
}

/// A program in the directory where cargo puts binaries; tests run one level deeper, in `deps`.
fn beside_us(name: &str) -> PathBuf {
    let us = std::env::current_exe().unwrap_or_default();
    let dir = us.parent().unwrap_or(Path::new("."));
    let dir = if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir };
    dir.join(name)
}

/// The janitor process of a lab; false when something could not be removed.
pub(crate) fn janitor_process() -> bool {
    janitor::work()
}

/// Makes a lab, prints its id, and keeps it until stdin closes: the owner that the self-test kills.
pub(crate) fn hold() -> Result<()> {
    let lab = Lab::builder().nodes(["n1"]).pod("a", |pod| pod).up()?;
    let mut out = io::stdout();
    io::Write::write_all(&mut out, format!("{}\n", lab.id()).as_bytes())?;
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    Ok(())
}
