//! Links, addresses and routes: a bridge between the nodes, point-to-point links to the pods.
//!
//! Everything is in the lab's own namespaces. Neighbours of pod links are permanent, so that nothing has to be
//! resolved: the node's end of every pod link has one MAC (as Calico does), the pod's end has one made from its
//! address.

use std::fmt::Write as _;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::netns::NetNs;
use crate::sys::{self, Setting};

/// Settings of every namespace, as files below /proc/sys/net.
pub(crate) const SETTINGS: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/ping_group_range", "0 2147483647"),
    // Suites open tens of thousands of connections from one pod.
    ("ipv4/ip_local_port_range", "10240 65535"),
    // Which reaches down to warren's ports: a client that got one would keep its pod from being enrolled again.
    ("ipv4/ip_local_reserved_ports", "15001,15006,15008,15020,15021,15053"),
    ("ipv4/tcp_tw_reuse", "1"),
    ("netfilter/nf_conntrack_tcp_timeout_time_wait", "5"),
];

/// The controller's host number on the fabric.
pub(crate) const CTL: u8 = 250;
const NODE_MAC: &str = "ee:ee:ee:ee:ee:ee";

/// The node's (or the controller's) address on the fabric.
pub(crate) fn fabric4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 77, host)
}

/// The node's (or the controller's) IPv6 address on the fabric.
pub(crate) fn fabric6(host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, host.into())
}

/// The address of pod number `pod` on node number `node`.
pub(crate) fn pod4(node: u8, pod: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, node, pod)
}

/// The IPv6 address of pod number `pod` on node number `node`.
pub(crate) fn pod6(node: u8, pod: u8) -> Ipv6Addr {
    // Decimal digits read as hexadecimal, so that fd00:10:244:<node>::<pod> looks like its IPv4 twin.
    let digits = |number: u8| u16::from_str_radix(&number.to_string(), 16).unwrap_or_default();
    Ipv6Addr::new(0xfd00, 0x10, 0x244, digits(node), 0, 0, 0, digits(pod))
}

/// The address of service number `service`.
pub(crate) fn vip4(service: u16) -> Ipv4Addr {
    let [high, low] = service.to_be_bytes();
    Ipv4Addr::new(10, 96, high, low)
}

/// The IPv6 address of service number `service`.
pub(crate) fn vip6(service: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, service)
}

/// A member of the fabric: a node or the controller.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) number: u8,
    pub(crate) name: String,
    pub(crate) netns: NetNs,
}

/// A pod's place: numbers that make its addresses, names that make its link.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) node: Member,
    pub(crate) pod: u8,
    pub(crate) netns: NetNs,
}

impl Link {
    /// The node's end of the link.
    pub(crate) fn device(&self) -> String {
        format!("pod{}", self.pod)
    }

    fn mac(&self) -> String {
        format!("02:00:0a:f4:{:02x}:{:02x}", self.node.number, self.pod)
    }

    fn creation(&self) -> String {
        let (device, mac) = (self.device(), self.mac());
        let (node, pod) = (self.node.netns.name(), self.netns.name());
        format!(
            "link add {device} netns {node} address {NODE_MAC} type veth peer name eth0 netns {pod} address {mac}\n"
        )
    }

    fn node_side(&self) -> String {
        let (device, mac) = (self.device(), self.mac());
        let (ip4, ip6) = (pod4(self.node.number, self.pod), pod6(self.node.number, self.pod));
        let (from4, from6) = (fabric4(self.node.number), fabric6(self.node.number));
        format!(
            "link set {device} up\n\
             addr add fe80::1/64 dev {device} nodad\n\
             neigh replace {ip4} lladdr {mac} dev {device} nud permanent\n\
             neigh replace {ip6} lladdr {mac} dev {device} nud permanent\n\
             route replace {ip4}/32 dev {device} scope link src {from4}\n\
             route replace {ip6}/128 dev {device} src {from6}\n"
        )
    }

    fn pod_side(&self) -> String {
        let (ip4, ip6) = (pod4(self.node.number, self.pod), pod6(self.node.number, self.pod));
        format!(
            "link set lo up\n\
             link set eth0 up\n\
             addr add {ip4}/32 dev eth0\n\
             addr add {ip6}/128 dev eth0 nodad\n\
             neigh replace 169.254.1.1 lladdr {NODE_MAC} dev eth0 nud permanent\n\
             neigh replace fe80::1 lladdr {NODE_MAC} dev eth0 nud permanent\n\
             route replace 169.254.1.1 dev eth0 scope link\n\
             route replace default via 169.254.1.1 dev eth0 src {ip4}\n\
             route replace ::/0 via fe80::1 dev eth0 src {ip6}\n"
        )
    }
}

/// Builds the whole network: `members` are nodes and the controller, `links` the pods of the start.
pub(crate) fn build(fabric: &NetNs, members: &[Member], nodes: &[Member], links: &[Link]) -> Result<()> {
    let mut creation =
        String::from("link set lo up\nlink add br0 type bridge mcast_snooping 0\nlink set br0 up\n");
    for member in members {
        let (name, netns) = (&member.name, member.netns.name());
        writeln!(creation, "link add {name} type veth peer name eth0 netns {netns}")?;
        writeln!(creation, "link set {name} master br0 up")?;
    }
    creation.extend(links.iter().map(Link::creation));
    run_all([(fabric, creation)])?;

    let hosts = members.iter().map(|member| {
        let mine = links.iter().filter(|link| link.node.number == member.number).map(Link::node_side);
        (&member.netns, member_side(member, nodes) + &mine.collect::<String>())
    });
    run_all(hosts)?;
    run_all(links.iter().map(|link| (&link.netns, link.pod_side())))
}

/// Attaches one more pod.
pub(crate) fn attach(link: &Link) -> Result<()> {
    run_all([(&link.node.netns, link.creation() + &link.node_side())])?;
    run_all([(&link.netns, link.pod_side())])
}

/// Gives orders of `ip -batch` in a namespace.
pub(crate) fn order(netns: &NetNs, orders: &str) -> Result<()> {
    run_all([(netns, orders.to_owned())])
}

/// Takes a pod's link away; its routes and neighbours go with it.
pub(crate) fn detach(link: &Link) -> Result<()> {
    run_all([(&link.node.netns, format!("link del {}\n", link.device()))])
}

fn member_side(member: &Member, nodes: &[Member]) -> String {
    let (ip4, ip6) = (fabric4(member.number), fabric6(member.number));
    let mut text = format!(
        "link set lo up\n\
         link set eth0 up\n\
         addr add {ip4}/24 dev eth0\n\
         addr add {ip6}/64 dev eth0 nodad\n\
         route replace 10.96.0.0/16 dev eth0 src {ip4}\n\
         route replace fd00:10:96::/112 dev eth0 src {ip6}\n"
    );
    for other in nodes.iter().filter(|other| other.number != member.number) {
        let (net4, net6) = (pod4(other.number, 0), pod6(other.number, 0));
        let (via4, via6) = (fabric4(other.number), fabric6(other.number));
        text += &format!(
            "route replace {net4}/24 via {via4} src {ip4}\nroute replace {net6}/64 via {via6} src {ip6}\n"
        );
    }
    text
}

/// Feeds each namespace its batch, all at once.
fn run_all<'a>(batches: impl IntoIterator<Item = (&'a NetNs, String)>) -> Result<()> {
    let started: Vec<_> = batches
        .into_iter()
        .map(|(netns, batch)| Fed::start(netns, "ip", &["-batch", "-"], &batch))
        .collect::<Result<_>>()?;
    started.into_iter().try_for_each(Fed::finish)
}

/// A program that reads its orders from its input, inside a namespace.
pub(crate) struct Fed {
    child: Child,
    what: String,
    orders: String,
    errors: std::fs::File,
}

impl Fed {
    pub(crate) fn start(netns: &NetNs, program: &str, args: &[&str], orders: &str) -> Result<Self> {
        let what = format!("{program} in {}", netns.name());
        let mut input = tempfile::tempfile().context("no temporary file")?;
        input.write_all(orders.as_bytes())?;
        input.seek(SeekFrom::Start(0))?;
        let errors = tempfile::tempfile().context("no temporary file")?;
        let mut command = Command::new(program);
        command.args(args).stdin(input).stdout(Stdio::null()).stderr(errors.try_clone()?);
        // Debian keeps ip and nft where not every PATH looks.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
        sys::start_in(&mut command, Setting { netns: netns.file(), cgroup: None, hosts: None });
        let child =
            command.spawn().with_context(|| format!("cannot start {what} (try `cargo xtask setup`)"))?;
        Ok(Self { child, what, orders: orders.to_owned(), errors })
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        let status = self.child.wait()?;
        if !status.success() {
            let mut text = String::new();
            self.errors.seek(SeekFrom::Start(0))?;
            self.errors.read_to_string(&mut text)?;
            bail!("{} failed: {}\n{}", self.what, text.trim(), self.orders);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_of_a_pod_look_alike() {
        assert_eq!(pod4(2, 17).to_string(), "10.244.2.17");
        assert_eq!(pod6(2, 17).to_string(), "fd00:10:244:2::17");
        assert_eq!(vip4(258).to_string(), "10.96.1.2");
        assert_eq!(vip6(3).to_string(), "fd00:10:96::3");
    }
}
