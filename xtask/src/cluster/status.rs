//! What runs of a cluster, and how to use it.

use anyhow::Result;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::layout::{API, Layout, NODES};
use super::tool::{kubectl, output};
use super::{Extent, binaries, control_plane, daemon, image, node};
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

/// What programs want to know of the cluster; the tests get it as `WARREN_CLUSTER`.
pub(crate) fn describe(layout: &Layout) -> Value {
    let pid = |name: &str| daemon::pid(&layout.record(name));
    let daemons: serde_json::Map<_, _> =
        daemons().into_iter().map(|name| (name.clone(), json!(pid(&name)))).collect();
    let nodes = NODES.map(|it| {
        let files = layout.node_dir(it);
        let init = pid(&node::daemon_name(it, "init"));
        json!({"name": it.name(), "address": it.address(), "netns": layout.netns(it), "init": init, "files": files})
    });
    json!({
        "running": match running(layout) {
            Some(Extent::Nodes) => "nodes",
            Some(Extent::ControlPlane) => "control-plane",
            None => "down",
        },
        "api": API,
        "netns": layout.control_plane_netns(),
        "kubeconfig": layout.kubeconfig("admin"),
        "kubectl": binaries::folder().map(|folder| folder.join("kubectl")).ok(),
        "images": {"warren": image::WARREN, "workload": image::WORKLOAD},
        "nodes": nodes,
        "daemons": daemons,
    })
}

/// Prints what runs.
pub(crate) fn print(layout: &Layout, output: Output) -> Result<()> {
    if output == Output::Json {
        println!("{}", describe(layout));
        return Ok(());
    }
    let running = running(layout);
    for name in daemons() {
        let pid = daemon::pid(&layout.record(&name));
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
    let name = layout.name_argument();
    println!("kubectl     cargo xtask cluster{name} kubectl get all -A");
    println!("            {} get all -A", show(&kubectl));
    if extent == Extent::Nodes {
        let netns = NODES.map(|node| layout.netns(node)).join(", ");
        println!("nodes       network namespaces {netns}; `nsenter --net=/run/netns/NAME tcpdump -i any`");
    }
    println!("logs        {}", layout.log("*").display());
    println!("end         cargo xtask cluster{name} down");
}
