//! A node: its own network namespace, its agent, its kubelet's cgroup.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::builder::LabBuilder;
use super::command::{Cmd, Place};
use super::daemon::{Daemon, Readiness};
use super::network::{CTL, Member, fabric4, fabric6};
use super::{CONTROLLER_PORT, cgroup, http, root_certificate};

const METRICS_PORT: u16 = 15020;
const READY_PORT: u16 = 15021;

/// A node of the lab.
#[derive(Debug)]
pub struct Node {
    member: Member,
    pods_cgroup: PathBuf,
    system: Place,
    kubelet: Place,
    agent: Daemon,
    admin: PathBuf,
}

impl Node {
    pub(crate) fn new(dir: &Path, group: &Path, member: &Member, plan: &LabBuilder) -> Result<Self> {
        let name = &member.name;
        let logs = dir.join("logs");
        let place = |kind: &str| -> Result<Place> {
            let group = group.join(kind);
            cgroup::create(&group)?;
            Ok(Place::new(&format!("{name}-{kind}"), &member.netns, group, None, &logs))
        };
        let (system, kubelet, agent) = (place("system")?, place("kubelet")?, place("agent")?);
        let pods_cgroup = group.join("pods");
        cgroup::create(&pods_cgroup)?;
        let admin = dir.join("nodes").join(name).join("admin.sock");
        let args = agent_args(dir, member, plan, &pods_cgroup, kubelet.cgroup(), &admin);
        let agent = Daemon::new(agent, args, logs.join(format!("agent-{name}.log")), readiness(member));
        Ok(Self { member: member.clone(), pods_cgroup, system, kubelet, agent, admin })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.member.name
    }

    /// Its address on the fabric.
    #[must_use]
    pub fn ip4(&self) -> Ipv4Addr {
        fabric4(self.member.number)
    }

    /// Its IPv6 address on the fabric.
    #[must_use]
    pub fn ip6(&self) -> Ipv6Addr {
        fabric6(self.member.number)
    }

    pub(crate) fn member(&self) -> &Member {
        &self.member
    }

    pub(crate) fn pods_cgroup(&self) -> &Path {
        &self.pods_cgroup
    }

    /// Where the node's own programs run.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.system
    }

    /// A program on the node itself, outside every pod.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Cmd {
        self.system.command(program)
    }

    /// A program that the kernel takes for the kubelet, such as a probe.
    #[must_use]
    pub fn kubelet_command(&self, program: impl AsRef<OsStr>) -> Cmd {
        self.kubelet.command(program)
    }

    /// The lab's test program, run as the kubelet.
    #[must_use]
    pub fn kubelet_workload<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Cmd {
        self.kubelet.workload(args)
    }

    /// The node's agent.
    #[must_use]
    pub fn agent(&self) -> &Daemon {
        &self.agent
    }

    /// One more agent for this node, in a cgroup of its own as each container is: a successor of the one that runs.
    /// It has the first one's arguments, but for those given here.
    pub fn another_agent(&self, name: &str, changes: &[(&str, &str)]) -> Result<Daemon> {
        let log = self.agent.log_path().with_file_name(format!("agent-{}-{name}.log", self.name()));
        let group = self.agent.cgroup().with_file_name(format!("agent-{name}"));
        cgroup::create(&group)?;
        let label = format!("{}-agent-{name}", self.name());
        let logs = log.parent().unwrap_or(Path::new("/")).to_owned();
        let place = Place::new(&label, &self.member.netns, group, None, &logs);
        Ok(self.agent.twin(place, log, changes, readiness(&self.member)))
    }

    /// Starts the agent and waits until it is ready.
    pub fn start_agent(&self) -> Result<()> {
        self.agent.start()
    }

    /// Asks the agent's admin socket, as in `node.admin("/v1/flows")`.
    pub fn admin(&self, path: &str) -> Result<Value> {
        http::get_json(&self.admin, path)
    }

    /// The admin socket, for `warren flows --admin-socket ...`.
    #[must_use]
    pub fn admin_socket(&self) -> &Path {
        &self.admin
    }

    /// One of the debug commands, asked of this node's agent: `node.warren(["flows", "-o", "json"])`.
    #[must_use]
    pub fn warren<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Cmd {
        self.command(super::warren_path()).args(args).env("WARREN_ADMIN_SOCKET", &self.admin)
    }

    /// What the kernel programs of this node have counted, by name.
    pub fn kernel_counters(&self) -> Result<BTreeMap<String, u64>> {
        let status = self.admin("/v1/status")?;
        serde_json::from_value(status["kernel"].clone()).context("no kernel counters in the status")
    }

    /// Whether the agent says that it is ready, and what it says.
    pub fn readiness(&self) -> Result<(u16, String)> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, READY_PORT));
        http::get(&self.member.netns, address, "/healthz/ready")
    }

    /// The agent's metrics in Prometheus text form.
    pub fn metrics(&self) -> Result<String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, METRICS_PORT));
        let (status, body) = http::get(&self.member.netns, address, "/metrics")?;
        if status != 200 {
            bail!("metrics of {}: {status} {body}", self.name());
        }
        Ok(body)
    }

    /// The sum of a metric's series whose labels contain all of `labels` (as in `reporter="source"`).
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        Ok(sum_of(&self.metrics()?, name, labels))
    }
}

/// Whether the agent of a node says that it is ready.
fn readiness(member: &Member) -> Readiness {
    let netns = member.netns.clone();
    Box::new(move || {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, READY_PORT));
        http::get(&netns, address, "/healthz/ready").is_ok_and(|(status, _)| status == 200)
    })
}

fn sum_of(text: &str, name: &str, labels: &[&str]) -> f64 {
    let series = text.lines().filter(|line| {
        let rest = line.strip_prefix(name).unwrap_or("#");
        rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label))
    });
    series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

fn agent_args(
    dir: &Path,
    member: &Member,
    plan: &LabBuilder,
    pods: &Path,
    kubelet: &Path,
    admin: &Path,
) -> Vec<String> {
    let name = &member.name;
    let text = |path: PathBuf| path.display().to_string();
    let controller = format!("https://{}:{CONTROLLER_PORT}", fabric4(CTL));
    let pairs = [
        ("--node", name.clone()),
        ("--controller", controller),
        ("--controller-ca", text(root_certificate(dir))),
        ("--token", text(dir.join("tokens").join(name))),
        ("--pods-cgroup", text(pods.to_path_buf())),
        ("--kubelet-cgroup", text(kubelet.to_path_buf())),
        ("--bpf-dir", text(dir.join("bpf").join(name))),
        ("--state-dir", text(dir.join("nodes").join(name).join("state"))),
        ("--admin-socket", text(admin.to_path_buf())),
        ("--handover-socket", text(admin.with_file_name("handover.sock"))),
        ("--trust-domain", plan.trust_domain.clone()),
    ];
    let mut args = vec!["agent".to_owned()];
    args.extend(pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
    args.extend(plan.agent_args.iter().cloned());
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_label() {
        let text =
            "# HELP a_total x\na_total{r=\"s\",c=\"1\"} 2\na_total{r=\"d\"} 3\na_total_more{r=\"s\"} 9\n";
        assert!((sum_of(text, "a_total", &["r=\"s\""]) - 2.0).abs() < f64::EPSILON);
        assert!((sum_of(text, "a_total", &[]) - 5.0).abs() < f64::EPSILON);
    }
}
