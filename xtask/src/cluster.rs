//! `cargo xtask cluster`: a real two-node Kubernetes on this machine, for the tests and for trying things out.
//!
//! Control plane and nodes each have a network namespace; a node also has its own mounts, hostname and process ids, so
//! that what runs on it finds paths and processes as on a machine of its own. Nothing is reachable from outside.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};

use crate::process::{exec, is_root};
use crate::setup::{self, Need};

mod binaries;
mod cgroup;
mod control_plane;
mod daemon;
mod dns;
mod image;
mod layout;
mod network;
mod node;
mod pki;
mod status;
mod teardown;
mod tool;
mod wait;

pub(crate) use binaries::go_missing;
pub(crate) use layout::Layout;
pub(crate) use status::describe;

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Task,
    /// More than one cluster can run on a machine, each with a name of its own
    #[arg(long, global = true, default_value = layout::DEFAULT_NAME, value_parser = layout::valid_name)]
    name: String,
}

#[derive(Subcommand)]
enum Task {
    /// Start it; says how to use it. Started already: says that
    Up {
        /// Only etcd and the API server, for what needs no pods; ready in seconds
        #[arg(long)]
        control_plane: bool,
    },
    /// Build this checkout's images anew and give them to the nodes of the running cluster
    Load,
    /// kubectl as the cluster's administrator
    Kubectl {
        /// Passed on
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// End it and remove what it left, also after a start that was killed
    Down {
        /// First wait until standard input has ended: whoever holds it is gone then, or has closed it
        #[arg(long, hide = true)]
        after_stdin: bool,
    },
    /// Say what runs
    Status {
        /// How to print it
        #[arg(short, long, value_enum, default_value = "text")]
        output: status::Output,
    },
}

/// How much of a cluster to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// etcd and the API server.
    ControlPlane,
    /// All of it.
    Nodes,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let layout = Layout::new(&options.name);
    match &options.command {
        Task::Up { control_plane } => {
            up(&layout, if *control_plane { Extent::ControlPlane } else { Extent::Nodes })
        }
        Task::Load => {
            if !is_root() {
                bail!("the cluster is root's: please run this as root");
            }
            layout.check_owner()?;
            if status::running(&layout) != Some(Extent::Nodes) {
                bail!("no nodes run that could take images: `cargo xtask cluster up` starts them");
            }
            image::build()?;
            node::load_images(&layout)
        }
        Task::Kubectl { arguments } => exec(tool::kubectl(&layout)?.args(arguments)),
        Task::Down { after_stdin } => {
            if *after_stdin {
                std::io::copy(&mut std::io::stdin(), &mut std::io::sink())
                    .context("cannot read standard input")?;
            }
            down(&layout)
        }
        Task::Status { output } => status::print(&layout, *output),
    }
}

/// Starts a cluster, unless this checkout's runs already.
pub(crate) fn up(layout: &Layout, extent: Extent) -> Result<()> {
    if !is_root() {
        bail!("the cluster makes network namespaces and runs containers: please run this as root");
    }
    if let Some(reason) = go_missing() {
        bail!("{reason}");
    }
    layout.check_owner()?;
    if status::running(layout) == Some(extent) {
        println!("the cluster runs already");
        return status::print(layout, status::Output::Text);
    }
    setup::ensure(&[Need::Build, Need::Kubernetes])?;
    let tools = binaries::ensure()?;
    if extent == Extent::Nodes {
        image::build()?;
    }
    // What a killed run left, or a control plane alone that is now to become a whole cluster.
    teardown::all(layout)?;
    let started = Instant::now();
    let result = start(layout, &tools, extent);
    if let Err(error) = result {
        let logs = layout.keep_logs();
        teardown::all(layout)?;
        return Err(error)
            .with_context(|| format!("the cluster did not start; its logs: {}", logs.display()));
    }
    println!("started in {:.1} s", started.elapsed().as_secs_f64());
    status::usage(layout, extent);
    Ok(())
}

fn start(layout: &Layout, tools: &binaries::Tools, extent: Extent) -> Result<()> {
    layout.create()?;
    network::create(layout)?;
    pki::create(layout)?;
    control_plane::start_api(layout, tools)?;
    if extent == Extent::Nodes {
        node::start_runtimes(layout)?;
        node::load_images(layout)?;
    }
    control_plane::wait_for_api(layout)?;
    if extent == Extent::ControlPlane {
        return Ok(());
    }
    control_plane::start_controllers(layout, tools)?;
    node::start_kubelets(layout, tools)?;
    dns::apply(layout)?;
    node::wait_until_ready(layout)?;
    dns::wait(layout)
}

/// As [`up`]; a cluster that runs already gets this checkout's images.
pub(crate) fn up_with_images(layout: &Layout, extent: Extent) -> Result<()> {
    let there = status::running(layout) == Some(extent);
    up(layout, extent)?;
    if there {
        image::build()?;
        node::load_images(layout)?;
    }
    Ok(())
}

/// Writes down what every pod and daemon said, and where.
pub(crate) fn collect(layout: &Layout) -> std::path::PathBuf {
    let folder = layout.log("pods").with_extension("");
    let dump = tool::kubectl(layout).and_then(|mut kubectl| {
        kubectl.args(["cluster-info", "dump", "--all-namespaces", "--output-directory"]).arg(folder);
        tool::output(&mut kubectl)
    });
    if let Err(error) = dump {
        eprintln!("the pods' logs could not be read: {error:#}");
    }
    layout.keep_logs()
}

/// Ends a cluster, whatever state it is in. No cluster at all is fine.
pub(crate) fn down(layout: &Layout) -> Result<()> {
    if !is_root() {
        bail!("the cluster is root's: please run this as root");
    }
    teardown::all(layout)?;
    println!("nothing of the cluster is left");
    Ok(())
}

/// The result of a thread; a panic in it is one here.
fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
