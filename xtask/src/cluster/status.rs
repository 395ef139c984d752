//! What runs of a cluster, and how to use it.

use anyhow::Result;
use clap::ValueEnum;
use serde_json::json;

use super::layout::{API, Layout, NODES};
use super::tool::{kubectl, output};
use super::{Extent, control_plane, daemon, node};
use crate::process::show;

/// How to print the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Every daemon of a whole cluster.
pub(crate) fn daemons() -> Vec<String> {
    let nodes = NODES.into_iter().flat_map(|it| {
        std::iter::once("init").chain(node::DAEMONS).map(move |part| node::daemon_name(it, part))
    });
    control_plane::DAEMONS.iter().map(|name| (*name).to_owned()).chain(nodes).collect()
}

/// What runs completely; a cluster of which something has ended runs not at all.
pub(crate) fn running(layout: &Layout) -> Option<Extent> {
    let alive = |name: &str| daemon::pid(&layout.record(name)).is_some();
    if daemons().iter().all(|name| alive(name)) {
        return Some(Extent::Nodes);
    }
    let started = layout.records();
    let api_alone = started.len() == 2 && alive("etcd") && alive("apiserver");
    api_alone.then_some(Extent::ControlPlane)
}

/// Prints what runs.
pub(crate) fn print(layout: &Layout, output: Output) -> Result<()> {
    let running = running(layout);
    let daemons = daemons();
    let pids = daemons.iter().map(|name| (name, daemon::pid(&layout.record(name))));
    if output == Output::Json {
        let daemons: serde_json::Map<_, _> = pids.map(|(name, pid)| (name.clone(), json!(pid))).collect();
        let whole = match running {
            Some(Extent::Nodes) => "nodes",
            Some(Extent::ControlPlane) => "control-plane",
            None => "down",
        };
        let kubeconfig = layout.kubeconfig("admin");
        println!("{}", json!({"running": whole, "api": API, "kubeconfig": kubeconfig, "daemons": daemons}));
        return Ok(());
    }
    for (name, pid) in pids {
        println!("{name:<20} {}", pid.map_or_else(|| "-".to_owned(), |pid| format!("process {pid}")));
    }
    match running {
        None => println!("no complete cluster runs: `cargo xtask cluster up` starts one"),
        Some(extent) => {
            pods(layout)?;
            usage(layout, extent);
        }
    }
    Ok(())
}

fn pods(layout: &Layout) -> Result<()> {
    for what in ["nodes", "pods"] {
        print!("\n{}", output(kubectl(layout)?.args(["get", what, "-A", "-o", "wide"]))?);
    }
    Ok(())
}

/// Prints how to use it.
pub(crate) fn usage(layout: &Layout, extent: Extent) {
    let Ok(kubectl) = kubectl(layout) else { return };
    println!("\nAPI server  {API}, in network namespace {}", layout.control_plane_netns());
    println!("kubeconfig  {}", layout.kubeconfig("admin").display());
    println!("kubectl     {} get all -A", show(&kubectl));
    if extent == Extent::Nodes {
        let netns = NODES.map(|node| layout.netns(node)).join(", ");
        println!("nodes       network namespaces {netns}; `nsenter --net=/run/netns/NAME tcpdump -i any`");
    }
    println!("logs        {}", layout.log("*").display());
    println!("end         cargo xtask cluster down");
}
