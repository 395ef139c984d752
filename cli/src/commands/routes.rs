//! `warren routes`.

use super::Explained;
use crate::agents::{find, find_pod};
use crate::args::{AskArgs, ScopeArgs, pod};
use crate::client::block_on;
use crate::offline::Offline;
use crate::render::{self, Style, clean};
use anyhow::{Result, anyhow, bail};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use warren_agent::explain::routes;
use warren_common::model::admin::{DEFAULT_RULES, Routes, RoutesOf, RoutesQuestion};

#[derive(Args, Debug)]
pub(crate) struct RoutesArgs {
    /// Only this service: NAME, NAME.NAMESPACE, or its whole hostname
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    /// Only what is in force for this pod: NAMESPACE/POD, or POD with --namespace
    #[arg(long, value_name = "POD", value_parser = pod)]
    client: Option<String>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Rules to show, at most
    #[arg(long, default_value_t = DEFAULT_RULES, value_name = "N")]
    limit: usize,
    /// Show what these files would put in force (manifests, or directories of them, `-`: standard input), for the pods among
    /// them, instead of what agents have
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

pub(crate) fn run(args: &RoutesArgs) -> Result<ExitCode> {
    let namespace = args.scope.namespace.as_deref();
    let (told, unreachable, code) = match &*args.files {
        [] => block_on(args.ask_agents())??,
        files => {
            let home = namespace.unwrap_or("default");
            let offline = Offline::of(files, &args.cluster_domain, home)?;
            let client = args.client.as_ref().map(|client| super::qualified(client, home));
            let offline = match &client {
                Some(client) => offline.with_client(client)?,
                None => offline.with_any_client()?,
            };
            offline.warn();
            let question = args.question(namespace.filter(|_| client.is_none()), client);
            let told = routes(&offline.scene(), &question).map_err(|error| anyhow!("{error}"))?;
            (told, Vec::new(), ExitCode::SUCCESS)
        }
    };
    if let Some(unknown) = &told.unknown {
        bail!("{}", clean(unknown));
    }
    let shown = super::Told { answer: told, unreachable };
    args.output.print(&shown, |wide| render::routes::routes(&shown.answer, wide, Style::detect()))?;
    Ok(code)
}

type Heard = (Routes, Vec<crate::agents::Unreachable>, ExitCode);

impl RoutesArgs {
    async fn ask_agents(&self) -> Result<Heard> {
        let (agents, client) = match &self.client {
            Some(client) => {
                let (agents, client) = find_pod(&self.ask, self.scope.namespace.as_deref(), client).await?;
                (agents, Some(client))
            }
            None => (find(&self.ask, Some(&self.scope), None).await?, None),
        };
        let namespace = agents.namespace.as_deref().filter(|_| client.is_none());
        let target = format!("/v1/routes?{}", self.question(namespace, client).to_query());
        let answers = agents.ask::<Routes>(&target).await?;
        let code = answers.code();
        Ok((merged(answers.given.into_iter().map(|(_, found)| found)), answers.unreachable, code))
    }

    fn question(&self, namespace: Option<&str>, client: Option<String>) -> RoutesQuestion {
        RoutesQuestion {
            service: self.service.clone(),
            namespace: namespace.map(str::to_owned),
            client,
            limit: self.limit,
        }
    }
}

/// What several agents have alike, once, with the clients of all of them. A service is unknown if it is to all of them.
fn merged(found: impl Iterator<Item = Routes>) -> Routes {
    let (routes, unknown): (Vec<_>, Vec<_>) = found.map(|found| (found.routes, found.unknown)).unzip();
    let unknown = unknown.into_iter().reduce(Option::and).flatten();
    let mut all: Vec<RoutesOf> = Vec::new();
    for one in routes.into_iter().flatten() {
        let alike = |known: &&mut RoutesOf| {
            let bare = |of: &RoutesOf| RoutesOf { clients: Vec::new(), every_client: true, ..of.clone() };
            known.service == one.service && known.port == one.port && bare(known) == bare(&one)
        };
        match all.iter_mut().find(alike) {
            Some(known) => {
                known.clients.extend(one.clients);
                known.every_client &= one.every_client;
            }
            None => all.push(one),
        }
    }
    all.sort_by(|a, b| (&a.service, a.port, a.kind).cmp(&(&b.service, b.port, b.kind)));
    Routes { routes: all, unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(service: &str, clients: &[&str], every_client: bool) -> RoutesOf {
        serde_json::from_value(serde_json::json!({
            "service": {"namespace": "shop", "hostname": service}, "port": 80, "protocol": "http11",
            "clients": clients, "every_client": every_client, "kind": "http", "objects": [], "rules": [],
        }))
        .unwrap()
    }

    fn known(routes: Vec<RoutesOf>) -> Routes {
        Routes { routes, unknown: None }
    }

    #[test]
    fn a_service_is_unknown_if_it_is_to_all() {
        let unknown = || Routes { unknown: Some("there is no service webb".to_owned()), ..Routes::default() };
        assert!(merged([unknown(), unknown()].into_iter()).unknown.is_some());
        assert_eq!(merged([unknown(), known(vec![])].into_iter()).unknown, None);
        assert_eq!(merged([known(vec![]), unknown()].into_iter()).unknown, None);
        assert_eq!(merged(std::iter::empty()).unknown, None);
    }

    #[test]
    fn what_agents_have_alike_is_shown_once() {
        let one = known(vec![of("web", &["shop/a"], true), of("api", &["shop/a"], true)]);
        let two = known(vec![of("web", &["shop/b"], false)]);
        let all = merged([one, two].into_iter()).routes;
        assert_eq!(all.iter().map(|of| &*of.service.hostname).collect::<Vec<_>>(), ["api", "web"]);
        assert_eq!((&*all[1].clients, all[1].every_client), (&["shop/a".into(), "shop/b".into()][..], false));
        let other = RoutesOf { port: 81, ..of("web", &["shop/a"], true) };
        assert_eq!(merged([known(vec![other, of("web", &[], true)])].into_iter()).routes.len(), 2);
    }
}
