//! `warren install`.

use crate::args::{Cli, ClusterArgs, Output, duration};
use crate::client::block_on;
use crate::cluster::{Cluster, check};
use crate::install::apply::{Applied, How, apply};
use crate::install::manifests::{NAMESPACE, Settings, default_image, objects, yaml};
use crate::install::rollout::{Rollout, Waited, wait};
use crate::install::{elsewhere, keep_namespace};
use crate::render::Style;
use crate::render::check::{Outcome, findings};
use anyhow::{Result, bail};
use clap::{ArgAction, Args, CommandFactory, ValueEnum};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[derive(Args, Debug)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Namespace for warren itself
    #[arg(short, long, default_value = NAMESPACE)]
    namespace: String,
    /// Print what would be applied (client), or let the server check it and keep nothing (server)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "client", value_name = "WHERE")]
    dry_run: Option<DryRun>,
    /// Image of agent and controller
    #[arg(long, default_value_t = default_image())]
    image: String,
    /// When nodes pull the image; Kubernetes' own rule if not given
    #[arg(long, value_name = "POLICY")]
    image_pull_policy: Option<PullPolicy>,
    /// Trust domain of the mesh
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    trust_domain: String,
    /// Replicas of the controller
    #[arg(long, default_value_t = 2, value_name = "N")]
    replicas: u32,
    /// Directory of the nodes' CNI plugins
    #[arg(long, default_value = "/opt/cni/bin", value_name = "DIR")]
    cni_bin_dir: String,
    /// Directory of the nodes' CNI configuration
    #[arg(long, default_value = "/etc/cni/net.d", value_name = "DIR")]
    cni_conf_dir: String,
    /// A setting of the agents (`warren agent --help` lists them as [env: ...]); may be given more than once
    #[arg(long, value_name = "NAME=VALUE", value_parser = |text: &str| variable("agent", text))]
    agent_env: Vec<(String, String)>,
    /// A setting of the controller (`warren controller --help`); may be given more than once
    #[arg(long, value_name = "NAME=VALUE", value_parser = |text: &str| variable("controller", text))]
    controller_env: Vec<(String, String)>,
    /// Install even if `warren check` finds something wrong with the cluster
    #[arg(long)]
    skip_checks: bool,
    /// Wait until controller and agents are ready
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    wait: bool,
    /// How long to wait (30s, 5m)
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "TIME")]
    timeout: Duration,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DryRun {
    /// Print the manifests
    Client,
    /// Let the API server check them
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PullPolicy {
    /// At every start
    #[value(name = "Always")]
    Always,
    /// When the node does not have it
    #[value(name = "IfNotPresent")]
    IfNotPresent,
    /// The image is on the nodes already
    #[value(name = "Never")]
    Never,
}

impl InstallArgs {
    fn settings(&self) -> Settings {
        let with_domain = |given: &[(String, String)]| {
            let domain = ("WARREN_TRUST_DOMAIN".to_owned(), self.trust_domain.clone());
            std::iter::once(domain).chain(given.iter().cloned()).collect::<BTreeMap<_, _>>()
        };
        Settings {
            image: self.image.clone(),
            pull_policy: self.image_pull_policy.map(|policy| format!("{policy:?}")),
            replicas: Some(self.replicas),
            controller_env: with_domain(&self.controller_env),
            agent_env: with_domain(&self.agent_env),
            cni_bin_dir: Some(self.cni_bin_dir.clone()),
            cni_conf_dir: Some(self.cni_conf_dir.clone()),
            ..Settings::new(&self.namespace)
        }
    }
}

pub(crate) fn run(args: &InstallArgs) -> Result<()> {
    let objects = objects(&args.settings())?;
    if args.dry_run == Some(DryRun::Client) {
        return match args.output {
            Output::Table => super::print(&yaml(&objects)?),
            Output::Json => super::print_json(&json!({"apiVersion": "v1", "kind": "List", "items": objects})),
        };
    }
    block_on(install(args, objects))?
}

async fn install(args: &InstallArgs, mut objects: Vec<Value>) -> Result<()> {
    let cluster = Cluster::connect(&args.cluster).await?;
    let dry_run = args.dry_run.is_some();
    if let Some(other) = elsewhere(&cluster, &args.namespace).await? {
        bail!(
            "warren is already installed in namespace {other}\n  give --namespace {other}, or `warren uninstall` it first"
        );
    }
    if !dry_run && !args.skip_checks {
        look_first(args, &cluster).await?;
    }
    let exists = keep_namespace(&cluster, &mut objects, &args.namespace).await?;
    // Where the namespace is still to be made, the server can check what goes into it only elsewhere.
    let stand_in = (dry_run && !exists).then(|| "default".to_owned());
    let how = How { dry_run, stand_in };
    for object in &objects {
        let applied = apply(&cluster, object, &how).await?;
        let title = crate::install::apply::Address::of(object).title();
        report(args, &title, applied.word(), applied != Applied::Unchanged)?;
    }
    if dry_run {
        return Ok(());
    }
    if args.wait {
        let deadline = Instant::now() + args.timeout;
        for what in [Rollout::Controller, Rollout::Agents] {
            rolled_out(args, &cluster, what, deadline).await?;
        }
    }
    if args.output == Output::Table {
        super::print(
            "\nwarren is installed. Next:\n  kubectl label namespace NAMESPACE warren.dev/mesh=enabled\n  warren flows -n NAMESPACE -f\n",
        )?;
    }
    Ok(())
}

/// `warren check`, as far as it says anything before warren is there.
async fn look_first(args: &InstallArgs, cluster: &Cluster) -> Result<()> {
    let mut found = check::before(cluster, &args.namespace).await?;
    found.retain(|finding| matches!(finding.result, Outcome::Bad | Outcome::Warning));
    if found.is_empty() {
        return report(args, "cluster", "checked: nothing is wrong", true);
    }
    eprint!("{}", findings(&found, Style::detect()));
    if found.iter().any(|finding| finding.result == Outcome::Bad) {
        bail!("nothing was installed\n  repair what is wrong, or give --skip-checks");
    }
    Ok(())
}

async fn rolled_out(args: &InstallArgs, cluster: &Cluster, what: Rollout, deadline: Instant) -> Result<()> {
    let say = |missing: &str| eprintln!("waiting for {}: {missing}", what.name());
    match wait(cluster, &args.namespace, what, deadline, say).await? {
        Waited::Complete => report(args, what.name(), "ready", true),
        Waited::Late(missing, pods) => bail!(
            "{} is not ready after {} s: {missing}\n  {}\n  everything is applied; it may still become ready. `warren check` looks again",
            what.name(),
            args.timeout.as_secs(),
            pods.join("\n  ")
        ),
    }
}

fn report(args: &InstallArgs, object: &str, result: &str, changed: bool) -> Result<()> {
    let style = Style::detect();
    let suffix = if args.dry_run.is_some() { " (server dry run)" } else { "" };
    match args.output {
        Output::Json => super::print_line(&json!({"object": object, "result": result})),
        Output::Table => {
            let sign = if changed { style.tick() } else { style.dim("-") };
            super::print(&format!("{sign} {object} {result}{suffix}\n"))
        }
    }
}

/// A variable that the daemon reads; a typo would otherwise be ignored in silence.
fn variable(command: &'static str, text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    let cli = Cli::command();
    let known = cli.find_subcommand(command).is_some_and(|found| {
        found.get_arguments().any(|argument| argument.get_env().is_some_and(|env| env == name))
    });
    if !known {
        return Err(format!(
            "{name:?} is no setting of warren {command}; `warren {command} --help` lists them"
        ));
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Command;
    use clap::Parser;

    fn parse(more: &[&str]) -> Result<InstallArgs, clap::Error> {
        let line = ["warren", "install"].iter().chain(more);
        let Command::Install(args) = Cli::try_parse_from(line)?.command else { panic!("another command") };
        Ok(args)
    }

    #[test]
    fn a_dry_run_is_on_the_client_unless_it_says_otherwise() {
        assert_eq!(parse(&[]).unwrap().dry_run, None);
        assert_eq!(parse(&["--dry-run"]).unwrap().dry_run, Some(DryRun::Client));
        assert_eq!(parse(&["--dry-run=server"]).unwrap().dry_run, Some(DryRun::Server));
    }

    #[test]
    fn a_setting_must_be_one() {
        let args =
            parse(&["--agent-env", "WARREN_LOG=debug,h2=info", "--image-pull-policy", "Never"]).unwrap();
        let settings = args.settings();
        assert_eq!(settings.agent_env["WARREN_LOG"], "debug,h2=info");
        assert_eq!(settings.agent_env["WARREN_TRUST_DOMAIN"], "cluster.local");
        assert_eq!(settings.pull_policy.as_deref(), Some("Never"));
        for wrong in ["WARREN_LOGG=debug", "WARREN_LOG", "WARREN_JWKS=x"] {
            assert!(parse(&["--agent-env", wrong]).is_err(), "{wrong}");
        }
    }
}
