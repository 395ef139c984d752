//! The network: a bridge in the control plane's namespace, and a node at the end of each of its links.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::layout::{CONTROL_PLANE, Layout, NODES, NodeName};
use super::tool::{feed, in_netns, output};

/// Makes all namespaces, links, addresses and routes.
pub(crate) fn create(layout: &Layout) -> Result<()> {
    let control_plane = layout.control_plane_netns();
    let mut names = vec![control_plane.clone()];
    names.extend(NODES.map(|node| layout.netns(node)));
    for name in &names {
        output(Command::new("ip").args(["netns", "add", name])).context("cannot make a network namespace")?;
    }
    feed(Command::new("ip").args(["-n", &control_plane, "-batch", "-"]), &bridge(layout))?;
    for node in NODES {
        feed(Command::new("ip").args(["-n", &layout.netns(node), "-batch", "-"]), &links(node))?;
    }
    for name in &names {
        output(in_netns(name, "sysctl").args([
            "-qw",
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.disable_ipv6=0",
        ]))?;
    }
    Ok(())
}

/// The control plane's side, as `ip -batch` reads it.
fn bridge(layout: &Layout) -> String {
    let mut batch = format!(
        "link set lo up\nlink add br0 type bridge\naddr add {CONTROL_PLANE}/24 dev br0\nlink set br0 up\n"
    );
    for node in NODES {
        let port = node.short();
        batch += &format!("link add {port} type veth peer name eth0 netns {}\n", layout.netns(node));
        batch += &format!("link set {port} master br0 up\n");
        batch += &format!("route add {} via {}\n", node.pods(), node.address());
    }
    batch
}

/// A node's side: pods of the other nodes are behind the other nodes.
fn links(node: NodeName) -> String {
    let mut batch = format!(
        "link set lo up\naddr add {}/24 dev eth0\nlink set eth0 up\nroute add default via {CONTROL_PLANE}\n",
        node.address()
    );
    for other in NODES.iter().filter(|other| other.name() != node.name()) {
        batch += &format!("route add {} via {}\n", other.pods(), other.address());
    }
    batch
}

/// Removes the namespaces and, with them, the links.
pub(crate) fn remove(layout: &Layout) -> Result<()> {
    let nodes = NODES.map(|node| layout.netns(node));
    for name in nodes.into_iter().chain([layout.control_plane_netns()]) {
        if std::path::Path::new("/run/netns").join(&name).exists() {
            output(Command::new("ip").args(["netns", "delete", &name]))?;
        }
    }
    Ok(())
}
