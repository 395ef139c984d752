//! `warren ca`.

use crate::args::{ClusterArgs, Output};
use crate::client::{Agent, ask, block_on};
use crate::cluster::{Cluster, controllers};
use crate::render::{self, Style};
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use http::Method;
use std::path::PathBuf;
use std::process::ExitCode;
use time::OffsetDateTime;
use warren_common::model::Identity;
use warren_common::model::admin::CaStatus;

#[derive(Args, Debug)]
pub(crate) struct CaArgs {
    #[command(subcommand)]
    command: CaCommand,
    /// Unix socket of the controller; without it that of the kubeconfig's cluster is asked
    #[arg(long, global = true, env = "WARREN_CONTROLLER_SOCKET", value_name = "PATH")]
    controller_socket: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    /// When the CA ends, how far a rotation is, and who is revoked
    Status {
        /// How to print it
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// New keys: the signing certificate, or the root with it; in phases that `warren ca status` shows, without a failed connection
    Rotate {
        /// A new root: every node learns it before it signs, and forgets the old one after the last certificate of it
        #[arg(long)]
        root: bool,
        /// How to print it
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// End the connections that were proven by roots which were dropped: they may stay open otherwise
    Forget {
        /// How to print it
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Nobody may use an identity any more: no certificates, no connections, and open ones are closed
    Revoke {
        /// spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT
        identity: Identity,
        /// Take it back
        #[arg(long)]
        undo: bool,
        /// How to print it
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
}

pub(crate) fn run(args: &CaArgs) -> Result<ExitCode> {
    let (method, path, output) = match &args.command {
        CaCommand::Status { output } => (Method::GET, "/v1/ca".to_owned(), output),
        CaCommand::Rotate { root, output } => {
            let path = if *root { "/v1/ca/rotate-root" } else { "/v1/ca/rotate" };
            (Method::POST, path.to_owned(), output)
        }
        CaCommand::Forget { output } => (Method::POST, "/v1/ca/forget".to_owned(), output),
        CaCommand::Revoke { identity, undo, output } => {
            let verb = if *undo { "undo" } else { "revoke" };
            (Method::POST, format!("/v1/ca/{verb}?identity={identity}"), output)
        }
    };
    let status: CaStatus = block_on(async {
        let controller = match &args.controller_socket {
            Some(socket) => Agent::Socket(socket.clone()),
            None => {
                let cluster = Cluster::connect(&args.cluster)
                    .await
                    .context("no --controller-socket, so a cluster is asked")?;
                Agent::Pod(Box::new(controllers(&cluster).await?))
            }
        };
        anyhow::Ok(ask(&controller, method, &path).await?)
    })??;
    match output {
        Output::Table => {
            super::print(&render::certs::ca(&status, OffsetDateTime::now_utc(), Style::detect()))?
        }
        Output::Json => super::print_json(&status)?,
    }
    Ok(ExitCode::SUCCESS)
}
