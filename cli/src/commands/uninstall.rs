//! `warren uninstall`.

use crate::args::{ClusterArgs, Output, duration};
use crate::client::block_on;
use crate::cluster::Cluster;
use crate::install::elsewhere;
use crate::install::manifests::NAMESPACE;
use crate::install::remove::{RemoveError, clean_nodes, delete};
use crate::render::Style;
use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use std::io::{BufRead, IsTerminal};
use std::time::{Duration, Instant};

#[derive(Args, Debug)]
pub(crate) struct UninstallArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Namespace that warren is in
    #[arg(short, long, default_value = NAMESPACE)]
    namespace: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Delete everything even if some nodes cannot be cleaned
    #[arg(long)]
    force: bool,
    /// How long cleaning the nodes, and deleting, may take each (30s, 5m)
    #[arg(long, default_value = "3m", value_parser = duration, value_name = "TIME")]
    timeout: Duration,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Output,
}

pub(crate) fn run(args: &UninstallArgs) -> Result<()> {
    block_on(uninstall(args))?
}

async fn uninstall(args: &UninstallArgs) -> Result<()> {
    let cluster = Cluster::connect(&args.cluster).await?;
    if let Some(other) = elsewhere(&cluster, &args.namespace).await? {
        bail!(
            "warren is installed in namespace {other}, not in {}\n  give --namespace {other}",
            args.namespace
        );
    }
    if !args.yes {
        confirm(args, &cluster)?;
    }
    let say = |missing: &str| eprintln!("cleaning the nodes: {missing}");
    match clean_nodes(&cluster, &args.namespace, Instant::now() + args.timeout, say).await {
        Ok(true) => report(args, "nodes", "cleaned: no CNI entry, no kernel programs, no keys")?,
        Ok(false) => {}
        Err(error @ RemoveError::Nodes { .. }) if args.force => {
            eprintln!("warren: {error}; going on (--force)")
        }
        Err(error) => return Err(error.into()),
    }
    let (mut wrong, mut nothing) = (Ok(()), true);
    let say = |object: &str, result: &str| {
        nothing = false;
        let said = report(args, object, result);
        if wrong.is_ok() {
            wrong = said;
        }
    };
    delete(&cluster, &args.namespace, Instant::now() + args.timeout, say).await?;
    if nothing {
        eprintln!("nothing of warren is in namespace {} of {}", args.namespace, cluster.server);
    }
    wrong
}

fn confirm(args: &UninstallArgs, cluster: &Cluster) -> Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!("uninstalling asks first, and this is no terminal\n  give --yes");
    }
    eprint!(
        "Remove warren ({}) from {}? Pods of the mesh will talk in plaintext, and the mesh's CA is deleted. [y/N] ",
        args.namespace, cluster.server
    );
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => bail!("nothing was removed"),
    }
}

fn report(args: &UninstallArgs, object: &str, result: &str) -> Result<()> {
    match args.output {
        Output::Json => super::print_line(&json!({"object": object, "result": result})),
        Output::Table => super::print(&format!("{} {object} {result}\n", Style::detect().tick())),
    }
}
