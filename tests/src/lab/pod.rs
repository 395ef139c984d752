//! A pod: a network namespace, a cgroup, and a pause process that holds both.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::builder::PodSpec;
use super::command::{Cmd, Place, Proc};
use super::janitor::Handle;
use super::netns::{self, NetNs};
use super::network::{self, Link};
use super::poll::poll_until;
use super::world::PodRecord;
use super::{Lab, State, cgroup, new_uid, services};

/// Debian's own: the gRPC library is a package of it.
const PYTHON: &str = "/usr/bin/python3";

/// A pod of the lab; cloning clones the handle.
#[derive(Clone, Debug)]
pub struct Pod(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    record: PodRecord,
    place: Place,
    link: Link,
    _pause: Proc,
}

impl Pod {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.record.name
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.0.record.namespace
    }

    /// Its uid.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.0.record.uid
    }

    /// Its node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.0.record.node
    }

    /// Its IPv4 address.
    #[must_use]
    pub fn ip4(&self) -> Ipv4Addr {
        self.0.record.ip4
    }

    /// Its IPv6 address.
    #[must_use]
    pub fn ip6(&self) -> Ipv6Addr {
        self.0.record.ip6
    }

    pub(super) fn link(&self) -> &Link {
        &self.0.link
    }

    /// Its namespace and cgroup.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.0.place
    }

    /// A program in the pod.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Cmd {
        self.0.place.command(program)
    }

    /// The lab's test program in the pod, as in `pod.workload(["connect", "--to", "10.96.0.1:80"]).json()`.
    #[must_use]
    pub fn workload<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Cmd {
        self.0.place.workload(args)
    }

    /// Starts a server of the test program (`["echo", "--port", "8080"]`) and waits until it listens.
    pub fn serve<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<Proc> {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        let mut server = self.command(super::helper_path()).arg("serve").args(args).spawn()?;
        server.wait_for("\"listening\"", Duration::from_secs(10))?;
        Ok(server)
    }

    /// A program in Python, given as its text.
    #[must_use]
    pub fn python(&self, program: &str) -> Cmd {
        self.command(PYTHON).args(["-c", program])
    }

    /// Starts a server in Python, given as its text, and waits until it says that it is ready.
    pub fn serve_python<A: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Proc> {
        let mut server = self.python(program).args(args).spawn()?;
        server.wait_for("ready", Duration::from_secs(20))?;
        Ok(server)
    }

    /// curl, to which names resolve; a later argument stands above the time that it has.
    #[must_use]
    pub fn curl<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Cmd {
        let curl = self.command("curl").resolve_names();
        curl.args(["-sS", "--max-time", "20", "--path-as-is"]).args(args)
    }

    /// The status alone of what [`Self::curl`] is answered.
    pub fn curl_status<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<String> {
        self.curl(["-o", "/dev/null", "-w", "%{http_code}"]).args(args).stdout()
    }
}

impl Lab {
    /// Registers a pod whose namespace exists, makes its cgroup, and starts its pause process.
    pub(super) fn place_pod(&self, state: &mut State, spec: &PodSpec, netns: &NetNs) -> Result<Link> {
        let (record, link) = self.plan_pod(state, spec, netns)?;
        self.start_pod(state, record, &link)?;
        Ok(link)
    }

    /// A pod's record and link; nothing is made yet.
    pub(super) fn plan_pod(&self, state: &State, spec: &PodSpec, netns: &NetNs) -> Result<(PodRecord, Link)> {
        if state.world.pods.contains_key(&spec.name) {
            bail!("two pods are called {}", spec.name);
        }
        let node = match &spec.node {
            Some(name) => self.nodes.iter().find(|node| node.name() == name),
            None => self.nodes.first(),
        };
        let node = node.with_context(|| format!("pod {}: no such node", spec.name))?;
        let used: Vec<_> = state.world.pods.values().map(|pod| pod.ip4).collect();
        let is_free = |number: &u8| !used.contains(&network::pod4(node.member().number, *number));
        let number = match spec.number {
            Some(number) if !is_free(&number) => bail!("pod {}: number {number} is taken", spec.name),
            Some(number) => number,
            None => (2..=250).find(is_free).context("the node is full")?,
        };
        let record = record(spec, node.name(), node.ip4(), node.member().number, number)?;
        let link = Link { node: node.member().clone(), pod: number, netns: netns.clone() };
        Ok((record, link))
    }

    /// Makes a pod's cgroup and starts its pause process.
    pub(super) fn start_pod(&self, state: &mut State, record: PodRecord, link: &Link) -> Result<Pod> {
        let group = self.node(&record.node).pods_cgroup().join(format!("pod{}", record.uid));
        cgroup::create(&group)?;
        let hosts = services::hosts_path(&self.dir, &record.namespace);
        let place = Place::new(&record.name, &link.netns, group, Some(hosts), &self.dir.join("logs"));
        let pause = place.workload(["pause"]).spawn()?;
        state.world.namespaces.entry(record.namespace.clone()).or_default();
        state.world.pods.insert(record.name.clone(), record.clone());
        let name = record.name.clone();
        let pod = Pod(Arc::new(Inner { record, place, link: link.clone(), _pause: pause }));
        state.pods.insert(name, pod.clone());
        Ok(pod)
    }

    /// A new network namespace for a pod, which the janitor knows.
    pub(super) fn pod_netns(&self, name: &str) -> Result<NetNs> {
        let name = format!("w{}-{name}", self.id);
        let janitor = self.janitor.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        janitor.will_remove(&Handle::NetNs(name.clone()))?;
        drop(janitor);
        let made = netns::create(&[name], network::SETTINGS)?;
        made.into_iter().next().context("no namespace was made")
    }

    /// Adds a pod to the running lab, in a cluster's order: its network first, then the API tells of it.
    pub fn add_pod(&self, spec: &PodSpec) -> Result<Pod> {
        let netns = self.pod_netns(&spec.name)?;
        let mut state = self.state();
        let link = self.place_pod(&mut state, spec, &netns)?;
        network::attach(&link)?;
        self.publish(&mut state)?;
        Ok(state.pods[&spec.name].clone())
    }

    /// Deletes a pod: the API forgets it, its processes die, its network goes.
    pub fn delete_pod(&self, name: &str) -> Result<()> {
        let mut state = self.state();
        let pod = state.pods.remove(name).with_context(|| format!("the lab has no pod {name}"))?;
        state.world.pods.remove(name);
        self.publish(&mut state)?;
        drop(state);
        let group = pod.place().cgroup();
        cgroup::kill(group).with_context(|| format!("cannot kill pod {name}"))?;
        poll_until("a pod's processes to end", Duration::from_secs(10), || {
            (!cgroup::is_populated(group)).then_some(())
        })?;
        network::detach(&pod.0.link)?;
        netns::remove(pod.0.link.netns.name())
            .with_context(|| format!("cannot remove the netns of {name}"))?;
        poll_until("a pod's cgroup to go", Duration::from_secs(3), || cgroup::remove(group).ok())
    }
}

fn record(spec: &PodSpec, node: &str, node_ip4: Ipv4Addr, node_number: u8, number: u8) -> Result<PodRecord> {
    Ok(PodRecord {
        name: spec.name.clone(),
        namespace: spec.namespace.clone(),
        uid: new_uid()?,
        node: node.to_owned(),
        service_account: spec.service_account.clone(),
        labels: spec.labels.clone(),
        annotations: spec.annotations.clone(),
        owner: spec.owner.clone(),
        ip4: network::pod4(node_number, number),
        ip6: network::pod6(node_number, number),
        node_ip4,
        ready: spec.ready,
        addressed: true,
        terminating: false,
    })
}
