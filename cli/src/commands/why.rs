//! `warren why`.

use super::Explained;
use crate::agents::find_pod;
use crate::args::{AskArgs, pod};
use crate::client::block_on;
use crate::offline::Offline;
use crate::render::{self, Style};
use anyhow::{Result, anyhow};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use warren_agent::explain::why;
use warren_common::model::admin::{Why, WhyQuestion};

#[derive(Args, Debug)]
pub(crate) struct WhyArgs {
    /// The pod that would ask: NAMESPACE/POD, or POD with --namespace
    #[arg(value_name = "POD", value_parser = pod)]
    pod: String,
    /// What it would ask for: http://web/path, https://web, grpc://web:9000/pkg.Service/Method, or web:5432 for a
    /// connection that is not HTTP
    #[arg(value_name = "URL")]
    to: String,
    /// Method of the request [default: GET; of gRPC POST]
    #[arg(short = 'X', long, value_name = "METHOD")]
    method: Option<String>,
    /// Header of the request, as 'Name: value'; may be given more than once
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// The client speaks HTTP/2
    #[arg(long)]
    http2: bool,
    /// The pod's namespace, and with --filename that of objects that name none [default: that of the kubeconfig's context;
    /// with --filename: default]
    #[arg(short, long, value_parser = crate::args::name)]
    namespace: Option<String>,
    /// Ask these files (manifests, or directories of them, `-`: standard input) instead of the agent of the pod's node. A pod
    /// that is not among them is taken for one of its namespace without labels
    #[arg(short, long = "filename", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// With --filename: DNS suffix of the cluster's services
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    cluster_domain: String,
    #[command(flatten)]
    ask: AskArgs,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Explained,
}

pub(crate) fn run(args: &WhyArgs) -> Result<ExitCode> {
    let question = |client: String| WhyQuestion {
        client,
        to: args.to.clone(),
        method: args.method.clone().unwrap_or_default(),
        headers: args.headers.clone(),
        h2: args.http2,
    };
    let namespace = args.namespace.as_deref();
    let told: Why = match &*args.files {
        [] => block_on(async {
            let (agents, client) = find_pod(&args.ask, namespace, &args.pod).await?;
            let target = format!("/v1/why?{}", question(client).to_query());
            agents.ask_one(&target).await
        })??,
        files => {
            let namespace = namespace.unwrap_or("default");
            let client = super::qualified(&args.pod, namespace);
            let offline = Offline::of(files, &args.cluster_domain, namespace)?.with_client(&client)?;
            offline.warn();
            why(&offline.scene(), &question(client)).map_err(|error| anyhow!("{error}"))?
        }
    };
    args.output.print(&told, |wide| render::why::why(&told, wide, Style::detect()))?;
    Ok(ExitCode::SUCCESS)
}
